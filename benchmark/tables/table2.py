"""Table 2, the SUPERB tasks, as a pure function of the paper's CSV and of run records.

The paper's twelve rows are kept as text, digit by digit. Measured rows stand beneath them in the
same columns, order, directions and units, those on the same corpora together. Failed and limited
runs never enter. Nothing is chosen silently: a cell that several runs could fill is an error that
names them.

``superbit.benchmark.tables.table2_rendering`` documents the printed formats. This module imports
neither torch nor s3prl.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from superbit.benchmark.paper import printed_rows
from superbit.benchmark.records.choose import (
    KEY_DIGITS,
    SeedRuns,
    concerns_rates,
    condition_for,
    differing_fields,
    merge_seeds,
    name_runs,
    parse_where,
    usable_runs,
)
from superbit.benchmark.records.naming import (
    UpstreamNames,
    find_upstream,
    read_labels,
    upstreams_in_order,
)
from superbit.benchmark.records.rate_search import DeclaredSearch
from superbit.benchmark.records.schema import RunIdentity, RunRecord
from superbit.benchmark.scoring.chance import all_at_chance
from superbit.benchmark.tables import footnotes
from superbit.benchmark.tables.corpus_sets import CorpusSets, corpus_sets
from superbit.benchmark.tables.runs import Runs
from superbit.benchmark.tables.table2_rendering import COLUMNS, HEADER, Cell, Row, Table
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import Task
from superbit.upstreams.errors import InputError, require_one_of
from superbit.upstreams.spec import UpstreamSpec

if TYPE_CHECKING:
    from superbit.benchmark.pairing.items import ItemsOfRuns

Source = Literal["both", "paper", "runs"]


_PAPER_SOURCES = {"reported": "paper; reported", "our setup": "paper; own setup"}


def table2_of_runs(
    runs: Runs,
    *,
    source: Source = "both",
    where: Sequence[str] = (),
    upstreams: Sequence[str] | None = None,
    label: Sequence[str] = (),
    show_lr: bool = False,
    mean_over_seeds: bool = True,
    paired: bool = False,
) -> Table:
    """Return Table 2 as people ask for it; see :func:`table2`.

    Args:
        runs: those that may enter.
        source: the paper's rows, those measured, or both.
        where: conditions ``FIELD=VALUE`` on runs.
        upstreams: only these, in this order, each as people type it.
        label: what to call upstreams, each ``NAME=SPEC``.
        show_lr: print each run's learning rate beside its value.
        mean_over_seeds: of runs that differ in the seed, take the mean and the standard deviation.
        paired: say of each twin what it differs by from its FP32 parent, and what chance gives.

    Raises:
        InputError: see :func:`table2`; a condition or a label that cannot be read, an upstream
            without runs.
    """
    known = upstreams_in_order(runs.records)
    wanted = None
    if upstreams is not None:
        wanted = [find_upstream(text, known, option="--upstreams") for text in upstreams]
    return table2(
        runs.records,
        source=source,
        where=parse_where(where),
        searches=runs.searches,
        show_rates=show_lr,
        over_seeds=mean_over_seeds,
        upstreams=wanted,
        names=read_labels(label, known),
        items=runs.items() if paired else None,
    )


def table2(
    records: Iterable[RunRecord] = (),
    *,
    source: Source = "both",
    where: Mapping[str, Any] | None = None,
    searches: Iterable[DeclaredSearch] = (),
    show_rates: bool = False,
    over_seeds: bool = True,
    upstreams: Sequence[str] | None = None,
    names: UpstreamNames | None = None,
    items: ItemsOfRuns | None = None,
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
        items: the runs' test items; given, each twin's cells say what it differs by from its FP32
            parent, and a row says what chance gives.

    Raises:
        InputError: an unknown source; a cell that several runs could fill; a row whose runs are
            not of one and the same model; conditions that no run fulfils.
    """
    require_one_of("source", source, get_args(Source))
    title = "Table 2. Evaluation on the SUPERB tasks"
    printed = paper_rows() if source != "runs" else []
    if source == "paper":
        return Table(title=title, rows=tuple(printed), notes=tuple(footnotes.on_columns(printed)))
    names = names or UpstreamNames()
    # one key is one run, whichever folders it was read from
    records = list({record.key: record for record in records}.values())
    order = upstreams_in_order(records)
    if upstreams is not None:
        order = [upstream for upstream in upstreams if upstream in order]
        records = [record for record in records if record.identity.upstream in order]
    valid = usable_runs(records, where=where or {}, searches=searches)
    single = valid.runs
    chosen, seeds = merge_seeds(single) if over_seeds else (list(single), {})
    searched = frozenset(each.identity.key for each in valid.searches)
    sets = corpus_sets(single)
    rows_of = _Rows(names=names, order=order, sets=sets, seeds=seeds, searched=searched)
    measured = rows_of.make(chosen)
    levels: list[Row] = []
    if items is not None:
        from superbit.benchmark.tables.twins import beside_parents, chance_rows

        measured = beside_parents(measured, items)
        levels = chance_rows(measured)
    rows = (*printed, *measured)
    notes = [
        *footnotes.on_columns(rows),
        *footnotes.on_rows(measured, sets),
        *footnotes.on_chance(measured),
        *footnotes.on_baselines(measured),
        *footnotes.on_small_scale(measured),
        *footnotes.on_settings(single, sets),
        *footnotes.on_runs(single, searched=searched, picked=concerns_rates(where or {})),
    ]
    if items is not None:
        notes += footnotes.on_parents(measured)
    notes += [
        *footnotes.on_seeds(seeds, chosen, names),
        *footnotes.on_searches(valid.searches, single),
    ]
    notes += valid.notes
    notes += footnotes.on_absent(records, measured)
    return Table(
        title=title,
        rows=tuple(sorted((*rows, *levels), key=lambda row: row.group)),
        notes=tuple(notes),
        show_rates=show_rates,
        paired=items is not None,
    )


def paper_rows() -> list[Row]:
    """Return the rows of the paper's Table 2, digits as printed there."""
    lines = printed_rows(2)
    if tuple(lines[0]) != HEADER:
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

    names: UpstreamNames
    order: Sequence[str]
    sets: CorpusSets
    seeds: Mapping[str, SeedRuns]
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
            searched=all(run.identity.key_without_rate in self.searched for run in runs),
        )


def _require_one_each(by_task: Mapping[str, Sequence[RunRecord]], row: str) -> None:
    """Each cell has one run, and all runs of a row are of one model."""
    for task, several in by_task.items():
        if len(several) > 1:
            problem = f"{task} of {row} could be filled by {len(several)} runs"
            # of each seed one: what a mean over seeds would take
            of_seeds = len(merge_seeds(several)[0]) == 1
            hint = " (--mean-over-seeds takes their mean)" if of_seeds else ""
            # of runs that differ in the seed, the seed is what to choose by
            apart = sorted(differing_fields(several), key=lambda field: field != "seed")
            raise InputError(_undecided(problem + hint, several, apart))
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
