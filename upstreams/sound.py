"""Audio files by libsndfile: how many samples each holds, and the samples. Every reader's one door.

Headers lie in three ways. Programs that write into a pipe do not know the length: FLAC then says 0
samples, which libsndfile gives as 2^63 - 1, and WAV says 0 bytes or about 2 or 4 GiB. Files cut
short promise a little more than they hold, and libsndfile returns what there is without a word.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz, of every waveform that an upstream or a task is given

# A WAV header that promises so much, and twice what is there, was written before anybody knew.
_UNKNOWN_BYTES = 2**30
_IN_DS64 = 0xFFFFFFFF  # in RF64 the size is in the chunk ds64
# What libsndfile says where FLAC's header does not.
_UNKNOWN_SAMPLES = 2**63 - 1
_BLOCK = 1 << 16


class UnreadableAudio(Exception):
    """What is wrong with the bytes of a file, as words that follow its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sound:
    """What a file holds: ``samples`` in each of ``channels``, ``rate`` of them a second."""

    samples: int
    rate: int
    channels: int


class _Sequential(soundfile.SoundFile):
    """One that is read from its start to its end only: libsndfile cannot seek to an unknown end."""

    def seekable(self) -> bool:
        return False


def describe(source: str | os.PathLike[str] | bytes) -> Sound:
    """Return what a file, or its bytes, holds; decoded only where its header does not tell.

    Raises:
        UnreadableAudio: it is no audio, cut short, or cannot be decoded.
        OSError: it cannot be read.
    """
    with _opened(source) as sound:
        samples = sound.frames
        if samples == _UNKNOWN_SAMPLES:
            samples = sum(len(block) for block in _blocks(source))
        return Sound(samples=samples, rate=sound.samplerate, channels=sound.channels)


def decode(
    source: str | os.PathLike[str] | bytes, *, start: int = 0, stop: int | None = None
) -> tuple[NDArray[np.float32], int]:
    """Return samples ``start`` to ``stop`` (None: the end), and the rate in Hz.

    Args:
        source: a file, or its bytes.

    Returns:
        float32, full scale 1.0, shape (samples, channels); fewer where the file ends before.

    Raises:
        UnreadableAudio: it is no audio, cut short, or cannot be decoded.
        OSError: it cannot be read.
    """
    with _opened(source) as sound:
        rate, channels = sound.samplerate, sound.channels
        if sound.frames != _UNKNOWN_SAMPLES:
            first = min(start, sound.frames)
            due = max(0, (sound.frames if stop is None else min(stop, sound.frames)) - first)
            try:
                if first:
                    sound.seek(first)
                samples = sound.read(due, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise UnreadableAudio(_undecodable(error)) from None
            if len(samples) < due:
                raise UnreadableAudio(
                    f"is truncated: its header promises {sound.frames:,} samples and only "
                    f"{first + len(samples):,} can be decoded; copy the file again"
                )
            return samples, rate
    blocks, position = [np.empty((0, channels), dtype=np.float32)], 0
    for block in _blocks(source):
        end = len(block) if stop is None else max(0, stop - position)
        blocks.append(block[max(0, start - position) : end])
        position += len(block)
        if stop is not None and position >= stop:
            break
    return np.concatenate(blocks), rate


def _opened(
    source: str | os.PathLike[str] | bytes, kind: type[soundfile.SoundFile] = soundfile.SoundFile
) -> soundfile.SoundFile:
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as stream:
            position = _start_of_unsized_samples(stream)
            content = None if position is None else _with_size(stream, position)
        if content is None and not isinstance(source, bytes):
            return kind(Path(source))
        return kind(io.BytesIO(source if content is None else content))  # type: ignore[arg-type]
    except soundfile.LibsndfileError as error:
        raise UnreadableAudio(_undecodable(error)) from None


def _blocks(source: str | os.PathLike[str] | bytes) -> Iterator[NDArray[np.float32]]:
    """Every block of a file whose length its header does not tell."""
    with _opened(source, _Sequential) as sound:
        try:
            while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
                yield block
        except soundfile.LibsndfileError as error:
            raise UnreadableAudio(_undecodable(error)) from None


def _undecodable(error: soundfile.LibsndfileError) -> str:
    reason = (error.error_string or str(error)).strip().removeprefix("Error : ").rstrip(".")
    return f"cannot be decoded as audio ({reason}): it is truncated, or not a wav or flac file"


def _start_of_unsized_samples(stream: BinaryIO) -> int | None:
    """Where the samples of a WAV file begin whose header says 0 bytes; None for any other file.

    Raises `UnreadableAudio` for a WAV file that was cut short.
    """
    head = stream.read(12)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        return None
    size_of_file = stream.seek(0, os.SEEK_END)
    position, in_ds64 = 12, None
    while position + 8 <= size_of_file:
        stream.seek(position)
        name, size = struct.unpack("<4sI", stream.read(8))
        position += 8
        if name == b"ds64":
            in_ds64 = struct.unpack("<8xQ", stream.read(16).ljust(16, b"\0"))[0]
        if name == b"data":
            held = size_of_file - position
            promised = in_ds64 if size == _IN_DS64 and in_ds64 is not None else size
            if promised == 0:
                return position if held and not _are_chunks(stream, position) else None
            if promised > held and not promised > max(_UNKNOWN_BYTES, 2 * held):
                raise UnreadableAudio(
                    f"is truncated: its header promises {promised:,} bytes of samples and it "
                    f"holds {held:,}; copy the file again"
                )
            return None
        position += size + size % 2
    return None


def _are_chunks(stream: BinaryIO, position: int) -> bool:
    """Whether a row of chunks, and nothing else, goes from ``position`` to the end of the file."""
    end = stream.seek(0, os.SEEK_END)
    while position + 8 <= end:
        stream.seek(position)
        name, size = struct.unpack("<4sI", stream.read(8))
        if not (name.isascii() and name.decode().isprintable()):
            return False
        position += 8 + size + size % 2
    return position in (end, end + 1)


def _with_size(stream: BinaryIO, position: int) -> bytes:
    """The bytes of a WAV file with the size that the chunk at ``position`` has."""
    stream.seek(0)
    content = bytearray(stream.read())
    content[position - 4 : position] = struct.pack("<I", min(len(content) - position, _IN_DS64))
    return bytes(content)
