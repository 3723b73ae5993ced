"""The page: what a template is filled with, and the file that comes out.

One file, which asks for nothing from anywhere; without JavaScript only sorting and the switch of
colours are missing. Where it says a number, it says where from.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

from superbit.benchmark.claims.check import VERDICTS, check_claims
from superbit.benchmark.paper import TABLE1_FIGURES, TABLE1_SPECS, printed_rows
from superbit.benchmark.records import packed
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.report import figures, svg
from superbit.benchmark.report.costs import as_claims_have_them
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
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import Task
from superbit.upstreams.spec import UpstreamSpec

KEY_DIGITS = 12


def page(study: Study, *, out: Path, title: str = "") -> str:
    """Return the page.

    Args:
        study: what it is of.
        out: where it will lie, for links to records.
        title: in place of one that says what was measured.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("superbit.benchmark.report"),
        autoescape=select_autoescape(["j2", "html"], default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        panel_svg=lambda panel: Markup(svg.panel_svg(panel)),
        key_mark=lambda key: Markup(svg.key_mark(key)),
        metric=figures.metric,
    )
    content = _content(study, out) | {"title": title or _title(study)}
    content["style"] = Markup(_style(content))
    content["script"] = Markup(_packaged("script.js"))
    return environment.get_template("report.html.j2").render(content)


def _packaged(name: str) -> str:
    file = resources.files("superbit.benchmark.report") / "templates" / name
    return file.read_text(encoding="utf-8")


def _style(content: dict[str, Any]) -> str:
    style = _packaged("style.css")
    for word, dark in (("LIGHT", False), ("DARK", True)):
        style = style.replace(word, svg.variables(dark).replace("--paper:", "--paper:"))
    rules = [
        f"#cost:has(#task-{each['task']}:checked):has(#cost-{each['cost']}:checked) "
        f'[data-choice="{each["task"]}-{each["cost"]}"]{{display:grid}}'
        for each in content["quality"]
    ]
    return "\n".join([style, svg.STYLE, *rules])


def _title(study: Study) -> str:
    count = len(study.measured)
    return f"{count} upstream{'s' if count != 1 else ''} on {len(study.tasks)} tasks of SUPERB"


def _content(study: Study, out: Path) -> dict[str, Any]:
    cells = _Cells(study=study, out=out)
    groups = cells.groups()
    delta, rates, curves = figures.delta(study), figures.rates(study), figures.curves(study)
    layers, flow = figures.layers(study), figures.flow(study)
    costs = figures.costs_known(study)
    quality = [
        {
            "task": task.name,
            "cost": cost.name,
            "measured": figures.pareto(study, task, cost),
            "paper": figures.paper_pareto(study, task, cost) if cost.paper else None,
        }
        for task in study.tasks
        for cost in costs
    ]
    sections = [("table2", "Tasks")]
    sections += [("twins", "Twins")] if delta.panels else []
    sections += [("cost", "Cost")] if costs else []
    sections += [("rates", "Rates")] if rates.panels else []
    sections += [("curves", "Training")] if curves.panels else []
    sections += [("layers", "Layers")]
    sections += [("flow", "Error")] if flow else []
    sections += [("table1", "Table 1"), ("claims", "Claims")]
    tasks = study.tasks
    first = next((t.name for t in tasks if t.name == "KS"), tasks[0].name)
    return {
        "lead": _lead(study),
        "facts": _facts(study),
        "sections": sections,
        "tasks": tasks,
        "groups": groups,
        "notes": _notes(study),
        "opened": cells.opened,
        "delta": delta,
        "delta_lead": _delta_lead(study),
        "delta_lines": _delta_lines(study),
        "costs": costs,
        "quality": quality,
        "first_task": first,
        "cost_lines": [
            (row.model, [_short(study.cost(row, cost.key)) for cost in costs])
            for row in study.measured
        ],
        "rates": rates,
        "curves": curves,
        "layers": layers,
        "layers_note": _layers_note(study),
        "flow": flow,
        "table1": _table1(study),
        **_claims(study),
        "footer": _footer(study),
    }


def _short(value: float | None) -> str:
    return "—" if value is None else f"{value:,.2f}"


# --- words ---------------------------------------------------------------------------------------


def _runs(study: Study) -> list[RunRecord]:
    return [run for row in study.measured for cell in row.cells.values() for run in runs_of(cell)]


def _lead(study: Study) -> str:
    scales = {row.scale for row in study.measured}
    rows = study.measured
    twins = sum(map(is_twin, rows))
    words = [f"{len(rows)} upstreams" + (f", {twins} of them 1-bit twins" if twins else "")]
    text = f"{words[0]}, on {len(study.tasks)} tasks. "
    if "embedded" in scales:
        text += (
            "Embedded scale: few training steps on small corpora. These figures compare among "
            "each other, not with the paper's nor with any run of the full benchmark."
        )
    return text


def _facts(study: Study) -> list[tuple[str, str]]:
    runs = _runs(study)
    done = sum(run.status == "done" for run in study.runs.records)
    failed = len(study.runs.records) - done
    seeds = sorted({run.identity.seed for run in runs})
    corpora = Counter(
        run.corpus.label or run.corpus.version or run.corpus.name for run in runs if run.corpus
    )
    kinds = sorted({run.corpus.kind for run in runs if run.corpus})
    started = sorted(run.provenance.started[:10] for run in runs if run.provenance.started)
    commits = sorted({r.provenance.commit[:7] for r in runs if r.provenance.commit})
    versions = {
        f"{name} {version}"
        for run in runs
        for name, version in run.provenance.versions.items()
        if version and name in ("torch", "s3prl")
    }
    machines = {
        f"{run.provenance.gpu or run.provenance.cpu}, {run.provenance.cpu_count} cores"
        for run in runs
        if run.provenance.cpu
    }
    found = [
        ("Runs", f"{done:,} done" + (f", {failed:,} failed" if failed else "")),
        ("Scale", ", ".join(sorted({run.scale for run in runs}))),
        ("Seeds of the head", ", ".join(map(str, seeds))),
        ("Corpora", f"{'; '.join(corpora)} ({', '.join(kinds)})"),
        ("Software", ", ".join(sorted(versions))),
        ("Machine", "; ".join(sorted(machines))),
        ("Measured", " to ".join(dict.fromkeys([started[0], started[-1]])) if started else ""),
        (
            "Commits",
            ", ".join(commits[:4]) + (f" and {len(commits) - 4} more" if len(commits) > 4 else ""),
        ),
    ]
    return [(name, text) for name, text in found if text]


def _notes(study: Study) -> list[str]:
    """What marks in the table mean, and where several sets of corpora stand apart."""
    cells = [cell for row in study.measured for cell in row.cells.values()]
    notes = ["±: standard deviation over seeds of the head, beside their mean."]
    if any(cell.at_chance for cell in cells):
        notes.append(f"{MARK}: no seed is better than an answer without listening.")
    if any(r.selection and r.selection.selected_on == "test" for r in _runs(study)):
        notes.append(f"{CHOSEN_ON_TEST}: chosen on the test set, as SUPERB does for ASV and SD.")
    if any(cell.paired for cell in cells):
        notes.append(
            "Differences are over the same test items, resampled by speaker where the items tell "
            "speakers, with the spread over seeds; p corrected over a twin's tasks (Holm)."
        )
    notes.append("Tinted rows are the paper's own figures, which superbit did not measure.")
    if study.several_groups:
        notes.append(
            "Charts are of the first set of corpora alone; --where corpus=NAME chooses another."
        )
    return notes


def _delta_lead(study: Study) -> str:
    pairs = [c.paired for row in study.measured for c in row.cells.values() if c.paired]
    counts = Counter(pair.verdict for pair in pairs)
    return (
        f"Twin minus FP32 parent on the same test items, with 95 % intervals over speakers and "
        f"seeds; right of the line the twin is better. Of {len(pairs)} comparisons the twin is "
        f"better in {counts['better']}, worse in {counts['worse']} and not told apart in "
        f"{counts['not told apart']}. Not told apart is not the same as equal: the numbers say "
        "what could have been shown."
    )


def _delta_lines(study: Study) -> list[dict[str, str]]:
    lines = []
    for row in study.measured:
        for task in study.tasks:
            cell = row.cells.get(task.column)
            paired = cell.paired if cell else None
            if paired is None or paired.found is None:
                continue
            found, digits = paired.found, task.decimals
            lines.append(
                {
                    "twin": row.model,
                    "task": f"{task.name} {task.arrow}",
                    "value": f"{found.value:+.{digits}f}",
                    "interval": f"{found.low:+.{digits}f} to {found.high:+.{digits}f}",
                    "p": _p(found.p),
                    "holm": _p(paired.adjusted or 0.0),
                    "smallest": f"{found.smallest:.{digits}f}",
                    "verdict": paired.verdict or "",
                    "on": paired.sample,
                }
            )
    return lines


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _layers_note(study: Study) -> str:
    if any(getattr(run, "layer_weights", None) for run in _runs(study)):
        return ""
    return (
        "Records from now on hold the weights that each head gives to the hidden states; these "
        "were made before."
    )


def _footer(study: Study) -> str:
    import superbit

    folders = ",".join(folder.as_posix() for folder in study.folders if not folder.is_absolute())
    made = f"Made by superbit {superbit.__version__}"
    return f"{made}: superbit report --results {folders or 'DIR'} --out report.html"


# --- Table 2 -------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Cells:
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
            title = "Measured" + (
                f": {own[0].source.removeprefix('measured; ')}" if own[0].source else ""
            )
            made = [self._row(row) for row in in_families(own)]
            made += [self._plain(row, "chance", "an answer without listening") for row in levels]
            groups.append({"title": title, "rows": made})
        paper = [self._plain(row, "paper", f"{row.precision}, {row.source.removeprefix('paper; ')}")
                 for row in self.study.paper]  # fmt: skip
        groups.append({"title": "The paper: other data, other sizes; not comparable with the rows above",
                       "rows": paper})  # fmt: skip
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
            subs.append((difference_text(cell.paired), kind))
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
                f"{found.value:+.{digits}f} from {self.study.names.of(family(row))}, "
                f"[{found.low:+.{digits}f}, {found.high:+.{digits}f}]: {paired.verdict} "
                f"(p {_p(found.p)}, Holm {_p(paired.adjusted or 0.0)}"
                + (f", McNemar {_p(paired.mcnemar_p)}" if paired.mcnemar_p is not None else "")
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
            "what": f"{task.title}: {figures.metric(task)}, {task.arrow} is better"
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
        return figures.with_folds(self.study, [run])

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
        for run in figures.with_folds(self.study, runs):
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


# --- Table 1 and claims --------------------------------------------------------------------------

_TABLE1_HEADS = ("storage, MB", "GFLOP", "BOP, not quantized", "BOP, quantized", "time, 10⁻⁴ s")


def _table1(study: Study) -> dict[str, Any]:
    rows = []
    for line, spec in zip(printed_rows(1), TABLE1_SPECS, strict=True):
        ours = study.costs.get(str(UpstreamSpec.parse(spec)), {})
        texts = []
        for column in TABLE1_FIGURES:
            value, ratio = ours.get(column), ours.get(f"{column}_ratio")
            texts += [
                line[column] or "—",
                "—" if value is None else f"{value:,.2f}",
                "—" if ratio is None else f"{ratio:.4f}",
            ]
        rows.append({"model": line["model"], "precision": line["precision"], "figures": texts})
    return {"heads": _TABLE1_HEADS, "rows": rows}


def _claims(study: Study) -> dict[str, Any]:
    claims = check_claims(ours=as_claims_have_them(study.costs))
    checked = [(claim.claim, figure) for claim in claims for figure in claim.figures]
    verdicts = Counter(figure.verdict for _, figure in checked)
    counts = ", ".join(f"{verdicts[v]} {v}" for v in VERDICTS if verdicts[v])
    return {
        "claims_lead": f"{len(checked)} figures in {len(claims)} sentences of the paper, recomputed "
        f"from its own tables: {counts}. Like for like is by superbit's models at one precision, "
        "with one rule for feed-forward widths and attention that is really sparse.",
        "claims": [
            {
                "place": claim.place,
                "says": claim.says,
                "what": figure.figure.what,
                "printed": figure.figure.printed,
                "verdict": figure.verdict,
                "like": figure.like_for_like,
            }
            for claim, figure in checked
        ],
    }


def task_names() -> list[str]:
    """Return the tasks' names, in the paper's order."""
    return list(TASKS)
