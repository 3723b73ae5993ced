"""A batch's features for any number of heads: one pass of the upstream, or one read of a store."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from superbit.benchmark.features.source import Batch, FeatureSource, weighted_sum
from superbit.upstreams.errors import InputError

# Stored hidden states; or waveforms and what the upstream gave for them.
Hidden = Batch | tuple[list[Tensor], Any]


class Feed:
    """What a frozen upstream gives, live or from a store.

    Args:
        upstream: s3prl-style expert.
        source: stored features; without it the upstream runs on every batch, as in s3prl.
    """

    def __init__(self, upstream: nn.Module, *, source: FeatureSource | None, device: str) -> None:
        self.upstream, self.source, self._device = upstream, source, device

    def read(self, wavs: Any) -> Hidden:
        """Return a batch's hidden states, without gradient; done with before the next call."""
        if self.source is not None:
            return self.source.gather(wavs)
        batch = self._waveforms(wavs)
        with torch.no_grad():
            return batch, self.upstream(batch)

    def features(self, featurizer: Any, hidden: Hidden) -> list[Tensor]:
        """Return the weighted sum of layers, (frames, dim) an utterance.

        Raises:
            InputError: the upstream gave NaN or infinity.
        """
        if isinstance(hidden, Batch):
            return weighted_sum(featurizer, hidden)
        features: list[Tensor] = featurizer(*hidden)
        # Weights that diverged are not the upstream's fault.
        if not _finite(features) and _finite(featurizer.parameters()):
            raise InputError(
                "the upstream gave NaN or infinity: 'superbit check' says for which input."
            )
        return features

    def layers(self, featurizer: Any, wavs: Any) -> list[list[Tensor]]:
        """Return every layer's features of a batch."""
        if self.source is not None:
            gathered = self.source.gather(wavs)
            # Copies: these are kept until the whole split is read.
            return [
                [features.clone() for features in gathered.layer(index)]
                for index in range(len(gathered.states))
            ]
        batch = self._waveforms(wavs)
        with torch.no_grad():
            states = self.upstream(batch)["hidden_states"]
        return [featurizer.tolist(batch, state) for state in states]

    def _waveforms(self, wavs: Any) -> list[Tensor]:
        return [torch.as_tensor(wav, dtype=torch.float32).to(self._device) for wav in wavs]


def _finite(tensors: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
