"""Rows and cells of Table 2, and the formats it is printed in.

- ``md``: Markdown that reads well in a terminal: values with their intervals, marks, and notes
  that say what the marks mean.
- ``csv``: one header, one row a model; the keys of ``results/paper/table2.csv``, values only. With
  a measured row, behind them ``upstream``, ``corpora`` and of each task ``…_low``, ``…_high`` (the
  interval), ``…_sd`` (the ± of a mean over seeds), ``…_chance`` (the chance level) and
  ``…_at_chance`` (``yes``: not better than chance; empty: not known), and with learning rates shown
  ``…_lr``, and beside FP32 parents ``…_difference`` (twin − parent), its ``…_difference_low`` and
  ``…_difference_high``, ``…_difference_holm`` (p) and ``…_difference_verdict``.
- ``latex``: a ``table*`` for booktabs; ``html``: a page; both with the marks and notes of ``md``.
- ``json``: a list of objects with the CSV's keys, values as numbers, null where there is none.
  Measured rows also have ``upstream`` (the spec as records hold it), ``scale``, ``untrained``,
  ``synthesized``, ``corpora``, and ``cells``: for each filled column ``{value, low, high, level,
  method, chance, at_chance, n, expected, learning_rate, searched, seed, fold, selection,
  selected_on, checkpoint, step, corpus, key}``, where ``low`` to ``method`` are the interval,
  ``n`` of ``expected`` test items were scored, and ``key`` is the record the cell comes from. Of a
  mean over seeds it is ``{value, deviation, at_chance, seeds}`` with such an object for each seed.
  Beside FP32 parents there is ``difference`` too, everything that was found.

This module imports neither torch nor s3prl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from superbit.benchmark.records.choose import SeedRuns
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.rendering import (
    Format,
    TextTable,
    csv_text,
    json_text,
    number_as_printed,
    render_text,
)
from superbit.benchmark.scoring.chance import MARK, at_chance
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import Task
from superbit.upstreams.errors import require_one_of

if TYPE_CHECKING:
    from superbit.benchmark.pairing.pair import Paired

COLUMNS = tuple(task.column for task in TASKS.values())
HEADER = ("model", "source", "precision", *COLUMNS)
CHOSEN_ON_TEST = "*"
_TASK_OF_COLUMN: dict[str, Task] = {task.column: task for task in TASKS.values()}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure.

    Attributes:
        text: its digits, as printed.
        record: the run it comes from; None for a figure of the paper.
        seeds: the runs that it is the mean of, where it is one; ``record`` then stands for them.
        at_chance: it is not better than chance, see `chance.at_chance`; None where not known.
        searched: its learning rate is the choice of a search.
        paired: of a twin's, what it differs by from its FP32 parent; the twin is the first.
    """

    text: str
    record: RunRecord | None = None
    seeds: SeedRuns | None = None
    at_chance: bool | None = None
    searched: bool = False
    paired: Paired | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model.

    Attributes:
        model: the paper's name, or what the upstream is called here.
        upstream: its canonical spec; empty for the paper's rows.
        source: ``paper; reported`` or ``paper; own setup``; ``measured`` with the row's marks.
        precision: of weights, and of binarized weights and activations behind a dash.
        cells: by column, only those that have a figure.
        scale: scale of the runs; None for the paper's rows.
        untrained: the weights are random.
        synthesized: the corpora were spoken by a synthesizer.
        corpora: what they are called, where anything tells them from others.
        group: rows of one number were measured on the same corpora; 0 for the paper's.
    """

    model: str
    source: str
    precision: str
    cells: Mapping[str, Cell]
    scale: str | None = None
    untrained: bool = False
    synthesized: bool = False
    upstream: str = ""
    corpora: str = ""
    group: int = 0


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: its rows in order, and the notes that stand under it in Markdown.

    ``show_rates`` prints each measured figure's learning rate beside it; ``paired`` says that twins
    stand beside their parents.
    """

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    show_rates: bool = False
    paired: bool = False


def render_table2(table: Table, format: Format = "md") -> str:
    """Return the table as text that ends with a newline.

    Raises:
        InputError: an unknown format.
    """
    require_one_of("format", format, get_args(Format))
    if format == "csv":
        return _csv(table)
    if format == "json":
        return json_text([_json_row(row) for row in table.rows])
    return render_text(_as_text(table), format)


def _as_text(table: Table) -> TextTable:
    """Names, then figures with their intervals and marks; a group for each set of corpora."""
    columns = [_column(table, column) for column in COLUMNS]
    groups: dict[int, list[list[str]]] = {}
    for row, *figures in zip(table.rows, *columns, strict=True):
        line = [row.model, row.source, row.precision, *figures]
        groups.setdefault(row.group, []).append(line)
    return TextTable(
        title=table.title,
        header=["model", "source", "precision", *(f"{t.name}{t.arrow}" for t in TASKS.values())],
        groups=list(groups.values()),
        notes=table.notes,
        text_columns=3,
    )


def _column(table: Table, column: str) -> list[str]:
    """A column's figures, their ends one under the other."""
    rows = table.rows
    figures = [row.cells[column].text if column in row.cells else "" for row in rows]
    width = max((len(figure) for figure in figures), default=0)
    texts = []
    for row, figure in zip(rows, figures, strict=True):
        text = figure.rjust(width)
        cell = row.cells.get(column)
        record = cell.record if cell else None
        if cell and cell.seeds:
            text += f" ±{cell.seeds.deviation:.{_TASK_OF_COLUMN[column].decimals}f}"
        if record and record.interval:
            # one digit less than the value: the interval is an estimate itself
            decimals = _TASK_OF_COLUMN[column].decimals - (_TASK_OF_COLUMN[column].unit == "%")
            low, high = record.interval.low, record.interval.high
            text += f" [{low:.{decimals}f}, {high:.{decimals}f}]"
        if record and record.selection and record.selection.selected_on == "test":
            text += CHOSEN_ON_TEST
        if cell and cell.at_chance:
            text += f" {MARK}"
        if cell and cell.paired and cell.paired.found:
            text += f" ({difference_text(cell.paired)})"
        if table.show_rates and (rate := _rate(row, column)):
            text += f" lr {rate}"
        texts.append(text if figure else "")
    return texts


# Of a twin beside its parent.
VERDICT_MARKS = {"better": "▲", "worse": "▼", "not told apart": "≈", None: ""}


def difference_text(paired: Paired) -> str:
    """``+1.66 ≈``: the first minus the second, and the verdict's mark."""
    if paired.found is None:
        return ""
    return f"{paired.found.value:+.{paired.decimals}f} {VERDICT_MARKS[paired.verdict]}"


# Behind a task's column name in CSV, for measured rows.
_DETAILS = ("low", "high", "sd", "chance", "at_chance")
# Likewise, of twins beside their parents.
_BESIDE_PARENT = tuple(f"difference{each}" for each in ("", "_low", "_high", "_holm", "_verdict"))


def _csv(table: Table) -> str:
    columns = list(HEADER)
    if any(row.scale for row in table.rows):
        columns += ["upstream", "corpora"]
        columns += [f"{column}_{each}" for column in COLUMNS for each in _DETAILS]
    columns += [f"{column}_lr" for column in COLUMNS] if table.show_rates else []
    if table.paired:
        columns += [f"{column}_{each}" for column in COLUMNS for each in _BESIDE_PARENT]
    lines = []
    for row in table.rows:
        line = {"model": row.model, "source": row.source, "precision": row.precision}
        line |= {"upstream": row.upstream, "corpora": row.corpora}
        for column, cell in row.cells.items():
            line[column] = cell.text
            details = zip(_DETAILS, _csv_details(cell, column), strict=True)
            line |= {f"{column}_{name}": text for name, text in details}
            line[f"{column}_lr"] = _rate(row, column)
            beside = zip(_BESIDE_PARENT, _csv_paired(cell), strict=True)
            line |= {f"{column}_{name}": text for name, text in beside}
        lines.append([line.get(column, "") for column in columns])
    return csv_text(columns, lines)


def _csv_details(cell: Cell, column: str) -> list[str]:
    """What ``_DETAILS`` names, as text to one digit more than the value has."""
    if cell.record is None:
        return [""] * len(_DETAILS)
    record = cell.record
    interval, chance = record.interval, record.chance
    figures = [
        interval.low if interval else None,
        interval.high if interval else None,
        cell.seeds.deviation if cell.seeds else None,
        chance.value if chance else None,
    ]
    decimals = 1 + _TASK_OF_COLUMN[column].decimals
    verdict = {None: "", True: "yes", False: "no"}[cell.at_chance]
    return [*("" if each is None else f"{each:.{decimals}f}" for each in figures), verdict]


def _csv_paired(cell: Cell) -> list[str]:
    """What ``_BESIDE_PARENT`` names."""
    paired = cell.paired
    if paired is None or paired.found is None:
        return [""] * len(_BESIDE_PARENT)
    figures = (paired.found.value, paired.found.low, paired.found.high)
    texts = [f"{each:.{1 + paired.decimals}f}" for each in figures]
    return [*texts, f"{paired.adjusted:.4g}", paired.verdict or ""]


def _rate(row: Row, column: str) -> str:
    """The learning rate, or those of several seeds by rising seed."""
    cell = row.cells.get(column)
    if cell is None or cell.record is None:
        return ""
    runs = cell.seeds.runs if cell.seeds else (cell.record,)
    rates = [run.identity.learning_rate for run in runs]
    return "/".join(dict.fromkeys(f"{rate:g}" for rate in rates if rate is not None))


def _json_row(row: Row) -> dict[str, Any]:
    held: dict[str, Any] = {"model": row.model, "source": row.source, "precision": row.precision}
    for column in COLUMNS:
        cell = row.cells.get(column)
        if cell is None:
            held[column] = None
        else:
            held[column] = cell.record.value if cell.record else number_as_printed(cell.text)
    if row.scale is not None:
        held |= {
            "upstream": row.upstream,
            "scale": row.scale,
            "untrained": row.untrained,
            "synthesized": row.synthesized,
            "corpora": row.corpora,
            "cells": {name: _json_cell(c, c.record) for name, c in row.cells.items() if c.record},
        }
    return held


def _json_cell(cell: Cell, record: RunRecord) -> dict[str, Any]:
    if cell.paired is not None:
        held = _json_cell(replace(cell, paired=None), record)
        return held | {"difference": asdict(cell.paired) | {"verdict": cell.paired.verdict}}
    if cell.seeds is not None:
        each = [
            _json_cell(Cell(text="", at_chance=at_chance(run), searched=cell.searched), run)
            for run in cell.seeds.runs
        ]
        found = {"value": record.value, "deviation": cell.seeds.deviation}
        return found | {"at_chance": cell.at_chance, "seeds": each}
    interval, items, selection = record.interval, record.items, record.selection
    return {
        "value": record.value,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "level": interval.level if interval else None,
        "method": interval.method if interval else None,
        "chance": record.chance.model_dump() if record.chance else None,
        "at_chance": cell.at_chance,
        "n": items.count if items else None,
        "expected": items.expected if items else None,
        "learning_rate": record.identity.learning_rate,
        "searched": cell.searched,
        "seed": record.identity.seed,
        "fold": record.identity.fold,
        "selection": selection.rule if selection else None,
        "selected_on": selection.selected_on if selection else None,
        "checkpoint": selection.checkpoint if selection else None,
        "step": selection.step if selection else None,
        "corpus": record.corpus.model_dump() if record.corpus else None,
        "key": record.key,
    }
