"""What superbit must know of an s3prl expert to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from superbit.benchmark.corpora.paths import CorpusPaths
from superbit.benchmark.records.schema import Interval

Items = list[dict[str, Any]]
Records = Mapping[str, Any]
Section = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Places:
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
        bind: fills every path that the expert reads into a copy of that section.
        items: the expert's records of an evaluation → one dict an item. It, ``score`` and
            ``interval`` are ``None`` where the task's procedure scores (SD, ASV, QbE).
        score: items → the task's value in the table's unit.
        interval: items → the value's confidence interval.
        reinitialize_head: draw the head's weights anew from the run's seed, where the expert
            seeds with a constant of its own before it makes its head.
    """

    dev: str = "dev"
    test: str = "test"
    test_files: str | None = "test"
    metric: str
    metric_scale: float = 1.0
    batch: tuple[str, ...]
    bind: Callable[[Section, Places], None]
    items: Callable[[Records], Items] | None = None
    score: Callable[[Items], float] | None = None
    interval: Callable[[Items], Interval | None] | None = None
    reinitialize_head: bool = False


def asset(name: str) -> str:
    """Return the path of a packaged vocabulary."""
    return str(resources.files("superbit.downstream_configs") / "assets" / name)
