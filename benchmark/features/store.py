"""Features on disk: shards that are written whole or not at all, and checked when they are read.

``CACHE/UPSTREAM-HASH/{pooled-float32, frames-float16}/`` holds shards; ``upstream.json`` beside
them is what the hash is of: everything that can change a feature.

A shard is a file of raw numbers beside an index in JSON, which is written last and makes it count.
Every entry has a checksum, compared when a process first reads it, and the index has one of its
own. A damaged entry is as good as absent: its reader computes it anew and :meth:`FeatureStore.put`
writes it to a shard of its own; of two entries for one waveform the newer counts.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from superbit.benchmark.records.canonical import canonical_json
from superbit.upstreams import files
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import PARTIAL, replaced
from superbit.upstreams.quantization.policy import Policy
from superbit.upstreams.spec import UpstreamSpec

if TYPE_CHECKING:
    from superbit.upstreams.registry import LoadedUpstream

Precision = Literal["float16", "float32"]
PRECISIONS: tuple[Precision, ...] = ("float16", "float32")
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


# --- whose features a folder holds ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """What the user wants stored.

    Attributes:
        folder: of all features.
        budget_bytes: what a plan may fill in ``folder``, with what is there already; ``None``: no
            limit. Two sweeps that plan at once do not see each other's.
        precision: of frames; means over time are always float32.
        any_upstream: also features of upstreams whose output depends on the batch.
    """

    folder: Path
    budget_bytes: int | None = None
    precision: Precision = "float16"
    any_upstream: bool = False

    def upstream_folder(self, upstream: LoadedUpstream) -> Path:
        """Where one upstream's features are."""
        identity = upstream_identity(upstream)
        digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
        slug = re.sub(r"[^A-Za-z0-9._=-]+", "-", str(upstream.spec)).strip("-.")[-40:]
        if upstream.entry.ours:  # two names of one model share its features
            slug = str(_config(upstream)["encoder"])
        return self.folder / f"{slug}-{digest[:16]}"

    def dtype(self, kind: str) -> Precision:
        """Number type of one kind of features."""
        return "float32" if kind == "pooled" else self.precision

    def store(self, upstream: LoadedUpstream, kind: str) -> FeatureStore:
        """Open the store of one kind of features of an upstream; it may be empty."""
        folder = self.upstream_folder(upstream) / f"{kind}-{self.dtype(kind)}"
        return FeatureStore(folder, dtype=self.dtype(kind))


def cache_settings(
    *,
    results: Path,
    folder: Path | None,
    none: bool,
    budget: str | None,
    precision: Precision,
    any_upstream: bool,
) -> CacheSettings | None:
    """Return what is wanted stored, ``None`` for nothing, from the options that say it.

    Raises:
        InputError: a budget that is no size, or options that have no effect together.
    """
    given = {"dir": folder, "budget": budget, "any-upstream": any_upstream or None}
    for name, value in given.items():
        if none and value is not None:
            raise InputError(
                f"--cache-{name} has no effect with --no-cache: leave one of them out."
            )
    if none:
        return None
    return CacheSettings(
        folder=folder or results / "work" / "features",
        budget_bytes=None if budget is None else parse_size(budget, option="--cache-budget"),
        precision=precision,
        any_upstream=any_upstream,
    )


def upstream_identity(upstream: LoadedUpstream) -> dict[str, Any]:
    """Everything of an upstream that can change a feature, as JSON."""
    if upstream.entry.ours:
        # Weights and config (padding included) say it all, under whatever name or path.
        what: dict[str, Any] = {"config": _config(upstream)}
    else:
        what = {"spec": str(upstream.spec), "origin": upstream.entry.origin}
        if upstream.entry.origin == "s3prl":
            what["s3prl"] = metadata.version("s3prl")
    # how many bits is not in the weights, and a policy's file may change under its name
    policy = getattr(getattr(upstream.expert, "model", None), "policy", None)
    if isinstance(policy, Policy):
        what["policy"] = policy.to_dict()
    said = upstream.further.fields()
    if upstream.entry.ours:
        said["upstream_config_sha256"] = None  # "config" and "policy" say it
    return {
        "weights_sha256": upstream.weights_sha256,
        "revision": upstream.entry.revision,
        **what,
        **{name: value for name, value in said.items() if value is not None},
    }


def parse_size(text: str, *, option: str) -> int:
    """Bytes of ``200GB``, ``500 MB``, ``1.5TB`` or a plain number.

    Raises:
        InputError: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise InputError(f"{option}: {text!r} is no size: write it like 200GB or 500MB.")
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " "))


def _config(upstream: LoadedUpstream) -> dict[str, Any]:
    model: Any = upstream.expert.model
    return dict(model.config.to_dict())


def note_upstream(folder: Path, upstream: LoadedUpstream) -> None:
    """Write what a folder's features are of, for people and for ``superbit cache ls``."""
    file = folder / "upstream.json"
    if not file.exists():
        described = {"upstream": str(upstream.spec), **upstream_identity(upstream)}
        files.write_text(file, json.dumps(described, indent=2) + "\n")


@contextlib.contextmanager
def locked(folder: Path, *, stop: Callable[[], bool], part: str = "") -> Iterator[bool]:
    """Keep an upstream's folder, or a part of its audio, to one extraction; others wait.

    Gives False where ``stop`` ended the waiting.
    """
    # Beside the folder: ``cache prune`` deletes it whole while it holds the lock.
    lock = folder.with_name(f".{folder.name}{part}.lock")
    with contextlib.ExitStack() as held:
        with said_of_cache(folder):
            ours = held.enter_context(files.locked(lock, stop=stop))
        yield ours


@contextlib.contextmanager
def locked_whole(folder: Path) -> Iterator[bool]:
    """Give whether nobody extracts any part of an upstream's audio, and keep it so."""
    locks = folder.parent.glob(f".{folder.name}.*lock*")
    parts = {lock.name.removesuffix(".lease").removesuffix(".lock") for lock in locks}
    parts = {part.removeprefix(f".{folder.name}") for part in parts} | {""}
    with contextlib.ExitStack() as held:
        yield all(
            held.enter_context(locked(folder, stop=lambda: True, part=part))
            for part in sorted(parts)
        )


def cached_folders(cache: Path) -> list[tuple[Path, str, int, float]]:
    """(folder, upstream, bytes, time of the last write) of every upstream with features."""
    found = []
    for note in sorted(cache.glob("*/upstream.json")):
        try:
            held = files.read_json(note, "a note of features")
            name = str(UpstreamSpec.parse(held["upstream"]))
            held["weights_sha256"]
        except (InputError, KeyError, TypeError, AttributeError):
            continue  # somebody else's file of that name
        newest = max((file.stat().st_mtime for file in note.parent.rglob("*")), default=0.0)
        found.append((note.parent, name, folder_bytes(note.parent), newest))
    return found


def delete_features(folder: Path) -> list[Path]:
    """Delete what extraction wrote into an upstream's folder; return what else is there, and stays.

    The folder itself goes with the last of it.
    """
    ours = (
        *(folder / name for name in ("upstream.json", "rate.json")),
        *(
            file
            for kind in folder.glob("*-float*")
            for pattern in (f"*{_DATA}", f"*{_INDEX}", f".*{PARTIAL}", f"*{PARTIAL}")
            for file in kind.glob(pattern)
        ),
        *folder.glob(f".*{PARTIAL}"),
    )
    for file in ours:
        file.unlink(missing_ok=True)
    for place in (*folder.glob("*-float*"), folder):
        with contextlib.suppress(OSError):
            place.rmdir()
    return sorted(file for file in folder.rglob("*") if not file.is_dir())


def size_text(size: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"
