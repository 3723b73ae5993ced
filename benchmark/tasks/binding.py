"""How a task's s3prl expert is fed and read, and where the data of its run lie; needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.upstreams.files import read_text

if TYPE_CHECKING:
    from superbit.benchmark.corpora.paths import CorpusPaths

Section = dict[str, Any]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class RunPlaces:
    """Where a run's data lie.

    Attributes:
        paths: the corpora.
        work_dir: a folder of ours for what is derived from a corpus; never the corpus itself.
        fold: number of the fold, for a task that has folds.
    """

    paths: CorpusPaths
    work_dir: Path
    fold: int | None = None


@dataclass(frozen=True, kw_only=True)
class DerivedFiles:
    """Files of one kind that a run derives from its corpus.

    Attributes:
        folder: below the work folder, that holds them.
        what: the kind, e.g. ``"length buckets"``.
        unit: what is counted, e.g. ``"utterances"``.
        count: how many of them the files at a path that was bound name.
        measure: in place of ``count`` where the expert itself writes the files: lets it do so, from
            the bound ``downstream_expert`` section; told (measured, in all) meanwhile.
    """

    folder: str
    what: str
    unit: str
    count: Callable[[Path], int] = lambda path: len(read_text(path).splitlines())
    measure: Callable[[Section, OnProgress], int] | None = None


@dataclass(frozen=True, kw_only=True)
class Binding:
    """How one task's expert is fed and read; data, head, loss and metric are the expert's.

    Attributes:
        dev: the split that selects the checkpoint, by the expert's name for it.
        test: the split that is reported.
        test_files: the corpus manifest's name of that split, or ``None`` where the number of
            items is not a number of files.
        metric: the expert's own name of the metric that is shown and compared; on dev it is the
            one that selects.
        metric_scale: factor from the expert's metric to the table's unit (100 for a fraction).
        batch: keys in the ``downstream_expert`` section that lead to the training batch size.
        batch_divisor: by which the expert divides that size before it draws a batch.
        bind: fills every path that the expert reads into a copy of that section.
        reinitialize_head: draw the head's weights anew from the run's seed, where the expert
            seeds with a constant of its own before it makes its head.
        derived: what ``bind`` writes below the work folder, kind by kind.
    """

    dev: str = "dev"
    test: str = "test"
    test_files: str | None = "test"
    metric: str
    metric_scale: float = 1.0
    batch: tuple[str, ...]
    batch_divisor: int = 1
    bind: Callable[[Section, RunPlaces], None]
    reinitialize_head: bool = False
    derived: tuple[DerivedFiles, ...] = ()

    def batch_size(self, section: Section) -> int:
        """Training batch that a ``downstream_expert`` section asks for, in utterances."""
        size: Any = section
        for key in self.batch:
            size = size[key]
        return int(size)
