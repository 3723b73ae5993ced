"""Table 2, the SUPERB tasks, as a pure function of the paper's CSV and of run records.

The paper's twelve rows are kept as text, digit by digit. Measured rows stand beneath them in the
same columns, order, directions and units, those on the same corpora together. Failed and limited
runs never enter. Nothing is chosen silently: a cell that several runs could fill is an error that
names them.

``superbit.benchmark.tables.formats`` documents the printed formats. This module imports neither
torch nor s3prl.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from superbit.benchmark.progress import Reporter
from superbit.benchmark.records.choose import (
    KEY_DIGITS,
    Seeds,
    concerns_rates,
    condition_for,
    counted,
    differing,
    merge_seeds,
    name_runs,
    parse_where,
)
from superbit.benchmark.records.rate_search import Declared
from superbit.benchmark.records.schema import RunIdentity, RunRecord
from superbit.benchmark.records.store import ResultStore, without_garbage_collection
from superbit.benchmark.scoring.chance import all_at_chance, with_chance
from superbit.benchmark.tables import footnotes
from superbit.benchmark.tables.corpus_sets import CorpusSets, corpus_sets
from superbit.benchmark.tables.formats import (
    COLUMNS,
    HEADER,
    Cell,
    Format,
    Row,
    Table,
    render,
    require_one_of,
)
from superbit.benchmark.tables.naming import Names, find_upstream, in_order, read_labels
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import Task
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import UpstreamSpec

__all__ = ["Cell", "Row", "Source", "Table", "paper_rows", "render", "table2"]

Source = Literal["both", "paper", "runs"]


@without_garbage_collection()
def table2_command(
    results: Path,
    source: Source,
    where: Sequence[str],
    format: Format,
    show_lr: bool = False,
    mean_over_seeds: bool = False,
    upstreams: str | None = None,
    label: Sequence[str] = (),
) -> int:
    """Print Table 2 with the runs of the folder ``results``; return 0.

    Args:
        show_lr: print each run's learning rate beside its value.
        mean_over_seeds: see :func:`table2`.
        upstreams: those that rows are wanted of, in that order, with commas between.
        label: what to call upstreams, each NAME=SPEC.

    Raises:
        InputError: see :func:`table2`; a condition in ``where`` or a label that cannot be read; a
            folder that is not there.
    """
    if source == "paper" and (where or show_lr or mean_over_seeds):
        raise InputError(
            "--source paper prints no runs: leave out --where, --show-lr and --mean-over-seeds."
        )
    store = ResultStore(results)
    records: list[RunRecord] = []
    searches: list[Declared] = []
    if source != "paper":
        store.require_folder()
        records = with_chance(store.read_all(counting=Reporter().counting), store)
        searches = store.read_searches()
    known = in_order(records)
    try:
        table = table2(
            records,
            source=source,
            where=parse_where(where),
            searches=searches,
            show_rates=show_lr,
            over_seeds=mean_over_seeds,
            upstreams=_picked(upstreams, known),
            names=read_labels(label, known),
        )
    except SeveralSeeds as error:
        line = _with_mean(results, where, format, show_lr, upstreams, label)
        raise InputError(f"{error} For the mean over seeds: {line}") from error
    print(render(table, format), end="")
    return 0


def _picked(upstreams: str | None, known: Sequence[str]) -> list[str] | None:
    if upstreams is None:
        return None
    texts = [text.strip() for text in upstreams.split(",") if text.strip()]
    if not texts:
        raise InputError("--upstreams: name at least one.")
    return [find_upstream(text, known, option="--upstreams") for text in texts]


def _with_mean(
    results: Path,
    where: Sequence[str],
    format: Format,
    show_lr: bool,
    upstreams: str | None,
    label: Sequence[str],
) -> str:
    """The command line that was given, with ``--mean-over-seeds``."""
    words = ["superbit", "table", "2", "--results", str(results), "--mean-over-seeds"]
    words += [word for text in where for word in ("--where", text)]
    words += [word for text in label for word in ("--label", text)]
    words += ["--upstreams", upstreams] if upstreams else []
    words += ["--show-lr"] if show_lr else []
    words += ["--format", format] if format != "md" else []
    return shlex.join(words)


class SeveralSeeds(InputError):
    """A cell that several runs could fill, whose mean over seeds would."""


_PAPER_SOURCES = {"reported": "paper; reported", "our setup": "paper; own setup"}


def table2(
    records: Iterable[RunRecord] = (),
    *,
    source: Source = "both",
    where: Mapping[str, Any] | None = None,
    searches: Iterable[Declared] = (),
    show_rates: bool = False,
    over_seeds: bool = False,
    upstreams: Sequence[str] | None = None,
    names: Names | None = None,
) -> Table:
    """Return Table 2.

    Of the candidates of a search over learning rates only the chosen one enters, unless ``where``
    is about rates or keys.

    Args:
        records: any run records, e.g. of `ResultStore.read_all`.
        source: the paper's rows, those measured, or both.
        where: conditions that choose among the runs, see `superbit.benchmark.records.choose`.
        searches: over learning rates that were asked for, e.g. of `ResultStore.read_searches`.
        show_rates: print each run's learning rate beside its value.
        over_seeds: of runs that differ in the seed, take the mean and the standard deviation.
        upstreams: canonical specs of those that get rows, in that order; without it all, in the
            order of the sweeps that made them.
        names: what to call upstreams.

    Raises:
        InputError: an unknown source; a cell that several runs could fill; a row whose runs are
            not of one and the same model; conditions that no run fulfils.
    """
    require_one_of("source", source, get_args(Source))
    title = "Table 2. Evaluation on the SUPERB tasks"
    printed = paper_rows() if source != "runs" else []
    if source == "paper":
        return Table(title=title, rows=tuple(printed), notes=tuple(footnotes.on_columns(printed)))
    names = names or Names()
    # one key is one run, whichever folders it was read from
    records = list({record.key: record for record in records}.values())
    order = in_order(records)
    if upstreams is not None:
        order = [upstream for upstream in upstreams if upstream in order]
        records = [record for record in records if record.identity.upstream in order]
    valid = counted(records, where=where or {}, searches=searches)
    single = valid.runs
    chosen, seeds = merge_seeds(single) if over_seeds else (list(single), {})
    searched = frozenset(each.identity.key for each in valid.searches)
    sets = corpus_sets(single)
    rows_of = _Rows(names=names, order=order, sets=sets, seeds=seeds, searched=searched)
    measured = rows_of.make(chosen)
    rows = (*printed, *measured)
    notes = [
        *footnotes.on_columns(rows),
        *footnotes.on_rows(measured, sets),
        *footnotes.on_chance(measured),
        *footnotes.on_settings(single, sets),
        *footnotes.on_runs(single, searched=searched, picked=concerns_rates(where or {})),
    ]
    notes += [
        *footnotes.on_seeds(seeds, chosen, names),
        *footnotes.on_searches(valid.searches, single),
    ]
    notes += valid.notes
    notes += footnotes.on_absent(records, measured)
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
            source=_PAPER_SOURCES[line["source"]],
            precision=line["precision"],
            cells={column: Cell(text=line[column]) for column in COLUMNS if line[column]},
        )
        for line in lines
    ]


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """What measured rows are made with."""

    names: Names
    order: Sequence[str]
    sets: CorpusSets
    seeds: Mapping[str, Seeds]
    searched: frozenset[str]

    def make(self, records: Sequence[RunRecord]) -> list[Row]:
        grouped: dict[tuple[int, int], list[RunRecord]] = {}
        for record in records:
            place = (self.sets.index(record), self.order.index(record.identity.upstream))
            grouped.setdefault(place, []).append(record)
        return [self._row(grouped[place]) for place in sorted(grouped)]

    def _row(self, runs: Sequence[RunRecord]) -> Row:
        first = runs[0]
        corpora = self.sets.of(first)
        synthesized = corpora is not None and corpora.kind == "synthesized"
        spec = UpstreamSpec.parse(first.identity.upstream)
        marks: list[str] = [first.scale] if first.scale != "superb" else []
        marks += ["untrained"] if first.untrained else []
        marks += ["synthesized"] if synthesized else []
        marks += [corpora.label] if corpora and corpora.must_show and corpora.label else []
        by_task: dict[str, list[RunRecord]] = {}
        for run in runs:
            by_task.setdefault(run.identity.task, []).append(run)
        name = self.names.of(first.identity.upstream)
        _require_one_each(by_task, f"{name} at scale {first.scale}")
        return Row(
            model=name,
            upstream=first.identity.upstream,
            source="; ".join(["measured", *marks]),
            precision=f"FP32-{spec.policy_label}" if spec.policy else "FP32",
            cells={
                task.column: self._cell(task, by_task[task.name][0])
                for task in TASKS.values()
                if task.name in by_task
            },
            scale=first.scale,
            untrained=first.untrained,
            synthesized=synthesized,
            corpora=corpora.label if corpora else "",
            group=1 + self.sets.index(first),
        )

    def _cell(self, task: Task, record: RunRecord) -> Cell:
        seeds = self.seeds.get(record.key)
        runs = seeds.runs if seeds else (record,)
        return Cell(
            text=f"{record.value:.{task.decimals}f}",
            record=record,
            seeds=seeds,
            at_chance=all_at_chance(runs),
            searched=all(run.identity.without_rate.key in self.searched for run in runs),
        )


def _require_one_each(by_task: Mapping[str, Sequence[RunRecord]], row: str) -> None:
    """Each cell has one run, and all runs of a row are of one model."""
    for task, several in by_task.items():
        if len(several) > 1:
            problem = f"{task} of {row} could be filled by {len(several)} runs"
            # of each seed one: what a mean over seeds would take
            kind = SeveralSeeds if len(merge_seeds(several)[0]) == 1 else InputError
            hint = " (--mean-over-seeds takes their mean)" if kind is SeveralSeeds else ""
            # of runs that differ in the seed, the seed is what to choose by
            apart = sorted(differing(several), key=lambda field: field != "seed")
            raise kind(_undecided(problem + hint, several, apart))
    # the spec alone does not say which weights and which code: a checkpoint may have changed
    runs = [run for several in by_task.values() for run in several]
    # None is a value too: what such a record stands for is known, and a hash says it is another now
    apart = [f for f in _OF_A_MODEL if len({getattr(run.identity, f) for run in runs}) > 1]
    if apart:
        models = {tuple(getattr(run.identity, f) for f in apart): run for run in runs}
        problem = f"the row {row} mixes the runs of {len(models)} models of that name"
        raise InputError(_undecided(problem, list(models.values()), apart))


# What an identity says of the upstream, whatever that comes to hold; the rest is of the task.
_OF_A_TASK = ("task", "task_revision", "config", "corpus_sha256", "learning_rate", "seed", "fold")
_OF_A_MODEL = [name for name in RunIdentity.model_fields if name not in _OF_A_TASK]


def _undecided(problem: str, runs: Sequence[RunRecord], apart: Sequence[str]) -> str:
    others = ",".join(run.key[:KEY_DIGITS] for run in runs[1:])
    return (
        f"{problem}: {name_runs(runs, apart)}; choose with --where FIELD=VALUE, e.g. "
        f"--where {condition_for(runs[0], apart[0])}, or leave runs out, "
        f"e.g. --where key!={others}."
    )
