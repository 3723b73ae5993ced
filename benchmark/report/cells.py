"""Cells of the page's Table 2, and what each opens: where its number comes from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from superbit.benchmark.records import packed
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.report.keys import metric, with_folds
from superbit.benchmark.report.study import (
    Study,
    deviation_of,
    family,
    in_families,
    is_twin,
    value_of,
)
from superbit.benchmark.scoring.chance import MARK
from superbit.benchmark.tables.table2_rendering import (
    CHOSEN_ON_TEST,
    Cell,
    Row,
    difference_text,
)
from superbit.benchmark.tables.twins import CHANCE, runs_of
from superbit.benchmark.tasks.task import Task

KEY_DIGITS = 12


def signed(value: float, digits: int) -> str:
    """Return it with its sign, and a minus that is as wide as a plus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def p_text(value: float) -> str:
    """Return a p to three digits."""
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


@dataclass(kw_only=True)
class Cells:
    """Fills Table 2 and collects what its cells open."""

    study: Study
    out: Path

    def __post_init__(self) -> None:
        self.opened: list[dict[str, Any]] = []

    def groups(self) -> list[dict[str, Any]]:
        """The measured rows, a group a set of corpora, then the paper's."""
        groups = []
        rows = [row for row in self.study.table.rows if row.upstream]
        for number in dict.fromkeys(row.group for row in rows):
            own = [row for row in rows if row.group == number]
            levels = [r for r in self.study.table.rows if r.model == CHANCE and r.group == number]
            first = own[0]
            marks = [first.scale or "", "synthesized speech" if first.synthesized else ""]
            marks += [first.corpora]
            title = f"Measured: {', '.join(filter(None, marks))}"
            made = [self._row(row) for row in in_families(own)]
            made += [self._plain(row, "chance", "an answer without listening") for row in levels]
            groups.append({"title": title, "rows": made})
        paper = [
            self._plain(row, "paper", f"{row.precision}, {row.source.removeprefix('paper; ')}")
            for row in self.study.paper
        ]
        title = "The paper: other data and sizes, not comparable with the rows above"
        groups.append({"title": title, "rows": paper})
        return groups

    def _row(self, row: Row) -> dict[str, Any]:
        sub = row.precision + (", random weights" if row.untrained else "")
        return {
            "model": row.model,
            "sub": sub,
            "kind": "twin" if is_twin(row) and _has_parent(row, self.study) else "",
            "cells": [self._cell(row, task) for task in self.study.tasks],
        }

    def _plain(self, row: Row, kind: str, sub: str) -> dict[str, Any]:
        cells = [row.cells.get(task.column) for task in self.study.tasks]
        return {
            "model": row.model,
            "sub": sub,
            "kind": kind,
            "cells": [
                c and {"text": c.text, "number": c.text, "id": "", "subs": []} for c in cells
            ],
        }

    def _cell(self, row: Row, task: Task) -> dict[str, Any] | None:
        cell = row.cells.get(task.column)
        if cell is None or cell.record is None:
            return None
        name = f"cell-{len(self.opened) + 1}"
        self.opened.append(self._opened(name, row, task, cell))
        selection = cell.record.selection
        mark = CHOSEN_ON_TEST if selection and selection.selected_on == "test" else ""
        subs: list[tuple[str, str]] = []
        spread = deviation_of(cell)
        if spread is not None:
            subs.append((f"±{spread:.{task.decimals}f}", ""))
        elif cell.record.interval:
            subs.append((_interval(cell.record, task), ""))
        if cell.paired and cell.paired.found:
            kind = {"better": "better", "worse": "worse"}.get(cell.paired.verdict or "", "")
            subs.append((difference_text(cell.paired).replace("-", "−"), kind))
        if cell.at_chance:
            subs.append((MARK, ""))
        return {
            "text": f"{cell.text}{mark}",
            "number": f"{value_of(cell):.6g}",
            "id": name,
            "subs": subs,
        }

    def _opened(self, name: str, row: Row, task: Task, cell: Cell) -> dict[str, Any]:
        """Where a cell comes from."""
        runs = runs_of(cell)
        lines = []
        if cell.paired and cell.paired.found:
            found, digits, paired = cell.paired.found, task.decimals, cell.paired
            lines.append(
                f"{signed(found.value, digits)} from {self.study.names.of(family(row))}, "
                f"[{signed(found.low, digits)}, {signed(found.high, digits)}]: {paired.verdict} "
                f"(p {p_text(found.p)}, Holm {p_text(paired.adjusted or 0.0)}"
                + (f", McNemar {p_text(paired.mcnemar_p)}" if paired.mcnemar_p is not None else "")
                + f"; {paired.sample}). Could have shown {found.smallest:.{digits}f}."
            )
        if runs[0].chance:
            chance = runs[0].chance
            lines.append(f"Chance: {chance.value:.{task.decimals}f} ({chance.method}).")
        rules = dict.fromkeys(run.selection.rule for run in runs if run.selection)
        started = sorted(r.provenance.started[:10] for r in runs if r.provenance.started)
        corpus = runs[0].corpus
        return {
            "id": name,
            "title": f"{task.name} of {row.model}",
            "what": f"{task.title}: {metric(task)}, {task.arrow} is better"
            + (f"; {corpus.label or corpus.version or corpus.name}" if corpus else ""),
            "lines": lines,
            "runs": [self._run(run, task) for run in runs],
            "rates": self._rates(runs),
            "selection": f"Checkpoint: {'; '.join(rules)}."
            + (f" Measured {started[0]}." if started else ""),
        }

    def _run(self, run: RunRecord, task: Task) -> dict[str, Any]:
        items = run.items
        whole = items is not None and items.expected in (None, items.count)
        rate = run.identity.learning_rate
        return {
            "seed": run.identity.seed,
            "value": f"{run.value:.{task.decimals + 1}f}",
            "interval": _interval(run, task),
            "rate": "" if rate is None else f"{rate:g}",
            "n": ""
            if items is None
            else f"{items.count}" + ("" if whole else f" of {items.expected}"),
            "records": [self._link(each) for each in self._folds(run)],
            "commit": (run.provenance.commit or "")[:7],
        }

    def _folds(self, run: RunRecord) -> list[RunRecord]:
        if run.key in self.study.folder_of:
            return [run]
        return with_folds(self.study, [run])

    def _link(self, run: RunRecord) -> tuple[str, str, str]:
        """Where a record's file is from the page, its key, and the file's name."""
        folder = self.study.folder_of[run.key]
        task = run.identity.task
        sidecar = run.items.file if run.items else ""
        file = sidecar.replace(".items.jsonl.gz", ".json")
        single = folder / task / file
        target = single if file and single.is_file() else packed.records_file(folder, task)
        href = Path(os.path.relpath(target, self.out.absolute().parent)).as_posix()
        digits = KEY_DIGITS if run.identity.fold is None else 7
        return href, run.key[:digits], f"{file} in {target.name}" if target != single else file

    def _rates(self, runs: Sequence[RunRecord]) -> list[tuple[str, str, bool]]:
        scores: dict[float, list[float]] = {}
        for run in with_folds(self.study, runs):
            for tried in run.search.tried if run.search else ():
                if tried.score is not None:
                    scores.setdefault(tried.learning_rate, []).append(tried.score)
        chosen = {run.identity.learning_rate for run in runs}
        return [(f"{r:g}", f"{fmean(s):.4g}", r in chosen) for r, s in sorted(scores.items())]


def _has_parent(row: Row, study: Study) -> bool:
    return any(r.upstream == family(row) and r.group == row.group for r in study.table.rows)


def _interval(run: RunRecord, task: Task) -> str:
    if run.interval is None:
        return ""
    digits = task.decimals - (task.unit == "%")
    return f"[{run.interval.low:.{digits}f}, {run.interval.high:.{digits}f}]"
