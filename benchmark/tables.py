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
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from superbit.benchmark import table_notes
from superbit.benchmark.counted import counted
from superbit.benchmark.rate_search import Declared
from superbit.benchmark.records import FURTHER_FIELDS, RunRecord
from superbit.benchmark.results import ResultStore
from superbit.benchmark.seeds import Seeds, merge_seeds
from superbit.benchmark.table_formats import (
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
    condition_for,
    differing,
    fields,
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
    if source == "paper" and (where or show_lr or mean_over_seeds):
        raise InputError(
            "--source paper prints no runs: leave out --where, --show-lr and --mean-over-seeds."
        )
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
_OF_A_MODEL = ("upstream_revision", "weights_sha256", *FURTHER_FIELDS)


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
        return Table(title=title, rows=tuple(printed), notes=tuple(table_notes.on_columns(printed)))
    # one key is one run, whichever folders it was read from
    records = list({record.key: record for record in records}.values())
    valid = counted(records, where=where or {}, searches=searches)
    single = valid.runs
    chosen, seeds = merge_seeds(single) if over_seeds else (list(single), {})
    measured = _measured_rows(chosen, seeds)
    rows = (*printed, *measured)
    notes = [
        *table_notes.on_columns(rows),
        *table_notes.on_rows(measured),
        *table_notes.on_runs(single),
    ]
    notes += [
        *table_notes.on_seeds(seeds, chosen),
        *table_notes.on_searches(valid.searches, single),
    ]
    notes += valid.notes
    notes += table_notes.on_absent(records, measured)
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
    models = {tuple(fields(run)[name] for name in _OF_A_MODEL): run for run in runs}
    if len(models) > 1:
        of_each = list(models.values())
        apart = [name for name in _OF_A_MODEL if name in differing(of_each)]
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
