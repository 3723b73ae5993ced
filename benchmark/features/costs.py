"""What one upstream gives and takes: layers, width, pace, and whether it may be stored.

Its features may where they are an utterance's own, whatever else is in its batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from superbit.benchmark.features.demand import Kind
from superbit.benchmark.features.extraction import measured_rate
from superbit.benchmark.features.store import CacheSettings
from superbit.upstreams.contract.blame import not_finite, require_frames, require_rate
from superbit.upstreams.registry import LoadedUpstream
from superbit.upstreams.sound import SAMPLE_RATE

# Relative deviation up to which an utterance's features count as its own, whatever its batch.
TOLERANCE = 1e-5
_PROBE_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one upstream gives and takes.

    Attributes:
        layers: hidden states; each ``dim`` wide, ``rate`` samples a frame.
        pace: seconds of one core for a second of audio.
        measured: at an extraction; else by two short forward passes.
        deviation: between an utterance alone and in a batch, relative.
        may_store: its features are an utterance's own, or the user wants them all the same.
        zeros_follow: in a batch, frames of zeros follow an utterance's own.
    """

    layers: int
    dim: int
    rate: float
    pace: float
    measured: bool
    deviation: float
    may_store: bool
    zeros_follow: bool = False

    @property
    def invariant(self) -> bool:
        """Whether utterances may share a batch when their own features are computed."""
        return self.deviation <= TOLERANCE and not self.zeros_follow

    def kind(self, wanted: Kind) -> Kind:
        """What to store where a task wants that: a mean over zeros of a batch cannot be."""
        return "frames" if self.zeros_follow else wanted


def cost_of(upstream: LoadedUpstream, settings: CacheSettings) -> Cost:
    """Measure what an upstream gives and takes; the global generators stay as they are.

    Raises:
        BrokenContract: it gives no rate, another number of frames than s3prl accepts, or NaN.
    """
    from s3prl.upstream.interfaces import Featurizer

    require_rate(upstream.expert, spec=upstream.spec.typed)
    expert = upstream.expert.eval()
    device = next((str(p.device) for p in expert.parameters()), "cpu")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        featurizer = Featurizer(expert, "hidden_states", upstream_device=device)
        noise = [0.1 * torch.randn(_PROBE_SECONDS * SAMPLE_RATE, device=device)]
        expert(noise)
        began = time.process_time()
        states = expert(noise)["hidden_states"]
        pace = (time.process_time() - began) / _PROBE_SECONDS
        _require_sound(states, samples=len(noise[0]), rate=featurizer.downsample_rate)
        deviation, zeros_follow = deviation_of(upstream, featurizer.downsample_rate)
    measured = measured_rate(settings.upstream_folder(upstream))
    return Cost(
        layers=len(states) if isinstance(states, list | tuple | dict) else 1,
        dim=featurizer.output_dim,
        rate=featurizer.downsample_rate,
        pace=measured if measured is not None else pace,
        measured=measured is not None,
        deviation=deviation,
        may_store=deviation <= TOLERANCE or settings.any_upstream,
        zeros_follow=zeros_follow,
    )


def _require_sound(states: Any, *, samples: int, rate: float) -> None:
    layers = list(states.values()) if isinstance(states, dict) else states
    for layer in layers if isinstance(layers, list | tuple) else [layers]:
        require_frames(layer.shape[1], samples=samples, rate=rate)
        if not bool(layer.isfinite().all()):
            raise not_finite()


def batch_deviation(upstream: nn.Module, rate: float, *, zeros_follow: bool = False) -> float:
    """Largest relative difference between an utterance's features alone and in a batch.

    Measured on noise of four lengths, as a head sees them: cut by s3prl's Featurizer. Infinite
    where their number of frames differs; zero where the batch makes no difference.

    Args:
        zeros_follow: a batch may add frames of zeros up to its longest utterance, as s3prl's filter
            banks do, which have a frame or two less than the Featurizer would keep.
    """
    return _largest_difference(_alone_and_batched(upstream, rate), zeros_follow=zeros_follow)


def deviation_of(upstream: LoadedUpstream, rate: float) -> tuple[float, bool]:
    """As :func:`batch_deviation`, and whether it is that small with zeros that follow only.

    0 for an upstream of ours that promises it, tested elsewhere.
    """
    if upstream.entry.ours and getattr(upstream.expert, "batch_invariant", False):
        return 0.0, False
    pairs = _alone_and_batched(upstream.expert, rate)
    deviation = _largest_difference(pairs, zeros_follow=False)
    if deviation <= TOLERANCE:
        return deviation, False
    with_zeros = _largest_difference(pairs, zeros_follow=True)
    return (with_zeros, True) if with_zeros <= TOLERANCE else (deviation, False)


def _alone_and_batched(upstream: nn.Module, rate: float) -> list[tuple[Tensor, Tensor]]:
    """Return (frames, dim) of each of four utterances and each layer, alone and in one batch."""
    generator = torch.Generator().manual_seed(0)
    lengths = (16_000, 27_650, 40_333, 11_111)
    waves = [0.1 * torch.randn(n, generator=generator) for n in lengths]

    def cut(batch: Sequence[Tensor]) -> list[list[Tensor]]:
        with torch.no_grad():
            output = upstream(list(batch))["hidden_states"]
        layers = list(output.values()) if isinstance(output, dict) else output
        layers = layers if isinstance(layers, list | tuple) else [layers]
        return [
            [layer[index, : round(len(wave) / rate)] for layer in layers]
            for index, wave in enumerate(batch)
        ]

    together = cut(waves)
    return [
        pair
        for wave, in_batch in zip(waves, together, strict=True)
        for pair in zip(cut([wave])[0], in_batch, strict=True)
    ]


def _largest_difference(pairs: Sequence[tuple[Tensor, Tensor]], *, zeros_follow: bool) -> float:
    worst = 0.0
    for alone, batched in pairs:
        if zeros_follow:
            alone = pad(alone, (0, 0, 0, max(0, len(batched) - len(alone))))
        if alone.shape != batched.shape:
            return float("inf")
        scale = float(alone.abs().max()) or 1.0
        worst = max(worst, float((alone - batched).abs().max()) / scale)
    return worst
