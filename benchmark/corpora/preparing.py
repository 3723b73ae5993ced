"""Files that runs derive from a corpus, written before any run to where runs look for them.

A run derives what its task's binding writes below the work folder. It is asked for here in the way
in which a run asks, so that a run finds its own files and reuses them. The corpus itself is never
written to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from superbit.benchmark.corpora.paths import CorpusPaths
from superbit.benchmark.tasks.binding import OnProgress, RunPlaces
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import resolve
from superbit.benchmark.tasks.task import Task


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
        on_progress: called with (utterances measured, utterances in all) by a task that has to
            measure every utterance (``DerivedFiles.measure``): the one file that takes long.

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
    task: Task, paths: CorpusPaths, work: Path, on_progress: OnProgress
) -> Iterator[Derived]:
    """What a run of ``task`` derives, kind by kind."""
    kinds = task.binding.derived
    before = _states(*(work / kind.folder for kind in kinds))
    # The embedded scale names the same splits.
    section = resolve(task.name, scale="superb")["downstream_expert"]
    places = RunPlaces(paths=paths, work_dir=work, fold=1 if task.folds else None)
    task.binding.bind(section, places)
    bound = list(_paths_in(section))
    for kind in kinds:
        of_kind = [path for path in bound if path.is_relative_to(work / kind.folder)]
        if kind.measure is not None:
            items = kind.measure(section, on_progress)
        else:
            items = sum(map(kind.count, of_kind))
        path = Path(os.path.commonpath(of_kind))
        after = _states(path)
        is_new = any(before.get(file) != state for file, state in after.items())
        yield Derived(what=kind.what, unit=kind.unit, items=items, path=path, is_new=is_new)


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
