"""HuBERT's objective: the unit of a frame, from what the encoder makes of the frames around it.

Reference: Hsu et al., 2021, https://arxiv.org/abs/2106.07447, equations 1 to 3, and its published
code (fairseq) for the feature penalty and the smaller gradient of the front end.

    front end -> gradient × 0.1 -> penalty on its mean square -> LN -> linear -> dropout
    -> masked frames replaced -> positional convolution -> encoder -> linear
    -> cosine with each unit's embedding / temperature -> cross-entropy

fairseq keeps four more rows of embeddings, for the special symbols of its dictionaries; they are
classes that no frame has. Here unit c is row c of K.

Notation: B batch, N samples, T frames, C channels of the front end, D width, E width in which
frames are compared with units, K units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from superbit.upstreams.hubert import Hubert
from superbit.upstreams.quantization.convert import quantizer_scales
from superbit.upstreams.training.configuration import TrainingConfig


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return ``x``; what flows back through it is multiplied by ``factor``."""
    return _ScaleGradient.apply(x, factor)


def unit_logits(x: Tensor, embeddings: Tensor, temperature: float) -> Tensor:
    """Return cosine / temperature of frames (…, E) and units (K, E), in float32: (…, K).

    A frame of zeros has the cosine 0 with every unit.
    """
    with torch.autocast(x.device.type, enabled=False):
        frames = F.normalize(x.float(), dim=-1)
        units = F.normalize(embeddings.float(), dim=-1)
        return frames @ units.T / temperature


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What one micro-batch adds up to; means are taken over all ranks and micro-batches.

    Attributes:
        masked_loss: cross-entropy in nats, summed over masked frames.
        unmasked_loss: the same over the others.
        masked_correct: masked frames whose unit has the largest logit.
        unmasked_correct: the same of the others.
        penalty: squares of the front end's output, summed over frames and meaned over channels.
    """

    masked_loss: Tensor
    unmasked_loss: Tensor
    masked_correct: Tensor
    unmasked_correct: Tensor
    penalty: Tensor

    @staticmethod
    def means(total: Mapping[str, float], counts: FrameCounts) -> dict[str, float]:
        """Return means of what added up over many: losses in nats, accuracies in 0 … 1."""
        masked, unmasked = max(counts.masked, 1.0), max(counts.unmasked, 1.0)
        return {
            "masked_loss": total["masked_loss"] / masked,
            "masked_accuracy": total["masked_correct"] / masked,
            "unmasked_loss": total["unmasked_loss"] / unmasked,
            "unmasked_accuracy": total["unmasked_correct"] / unmasked,
            "feature_penalty": total["penalty"] / max(counts.frames, 1.0),
        }


@dataclass(frozen=True, kw_only=True)
class FrameCounts:
    """Frames of an update, over all its micro-batches and ranks."""

    masked: float
    unmasked: float

    @property
    def frames(self) -> float:
        """All of them."""
        return self.masked + self.unmasked


class Pretrainer(nn.Module):
    """A model and the embeddings of the units that it predicts.

    The embeddings belong to one phase's units and so not to the model, which outlives them.

    Args:
        model: the encoder to train.
        units: K.
        temperature: of the logits.
        front_end_gradient: factor on what reaches the front end.
    """

    def __init__(
        self,
        model: Hubert,
        *,
        units: int,
        temperature: float = 0.1,
        front_end_gradient: float = 0.1,
    ) -> None:
        super().__init__()
        self.model = model
        self.unit_embeddings = nn.Parameter(torch.rand(units, model.config.final_dim))
        self.temperature = temperature
        self.front_end_gradient = front_end_gradient

    def forward(self, samples: Tensor, units: Tensor, mask: Tensor) -> Sums:
        """Return the sums of one micro-batch of crops of one length.

        Args:
            samples: (B, N) at 16 kHz.
            units: (B, T) int64, 0 … K − 1.
            mask: (B, T) bool, the frames that the encoder does not see.
        """
        features, states = self.states(samples, mask)
        logits = self.logits(states[-1])
        loss = F.cross_entropy(logits.transpose(1, 2), units, reduction="none")  # (B, T)
        correct = logits.argmax(dim=-1) == units
        hidden, seen = mask.float(), (~mask).float()
        return Sums(
            masked_loss=(loss * hidden).sum(),
            unmasked_loss=(loss * seen).sum(),
            masked_correct=(correct & mask).sum(),
            unmasked_correct=(correct & ~mask).sum(),
            penalty=features.float().square().mean(dim=-1).sum(),
        )

    def states(self, samples: Tensor, mask: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the front end's output (B, T, C) before any norm, and the hidden states."""
        features = scale_gradient(self.model.front_end(samples), self.front_end_gradient)
        x = self.model.project(features)  # (B, T, D)
        if mask is not None:
            x = torch.where(mask[:, :, None], self.model.mask_emb.to(x.dtype), x)
        return features, self.model.encode(x, None)

    def logits(self, state: Tensor) -> Tensor:
        """Map a hidden state (B, T, D) to (B, T, K) in float32."""
        return unit_logits(self.model.final_proj(state), self.unit_embeddings, self.temperature)


def update_loss(
    sums: Sums, counts: FrameCounts, *, unmasked_weight: float, feature_penalty: float
) -> Tensor:
    """Return one micro-batch's part of the update's loss; the parts of all add up to it.

    Mean cross-entropy over the frames that count (masked ones, and the others if they have a
    weight), plus the penalty's mean over all frames. fairseq weights the penalty by a rank's masked
    frames instead: the same with one rank, and nearly so with more.
    """
    loss, frames = sums.masked_loss, counts.masked
    if unmasked_weight > 0:
        loss, frames = loss + unmasked_weight * sums.unmasked_loss, counts.frames
    return loss / frames + feature_penalty * sums.penalty / counts.frames


@contextmanager
def dropped_layers(layers: Iterable[nn.Module], dropped: Iterable[bool]) -> Iterator[None]:
    """Leave some layers out for the duration: they return their input (LayerDrop).

    Reference: Fan et al., 2020, https://arxiv.org/abs/1909.11556.
    """
    left_out = [layer for layer, drop in zip(layers, dropped, strict=True) if drop]
    for layer in left_out:
        layer.forward = _return_input
    try:
        yield
    finally:
        for layer in left_out:
            del layer.forward


def _return_input(x: Tensor, valid: Tensor | None = None) -> Tensor:
    return x


UNIT_EMBEDDINGS = "unit_embeddings"  # the key of a training state


class Objective(Protocol):
    """What a run lowers."""

    @property
    def module(self) -> nn.Module:
        """What is trained: (samples (B, N), units (B, T), mask (B, T)) to a micro-batch's sums."""

    @property
    def model(self) -> Hubert:
        """The part of it that a checkpoint holds."""

    @property
    def sums(self) -> type[Any]:
        """A dataclass of scalars with `means`, as `superbit.upstreams.training.objective`'s."""

    @property
    def phase(self) -> int | str:
        """1 or 2 of HuBERT, or a word."""

    @property
    def units(self) -> int | None:
        """K of the data's labels; None where it has none, or they are not looked at."""

    @property
    def layer_drop(self) -> float:
        """Probability of leaving a layer out of an update."""

    @property
    def record(self) -> Mapping[str, Any]:
        """What a checkpoint's config says of how it was trained; JSON."""

    def to(self, device: torch.device) -> None:
        """Move everything to a device."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what is learnt, as `superbit.upstreams.training.configuration` takes it."""

    def loss(self, sums: Any, counts: FrameCounts) -> Tensor:
        """Return one micro-batch's part of the update's loss; the parts of all add up to it."""

    def held_out_loss(self, means: Mapping[str, float]) -> float:
        """Return what the best checkpoint has the lowest of, from held-out means."""

    def state(self) -> dict[str, Tensor]:
        """Return what a training state keeps beside the model."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take that back."""


class HubertObjective:
    """Units of masked frames, for an FP32 model or (quantization-aware) a twin.

    Args:
        config: weights of the parts of the loss; seed of the embeddings.
        model: what is trained, in training mode.
        units: K.
        phase: 1, 2 or a word.
        layer_drop: probability of leaving a layer out of an update.
        record: see `Objective`.
        unit_embeddings: (K, E) to begin with; None: random.
        scale_rate: factor on the learning rate of a twin's scales, which do not decay.
    """

    sums = Sums

    def __init__(
        self,
        config: TrainingConfig,
        model: Hubert,
        *,
        units: int,
        phase: int | str,
        layer_drop: float,
        record: Mapping[str, Any],
        unit_embeddings: Tensor | None = None,
        scale_rate: float = 1.0,
    ) -> None:
        self.config, self.model, self.units = config, model, units
        self.phase, self.layer_drop, self.record = phase, layer_drop, record
        self._scale_rate = scale_rate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed))
            self.module = Pretrainer(
                model,
                units=units,
                temperature=config.temperature,
                front_end_gradient=config.front_end_gradient,
            )
        if unit_embeddings is not None:
            self.load_state({UNIT_EMBEDDINGS: unit_embeddings})

    def to(self, device: torch.device) -> None:
        """Move everything to a device."""
        self.module.to(device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters, a twin's scales apart."""
        scales = quantizer_scales(self.model)
        apart = {id(scale) for scale in scales}
        others = [each for each in self.module.parameters() if id(each) not in apart]
        if not scales:
            return [{"params": others}]
        return [
            {"params": others},
            {"params": scales, "rate": self._scale_rate, "weight_decay": 0.0},
        ]

    def loss(self, sums: Sums, counts: FrameCounts) -> Tensor:
        """Return one micro-batch's part of the update's loss; the parts of all add up to it."""
        return update_loss(
            sums,
            counts,
            unmasked_weight=self.config.unmasked_weight,
            feature_penalty=self.config.feature_penalty,
        )

    def held_out_loss(self, means: Mapping[str, float]) -> float:
        """Return the cross-entropy of masked frames."""
        return means["masked_loss"]

    def state(self) -> dict[str, Tensor]:
        """Return the units' embeddings."""
        return {UNIT_EMBEDDINGS: self.module.unit_embeddings.detach().cpu()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the units' embeddings."""
        with torch.no_grad():
            self.module.unit_embeddings.copy_(state[UNIT_EMBEDDINGS])


def seed_of(*numbers: int) -> int:
    """Return a seed that follows from some numbers and differs for all others."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
