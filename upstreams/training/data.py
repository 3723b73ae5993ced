"""Micro-batches: crops of one length, their units and masks, in an order that a seed decides.

Utterances of about one length share a batch, which is cropped to its shortest: nothing is padded.
The order of an epoch, the crops and the masks follow from the seed, the epoch and the utterance;
the position in the data is one number, the count of micro-batches taken since the start. Update u
of W ranks and A micro-batches takes the numbers u·W·A + a·W + r, so that one rank that accumulates
32 of them sees the same audio as 32 ranks that take one each.

Notation: B batch, N samples, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from superbit.upstreams.errors import InputError
from superbit.upstreams.training.configuration import TrainingConfig
from superbit.upstreams.training.labels import Labels
from superbit.upstreams.training.manifest import AudioManifest, CorruptAudio, read_samples


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


class CropBatches(Dataset):
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
        manifest: AudioManifest,
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


def load(batches: CropBatches, numbers: range, *, workers: int, pin: bool) -> Iterator[MicroBatch]:
    """Yield the micro-batches of the numbers, in their order, read by ``workers`` processes.

    Raises `InputError` as `CropBatches` does.
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

    def __init__(self, batches: CropBatches) -> None:
        self._batches = batches

    def __getitem__(self, number: int) -> MicroBatch | InputError:
        try:
            return self._batches[number]
        except InputError as error:
            return error


# Streams of one utterance in one epoch; a new one gets a new number.
CROP, MASK, EQUALIZE = 0, 1, 2


def item_stream(*, seed: int, epoch: int, item: int, purpose: int) -> np.random.Generator:
    """Return the random stream of one utterance in one epoch for one purpose."""
    return np.random.default_rng([seed, epoch, item, purpose])


def span_mask(
    frames: int,
    *,
    probability: float,
    span: int,
    at_least: int,
    random: np.random.Generator,
) -> np.ndarray:
    """Return which frames are masked, (frames,) bool: some are, and never all of them.

    Args:
        frames: T, at least 2.
        probability: expected share of masked frames if spans did not overlap.
        span: frames masked together; shortened where the utterance is too short for it.
        at_least: spans, whatever T is.
        random: the utterance's own stream.
    """
    spans = max(int(probability * frames / span + random.random()), at_least)
    # fairseq's rule for short utterances: shorter spans, so that every start has room
    if frames - span <= spans:
        spans = min(spans, max(1, frames // 2))
        span = max(1, min(span, frames - spans - 1))
    starts = random.choice(frames - span, spans, replace=False)
    mask = np.zeros(frames, dtype=bool)
    mask[(starts[:, None] + np.arange(span)).ravel()] = True
    return mask


def equalize(masks: Sequence[np.ndarray], streams: Sequence[np.random.Generator]) -> np.ndarray:
    """Unmask random frames until every mask of a batch has as many as the smallest, (B, T) bool.

    fairseq does so. It makes the masks depend on the batch, hence on the number of ranks.
    """
    fewest = min(int(mask.sum()) for mask in masks)
    rows = []
    for mask, random in zip(masks, streams, strict=True):
        kept = random.choice(np.flatnonzero(mask), fewest, replace=False)
        row = np.zeros_like(mask)
        row[kept] = True
        rows.append(row)
    return np.stack(rows)
