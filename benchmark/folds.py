"""ER's number: the mean of five folds, from five records. Needs neither numpy nor torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from superbit.benchmark.chance import mean_chance
from superbit.benchmark.records import Interval, Items, RunRecord
from superbit.benchmark.tasks import TASKS
from superbit.upstreams.spec import typed

# Two-sided 95 % quantile of Student's t with 4 degrees of freedom.
T_QUANTILE_5_FOLDS = 2.7764451


def mean_of_folds(values: Sequence[float]) -> tuple[float, Interval]:
    """Return the mean of five folds and a 95 % t interval over them, in the values' unit.

    Raises:
        ValueError: not five values.
    """
    if len(values) != 5:
        raise ValueError(f"the mean wants 5 folds, not {len(values)}")
    mean = fmean(values)
    half = T_QUANTILE_5_FOLDS * stdev(values) / 5**0.5
    return mean, Interval(low=mean - half, high=mean + half, level=0.95, method="t over 5 folds")


def merge_folds(records: Iterable[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """Put one record with the mean in the place of the folds of one run.

    Returns:
        The records, those of incomplete sets of folds left out, and a sentence for each such set.
    """
    whole: list[RunRecord] = []
    sets: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.identity.fold is None:
            whole.append(record)
        else:
            unfolded = record.identity.model_copy(update={"fold": None})
            sets.setdefault(unfolded.key, []).append(record)
    notes = []
    for folds in sets.values():
        task = TASKS[folds[0].identity.task]
        if len(folds) == task.folds:
            whole.append(_mean_record(folds))
        else:
            notes.append(
                f"Left out: {task.name} of {typed(folds[0].identity.upstream)}, of which "
                f"{len(folds)} of {task.folds} folds are done."
            )
    return whole, notes


def _mean_record(folds: Sequence[RunRecord]) -> RunRecord:
    first = folds[0]
    value, interval = mean_of_folds([fold.value or 0.0 for fold in folds])
    identity = first.identity.model_copy(update={"fold": None})
    counts = [fold.items.count for fold in folds if fold.items]
    items = first.items and Items(
        file=first.items.file, sha256=first.items.sha256, count=sum(counts), expected=None
    )
    selection = first.selection and first.selection.model_copy(
        update={"rule": f"mean of {len(folds)} folds, each best on dev", "step": None}
    )
    return first.model_copy(
        update={
            "key": identity.key,
            "identity": identity,
            "value": value,
            "interval": interval,
            "chance": mean_chance(folds),
            "items": items,
            "selection": selection,
        }
    )
