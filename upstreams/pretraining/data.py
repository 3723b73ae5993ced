"""Micro-batches: crops of one length, their units and masks, in an order that a seed decides.

Utterances of about one length share a batch, which is cropped to its shortest: nothing is padded.
The order of an epoch, the crops and the masks follow from the seed, the epoch and the utterance;
the position in the data is one number, the count of micro-batches taken since the start. Update u
of W ranks and A micro-batches takes the numbers u·W·A + a·W + r, so that one rank that accumulates
32 of them sees the same audio as 32 ranks that take one each.

Notation: B batch, N samples, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from superbit.upstreams.errors import InputError
from superbit.upstreams.pretraining.audio import CorruptAudio, read_samples
from superbit.upstreams.pretraining.configuration import TrainingConfig
from superbit.upstreams.pretraining.labels import Labels
from superbit.upstreams.pretraining.manifest import Manifest
from superbit.upstreams.pretraining.masking import (
    CROP,
    EQUALIZE,
    MASK,
    equalize,
    item_stream,
    span_mask,
)


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Crops of one length.

    Attributes:
        samples: (B, N) float32.
        units: (B, T) int64.
        mask: (B, T) bool, frames that the encoder does not see.
        skipped: files that could not be read, and why.
    """

    samples: Tensor
    units: Tensor
    mask: Tensor
    skipped: tuple[str, ...]

    @property
    def frames(self) -> tuple[int, int]:
        """Masked frames and others."""
        masked = int(self.mask.sum())
        return masked, self.mask.numel() - masked

    def to(self, device: torch.device) -> MicroBatch:
        """Return it on a device."""
        return MicroBatch(
            samples=self.samples.to(device, non_blocking=True),
            units=self.units.to(device, non_blocking=True),
            mask=self.mask.to(device, non_blocking=True),
            skipped=self.skipped,
        )

    def pin_memory(self) -> MicroBatch:
        """Return it in memory that a GPU can copy from while it computes."""
        return MicroBatch(
            samples=self.samples.pin_memory(),
            units=self.units.pin_memory(),
            mask=self.mask.pin_memory(),
            skipped=self.skipped,
        )


def epoch_batches(
    samples: np.ndarray,
    *,
    batch_samples: int,
    crop_samples: int,
    bucket_samples: int,
    seed: int,
    epoch: int,
) -> list[np.ndarray]:
    """Return the utterances of each micro-batch of one epoch, as indices into ``samples``.

    Sorted by length in steps of ``bucket_samples`` with ties in random order, cut into batches of
    at most ``batch_samples``, which are shuffled. Every epoch has as many batches as any other.
    """
    random = np.random.default_rng([seed, epoch])
    # a bucket counts as long as its longest, so that batches are cut alike in every epoch
    lengths = np.minimum(-(-samples // bucket_samples) * bucket_samples, crop_samples)
    order = np.lexsort((random.permutation(len(samples)), lengths))[::-1]
    batches, start = [], 0
    while start < len(order):
        count = max(1, batch_samples // int(lengths[order[start]]))
        batches.append(order[start : start + count])
        start += count
    return [batches[index] for index in random.permutation(len(batches))]


class Batches(Dataset):
    """Micro-batches by their number, for ever: the epochs follow each other.

    Args:
        manifest: the utterances.
        labels: their units; None for an objective that needs none: all are 0 then.
        config: lengths, masking and seed.
        frames: how many frames so many samples have.
        crop_at_random: False takes every crop from the start and the same masks in every epoch,
            for the held-out set.

    Raises:
        InputError: no utterance is as long as ``min_samples``.
    """

    def __init__(
        self,
        manifest: Manifest,
        labels: Labels | None,
        config: TrainingConfig,
        *,
        frames: Callable[[int], int],
        crop_at_random: bool = True,
    ) -> None:
        self._manifest, self._labels, self._config = manifest, labels, config
        self._frames, self._crop_at_random = frames, crop_at_random
        self._kept = np.flatnonzero(manifest.samples >= config.min_samples)
        if not len(self._kept):
            raise InputError(
                f"{manifest.file} has no audio of at least {config.min_samples} samples "
                f"(min_samples); its longest file has {int(manifest.samples.max())}."
            )
        self.left_out = len(manifest) - len(self._kept)
        self._epoch = (-1, [np.empty(0, dtype=np.int64)])
        self.per_epoch = len(self._batches(0))

    def __len__(self) -> int:
        """Micro-batches in an epoch."""
        return self.per_epoch

    def __getitem__(self, number: int) -> MicroBatch:
        """Return the micro-batch of a number, counted from the start of training.

        Raises `InputError` for labels out of range, and where no file at all can be read.
        """
        epoch, index = divmod(number, self.per_epoch)
        items = self._batches(epoch)[index]
        size = int(min(self._manifest.samples[items].min(), self._config.crop_samples))
        read: list[tuple[int, int, np.ndarray]] = []
        skipped: list[str] = []
        for item in items:
            self._read(int(item), epoch, size, read, skipped)
        if not read:
            # a rank must take part in every update: the next files that are long enough stand in
            for item in self._kept:
                if self._manifest.samples[item] >= size:
                    self._read(int(item), epoch, size, read, skipped)
                if read:
                    break
            else:
                raise InputError(
                    f"{self._manifest.file}: no audio file could be read; {skipped[0]}."
                )
        return self._assemble(read, epoch, size, tuple(dict.fromkeys(skipped)))

    def _batches(self, epoch: int) -> list[np.ndarray]:
        if self._epoch[0] != epoch:
            batches = epoch_batches(
                self._manifest.samples[self._kept],
                batch_samples=self._config.batch_samples,
                crop_samples=self._config.crop_samples,
                bucket_samples=self._config.bucket_samples,
                seed=self._config.seed,
                epoch=epoch,
            )
            self._epoch = (epoch, [self._kept[batch] for batch in batches])
        return self._epoch[1]

    def _read(
        self,
        item: int,
        epoch: int,
        size: int,
        read: list[tuple[int, int, np.ndarray]],
        skipped: list[str],
    ) -> None:
        """Add (utterance, first sample, samples) to ``read``, or why not to ``skipped``."""
        total = int(self._manifest.samples[item])
        start = 0
        if self._crop_at_random:
            start = int(self._stream(epoch, item, CROP).integers(total - size + 1))
        try:
            samples = read_samples(self._manifest.path(item), start=start, count=size, total=total)
        except CorruptAudio as error:
            skipped.append(str(error))
        else:
            read.append((item, start, samples))

    def _assemble(
        self,
        read: list[tuple[int, int, np.ndarray]],
        epoch: int,
        size: int,
        skipped: tuple[str, ...],
    ) -> MicroBatch:
        frames, config = self._frames(size), self._config
        masks = [
            span_mask(
                frames,
                probability=config.mask_probability,
                span=config.mask_span,
                at_least=config.min_masks,
                random=self._stream(epoch, item, MASK),
            )
            for item, _, _ in read
        ]
        if config.equalize_masks:
            streams = [self._stream(epoch, item, EQUALIZE) for item, _, _ in read]
            masks = list(equalize(masks, streams))
        units = [self._units(item, start, frames) for item, start, _ in read]
        return MicroBatch(
            samples=torch.from_numpy(np.stack([samples for _, _, samples in read])),
            units=torch.from_numpy(np.stack(units)),
            mask=torch.from_numpy(np.stack(masks)),
            skipped=skipped,
        )

    def _units(self, item: int, start: int, frames: int) -> np.ndarray:
        if self._labels is None:
            return np.zeros(frames, dtype=np.int64)
        return self._labels.crop(item, start=start, frames=frames)

    def _stream(self, epoch: int, item: int, purpose: int) -> np.random.Generator:
        return item_stream(seed=self._config.seed, epoch=epoch, item=item, purpose=purpose)


def load(batches: Batches, numbers: range, *, workers: int, pin: bool) -> Iterator[MicroBatch]:
    """Yield the micro-batches of the numbers, in their order, read by ``workers`` processes.

    Raises `InputError` as `Batches` does.
    """
    loader = DataLoader(
        _ErrorsAsValues(batches),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=pin,
    )
    for got in loader:
        if isinstance(got, InputError):
            raise got
        yield got


class _ErrorsAsValues(Dataset):
    """Returns an `InputError`, which would cross from a worker with its traceback as its text."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __getitem__(self, number: int) -> MicroBatch | InputError:
        try:
            return self._batches[number]
        except InputError as error:
            return error
