"""What all figures share: a colour an encoder, filled in full precision, hollow its twin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from superbit.benchmark.report.charts import (
    Key,
    Shape,
)
from superbit.benchmark.report.study import (
    Study,
    deviation_of,
    family,
    is_twin,
    value_of,
)
from superbit.benchmark.tables.table2_rendering import Row
from superbit.benchmark.tasks.task import Task

UNITS = {"%": "%", "fraction": "", "x100": "× 100"}


def keys(study: Study, rows: Sequence[Row] | None = None) -> tuple[Key, ...]:
    """Return the legend of encoders, and of what filled and hollow mean."""
    rows = study.measured if rows is None else rows
    there = dict.fromkeys(family(row) for row in rows)
    found = [
        Key(text=study.names.of(name), colour=place)
        for place, name in enumerate(study.families)
        if name in there
    ]
    if any(map(is_twin, rows)):
        found.append(Key(text="its twin", colour="muted", shape="hollow"))
    if any(row.untrained for row in rows):
        found.append(Key(text="random weights", colour="muted", shape="square"))
    return tuple(found)


def metric(task: Task) -> str:
    """Return ``"accuracy, %"``, ``"WER, %"``."""
    return ", ".join(filter(None, [task.metric_words, UNITS[task.unit]]))


def shape(row: Row) -> Shape:
    return "hollow" if is_twin(row) else "square" if row.untrained else "filled"


def said(row: Row, task: Task) -> str:
    """A cell in words, for those who point at it or have it read out."""
    cell = row.cells[task.column]
    spread = deviation_of(cell)
    text = f"{row.model}, {task.name}: {value_of(cell):.{task.decimals}f}"
    return f"{text} ±{spread:.{task.decimals}f}" if spread is not None else text


def line_keys(study: Study) -> tuple[Key, ...]:
    there = [
        Key(text=study.names.of(f), colour=i, shape="line") for i, f in enumerate(study.families)
    ]
    if any(map(is_twin, study.measured)):
        there.append(Key(text="its twin", colour="muted", shape="dashed"))
    if any(row.untrained for row in study.measured):
        there.append(Key(text="random weights", colour="muted", shape="line"))
    return tuple(there)


def with_folds(study: Study, records: Iterable) -> list:
    """Return the runs, each mean of folds as the runs it is the mean of."""
    by_key = {record.key: record for record in study.runs.records}
    found = []
    for record in records:
        if record.key in by_key:
            found.append(record)
            continue
        identities = [record.identity.model_copy(update={"fold": f}) for f in range(1, 6)]
        found += [by_key[each.key] for each in identities if each.key in by_key]
    return found
