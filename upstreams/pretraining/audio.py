"""Audio files as pre-training reads them: 16 kHz, mono, wav or flac, whole or a part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 16_000  # Hz
EXTENSIONS = ("flac", "wav")


class CorruptAudio(Exception):
    """One file of many cannot be used; whoever reads many skips and counts it."""


def audio_samples(path: Path) -> int:
    """Return how many samples the header of a file promises.

    Raises `CorruptAudio` where it is no audio of 16 kHz and one channel.
    """
    try:
        with soundfile.SoundFile(path) as sound:
            _check(sound, path)
            return sound.frames
    except (OSError, soundfile.LibsndfileError) as error:
        raise CorruptAudio(f"{path} cannot be decoded: {error}") from None


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
        with soundfile.SoundFile(path) as sound:
            _check(sound, path)
            if total is not None and sound.frames != total:
                raise CorruptAudio(f"{path} has {sound.frames} samples, its manifest says {total}")
            wanted = sound.frames - start if count is None else count
            if start:
                sound.seek(start)
            samples = sound.read(wanted, dtype="float32")
    except (OSError, RuntimeError) as error:  # libsndfile's errors are RuntimeErrors
        raise CorruptAudio(f"{path} cannot be decoded: {error}") from None
    if len(samples) != wanted:
        raise CorruptAudio(f"{path} is truncated: {len(samples)} of {wanted} samples decode")
    if not np.isfinite(samples).all():
        raise CorruptAudio(f"{path} has samples that are not finite")
    return samples


def _check(sound: soundfile.SoundFile, path: Path) -> None:
    if sound.samplerate != SAMPLE_RATE:
        raise CorruptAudio(f"{path} is sampled at {sound.samplerate} Hz, not at {SAMPLE_RATE}")
    if sound.channels != 1:
        raise CorruptAudio(f"{path} has {sound.channels} channels, not one")
