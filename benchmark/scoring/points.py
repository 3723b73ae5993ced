"""Intervals of no width in records from before there were others in their place.

Such an interval is what a bootstrap gave where all items agree. What stands in its place follows
from the record alone. This module imports neither torch nor s3prl.
"""

from __future__ import annotations

from collections.abc import Iterable

from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.scoring.closed_forms import agreeing_interval
from superbit.benchmark.tasks.catalog import TASKS


def with_intervals(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the records, an interval of no width replaced by one of its items' number."""
    return [_mended(record) for record in records]


def _mended(record: RunRecord) -> RunRecord:
    interval, items = record.interval, record.items
    if interval is None or items is None or record.value is None or interval.low < interval.high:
        return record
    highest = 1.0 if TASKS[record.identity.task].unit == "fraction" else 100.0
    right = agreeing_interval(record.value, items.count, highest=highest, level=interval.level)
    return record.model_copy(update={"interval": right})
