"""Table 2, the SUPERB tasks, as a pure function of the paper's CSV and of run records.

The paper's twelve rows are kept as text, digit by digit. Measured rows stand beneath them in the
same columns, order, directions and units. Failed and limited runs never enter. Nothing is chosen
silently: a cell that several runs could fill is an error that names them.

``superbit.benchmark.table_formats`` documents the printed formats. This module imports neither
torch nor s3prl.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from superbit.benchmark.folds import merge_folds
from superbit.benchmark.rate_search import Declared, Found, chosen_only, without_rate
from superbit.benchmark.records import RunRecord, Search
from superbit.benchmark.results import ResultStore
from superbit.benchmark.seeds import Seeds, merge_seeds
from superbit.benchmark.table_formats import (
    CHOSEN_ON_TEST,
    COLUMNS,
    HEADER,
    Cell,
    Format,
    Row,
    Table,
    render,
    require_one_of,
)
from superbit.benchmark.tasks import TASKS, TaskSpec
from superbit.benchmark.where import (
    KEY_DIGITS,
    choose,
    concerns_rates,
    condition_for,
    differing,
    name_runs,
    parse_where,
)
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import UpstreamSpec

__all__ = ["Cell", "Row", "Source", "Table", "paper_rows", "render", "table2"]

Source = Literal["both", "paper", "runs"]


def table2_command(
    results: Path,
    source: Source,
    where: Sequence[str],
    format: Format,
    show_lr: bool = False,
    mean_over_seeds: bool = False,
) -> int:
    """Print Table 2 with the runs of the folder ``results``; return 0.

    Args:
        show_lr: print each run's learning rate beside its value.
        mean_over_seeds: see :func:`table2`.

    Raises:
        InputError: see :func:`table2`, or a condition in ``where`` that cannot be read.
    """
    store = ResultStore(results)
    records = [] if source == "paper" else store.read_all()
    searches = [] if source == "paper" else store.read_searches()
    table = table2(
        records,
        source=source,
        where=parse_where(where),
        searches=searches,
        show_rates=show_lr,
        over_seeds=mean_over_seeds,
    )
    print(render(table, format), end="")
    return 0


_SCALES = ("superb", "embedded")
_METRIC_WORDS = {"acc": "accuracy", "slot_type_f1": "slot-type F1"}


def table2(
    records: Iterable[RunRecord] = (),
    *,
    source: Source = "both",
    where: Mapping[str, Any] | None = None,
    searches: Iterable[Declared] = (),
    show_rates: bool = False,
    over_seeds: bool = False,
) -> Table:
    """Return Table 2.

    Of the candidates of a search over learning rates only the chosen one enters, unless ``where``
    is about rates or keys.

    Args:
        records: any run records, e.g. of `ResultStore.read_all`.
        source: the paper's rows, those measured, or both.
        where: conditions that choose among the runs, see `superbit.benchmark.where`.
        searches: over learning rates that were asked for, e.g. of `ResultStore.read_searches`.
        show_rates: print each run's learning rate beside its value.
        over_seeds: of runs that differ in the seed, take the mean and the standard deviation.

    Raises:
        InputError: an unknown source; a cell that several runs could fill; a row whose runs are
            not of one and the same model; conditions that no run fulfils.
    """
    require_one_of("source", source, get_args(Source))
    title = "Table 2. Evaluation on the SUPERB tasks"
    printed = paper_rows() if source != "runs" else []
    if source == "paper":
        return Table(title=title, rows=tuple(printed), notes=tuple(_notes_on_columns(printed)))
    # one key is one run, whichever folders it was read from
    records = list({record.key: record for record in records}.values())
    found: list[Found] = []
    unsettled: list[str] = []
    compared = records
    if not concerns_rates(where or {}):
        compared, found, unsettled = chosen_only([r for r in records if not r.limited], searches)
    usable = [r for r in compared if r.status == "done" and not r.limited]
    single, incomplete = merge_folds(choose(usable, where or {}))
    chosen, seeds = merge_seeds(single) if over_seeds else (single, {})
    measured = _measured_rows(chosen, seeds)
    rows = (*printed, *measured)
    notes = [*_notes_on_columns(rows), *_notes_on_rows(measured), *_notes_on_runs(single)]
    notes += [*_notes_on_seeds(seeds, chosen), *_notes_on_searches(found, single)]
    notes += [*unsettled, *incomplete]
    notes += _notes_on_absent(records, measured)
    return Table(title=title, rows=rows, notes=tuple(notes), show_rates=show_rates)


def paper_rows() -> list[Row]:
    """Return the rows of the paper's Table 2, digits as printed there."""
    text = (resources.files("superbit.results") / "paper" / "table2.csv").read_text("utf-8")
    lines = csv.DictReader(io.StringIO(text))
    if tuple(lines.fieldnames or ()) != HEADER:
        raise RuntimeError("results/paper/table2.csv and the tasks disagree about the columns")
    return [
        Row(
            model=line["model"],
            source=line["source"],
            precision=line["precision"],
            cells={column: Cell(text=line[column]) for column in COLUMNS if line[column]},
        )
        for line in lines
    ]


def _measured_rows(records: Sequence[RunRecord], seeds: Mapping[str, Seeds]) -> list[Row]:
    grouped: dict[tuple[int, str, bool], list[RunRecord]] = {}
    for record in records:
        place = (_SCALES.index(record.scale), record.identity.upstream, _synthesized(record))
        grouped.setdefault(place, []).append(record)
    return [_measured_row(grouped[place], seeds) for place in sorted(grouped)]


def _measured_row(runs: Sequence[RunRecord], seeds: Mapping[str, Seeds]) -> Row:
    first = runs[0]
    spec = UpstreamSpec.parse(first.identity.upstream)
    marks: list[str] = [first.scale] if first.scale != "superb" else []
    marks += ["untrained"] if first.untrained else []
    marks += ["synthesized"] if _synthesized(first) else []
    by_task: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_task.setdefault(run.identity.task, []).append(run)
    row = f"{first.identity.upstream} at scale {first.scale}"
    for task, several in by_task.items():
        if len(several) > 1:
            problem = f"{task} of {row} could be filled by {len(several)} runs"
            apart = differing(several)
            if apart == ["seed"]:
                problem += " (--mean-over-seeds takes their mean)"
            raise _undecided(problem, several, apart)
    # the spec alone does not say which weights and which code: a checkpoint may have changed
    models = {(r.identity.weights_sha256, r.identity.upstream_revision): r for r in runs}
    if len(models) > 1:
        of_each = list(models.values())
        apart = [f for f in ("upstream_revision", "weights_sha256") if f in differing(of_each)]
        problem = f"the row {row} mixes the runs of {len(models)} models of that name"
        raise _undecided(problem, of_each, apart)
    return Row(
        model=first.identity.upstream,
        source="; ".join(["measured", *marks]),
        precision=f"FP32-{spec.policy.upper()}" if spec.policy else "FP32",
        cells={
            task.column: _measured_cell(task, by_task[task.name][0], seeds)
            for task in TASKS.values()
            if task.name in by_task
        },
        scale=first.scale,
        untrained=first.untrained,
        synthesized=_synthesized(first),
    )


def _undecided(problem: str, runs: Sequence[RunRecord], apart: Sequence[str]) -> InputError:
    others = ",".join(run.key[:KEY_DIGITS] for run in runs[1:])
    return InputError(
        f"{problem}: {name_runs(runs, apart)}; choose with --where FIELD=VALUE, e.g. "
        f"--where {condition_for(runs[0], apart[0])}, or leave runs out, "
        f"e.g. --where key!={others}."
    )


def _synthesized(record: RunRecord) -> bool:
    return record.corpus is not None and record.corpus.kind == "synthesized"


def _measured_cell(task: TaskSpec, record: RunRecord, seeds: Mapping[str, Seeds]) -> Cell:
    text = f"{record.value:.{task.decimals}f}"
    return Cell(text=text, record=record, seeds=seeds.get(record.key))


def _notes_on_columns(rows: Sequence[Row]) -> list[str]:
    by_metric: dict[str, list[str]] = {}
    for task in TASKS.values():
        unit = {"%": "in %", "x100": "times 100"}.get(task.unit, "as a fraction")
        metric = _METRIC_WORDS.get(task.metric, task.metric.upper())
        by_metric.setdefault(f"{metric} {unit}", []).append(task.name)
    metrics = "; ".join(f"{', '.join(names)}: {metric}" for metric, names in by_metric.items())
    notes = [f"{metrics}. ↑: higher is better; ↓: lower is better."]
    if any(row.scale is None for row in rows):
        notes.append(
            "reported: figures the paper takes from its reference [14]; our setup: figures the "
            "paper measured. Superbit measured neither."
        )
    return notes


def _notes_on_rows(rows: Sequence[Row]) -> Iterable[str]:
    records = [cell.record for row in rows for cell in row.cells.values() if cell.record]
    levels = sorted({100 * r.interval.level for r in records if r.interval})
    if levels:
        level = " or ".join(f"{each:g} %" for each in levels)
        yield f"[low, high]: {level} confidence interval over the test items."
    if any(row.scale == "embedded" for row in rows):
        yield (
            "embedded: few training steps on small corpora; comparable among embedded rows, "
            "not with the paper's figures nor with any run of the full benchmark."
        )
    if any(row.untrained for row in rows):
        yield "untrained: random weights; says that the pipeline runs, not how good the encoder is."
    if any(row.synthesized for row in rows):
        yield "synthesized: the corpora were spoken by a speech synthesizer, not by people."
    if any(r.selection and r.selection.selected_on == "test" for r in records):
        yield f"Marked {CHOSEN_ON_TEST}: chosen on the test set (SUPERB does so for ASV and SD)."


def _notes_on_runs(runs: Sequence[RunRecord]) -> Iterable[str]:
    for name in TASKS:
        of_task = [r for r in runs if r.identity.task == name]
        if not of_task:
            continue
        counts = sorted({_count(r) for r in of_task if r.items})
        rates = sorted({r.identity.learning_rate for r in of_task if r.identity.learning_rate})
        rules = sorted({r.selection.rule for r in of_task if r.selection})
        parts = [f"{' or '.join(counts)} test items"] if counts else []
        parts += [f"learning rate {' or '.join(f'{rate:g}' for rate in rates)}"] if rates else []
        parts += [" or ".join(rules)] if rules else []
        if parts:
            yield f"{name}, measured: {'; '.join(parts)}."


def _notes_on_seeds(seeds: Mapping[str, Seeds], runs: Sequence[RunRecord]) -> Iterable[str]:
    """Which seeds a mean is of, and the cells that have others."""
    if not seeds:
        return
    counts = Counter(each.numbers for each in seeds.values())
    usual = max(counts, key=lambda numbers: counts[numbers])
    yield (
        f"±: standard deviation over {len(usual)} seeds of the head "
        f"({', '.join(map(str, usual))}), beside their mean."
    )
    for run in runs:
        numbers = seeds[run.key].numbers if run.key in seeds else (run.identity.seed,)
        if numbers != usual and run.identity.learning_rate is not None:
            yield (
                f"{run.identity.task} of {run.identity.upstream}: "
                f"seed {', '.join(map(str, numbers))} only."
            )


def _notes_on_searches(found: Sequence[Found], runs: Sequence[RunRecord]) -> Iterable[str]:
    """One sentence for all searches of a task that tried the same rates."""
    shown = {without_rate(run.identity).key for run in runs}
    of_task: dict[str, list[Search]] = {}
    for each in found:
        if each.identity.key in shown:
            of_task.setdefault(each.identity.task, []).append(each.search)
    for task, searches in sorted(of_task.items(), key=lambda item: list(TASKS).index(item[0])):
        rates = sorted({tried.learning_rate for each in searches for tried in each.tried})
        yield (
            f"{task}: learning rate chosen among {', '.join(f'{rate:g}' for rate in rates)}: "
            f"{searches[0].rule}."
        )


def _count(record: RunRecord) -> str:
    items = record.items
    if items is None:
        return ""
    whole = items.expected in (None, items.count)
    return f"{items.count}" if whole else f"{items.count} of {items.expected}"


def _notes_on_absent(records: Sequence[RunRecord], measured: Sequence[Row]) -> Iterable[str]:
    failed = sum(r.status == "failed" for r in records)
    limited = sum(r.status == "done" and r.limited for r in records)
    absent = [f"{failed} failed"] if failed else []
    absent += [f"{limited} limited"] if limited else []
    if absent:
        yield f"Left out: {' and '.join(absent)} (see superbit status)."
    if not measured:
        yield "No measured rows: superbit sweep makes them."
