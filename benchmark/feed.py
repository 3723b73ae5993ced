"""A batch's features for any number of heads: one pass of the upstream, or one read of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from superbit.benchmark.features.mixing import WeightedSums
from superbit.benchmark.features.source import FeatureSource
from superbit.upstreams.contract_blame import not_finite


class LiveSums:
    """Weighted sums by s3prl's featurizers themselves, of what the upstream gave for waveforms."""

    def __init__(self, waves: list[Tensor], output: Any) -> None:
        self._waves, self._output = waves, output

    def of(self, featurizer: nn.Module) -> list[Tensor]:
        """Return one featurizer's sums, (frames, dim) an utterance.

        Raises:
            BrokenContract: the upstream gave NaN or infinity.
        """
        features: list[Tensor] = featurizer(self._waves, self._output)
        # Weights that diverged are not the upstream's fault.
        if not _finite(features) and _finite(featurizer.parameters()):
            raise not_finite()
        return features

    def backward(self) -> None:
        """Nothing: gradients go through these sums by themselves."""


class Feed:
    """What a frozen upstream gives, live or from a store.

    Args:
        upstream: s3prl-style expert.
        source: stored features; without it the upstream runs on every batch, as in s3prl.
    """

    def __init__(self, upstream: nn.Module, *, source: FeatureSource | None, device: str) -> None:
        self.upstream, self.source, self._device = upstream, source, device

    def sums(self, wavs: Any, featurizers: Sequence[nn.Module]) -> WeightedSums | LiveSums:
        """Return a batch's weighted sums by each featurizer; done with before the next call."""
        if self.source is not None:
            return WeightedSums(self.source.gather(wavs), featurizers)
        batch = self._waveforms(wavs)
        with torch.no_grad():
            return LiveSums(batch, self.upstream(batch))

    def layers(self, featurizer: Any, wavs: Any) -> list[list[Tensor]]:
        """Return every layer's features of a batch."""
        if self.source is not None:
            gathered = self.source.gather(wavs)
            return [gathered.layer(index) for index in range(gathered.layers)]
        batch = self._waveforms(wavs)
        with torch.no_grad():
            states = self.upstream(batch)["hidden_states"]
        return [featurizer.tolist(batch, state) for state in states]

    def _waveforms(self, wavs: Any) -> list[Tensor]:
        return [torch.as_tensor(wav, dtype=torch.float32).to(self._device) for wav in wavs]


def _finite(tensors: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
