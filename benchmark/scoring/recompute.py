"""A task's value from the per-item counts that lie beside a record, to tell that both belong.

By what the task says its items sum to (`superbit.benchmark.tasks.resampling`), which is written
apart from what computed the values. Needs numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from superbit.benchmark.pairing.resamples import equal_error_rates, units_of
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.tasks.catalog import TASKS
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
    known = TASKS.get(task)
    if known is None or known.resampling is None:
        return None
    measure = known.resampling.measures[0]
    try:
        top = np.array([measure.top(item) for item in items], dtype=float)
        bottom = np.array([measure.bottom(item) for item in items], dtype=float)
        if measure.kind == "eer":
            once = units_of([()] * len(top))
            value = equal_error_rates(top[None], bottom, once, np.ones((1, len(top))))[0, 0]
        else:
            value = measure.scale * float(top.sum()) / float(bottom.sum())
        return max(measure.lowest, float(value))
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
