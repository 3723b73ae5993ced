"""One hash over everything a corpus's tasks read, so that a result names the data it came from.

The hash covers (name inside the corpus, SHA-256 of the contents) of every file, in sorted order:
it does not depend on where the corpus lies or on dates. While a file is hashed, its audio is
decoded, so that bad audio is found before any run. Hashes of single files are remembered in a work
folder; a file is read again when its size or its dates change.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from superbit.benchmark.corpora import catalog
from superbit.benchmark.corpora.audio import decode_audio
from superbit.benchmark.corpora.embedded import recipe
from superbit.benchmark.corpora.layout import CorpusFile
from superbit.benchmark.corpora.paths import CorpusPaths
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_json, write_bytes

# Raised when the hash is computed in another way: remembered hashes are then not used.
_CACHE_VERSION = 1
_THREADS = 4  # decoding and hashing release the interpreter lock


@dataclass(frozen=True, kw_only=True)
class CorpusManifest:
    """What a run's data was.

    Attributes:
        corpus: name of the corpus.
        sha256: the hash over every file.
        kind: ``"synthesized"`` for embedded corpora, else ``"external"``.
        files: number of files, audio and text.
        bytes: their size.
        seconds: length of the audio.
        splits: audio files by split.
        recipe: how a synthesized corpus was made, e.g. ``"embedded v1, tiny, seed 0"``.
        label: what the paths file calls it; no part of the hash.
    """

    corpus: str
    sha256: str
    kind: str
    files: int
    bytes: int
    seconds: float
    splits: dict[str, int]
    recipe: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class _KnownHash:
    """What is remembered of a file; ``state`` tells whether it is still the same file."""

    state: tuple[int, int, int]
    sha256: str
    samples: int


def build_manifest(
    corpus_name: str,
    paths: CorpusPaths,
    *,
    work_dir: str | os.PathLike[str],
    on_progress: Callable[[int, int], None] | None = None,
) -> CorpusManifest:
    """Hash and verify every file of a corpus.

    Args:
        corpus_name: a section of the paths file, e.g. ``"librispeech"``.
        work_dir: a folder of ours for remembered hashes; several processes may share it.
        on_progress: called with (files done, files in all).

    Raises:
        InputError: the corpus is unknown, absent from the paths file or incomplete, or an audio
            file is missing, empty, truncated, not 16 kHz, not mono or holds NaN.
    """
    section = paths.section(corpus_name)
    files = catalog.find(corpus_name).files(section)
    audio = {file.key: file for split in files.audio.values() for file in split}
    every = sorted([*audio.values(), *files.text], key=lambda file: file.key)
    memory = _Memory(Path(work_dir), corpus_name, section.model_dump_json())
    digest = hashlib.sha256()
    size = samples = done = 0
    problems: list[str] = []
    try:
        for file, known in memory.examine(
            every, is_audio=lambda file: file.key in audio, rate=files.sample_rate
        ):
            done += 1
            if on_progress is not None:
                on_progress(done, len(every))
            if isinstance(known, InputError):
                problems.append(str(known))
                continue
            digest.update(f"{file.key}\0{known.sha256}\n".encode())
            size += known.state[0]
            samples += known.samples
    finally:
        # Also after Ctrl-C: what was hashed need not be hashed again.
        memory.save()
    if problems:
        more = f" ({len(problems) - 1:,} more such files.)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)
    made_by = recipe.of_corpus(section.root)
    return CorpusManifest(
        corpus=corpus_name,
        sha256=digest.hexdigest(),
        kind="synthesized" if made_by else "external",
        files=len(every),
        bytes=size,
        seconds=samples / files.sample_rate,
        splits={split: len(of_split) for split, of_split in files.audio.items()},
        recipe=str(made_by) if made_by else None,
        label=paths.label(corpus_name),
    )


@dataclass(frozen=True, slots=True)
class Remembered:
    """A file as a manifest found it: state, hash, samples (0 for text), and in which memory."""

    state: tuple[int, int, int]
    sha256: str
    samples: int
    memory: str


def remembered(work_dir: Path) -> dict[str, Remembered]:
    """Every file that :func:`build_manifest` has hashed into ``work_dir``, by absolute path."""
    found: dict[str, Remembered] = {}
    for memory in sorted((work_dir / "manifests").glob("*.json")):
        for path, known in _read_memory(memory).items():
            found[os.path.abspath(path)] = Remembered(
                known.state, known.sha256, known.samples, memory.name
            )
    return found


class _Memory:
    """Hashes of single files, remembered in one JSON file for each set of paths."""

    def __init__(self, work_dir: Path, corpus_name: str, section: str) -> None:
        name = hashlib.sha256(section.encode()).hexdigest()[:16]
        self._file = work_dir / "manifests" / f"{corpus_name}-{name}.json"
        self._known = _read_memory(self._file)
        self._changed = False

    def examine(
        self, files: list[CorpusFile], *, is_audio: Callable[[CorpusFile], bool], rate: int
    ) -> Iterator[tuple[CorpusFile, _KnownHash | InputError]]:
        """Each file, in the given order, with what is known of it or what is wrong with it."""
        states = [file_state(file.path) for file in files]
        is_new = [
            state is not None and not self._is_known(file, state)
            for file, state in zip(files, states, strict=True)
        ]
        pool = ThreadPoolExecutor(_THREADS)
        try:
            read = pool.map(
                lambda item: _read(item[0], item[1], rate if is_audio(item[0]) else None),
                [(f, s) for f, s, new in zip(files, states, is_new, strict=True) if new and s],
            )
            for file, state, new in zip(files, states, is_new, strict=True):
                if state is None:
                    yield file, InputError(f"{file.path} is not there or cannot be read.")
                elif not new:
                    yield file, self._known[str(file.path)]
                else:
                    result = next(read)
                    if isinstance(result, _KnownHash):
                        self._known[str(file.path)] = result
                        self._changed = True
                    yield file, result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def save(self) -> None:
        """Write what is known; of two processes that write at once, one wins, both are right."""
        if not self._changed:
            return
        content = {
            p: [*known.state, known.sha256, known.samples] for p, known in self._known.items()
        }
        held = {"version": _CACHE_VERSION, "sha256": _digest(content), "files": content}
        write_bytes(self._file, json.dumps(held).encode(), on_disk=True)

    def _is_known(self, file: CorpusFile, state: tuple[int, int, int]) -> bool:
        known = self._known.get(str(file.path))
        return known is not None and known.state == state


def _read_memory(file: Path) -> dict[str, _KnownHash]:
    try:
        content = read_json(file, "what is known of files")
        if content["version"] != _CACHE_VERSION or content["sha256"] != _digest(content["files"]):
            return {}
        return {
            path: _KnownHash((size, mtime, ctime), sha256, samples)
            for path, (size, mtime, ctime, sha256, samples) in content["files"].items()
        }
    except (InputError, ValueError, KeyError, TypeError, AttributeError):
        # No memory, or a damaged one: every file is read again.
        return {}


def _digest(files: dict[str, list[Any]]) -> str:
    """Tells a memory that was changed, which would give a corpus another hash or hide a change."""
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def file_state(path: Path) -> tuple[int, int, int] | None:
    """(bytes, time of the last change of contents, of status; both in ns)."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    # The second time also moves when a tool sets the first one back.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(
    file: CorpusFile, state: tuple[int, int, int], rate: int | None
) -> _KnownHash | InputError:
    # rate: of audio; None for text
    try:
        content = file.path.read_bytes()
        samples = len(decode_audio(content, file.path, rate)) if rate else 0
    except OSError as error:
        return InputError(f"{file.path} cannot be read: {error.strerror}.")
    except InputError as error:
        return error
    return _KnownHash(state, hashlib.sha256(content).hexdigest(), samples)
