"""The page: what a template is filled with, and the file that comes out.

One file, which asks for nothing from anywhere; without JavaScript only sorting and the switch of
colours are missing. Where it says a number, it says where from.
"""

from __future__ import annotations

from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

from superbit.benchmark.claims.check import VERDICTS, check_claims
from superbit.benchmark.paper import TABLE1_FIGURES, TABLE1_SPECS, printed_rows
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.report import inside, quality, svg, training, twins
from superbit.benchmark.report.cells import Cells, p_text, signed
from superbit.benchmark.report.costs import as_claims_have_them
from superbit.benchmark.report.keys import metric
from superbit.benchmark.report.study import (
    Study,
    is_twin,
)
from superbit.benchmark.scoring.chance import MARK
from superbit.benchmark.tables.table2_rendering import (
    CHOSEN_ON_TEST,
)
from superbit.benchmark.tables.twins import runs_of
from superbit.benchmark.tasks.catalog import SHOWN_FIRST
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
        metric=metric,
        breakable=_breakable,
    )
    content = _content(study, out) | {"title": title or _title(study)}
    content["style"] = Markup(_style(content))
    content["script"] = Markup(_packaged("script.js"))
    return environment.get_template("report.html.j2").render(content) + "\n"


def _breakable(name: str) -> Any:
    """A name that may go on in the next line behind an underscore or before a plus."""
    from markupsafe import Markup, escape

    return Markup(escape(name).replace("_", Markup("_<wbr>")).replace("+", Markup("<wbr>+")))


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
    scales = sorted({row.scale for row in study.measured if row.scale not in (None, "superb")})
    scale = f", {' and '.join(scales)} scale" if scales else ""
    return f"SUPERB: {len(study.measured)} upstreams, {len(study.tasks)} tasks{scale}"


def _content(study: Study, out: Path) -> dict[str, Any]:
    cells = Cells(study=study, out=out)
    groups = cells.groups()
    delta, rates, curves = twins.delta(study), training.rates(study), training.curves(study)
    layers, flow = inside.layers(study), inside.flow(study)
    costs = quality.costs_known(study)
    charts = [
        {
            "task": task.name,
            "cost": cost.name,
            "measured": quality.pareto(study, task, cost),
            "paper": quality.paper_pareto(study, task, cost) if cost.paper else None,
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
    first = next((t.name for t in tasks if t.name == SHOWN_FIRST), tasks[0].name)
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
        "measured_on": _measured_on(study),
        "quality": charts,
        "first_task": first,
        "cost_lines": [
            (row.model, [_short(cost.of(study, row)) for cost in costs]) for row in study.measured
        ],
        "rates": rates,
        "curves": curves,
        "layers": layers,
        "layers_note": _layers_note(study),
        "flow": flow,
        "table1": _table1(study),
        **_claims(study),
        "footer": _footer(),
    }


def _measured_on(study: Study) -> str:
    """Where times and memory were measured; nothing where none were."""
    rows = [study.costs.get(row.upstream, {}) for row in study.measured]
    found = dict.fromkeys(
        f"{row['machine']}, {row.get('threads')} threads, torch {row.get('torch')}"
        for row in rows
        if row.get("machine")
    )
    return "; ".join(found)


def _short(value: float | None) -> str:
    return "—" if value is None else f"{value:,.2f}"


# --- words ---------------------------------------------------------------------------------------


def _runs(study: Study) -> list[RunRecord]:
    return [run for row in study.measured for cell in row.cells.values() for run in runs_of(cell)]


def _lead(study: Study) -> str:
    scales = {row.scale for row in study.measured}
    rows = study.measured
    binarized = sum(map(is_twin, rows))
    parts = []
    if binarized:
        parts.append(
            f"What {len(rows)} speech encoders cost and what they give up, {binarized} of them "
            "1-bit twins of others."
        )
    if "embedded" in scales:
        parts.append(
            "Few training steps on small corpora: figures compare among each other, not with the "
            "paper's nor with any run of the full benchmark."
        )
    return " ".join(parts)


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
                    "value": signed(found.value, digits),
                    "interval": f"{signed(found.low, digits)} to {signed(found.high, digits)}",
                    "p": p_text(found.p),
                    "holm": p_text(paired.adjusted or 0.0),
                    "smallest": f"{found.smallest:.{digits}f}",
                    "verdict": paired.verdict or "",
                    "on": paired.sample,
                }
            )
    return lines


def _layers_note(study: Study) -> str:
    if any(getattr(run, "layer_weights", None) for run in _runs(study)):
        return ""
    return (
        "Records from now on hold the weights that each head gives to the hidden states; these "
        "were made before."
    )


def _footer() -> str:
    import superbit

    version = superbit.__version__
    return f"Made by superbit {version}: superbit report --results DIR --out report.html"


# --- Table 1 and claims --------------------------------------------------------------------------

_TABLE1_HEADS = (
    "storage, MB",
    "GFLOP",
    "BOP not quantized, 2³⁰",
    "BOP quantized, 2³⁰",
    "time, 10⁻⁴ s",
)


def _table1(study: Study) -> dict[str, Any]:
    rows = []
    for line, spec in zip(printed_rows(1), TABLE1_SPECS, strict=True):
        ours = study.costs.get(str(UpstreamSpec.parse(spec)), {})
        texts: list[tuple[str, str]] = []
        for column in TABLE1_FIGURES:
            value, ratio = ours.get(column), ours.get(f"{column}_ratio")
            own = "" if value is None else f"{value:,.2f}"
            texts.append((line[column], own if ratio is None else f"{own} · {ratio:.4f}"))
        rows.append({"model": line["model"], "precision": line["precision"], "figures": texts})
    return {"heads": _TABLE1_HEADS, "rows": rows}


def _claims(study: Study) -> dict[str, Any]:
    claims = check_claims(ours=as_claims_have_them(study.costs))
    checked = [(claim.claim, figure) for claim in claims for figure in claim.figures]
    verdicts = Counter(figure.verdict for _, figure in checked)
    counts = ", ".join(f"{verdicts[v]} {v}" for v in VERDICTS if verdicts[v])
    return {
        "claims_lead": f"{len(checked)} figures in {len(claims)} sentences of the paper, "
        f"recomputed from its own tables: {counts}. Like for like is by superbit's models at one "
        "precision, with one rule for feed-forward widths and attention that is really sparse.",
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
