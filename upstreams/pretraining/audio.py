"""Audio files as pre-training reads them: 16 kHz, mono, wav or flac, whole or a part."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from superbit.upstreams import sound

SAMPLE_RATE = 16_000  # Hz
EXTENSIONS = ("flac", "wav")


class CorruptAudio(Exception):
    """One file of many cannot be used; whoever reads many skips and counts it."""


def audio_samples(path: Path) -> int:
    """Return how many samples a file holds; its header tells, where the writer knew.

    Raises `CorruptAudio` where it is no audio of 16 kHz and one channel, or cut short.
    """
    try:
        return _checked(sound.describe(path), path).samples
    except (OSError, sound.UnreadableAudio) as error:
        raise CorruptAudio(_because(path, error)) from None


def read_samples(
    path: Path, *, start: int = 0, count: int | None = None, total: int | None = None
) -> np.ndarray:
    """Return ``count`` samples from ``start``: float32, full scale 1.0, shape (count,).

    Args:
        path: a wav or flac file.
        start: the first sample.
        count: how many; None: to the end.
        total: samples that the file should hold; None: whatever it holds.

    Raises:
        CorruptAudio: the file is missing, not audio of 16 kHz and one channel, of another length,
            truncated, or has samples that are not finite.
    """
    try:
        held = _checked(sound.describe(path), path).samples
        if total is not None and held != total:
            raise CorruptAudio(f"{path} has {held} samples, its manifest says {total}")
        wanted = held - start if count is None else count
        samples = sound.decode(path, start=start, stop=start + wanted)[0][:, 0]
    except (OSError, sound.UnreadableAudio) as error:
        raise CorruptAudio(_because(path, error)) from None
    if len(samples) != wanted:
        raise CorruptAudio(f"{path} is truncated: {len(samples)} of {wanted} samples decode")
    if not np.isfinite(samples).all():
        raise CorruptAudio(f"{path} has samples that are not finite")
    return samples


def _checked(held: sound.Sound, path: Path) -> sound.Sound:
    if held.rate != SAMPLE_RATE:
        raise CorruptAudio(f"{path} is sampled at {held.rate} Hz, not at {SAMPLE_RATE}")
    if held.channels != 1:
        raise CorruptAudio(f"{path} has {held.channels} channels, not one")
    return held


def _because(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{path} cannot be read: {error.strerror or error}"
    return f"{path} {error}"
