"""Runs' test items as arrays: read once, laid side by side in one order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.resampling import Item, Resampling
from superbit.upstreams.errors import InputError

ReadItems = Callable[[RunRecord], Sequence[Item]]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunItems:
    """The test items of one run.

    Attributes:
        names: of each item, no two alike.
        speakers: of each item, as `Resampling.speakers` tells.
        tops: (measures, items), see `Measure`.
        bottoms: likewise.
        folds: (items,), the fold that each was tested in; all 0 where there are none.
    """

    names: tuple[str, ...]
    speakers: tuple[tuple[str, ...], ...]
    tops: np.ndarray
    bottoms: np.ndarray
    folds: np.ndarray

    def only(self, names: Sequence[str]) -> RunItems:
        """Return these items alone, in this order."""
        if tuple(names) == self.names:
            return self
        place = {name: index for index, name in enumerate(self.names)}
        kept = np.array([place[name] for name in names], dtype=np.int64)
        return RunItems(
            names=tuple(names),
            speakers=tuple(self.speakers[index] for index in kept),
            tops=self.tops[:, kept],
            bottoms=self.bottoms[:, kept],
            folds=self.folds[kept],
        )


class ItemsOfRuns:
    """Test items by run, each read once; a mean of folds has those of all its folds.

    Args:
        records: all there are, single folds among them.
        read: a record's per-item counts.
    """

    def __init__(self, records: Iterable[RunRecord], read: ReadItems) -> None:
        self._records = {record.key: record for record in records}
        self._read = read
        self._known: dict[str, RunItems] = {}

    def of(self, run: RunRecord) -> RunItems:
        """Return a run's items.

        Raises:
            InputError: its task does not say how they are resampled, or they are not there.
        """
        if run.key not in self._known:
            self._known[run.key] = self._arrays(run)
        return self._known[run.key]

    def resampling(self, run: RunRecord) -> Resampling:
        """Return how a run's items are resampled.

        Raises:
            InputError: its task does not say.
        """
        task = TASKS[run.identity.task]
        if task.resampling is None:
            raise InputError(f"{task.name} does not say how its items are resampled.")
        return task.resampling

    def _arrays(self, run: RunRecord) -> RunItems:
        task, resampling = TASKS[run.identity.task], self.resampling(run)
        folds: dict[int, Sequence[Item]] = {}
        for record in self._folds_of(run):
            folds[record.identity.fold or 0] = self._read(record)
        items = [item for of_fold in folds.values() for item in of_fold]
        if not items or not all(folds.values()):
            raise InputError(f"run {run.key[:12]} of {task.name} has no per-item counts.")
        seen: Counter[str] = Counter()
        names = []
        for item in items:
            name = resampling.identify(item)
            # the same trial twice is two items
            names.append(f"{name} #{seen[name]}" if seen[name] else name)
            seen[name] += 1
        measures = resampling.measures
        return RunItems(
            names=tuple(names),
            speakers=tuple(resampling.speakers(item) for item in items),
            tops=np.array([[m.top(item) for item in items] for m in measures], dtype=np.float64),
            bottoms=np.array(
                [[m.bottom(item) for item in items] for m in measures], dtype=np.float64
            ),
            folds=np.repeat(list(folds), [len(of_fold) for of_fold in folds.values()]),
        )

    def _folds_of(self, run: RunRecord) -> list[RunRecord]:
        count = TASKS[run.identity.task].folds
        if not count or run.identity.fold is not None:
            return [run]
        found = []
        for fold in range(1, count + 1):
            key = run.identity.model_copy(update={"fold": fold}).key
            if key not in self._records:
                raise InputError(f"fold {fold} of {run.identity.task} is not among the records.")
            found.append(self._records[key])
        return found


def in_common(runs: Sequence[RunItems]) -> list[RunItems]:
    """Return the runs' items, those alone that all of them have, in one order."""
    shared = set(runs[0].names).intersection(*(each.names for each in runs[1:]))
    names = [name for name in runs[0].names if name in shared]
    return [each.only(names) for each in runs]
