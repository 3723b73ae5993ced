"""Records as a pandas DataFrame: one row a run, the columns that people group and filter by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from superbit.benchmark.records.choose import corpus_words
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.tasks.catalog import TASKS

if TYPE_CHECKING:
    import pandas as pd

# Columns with the type that each has whatever the records, so that frames of any are alike.
# Float64, Int64 and boolean hold missing values as such, strings hold them as NA.
COLUMNS = {
    "upstream": "string",
    "task": "string",
    "value": "Float64",
    "low": "Float64",
    "high": "Float64",
    "chance": "Float64",
    "seed": "Int64",
    "learning_rate": "Float64",
    "n": "Int64",
    "key": "string",
    "metric": "string",
    "unit": "string",
    "scale": "string",
    "corpus": "string",
    "fold": "Int64",
    "status": "string",
    "untrained": "boolean",
    "limited": "boolean",
    "reason": "string",
}


def to_frame(records: Iterable[RunRecord]) -> pd.DataFrame:
    """Return a DataFrame of one row a run, in the records' order.

    ``value``, ``low``, ``high`` (its interval) and ``chance`` are in ``unit``, not rounded; ``n``
    is the number of test items that were scored. What a record does not say is missing.

    Args:
        records: done and failed ones, e.g. of `ResultStore.read_all`; `with_chance` fills in the
            chance level of older ones.
    """
    import pandas as pd

    rows = [_row(record) for record in records]
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object).astype(COLUMNS)


def _row(record: RunRecord) -> dict[str, Any]:
    identity, task = record.identity, TASKS[record.identity.task]
    return {
        "upstream": identity.upstream,
        "task": identity.task,
        "value": record.value,
        "low": record.interval and record.interval.low,
        "high": record.interval and record.interval.high,
        "chance": record.chance and record.chance.value,
        "seed": identity.seed,
        "learning_rate": identity.learning_rate,
        "n": record.items and record.items.count,
        "key": record.key,
        "metric": task.metric,
        "unit": task.unit,
        "scale": record.scale,
        "corpus": record.corpus and corpus_words(record.corpus),
        "fold": identity.fold,
        "status": record.status,
        "untrained": record.untrained,
        "limited": record.limited,
        "reason": record.reason,
    }
