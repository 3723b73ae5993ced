"""All that a report is made from: runs, their table beside the parents, what encoders cost.

Needs neither torch nor s3prl. Charts are of one set of corpora, as figures on two do not compare.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from superbit.benchmark.records.choose import UsableRuns, parse_where, usable_runs
from superbit.benchmark.records.naming import UpstreamNames, read_labels, upstreams_in_order
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.records.store import without_garbage_collection
from superbit.benchmark.report.costs import Costs, read_costs
from superbit.benchmark.tables.runs import Runs, read_runs
from superbit.benchmark.tables.table2 import table2
from superbit.benchmark.tables.table2_rendering import Cell, Row, Table
from superbit.benchmark.tables.twins import CHANCE, runs_of
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import Task
from superbit.upstreams.counting import Counting, unseen
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import UpstreamSpec

ERROR_FLOW = "error_flow"


@dataclass(frozen=True, kw_only=True)
class Study:
    """What was measured.

    Attributes:
        folders: of results.
        runs: all of them.
        usable: those that fill cells.
        table: Table 2 with the paper's rows, twins beside their parents.
        names: what to call upstreams.
        costs: of encoders, by canonical spec.
        folder_of: the folder that each run was read from, by its key.
    """

    folders: tuple[Path, ...]
    runs: Runs
    usable: UsableRuns
    table: Table
    names: UpstreamNames
    costs: Costs
    folder_of: Mapping[str, Path]

    @cached_property
    def measured(self) -> list[Row]:
        """The rows that charts are of: those of the first set of corpora, twins under parents."""
        groups = [row.group for row in self.table.rows if row.upstream]
        rows = [row for row in self.table.rows if row.upstream and row.group == groups[0]]
        return in_families(rows)

    @cached_property
    def several_groups(self) -> bool:
        """Whether there are rows on other corpora."""
        return len({row.group for row in self.table.rows if row.upstream}) > 1

    @cached_property
    def chance(self) -> Row | None:
        """What an answer without listening reaches on those corpora."""
        group = self.measured[0].group
        rows = [r for r in self.table.rows if r.model == CHANCE and r.group == group]
        return rows[0] if rows else None

    @cached_property
    def paper(self) -> list[Row]:
        """The paper's rows."""
        return [row for row in self.table.rows if row.group == 0 and row.model != CHANCE]

    @cached_property
    def tasks(self) -> list[Task]:
        """Those that any of the rows has, in the paper's order."""
        return [t for t in TASKS.values() if any(t.column in row.cells for row in self.measured)]

    @cached_property
    def families(self) -> list[str]:
        """FP32 encoders by their specs, those with a twin first: each has a colour."""
        twins = {family(row) for row in self.measured if is_twin(row)}
        there = list(dict.fromkeys(family(row) for row in self.measured))
        return sorted(there, key=lambda name: name not in twins)

    def colour(self, row: Row) -> int:
        """Return the place of a row's colour in the palette."""
        return self.families.index(family(row))

    def cost(self, row: Row, key: str) -> float | None:
        """Return what a row's encoder costs; None where that is not known, or nothing."""
        value = self.costs.get(row.upstream, {}).get(key)
        return float(value) if isinstance(value, int | float) and value > 0 else None

    def error_flow(self) -> dict[str, list[dict[str, str]]]:
        """Return the flow of error of each twin that a folder has it of, by its name."""
        found = {}
        for folder in self.folders:
            for file in sorted((folder / ERROR_FLOW).glob("*.csv")):
                with file.open(encoding="utf-8", newline="") as opened:
                    rows = list(csv.DictReader(opened))
                if not rows or "up_to_encoder_relative_error" not in rows[0]:
                    raise InputError(
                        f"{file} is no flow of error: write it with 'superbit error-flow "
                        f"{file.stem} --format csv --out {file}'."
                    )
                found[file.stem] = rows
        return found


def family(row: Row) -> str:
    """Return the spec of a row's encoder in full precision, trained."""
    return str(replace(UpstreamSpec.parse(row.upstream), policy=None, untrained=False))


def is_twin(row: Row) -> bool:
    """Whether a row is of a binarized model."""
    return UpstreamSpec.parse(row.upstream).policy is not None


def in_families(rows: Sequence[Row]) -> list[Row]:
    """Return rows in their order, each twin right after its parent, random weights last."""
    first = {family(row): place for place, row in reversed(list(enumerate(rows)))}

    def place(row: Row) -> tuple[bool, int, bool]:
        return row.untrained, first[family(row)], is_twin(row)

    return sorted(rows, key=place)


def value_of(cell: Cell) -> float:
    """Return a measured cell's number, not rounded."""
    if cell.record is None or cell.record.value is None:
        raise ValueError("not a measured cell")
    return cell.record.value


def deviation_of(cell: Cell) -> float | None:
    """Return a cell's standard deviation over seeds; None of a single one."""
    return cell.seeds.deviation if cell.seeds else None


def records_of(row: Row, task: Task) -> Sequence[RunRecord]:
    """Return the runs behind a row's cell of a task, one a seed; none where it is empty."""
    cell = row.cells.get(task.column)
    return runs_of(cell) if cell else ()


def read_study(
    folders: Sequence[Path],
    *,
    where: Sequence[str] = (),
    label: Sequence[str] = (),
    costs: Sequence[Path] = (),
    upstreams: Sequence[str] | None = None,
    counting: Counting = unseen,
) -> Study:
    """Read results.

    Args:
        folders: of results.
        where: conditions ``FIELD=VALUE`` on runs.
        label: what to call upstreams, each ``NAME=SPEC``.
        costs: files of ``superbit profile --format json``, for upstreams that are not superbit's.
        upstreams: only these, in this order, each as people type it.
        counting: shows how many runs are read.

    Raises:
        InputError: a folder that is not there or holds no done run, or any of its options.
    """
    from superbit.benchmark.records.naming import find_upstream

    each = [read_runs(folder, counting=counting) for folder in folders]
    reading: dict[str, Any] = {}
    folder_of: dict[str, Path] = {}
    records: dict[str, RunRecord] = {}
    for folder, runs in zip(folders, each, strict=True):
        for record in runs.records:
            if records.get(record.key, record).status == "done" and record.key in records:
                continue
            records[record.key] = record
            reading[record.key], folder_of[record.key] = runs.read_items, folder
    together = Runs(
        records=tuple(records.values()),
        searches=tuple(search for runs in each for search in runs.searches),
        read_items=lambda record: reading[record.key](record),
    )
    known = upstreams_in_order(together.records)
    names = read_labels(label, known)
    wanted = None
    if upstreams is not None:
        wanted = [find_upstream(text, known, option="--upstreams") for text in upstreams]
    conditions = parse_where(where)
    with without_garbage_collection():
        table = table2(
            together.records,
            where=conditions,
            searches=together.searches,
            upstreams=wanted,
            names=names,
            items=together.items(),
        )
    if not any(row.upstream for row in table.rows):
        raise InputError(
            f"--results: {', '.join(map(str, folders))} holds no run that is done; superbit sweep "
            "makes them."
        )
    return Study(
        folders=tuple(folders),
        runs=together,
        usable=usable_runs(together.records, where=conditions, searches=together.searches),
        table=table,
        names=names,
        costs=read_costs(costs),
        folder_of=folder_of,
    )
