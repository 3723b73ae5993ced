"""The batches that an expert's data loaders give, with stored audio read by name."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from superbit.benchmark.features.mixing import WeightedSums
from superbit.benchmark.features.source import Ahead, FeatureReader
from superbit.benchmark.running import heads
from superbit.benchmark.running.candidate import TrainingPosition
from superbit.upstreams import stopping
from superbit.upstreams.contract.blame import not_finite
from superbit.upstreams.errors import InputError
from superbit.upstreams.rng import rng_state, set_rng_state


class ExpertBatches:
    """Reads the splits of one expert.

    Args:
        head: the expert; of several that share their data, any one.
        source: names what is stored, so that it is not decoded.
        limit: at most so many batches or trials an evaluation.
    """

    def __init__(self, head: Any, *, source: FeatureReader | None, limit: int | None) -> None:
        self._head, self._source, self._limit = head, source, limit
        self._epoch_rng: dict[str, Any] = {}
        self._resume_rng: dict[str, Any] | None = None

    def training(self, position: TrainingPosition) -> Iterator[Any]:
        """One epoch's batches from :attr:`TrainingPosition.batch` on."""
        resume_rng, self._resume_rng = self._resume_rng, None
        if resume_rng is None:
            self._epoch_rng = rng_state()
        else:
            set_rng_state(self._epoch_rng)
        loader = self._training_loader(position.epoch)
        if len(loader) == 0:
            raise InputError(
                "the train split has fewer items than one batch; lower the batch size "
                "or give more audio."
            )
        with reading(self._source):  # worker processes start here and keep what they inherit
            batches: Any = started(loader)
            ahead = self._ahead(loader, batches)
            if resume_rng is not None:
                if ahead is not None:
                    ahead.skip(position.batch)
                else:
                    _skip(loader, batches, position.batch)
                set_rng_state(resume_rng)
        return self._read(batches) if ahead is None else iter(ahead)

    def evaluation(self, split: str) -> tuple[int, Iterator[Any]]:
        """How many batches a split has, and those that are evaluated."""
        limited = self._stops_early(split)
        loader = self._head.get_dataloader(split)
        batches = self._read_split(loader)
        if limited:
            batches = (batch for _, batch in zip(range(self._limit or 0), batches, strict=False))
        return len(loader), batches

    def queries(self, split: str) -> Iterator[Any]:
        """A split of QbE, its queries cut to the limit."""
        loader = self._head.get_dataloader(split)
        if self._limit is not None:
            heads.limit_queries(loader.dataset, self._limit)
        return self._read_split(loader)

    def state(self) -> dict[str, Any]:
        """Return the generators now and at the epoch's start."""
        return {"rng": rng_state(), "epoch_rng": self._epoch_rng}

    def load_state(self, state: dict[str, Any]) -> None:
        """Let :meth:`training` continue from what :meth:`state` returned."""
        self._epoch_rng, self._resume_rng = state["epoch_rng"], state["rng"]

    def _ahead(self, loader: DataLoader, batches: Iterator[Any]) -> Ahead | None:
        """What computes live waveforms of several batches together, where that changes no draw."""
        if self._source is None or loader.num_workers == 0 or not self._source.looks_ahead:
            return None
        return Ahead(batches, self._source)

    def _read_split(self, loader: DataLoader) -> Iterator[Any]:
        with reading(self._source):
            batches = started(loader)
        yield from self._ahead(loader, batches) or self._read(batches)

    def _read(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                with reading(self._source):
                    batch = next(batches)
            except StopIteration:
                return
            yield batch

    def _training_loader(self, epoch: int) -> DataLoader:
        get_dataloader = self._head.get_dataloader
        if "epoch" in inspect.signature(get_dataloader).parameters:
            return get_dataloader("train", epoch=epoch)
        return get_dataloader("train")

    def _stops_early(self, split: str) -> bool:
        """Whether an evaluation stops at the limit; a trial list is cut instead (ASV)."""
        if self._limit is None:
            return False
        dataset = getattr(self._head, f"{split}_dataset", None)
        if getattr(dataset, "pair_table", None) is None:
            return True
        heads.limit_trials(dataset, self._limit)
        return False


def reading(source: FeatureReader | None) -> contextlib.AbstractContextManager[None]:
    """Within it, the datasets name what is stored instead of decoding it."""
    return source.reading() if source is not None else contextlib.nullcontext()


def started(loader: DataLoader) -> Iterator[Any]:
    """Begin to read; a signal to all of a job's processes leaves those of the loader at work.

    What was asked to stop finishes its step, for which it needs them.
    """
    if loader.num_workers and loader.worker_init_fn is None:
        loader.worker_init_fn = _ignore_signals
    return iter(loader)


def _ignore_signals(_worker: int) -> None:
    stopping.ignore()


def _skip(loader: DataLoader, batches: Any, count: int) -> None:
    """Pass over the batches that were trained on before the checkpoint."""
    for _ in range(count):
        if loader.num_workers == 0:
            batches._next_index()  # draws the indices without reading audio
        else:
            next(batches)


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


class FrozenUpstream:
    """What a frozen upstream gives, live or from a store.

    Args:
        upstream: s3prl-style expert.
        source: stored features; without it the upstream runs on every batch, as in s3prl.
    """

    def __init__(self, upstream: nn.Module, *, source: FeatureReader | None, device: str) -> None:
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
