"""Rows of Table 2 beside others: each twin beside its FP32 parent, and what chance gives.

A twin's parent is the upstream of the same name without a policy, on the same corpora.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from superbit.benchmark.pairing.items import ItemsOfRuns
from superbit.benchmark.pairing.pair import Paired, adjusted, pair
from superbit.benchmark.records.choose import setting_of
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.tables.table2_rendering import Cell, Row
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import UpstreamSpec

CHANCE = "chance"


def parent_of(upstream: str) -> str | None:
    """Return the canonical spec of a twin's FP32 parent; None for what is no twin."""
    spec = UpstreamSpec.parse(upstream)
    return str(replace(spec, policy=None)) if spec.policy else None


def beside_parents(rows: Sequence[Row], items: ItemsOfRuns) -> list[Row]:
    """Return the rows, each twin's cells with what they differ by from its parent's.

    Each p is corrected over all measures of the twin's tasks (Holm). Where the parent has no such
    cell, or its runs were not made alike, or items are not there, the cell stays as it is.
    """
    there = {(row.group, row.upstream): row for row in rows if row.upstream}
    found = []
    for row in rows:
        parent = parent_of(row.upstream) if row.upstream else None
        beside = there.get((row.group, parent)) if parent else None
        found.append(_beside(row, beside, items) if beside else row)
    return found


def _beside(row: Row, parent: Row, items: ItemsOfRuns) -> Row:
    told: dict[str, tuple[Paired, ...]] = {}
    for column, cell in row.cells.items():
        other = parent.cells.get(column)
        if other is not None and _alike(runs_of(cell), runs_of(other)):
            try:
                told[column] = pair(runs_of(cell), runs_of(other), items)
            except InputError:
                continue
    # all measures count, as `superbit compare` counts them, but a cell has the first
    named = [(column, measure) for column, each in told.items() for measure in each]
    corrected = adjusted([measure for _, measure in named])
    first: dict[str, Paired] = {}
    for (column, _), measure in zip(named, corrected, strict=True):
        first.setdefault(column, measure)
    cells = {c: replace(cell, paired=first.get(c)) for c, cell in row.cells.items()}
    return replace(row, cells=cells)


def _alike(first: Sequence[RunRecord], second: Sequence[RunRecord]) -> bool:
    """Whether all runs share what runs must share to be compared."""
    runs = [*first, *second]
    return all(setting_of(run.identity) == setting_of(runs[0].identity) for run in runs)


def runs_of(cell: Cell) -> tuple[RunRecord, ...]:
    """Return the runs that a cell is of, one a seed."""
    if cell.seeds is not None:
        return cell.seeds.runs
    return (cell.record,) if cell.record is not None else ()


def chance_rows(rows: Sequence[Row]) -> list[Row]:
    """Return a row of chance levels for each set of corpora where any is known."""
    found = []
    for group in dict.fromkeys(row.group for row in rows):
        cells: dict[str, Cell] = {}
        for task in TASKS.values():
            of_task = [
                r.cells[task.column] for r in rows if r.group == group and task.column in r.cells
            ]
            levels = {run.chance.value for c in of_task for run in runs_of(c) if run.chance}
            texts = dict.fromkeys(f"{level:.{task.decimals}f}" for level in sorted(levels))
            if len(texts) == 1:
                cells[task.column] = Cell(text=next(iter(texts)))
        if cells:
            source = "an answer without listening"
            found.append(Row(model=CHANCE, source=source, precision="", cells=cells, group=group))
    return found
