"""Features on disk: shards that are written whole or not at all, and checked when they are read.

A shard is a file of raw numbers beside an index in JSON, which is written last and makes it count.
Every entry has a checksum, compared when a process first reads it, and the index has one of its
own. A damaged entry is as good as absent: its reader computes it anew and :meth:`FeatureStore.put`
writes it to a shard of its own; of two entries for one waveform the newer counts.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superbit.benchmark.records.schema import canonical_json
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import PARTIAL, replaced

_VERSION = 1
_INDEX, _DATA = ".json", ".bin"


class CacheError(InputError):
    """The cache itself is in trouble: no run can be blamed for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """One waveform's features on their way to disk.

    Attributes:
        key: name of the waveform.
        states: ``(layers, frames, dim)``; one frame for the mean over time.
        samples: length of the waveform at 16 kHz.
        rate: in Hz, what the task is told of the file.
    """

    key: str
    states: NDArray[Any]
    samples: int
    rate: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one waveform's features are, and what must be known without reading them."""

    shard: int
    offset: int
    frames: int
    samples: int
    rate: int
    checksum: int


class FeatureStore:
    """The shards of one folder: one upstream, one kind of features, one precision."""

    def __init__(self, folder: Path, *, dtype: str) -> None:
        self.folder, self.dtype = folder, np.dtype(dtype)
        self.layers = self.dim = 0
        self.damaged = 0
        self.refresh()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    @property
    def bytes(self) -> int:
        """What the shards take on disk, indexes included."""
        return folder_bytes(self.folder)

    def refresh(self) -> None:
        """Read the folder anew: shards that another process has written meanwhile count too."""
        self._entries: dict[str, Entry] = {}
        self._shards: list[Path] = []
        self._maps: dict[int, NDArray[Any]] = {}
        self._checked: set[str] = set()
        for index in sorted(self.folder.glob(f"*{_INDEX}")):
            self._add(index)

    def find(self, key: str) -> Entry | None:
        """Return where a waveform's features are, without reading them."""
        return self._entries.get(key)

    def read(self, key: str) -> NDArray[Any] | None:
        """Return ``(layers, frames, dim)`` of a waveform, memory-mapped; ``None`` if damaged."""
        entry = self._entries[key]
        try:
            states = self._view(entry)
        except (OSError, ValueError):  # the shard is gone or shorter than it was
            states = None
        if states is None or (
            key not in self._checked and zlib.crc32(states.data) != entry.checksum
        ):
            del self._entries[key]
            self.damaged += 1
            return None
        self._checked.add(key)
        return states

    def put(self, features: Sequence[Features]) -> None:
        """Write a shard of its own and let it count from now on."""
        self._add(write_shard(self.folder, features))

    def _view(self, entry: Entry) -> NDArray[Any]:
        if entry.shard not in self._maps:
            # Copy on write: torch takes no read-only array without a warning, and nobody writes.
            self._maps[entry.shard] = np.memmap(
                self._shards[entry.shard].with_suffix(_DATA), dtype=np.uint8, mode="c"
            )
        size = self.layers * entry.frames * self.dim * self.dtype.itemsize
        numbers = np.asarray(self._maps[entry.shard][entry.offset : entry.offset + size])
        return numbers.view(self.dtype).reshape(self.layers, entry.frames, self.dim)

    def _add(self, index: Path) -> None:
        content = _read_index(index)
        if content is None or content["dtype"] != self.dtype.name:
            return
        shape = content["layers"], content["dim"]
        if self._entries and shape != (self.layers, self.dim):
            return
        self.layers, self.dim = shape
        size = _size(index.with_suffix(_DATA))
        self._shards.append(index)
        for key, (offset, frames, samples, rate, checksum) in content["entries"].items():
            if offset + self.layers * frames * self.dim * self.dtype.itemsize <= size:
                self._entries[key] = Entry(
                    len(self._shards) - 1, offset, frames, samples, rate, checksum
                )


def write_shard(folder: Path, features: Sequence[Features]) -> Path:
    """Write a shard, whole or not at all, and return its index.

    Raises:
        CacheError: the folder cannot be written to, or the disk is full; no part is left.
    """
    first = features[0].states
    entries, offset = {}, 0
    name = folder / f"{time.time_ns():020d}-{os.getpid()}"
    data, index = name.with_suffix(_DATA), name.with_suffix(_INDEX)
    # The index takes its name last.
    with (
        said_of_cache(folder),
        replaced(index, on_disk=True) as partial_index,
        replaced(data, on_disk=True) as partial_data,
    ):
        with partial_data.open("wb") as out:
            for each in features:
                states = np.ascontiguousarray(each.states, dtype=first.dtype)
                checksum = zlib.crc32(states.data)
                entries[each.key] = [offset, states.shape[1], each.samples, each.rate, checksum]
                out.write(states.data)
                offset += states.nbytes
        content = {
            "version": _VERSION,
            "dtype": first.dtype.name,
            "layers": first.shape[0],
            "dim": first.shape[2],
            "entries": entries,
        }
        content["checksum"] = zlib.crc32(canonical_json(content).encode())
        partial_index.write_bytes(json.dumps(content).encode())
    return index


def remove_leftovers(folder: Path) -> None:
    """Delete what an extraction that was killed left behind; only for who holds the lock."""
    for file in folder.glob(f"*{PARTIAL}"):
        file.unlink(missing_ok=True)
    for data in folder.glob(f"*{_DATA}"):
        if _read_index(data.with_suffix(_INDEX)) is None:
            data.unlink(missing_ok=True)
            data.with_suffix(_INDEX).unlink(missing_ok=True)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(_size(file) for file in folder.rglob("*"))


@contextlib.contextmanager
def said_of_cache(folder: Path) -> Iterator[None]:
    """Make the folder, and say what to do where it or something in it cannot be written.

    Raises:
        CacheError: in place of any ``OSError``, with what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else f"it cannot be written to ({error.strerror})"
        todo = (
            "free some space, give a smaller --cache-budget, or say --no-cache; what was written "
            "before is kept"
            if full
            else "give a folder that can with --cache-dir, or say --no-cache"
        )
        raise CacheError(f"feature cache {folder}: {what}: {todo}.") from error


def _read_index(index: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(index.read_bytes())
        checksum = content.pop("checksum")
        sound = content["version"] == _VERSION
        return (
            content if sound and zlib.crc32(canonical_json(content).encode()) == checksum else None
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:
        return 0
