"""Reading audio as the tasks need it: 16 kHz, mono, every sample there and finite.

Decoded by ``superbit.upstreams.sound``, which knows how headers lie.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from superbit.upstreams import sound
from superbit.upstreams.errors import InputError
from superbit.upstreams.sound import SAMPLE_RATE


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioHeader:
    """What a file's header promises, or where it does not say, what it holds: samples."""

    samples: int


def read_audio(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Decode a file: float32 samples in -1…1, shape ``(samples,)``, and the rate, 16,000 Hz.

    Raises:
        InputError: the file is missing, empty, truncated, not decodable, not 16 kHz, not mono, or
            holds NaN or infinite samples.
    """
    return decode_audio(_read_bytes(Path(path)), Path(path)), SAMPLE_RATE


def verify_audio(path: str | os.PathLike[str]) -> int:
    """Decode a file only to see that every sample is there; returns their number.

    Raises:
        InputError: as :func:`read_audio`.
    """
    return len(read_audio(path)[0])


def read_header(path: str | os.PathLike[str], rate: int = SAMPLE_RATE) -> AudioHeader:
    """What the header promises, without decoding unless it does not say how long the file is.

    Raises:
        InputError: the file is missing, empty, not audio, not sampled at ``rate``, not mono, or
            a wav file cut short.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise InputError(_empty(path))
        return _checked_header(sound.describe(path), path, rate)
    except FileNotFoundError:
        raise InputError(_missing(path)) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except sound.UnreadableAudio as error:
        raise InputError(f"{path} {error}.") from None


def decode_audio(content: bytes, path: Path, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Decode a file's bytes as :func:`read_audio` does; ``path`` is for error messages only.

    Args:
        rate: what the sampling rate should be, Hz.
    """
    if not content:
        raise InputError(_empty(path))
    try:
        _checked_header(sound.describe(content), path, rate)
        samples = sound.decode(content)[0][:, 0]
    except sound.UnreadableAudio as error:
        raise InputError(f"{path} {error}.") from None
    bad = int(np.count_nonzero(~np.isfinite(samples)))
    if bad:
        raise InputError(
            f"{path} has {bad:,} samples that are NaN or infinite; every sample should be finite."
        )
    return samples


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(_missing(path)) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None


def _checked_header(held: sound.Sound, path: Path, rate: int) -> AudioHeader:
    if held.rate != rate:
        raise InputError(f"{path} is sampled at {held.rate:,} Hz; it should be {rate:,} Hz.")
    if held.channels != 1:
        raise InputError(f"{path} has {held.channels} channels; it should be mono.")
    if held.samples == 0:
        raise InputError(_empty(path))
    return AudioHeader(samples=held.samples)


def _missing(path: Path) -> str:
    return f"{path} is not there: it should be an audio file."


def _empty(path: Path) -> str:
    return f"{path} is empty: it should hold audio, 16 kHz and mono."
