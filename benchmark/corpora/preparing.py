"""Files that runs derive from a corpus, written before any run to where runs look for them.

A run derives what its task's binding writes below the work folder, and ASV's training list. Both
are asked for here in the way in which a run asks, so that a run finds its own files and reuses
them. The corpus itself is never written to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from superbit.benchmark.corpora.paths import CorpusPaths
from superbit.benchmark.tasks.bindings import BINDINGS, Places
from superbit.benchmark.tasks.catalog import TASKS, TaskSpec
from superbit.benchmark.tasks.configs import resolve
from superbit.upstreams.errors import InputError
from superbit.upstreams.extras import pip_line
from superbit.upstreams.files import read_json, read_text

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Derived:
    """Derived files of one kind.

    Attributes:
        what: the kind, e.g. ``"length buckets"``.
        unit: what is counted, e.g. ``"utterances"``.
        items: how many of them the files name.
        path: the file, or the folder that holds the files, absolute.
        is_new: whether anything was written; false where all of it was there.
    """

    what: str
    unit: str
    items: int
    path: Path
    is_new: bool


def derive_files(
    corpus: str,
    paths: CorpusPaths,
    *,
    work_dir: str | os.PathLike[str],
    on_progress: OnProgress = lambda done, total: None,
) -> tuple[Derived, ...]:
    """Write every file that runs of the corpus's tasks derive from it, where it is not there yet.

    Args:
        corpus: a section of the paths file whose check found nothing wrong.
        work_dir: the folder in which runs look: ``work`` below the folder of results.
        on_progress: called with (utterances measured, utterances in all) for ASV, whose silence
            is cut from every utterance: the one file that takes long.

    Returns:
        One entry a kind; none for a corpus whose tasks read it as it is.

    Raises:
        InputError: the corpus is absent from the paths file, or is not whole.
    """
    paths.section(corpus)
    work = Path(work_dir).absolute()
    return tuple(
        derived
        for task in TASKS.values()
        if task.corpus == corpus
        for derived in _of_task(task, paths, work, on_progress)
    )


def _of_task(
    task: TaskSpec, paths: CorpusPaths, work: Path, on_progress: OnProgress
) -> Iterator[Derived]:
    """What a run of ``task`` derives, kind by kind."""
    before = _states(*(work / kind for kind in _KINDS))
    # The embedded scale names the same splits.
    section = resolve(task.name, scale="superb")["downstream_expert"]
    places = Places(paths=paths, work_dir=work, fold=1 if task.folds else None)
    BINDINGS[task.name].bind(section, places)
    bound: dict[str, list[Path]] = {}
    for path in _paths_in(section):
        for kind in _KINDS:
            if path.is_relative_to(work / kind):
                bound.setdefault(kind, []).append(path)
    for kind, of_kind in bound.items():
        if kind == _LENGTHS:
            items = _measure_speech(section["datarc"], on_progress)
        else:
            items = sum(_count(kind, path) for path in of_kind)
        what, unit = _KINDS[kind]
        path = Path(os.path.commonpath(of_kind))
        after = _states(path)
        is_new = any(before.get(file) != state for file, state in after.items())
        yield Derived(what=what, unit=unit, items=items, path=path, is_new=is_new)


def _paths_in(section: Any) -> Iterator[Path]:
    """Every absolute path among the values of a config's section."""
    if isinstance(section, dict):
        for value in section.values():
            yield from _paths_in(value)
    elif isinstance(section, str) and os.path.isabs(section):
        yield Path(section)


def _states(*places: Path) -> dict[Path, tuple[int, int]]:
    """(inode, time of the last change in ns) of every file at or below ``places``."""
    return {
        path: (status.st_ino, status.st_mtime_ns)
        for place in places
        for path in (place, *place.rglob("*"))
        # A partial file is another process's, and may vanish.
        if path.suffix != ".partial" and path.is_file() and (status := path.stat())
    }


def _measure_speech(datarc: dict[str, Any], on_progress: OnProgress) -> int:
    """Let ASV list what it trains on, which writes the lengths; returns how many utterances."""
    try:
        from s3prl.downstream.sv_voxceleb1 import dataset
    except ModuleNotFoundError as error:
        raise InputError(
            f"{(error.name or 's3prl').partition('.')[0]} is not installed, which ASV needs to cut "
            f"silence from VoxCeleb1: {pip_line('run')}."
        ) from None

    with _counted(dataset, on_progress):
        # As s3prl's ASV expert does.
        listed = dataset.SpeakerVerifi_train(
            vad_config=datarc["vad_config"],
            key_list=["Voxceleb1"],
            file_path=[Path(datarc["file_path"]) / "dev" / "wav"],
            meta_data=datarc["train_meta_data"],
            max_timestep=datarc["max_timestep"],
        )
    return len(listed.dataset)


@contextmanager
def _counted(dataset: ModuleType, on_progress: OnProgress) -> Iterator[None]:
    """Report to ``on_progress`` what s3prl's module would draw a bar of."""
    drawn = dataset.tqdm

    class Counted:
        @staticmethod
        def tqdm(items: Any, *, total: int, **_shown: Any) -> Iterator[Any]:
            for done, item in enumerate(items, start=1):
                on_progress(done, total)
                yield item

    vars(dataset)["tqdm"] = Counted
    try:
        yield
    finally:
        vars(dataset)["tqdm"] = drawn


def _count(kind: str, path: Path) -> int:
    """How many items the derived files at ``path`` name."""
    if kind == "length_buckets":
        return sum(len(_lines(table)) - 1 for table in path.glob("*.csv"))
    if kind == "folds":
        # Each utterance is tested in one fold.
        lists = path.glob("*/test_meta_data.json")
        return sum(len(read_json(file, "a split that s3prl wrote")["meta_data"]) for file in lists)
    return len(_lines(path / "wav.scp" if kind == "libri2mix" else path))


def _lines(file: Path) -> list[str]:
    return read_text(file).splitlines()


_LENGTHS = "trimmed_lengths"
# By the folder below the work folder: what it holds, and what is counted.
_KINDS = {
    "length_buckets": ("length buckets", "utterances"),
    _LENGTHS: ("lengths without silence", "utterances"),
    "dev_trials": ("verification trials over dev/wav", "pairs"),
    "folds": ("folds", "utterances"),
    "libri2mix": ("Kaldi folders with absolute paths", "recordings"),
}
