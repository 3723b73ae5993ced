"""A task's value from the per-item counts that lie beside a record, to tell that both belong.

Written apart from what computed the values, and needs numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.records.store import ResultStore
from superbit.upstreams.counting import Counting, unseen
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import typed

Items = Sequence[Mapping[str, Any]]
# Between two ways of adding the same numbers up, in the table's unit.
_ROUNDING = 1e-6


def value_of(task: str, items: Items) -> float | None:
    """Return a task's value in the table's unit, by its items; None for a task of somebody's own.

    Raises:
        InputError: the items lack what the value is made of.
    """
    compute = _OF_TASK.get(task)
    if compute is None:
        return None
    try:
        return float(compute(items))
    except (KeyError, TypeError, ValueError, ZeroDivisionError, IndexError) as error:
        raise InputError(f"the items give no value ({type(error).__name__}: {error})") from error


def disagreements(store: ResultStore, *, counting: Counting = unseen) -> Iterator[str]:
    """Yield a sentence on each done record whose value is not that of its per-item counts.

    Raises:
        InputError: a record cannot be read.
    """
    records = [record for record in store.read_all(counting=counting) if record.status == "done"]
    with counting("recomputing values") as on_progress:
        for number, record in enumerate(records, start=1):
            problem = disagreement(record, store)
            if problem is not None:
                what = f"{record.identity.task} × {typed(record.identity.upstream)}"
                yield f"{what} ({store.path(record.identity).name}): {problem}"
            on_progress(number, len(records))


def disagreement(record: RunRecord, store: ResultStore) -> str | None:
    """Return what is wrong between a record and its per-item counts; None if nothing is."""
    if record.items is None or record.value is None:
        return None
    try:
        items = store.read_items(record)
        found = value_of(record.identity.task, items)
    except InputError as error:
        return str(error)
    if len(items) != record.items.count:
        return f"the record says {record.items.count:,} items, and there are {len(items):,}."
    if found is None or math.isclose(found, record.value, rel_tol=1e-6, abs_tol=_ROUNDING):
        return None
    return f"the record says {record.value:.6g}, its per-item counts give {found:.6g}."


def _accuracy(items: Items) -> float:
    return 100.0 * float(np.mean([bool(item["correct"]) for item in items]))


def _error_rate(items: Items) -> float:
    wrong = sum(item["substitutions"] + item["deletions"] + item["insertions"] for item in items)
    return 100.0 * wrong / sum(item["reference_length"] for item in items)


def _diarization(items: Items) -> float:
    parts = ("missed_seconds", "false_alarm_seconds", "confusion_seconds")
    wrong = sum(item[part] for item in items for part in parts)
    return 100.0 * wrong / sum(item["reference_seconds"] for item in items)


def _slots(items: Items) -> float:
    # a fraction: SUPERB's table has it so
    return float(np.mean([item["slot_type_f1"] for item in items]))


def _detection(items: Items) -> float:
    return 100.0 * max(0.0, float(np.mean([item["twv"] for item in items])))


def _equal_error(items: Items) -> float:
    """Where misses and false alarms cross as the threshold falls, straight between two scores."""
    scores = np.array([item["score"] for item in items], dtype=float)
    same = np.array([bool(item["same_speaker"]) for item in items])
    order = np.argsort(-scores, kind="stable")
    scores, same = scores[order], same[order]
    ends = np.flatnonzero(np.diff(scores, append=-np.inf))  # the last of equal scores
    false_alarms = np.concatenate([[0.0], np.cumsum(~same)[ends] / (~same).sum()])
    misses = np.concatenate([[1.0], 1.0 - np.cumsum(same)[ends] / same.sum()])
    after = int(np.argmax(false_alarms >= misses))
    if after == 0:
        return 100.0 * float(false_alarms[0])
    before = after - 1
    gap_before = misses[before] - false_alarms[before]
    gap_after = false_alarms[after] - misses[after]
    share = gap_before / (gap_before + gap_after)
    return 100.0 * float(
        false_alarms[before] + share * (false_alarms[after] - false_alarms[before])
    )


_OF_TASK: dict[str, Callable[[Items], float]] = {
    **dict.fromkeys(("KS", "SID", "IC", "ER"), _accuracy),
    **dict.fromkeys(("PR", "ASR"), _error_rate),
    "SF": _slots,
    "SD": _diarization,
    "QbE": _detection,
    "ASV": _equal_error,
}
