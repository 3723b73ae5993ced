"""Records as a pandas DataFrame: one row a run, the columns that people group and filter by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.spec import typed

if TYPE_CHECKING:
    import pandas as pd

# Columns with the type that each has whatever the records, so that frames of any are alike. What
# a record does not say is NaN, <NA> or, among texts, None.
COLUMNS = {
    **dict.fromkeys(("upstream", "task"), "object"),
    **dict.fromkeys(("value", "low", "high", "chance"), "float64"),
    "seed": "int64",
    "learning_rate": "float64",
    "n": "Int64",
    **dict.fromkeys(("key", "metric", "unit", "scale", "corpus"), "object"),
    "fold": "Int64",
    "status": "object",
    **dict.fromkeys(("untrained", "limited"), "bool"),
    **dict.fromkeys(("reason", "started"), "object"),
}


def to_frame(records: Iterable[RunRecord]) -> pd.DataFrame:
    """Return a DataFrame of one row a run, in the records' order.

    ``upstream`` is as people type it. ``value``, ``low``, ``high`` (its interval) and ``chance``
    are in ``unit``, not rounded; ``n`` is the number of test items that were scored.

    Args:
        records: done and failed ones, e.g. of `ResultStore.read_all`; `with_chance` fills in the
            chance level of older ones.
    """
    import pandas as pd

    rows = [_row(record) for record in records]
    columns = {
        name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in COLUMNS.items()
    }
    return pd.DataFrame(columns)


def _row(record: RunRecord) -> dict[str, Any]:
    identity, task = record.identity, TASKS[record.identity.task]
    interval, items, corpus = record.interval, record.items, record.corpus
    return {
        "upstream": typed(identity.upstream),
        "task": identity.task,
        "value": record.value,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "chance": record.chance.value if record.chance else None,
        "seed": identity.seed,
        "learning_rate": identity.learning_rate,
        "n": items.count if items else None,
        "key": record.key,
        "metric": task.metric,
        "unit": task.unit,
        "scale": record.scale,
        "corpus": (corpus.label or corpus.version or corpus.name) if corpus else None,
        "fold": identity.fold,
        "status": record.status,
        "untrained": record.untrained,
        "limited": record.limited,
        "reason": record.reason,
        "started": record.provenance.started,
    }
