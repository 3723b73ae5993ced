"""Reading audio as the tasks need it: 16 kHz, mono, every sample there and finite.

Decoder: libsndfile by soundfile. It returns what it could read of a truncated file without a word
in some formats, so lengths are compared with what headers promise.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from superbit.upstreams.errors import InputError

SAMPLE_RATE = 16_000
_UNKNOWN_SIZE = 0xFFFFFFFF  # what programs that write wav into a pipe put into the header


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioHeader:
    """What a file's header promises: samples a channel."""

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
    """What the header promises, without decoding.

    Raises:
        InputError: the file is missing, empty, not audio, not sampled at ``rate`` or not mono.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise InputError(_empty(path))
        with soundfile.SoundFile(path) as sound:
            return _checked_header(sound, path, rate)
    except FileNotFoundError:
        raise InputError(_missing(path)) from None
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError(_undecodable(path, error)) from None


def decode_audio(content: bytes, path: Path, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Decode a file's bytes as :func:`read_audio` does; ``path`` is for error messages only.

    Args:
        rate: what the sampling rate should be, Hz.
    """
    if not content:
        raise InputError(_empty(path))
    promised, held = _wav_data_bytes(content)
    if promised > held:
        raise InputError(
            f"{path} is truncated: its header promises {promised:,} bytes of samples and it holds "
            f"{held:,}; copy the file again."
        )
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as sound:
            header = _checked_header(sound, path, rate)
            samples = sound.read(dtype="float32")
    except soundfile.LibsndfileError as error:
        raise InputError(_undecodable(path, error)) from None
    if len(samples) < header.samples:
        raise InputError(
            f"{path} is truncated: its header promises {header.samples:,} samples and "
            f"{len(samples):,} can be decoded; copy the file again."
        )
    if len(samples) == 0:
        raise InputError(_empty(path))
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


def _checked_header(sound: soundfile.SoundFile, path: Path, rate: int) -> AudioHeader:
    if sound.samplerate != rate:
        raise InputError(f"{path} is sampled at {sound.samplerate:,} Hz; it should be {rate:,} Hz.")
    if sound.channels != 1:
        raise InputError(f"{path} has {sound.channels} channels; it should be mono.")
    if sound.frames == 0:
        raise InputError(_empty(path))
    return AudioHeader(samples=sound.frames)


def _missing(path: Path) -> str:
    return f"{path} is not there: it should be an audio file."


def _empty(path: Path) -> str:
    return f"{path} is empty: it should hold audio, 16 kHz and mono."


def _undecodable(path: Path, error: Exception) -> str:
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return (
        f"{path} cannot be decoded as audio ({reason.strip().rstrip('.')}): it is truncated, "
        "or not a wav or flac file."
    )


def _wav_data_bytes(content: bytes) -> tuple[int, int]:
    """(bytes of samples a RIFF header promises, bytes that follow it); (0, 0) for other formats."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return 0, 0
    position = 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        position += 8
        if name == b"data":
            return (0 if size == _UNKNOWN_SIZE else size), len(content) - position
        position += size + size % 2
    return 0, 0
