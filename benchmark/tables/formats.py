"""Rows and cells of a table, and the formats a table is printed in.

- ``md``: Markdown that reads well in a terminal: values with their intervals, marks, and notes
  that say what the marks mean.
- ``csv``: one header, one row a model; the keys of ``results/paper/table2.csv``, values only. With
  a measured row, behind them ``upstream``, ``corpora`` and of each task ``…_low``, ``…_high`` (the
  interval), ``…_sd`` (the ± of a mean over seeds), ``…_chance`` (the chance level) and
  ``…_at_chance`` (``yes``: not better than chance; empty: not known), and with learning rates shown
  ``…_lr``.
- ``latex``: a ``table*`` for booktabs; ``html``: a page; both with the marks and notes of ``md``.
- ``json``: a list of objects with the CSV's keys, values as numbers, null where there is none.
  Measured rows also have ``upstream`` (the spec as records hold it), ``scale``, ``untrained``,
  ``synthesized``, ``corpora``, and ``cells``: for each filled column ``{value, low, high, level,
  method, chance, at_chance, n, expected, learning_rate, searched, seed, fold, selection,
  selected_on, checkpoint, step, corpus, key}``, where ``low`` to ``method`` are the interval,
  ``n`` of ``expected`` test items were scored, and ``key`` is the record the cell comes from. Of a
  mean over seeds it is ``{value, deviation, at_chance, seeds}`` with such an object for each seed.

This module imports neither torch nor s3prl.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from superbit.benchmark.records.choose import Seeds
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.scoring.chance import MARK, at_chance
from superbit.benchmark.tables.markup import html, latex, markdown
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import Task
from superbit.upstreams.errors import InputError, did_you_mean

Format = Literal["md", "csv", "json", "latex", "html"]

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
    """

    text: str
    record: RunRecord | None = None
    seeds: Seeds | None = None
    at_chance: bool | None = None
    searched: bool = False


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

    ``show_rates`` prints each measured figure's learning rate beside it.
    """

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    show_rates: bool = False


def render(table: Table, fmt: str = "md") -> str:
    """Return the table as text that ends with a newline.

    Raises:
        InputError: an unknown format.
    """
    require_one_of("format", fmt, get_args(Format))
    formats = {"md": _markdown, "csv": _csv, "json": _json, "latex": _latex, "html": _html}
    return formats[fmt](table)


def _header() -> list[str]:
    return ["model", "source", "precision", *(f"{t.name}{t.arrow}" for t in TASKS.values())]


def _lines(table: Table) -> list[list[str]]:
    """Every row as text: names, then figures with their intervals and marks."""
    body = [[row.model, row.source, row.precision] for row in table.rows]
    for column in COLUMNS:
        for line, text in zip(body, _markdown_column(table, column), strict=True):
            line.append(text)
    return body


def _groups(table: Table) -> list[list[list[str]]]:
    """The lines of the paper's rows, then those of each set of corpora, figures unpadded."""
    lines = [[text.strip() for text in line] for line in _lines(table)]
    groups = [row.group for row in table.rows]
    return [
        [line for line, group in zip(lines, groups, strict=True) if group == each]
        for each in dict.fromkeys(groups)
    ]


def _latex(table: Table) -> str:
    return latex(table.title, _header(), _groups(table), table.notes)


def _html(table: Table) -> str:
    return html(table.title, _header(), _groups(table), table.notes)


def _markdown(table: Table) -> str:
    return markdown(table.title, _header(), _lines(table), table.notes)


def _markdown_column(table: Table, column: str) -> list[str]:
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
        if table.show_rates and (rate := _rate(row, column)):
            text += f" lr {rate}"
        texts.append(text if figure else "")
    return texts


# Behind a task's column name in CSV, for measured rows.
_DETAILS = ("low", "high", "sd", "chance", "at_chance")


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    details = ["upstream", "corpora", *(f"{c}_{each}" for c in COLUMNS for each in _DETAILS)]
    if not any(row.scale for row in table.rows):
        details = []
    rates = [f"{column}_lr" for column in COLUMNS] if table.show_rates else []
    writer.writerow([*HEADER, *details, *rates])
    for row in table.rows:
        line = [row.model, row.source, row.precision]
        line += [row.cells[c].text if c in row.cells else "" for c in COLUMNS]
        if details:
            line += [row.upstream, row.corpora]
            line += [text for c in COLUMNS for text in _csv_details(row.cells.get(c), c)]
        line += [_rate(row, column) for column in COLUMNS] if table.show_rates else []
        writer.writerow(line)
    return out.getvalue()


def _csv_details(cell: Cell | None, column: str) -> list[str]:
    """What ``_DETAILS`` names, as text to one digit more than the value has."""
    if cell is None or cell.record is None:
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


def _rate(row: Row, column: str) -> str:
    """The learning rate, or those of several seeds by rising seed."""
    cell = row.cells.get(column)
    if cell is None or cell.record is None:
        return ""
    runs = cell.seeds.runs if cell.seeds else (cell.record,)
    rates = [run.identity.learning_rate for run in runs]
    return "/".join(dict.fromkeys(f"{rate:g}" for rate in rates if rate is not None))


def _json(table: Table) -> str:
    return "[\n" + ",\n".join(f"  {_json_row(row)}" for row in table.rows) + "\n]\n"


def _json_row(row: Row) -> str:
    pairs: dict[str, str] = {
        name: json.dumps(value, ensure_ascii=False)
        for name, value in (
            ("model", row.model),
            ("source", row.source),
            ("precision", row.precision),
        )
    }
    for column in COLUMNS:
        cell = row.cells.get(column)
        if cell is None:
            pairs[column] = "null"
        else:
            # the paper's digits are JSON numbers as they stand: 65.00 must not become 65.0
            pairs[column] = json.dumps(cell.record.value) if cell.record else cell.text
    if row.scale is not None:
        cells = {column: _json_cell(c, c.record) for column, c in row.cells.items() if c.record}
        for name, value in (
            ("upstream", row.upstream),
            ("scale", row.scale),
            ("untrained", row.untrained),
            ("synthesized", row.synthesized),
            ("corpora", row.corpora),
            ("cells", cells),
        ):
            pairs[name] = json.dumps(value, ensure_ascii=False)
    return "{" + ", ".join(f'"{name}": {text}' for name, text in pairs.items()) + "}"


def _json_cell(cell: Cell, record: RunRecord) -> dict[str, Any]:
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


def require_one_of(what: str, given: str, known: Sequence[str]) -> None:
    """Raise an InputError that names the nearest of ``known`` unless ``given`` is one of them."""
    if given not in known:
        hint = did_you_mean(given, list(known))
        raise InputError(f"unknown {what} {given!r}: write one of {', '.join(known)}.{hint}")
