"""Two upstreams, task by task, beside the spread over seeds.

Runs are compared where they were made alike: on the same corpus, with the same config, which holds
scale and limit. Only the learning rate may differ, which is each upstream's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Literal, get_args

from superbit.benchmark.records.canonical import canonical_json
from superbit.benchmark.records.choose import (
    condition_for,
    describe_corpus,
    differing_fields,
    fields_of,
    name_runs,
    parse_where,
    setting_of,
    usable_runs,
)
from superbit.benchmark.records.naming import (
    UpstreamNames,
    find_upstream,
    read_labels,
    upstreams_in_order,
)
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.rendering import (
    Format,
    TextTable,
    csv_text,
    json_text,
    render_text,
)
from superbit.benchmark.scoring.chance import MARK, all_at_chance
from superbit.benchmark.tables.runs import Runs
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import Task
from superbit.upstreams.errors import InputError, require_one_of
from superbit.upstreams.spec import typed

# In what runs of one upstream, task and setting may differ.
_OF_A_SEED = ("seed", "learning_rate", "config.optimizer.lr")


@dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """One task of two upstreams that were run alike, in the table's unit.

    Attributes:
        task: SUPERB's short name.
        first: values by rising seed.
        second: likewise.
        better: ``"first"`` or ``"second"`` where each of its seeds is better than each of the
            other's; ``None`` where they overlap, or where either has a single seed.
        setting: what tells it from other comparisons of that task; empty where there is one.
        first_at_chance: none of its seeds is better than chance; ``None`` where not known.
        second_at_chance: likewise.
    """

    task: str
    first: tuple[float, ...]
    second: tuple[float, ...]
    better: Literal["first", "second"] | None
    setting: str = ""
    first_at_chance: bool | None = None
    second_at_chance: bool | None = None

    @property
    def gain(self) -> float:
        """Difference of the means; above 0 where the first upstream is better."""
        difference = fmean(self.first) - fmean(self.second)
        return difference if TASKS[self.task].higher_is_better else -difference


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two upstreams compare.

    Attributes:
        first: canonical spec.
        second: likewise.
        called: what to call them.
        tasks: what could be compared, in the paper's order.
        left_out: a sentence for each task, or part of one, that could not be.
    """

    first: str
    second: str
    called: tuple[str, str]
    tasks: tuple[TaskComparison, ...]
    left_out: tuple[str, ...]


def compare_runs(
    runs: Runs, first: str, second: str, *, where: Sequence[str] = (), label: Sequence[str] = ()
) -> Comparison:
    """Compare two upstreams, named as people type them, on those runs that count.

    Args:
        runs: those of these upstreams and others.
        first: an upstream.
        second: another one.
        where: conditions ``FIELD=VALUE`` on runs.
        label: what to call upstreams, each ``NAME=SPEC``.

    Raises:
        InputError: as :func:`compare`; the same upstream twice.
    """
    known = upstreams_in_order(runs.records)
    names = read_labels(label, known)
    one, other = (find_upstream(text, known, option="compare") for text in (first, second))
    if one == other:
        raise InputError(f"compare: {first!r} and {second!r} are the same upstream: name two.")
    usable = usable_runs(runs.records, where=parse_where(where), searches=runs.searches).runs
    return compare(usable, one, other, names=names)


def compare(
    runs: Sequence[RunRecord], first: str, second: str, *, names: UpstreamNames | None = None
) -> Comparison:
    """Compare two upstreams on every task for which both have runs that were made alike.

    Args:
        runs: that count, see `superbit.benchmark.records.choose`.
        first: canonical spec.
        second: likewise.
        names: what to call them.

    Raises:
        InputError: an upstream without runs; no task in common; no runs made alike; or runs of one
            upstream, task and setting that differ in more than the seed and its learning rate.
    """
    names = names or UpstreamNames()
    of_task = {spec: _by_task(runs, spec) for spec in (first, second)}
    tasks = [name for name in TASKS if name in of_task[first] and name in of_task[second]]
    called = (names.of(first), names.of(second))
    if not tasks:
        raise InputError(f"{called[0]} and {called[1]} have no task in common that is done.")
    comparisons: list[TaskComparison] = []
    left_out: list[str] = []
    for name in tasks:
        ours = [_by_setting(of_task[spec][name]) for spec in (first, second)]
        shared = [setting for setting in ours[0] if setting in ours[1]]
        for setting in shared:
            pair = [
                _one_a_seed(side[setting], f"{name} of {who}")
                for side, who in zip(ours, called, strict=True)
            ]
            which = _setting_in_words(pair[0][0], [side[s][0] for side in ours for s in side])
            comparisons.append(_compared(TASKS[name], *pair, setting=which))
        left_out += _left_out(name, ours, shared, called)
    if not comparisons:
        raise InputError(" ".join(left_out))
    return Comparison(
        first=first,
        second=second,
        called=called,
        tasks=tuple(comparisons),
        left_out=tuple(left_out),
    )


_BySetting = dict[str, list[RunRecord]]


def _by_task(runs: Sequence[RunRecord], upstream: str) -> Mapping[str, list[RunRecord]]:
    of_task: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda run: run.identity.seed):
        if run.identity.upstream == upstream and run.value is not None:
            of_task.setdefault(run.identity.task, []).append(run)
    if not of_task:
        known = ", ".join(map(typed, upstreams_in_order(runs))) or "none"
        raise InputError(f"{typed(upstream)} has no runs there; upstreams that have: {known}.")
    return of_task


def _by_setting(runs: Sequence[RunRecord]) -> _BySetting:
    groups: _BySetting = {}
    for run in runs:
        groups.setdefault(canonical_json(setting_of(run.identity)), []).append(run)
    return groups


def _one_a_seed(runs: Sequence[RunRecord], what: str) -> Sequence[RunRecord]:
    """The runs, if they are of one model and each of a seed of its own.

    Raises:
        InputError: they are not; it names the field that differs.
    """
    # None says nothing: the field was not there yet when that run was made
    apart = [f for f in differing_fields(runs) if f not in _OF_A_SEED and len(_known(runs, f)) > 1]
    problem = f"{what} mixes runs that differ in more than the seed"
    if not apart:
        seeds = [run.identity.seed for run in runs]
        twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
        if twice is None:
            return runs
        runs = [run for run in runs if run.identity.seed == twice]
        apart = differing_fields(runs)
        problem = f"{what} has several runs of seed {twice}"
    raise InputError(
        f"{problem}: {name_runs(runs, apart)}; choose with --where FIELD=VALUE, e.g. "
        f"--where {condition_for(runs[0], apart[0])}."
    )


def _known(runs: Sequence[RunRecord], field: str) -> set[str]:
    values = [fields_of(run).get(field) for run in runs]
    return {json.dumps(value) for value in values if value is not None}


def _compared(
    task: Task, first: Sequence[RunRecord], second: Sequence[RunRecord], *, setting: str
) -> TaskComparison:
    values = [tuple(run.value or 0.0 for run in side) for side in (first, second)]
    sign = 1 if task.higher_is_better else -1
    one, other = ([sign * value for value in side] for side in values)
    better: Literal["first", "second"] | None = None
    if min(len(one), len(other)) > 1:
        if min(one) > max(other):
            better = "first"
        elif min(other) > max(one):
            better = "second"
    return TaskComparison(
        task=task.name,
        first=values[0],
        second=values[1],
        better=better,
        setting=setting,
        first_at_chance=all_at_chance(first),
        second_at_chance=all_at_chance(second),
    )


def _setting_in_words(run: RunRecord, every: Sequence[RunRecord]) -> str:
    """In words, the fields by which this run's setting is known among all of a task's."""
    return ", ".join(
        f"{field} {_value_in_words(run, field)}" for field in _differing_settings(every)
    )


def _differing_settings(runs: Sequence[RunRecord]) -> list[str]:
    settings = [setting_of(run.identity) for run in runs]
    names = dict.fromkeys(name for each in settings for name in each)
    return [n for n in names if len({json.dumps(each.get(n)) for each in settings}) > 1]


def _value_in_words(run: RunRecord, field: str) -> str:
    if field == "corpus_sha256" and run.corpus:
        return describe_corpus(run.corpus)
    return condition_for(run, field).partition("=")[2]


def _left_out(
    task: str, sides: Sequence[_BySetting], shared: Sequence[str], called: Sequence[str]
) -> list[str]:
    """One sentence on the runs of a task that have no counterpart, with what differs."""
    if not shared:
        apart = _differing_settings([runs[0] for side in sides for runs in side.values()])
        ran = [
            f"{who}: {' or '.join(_settings_in_words(side, apart))}"
            for who, side in zip(called, sides, strict=True)
        ]
        field = " and ".join("corpus" if each == "corpus_sha256" else each for each in apart)
        return [f"{task} is not compared, as {field} differs: {'; '.join(ran)}."]
    sentences = []
    for who, side in zip(called, sides, strict=True):
        alone = {setting: runs for setting, runs in side.items() if setting not in shared}
        if alone:
            apart = _differing_settings([runs[0] for each in sides for runs in each.values()])
            count = sum(map(len, alone.values()))
            runs = "1 run" if count == 1 else f"{count} runs"
            sentences.append(
                f"{task}: {runs} of {who} left out, which the other does not have: "
                f"{' or '.join(_settings_in_words(alone, apart))}."
            )
    return sentences


def _settings_in_words(side: _BySetting, apart: Sequence[str]) -> list[str]:
    texts = [
        ", ".join(
            f"{'corpus' if field == 'corpus_sha256' else field} {_value_in_words(runs[0], field)}"
            for field in apart
        )
        for runs in side.values()
    ]
    return list(dict.fromkeys(texts))


def render_comparison(comparison: Comparison, format: Format = "md") -> str:
    """Return a comparison as text that ends with a newline.

    CSV holds numbers alone, each in a column of its own; the upstreams' names stand in its header.

    Raises:
        InputError: an unknown format.
    """
    require_one_of("format", format, get_args(Format))
    if format == "json":
        tasks: list[dict[str, Any]] = [asdict(e) | {"gain": e.gain} for e in comparison.tasks]
        return json_text(
            {
                "first": comparison.called[0],
                "second": comparison.called[1],
                "upstreams": [comparison.first, comparison.second],
                "tasks": tasks,
                "not_compared": list(comparison.left_out),
            }
        )
    if format == "csv":
        one, other = comparison.called
        details = ("", "_sd", "_n", "_at_chance")
        columns = [f"{name}{end}" for name in (one, other) for end in details]
        header = ["task", "setting", *columns, "gain", "beyond_the_seeds"]
        return csv_text(header, [_csv_line(each, comparison.called) for each in comparison.tasks])
    return render_text(_as_text(comparison), format)


def _as_text(comparison: Comparison) -> TextTable:
    called, rows = comparison.called, comparison.tasks
    header = ["task", *called, "gain", "beyond the seeds"]
    lines = [
        [
            f"{each.task}{TASKS[each.task].arrow}",
            _figure(each.first, each.task, each.first_at_chance),
            _figure(each.second, each.task, each.second_at_chance),
            f"{each.gain:+.{TASKS[each.task].decimals}f}",
            _verdict(each, called),
        ]
        for each in rows
    ]
    has_settings = any(each.setting for each in rows)
    if has_settings:
        header.insert(1, "of")
        for line, each in zip(lines, rows, strict=True):
            line.insert(1, each.setting)
    wins = [sum(each.better == side for each in rows) for side in ("first", "second")]
    what = "tasks" if len({each.task for each in rows}) == len(rows) else "comparisons"
    notes = [
        f"Mean ± standard deviation over seeds of the head. gain: above 0 where {called[0]} is "
        "better.",
        "beyond the seeds: the upstream each of whose seeds is better than each of the other's.",
        f"{called[0]} on {wins[0]} of {len(rows)} {what}, {called[1]} on {wins[1]}.",
    ]
    if any(each.first_at_chance or each.second_at_chance for each in rows):
        notes.append(f"{MARK}: no seed is better than an answer without listening.")
    return TextTable(
        title=f"{called[0]} and {called[1]}",
        header=header,
        groups=[lines],
        notes=[*notes, *comparison.left_out],
        text_columns=2 if has_settings else 1,
        name_columns=(0, len(header) - 1),
    )


def _csv_line(each: TaskComparison, called: Sequence[str]) -> list[str]:
    decimals = 1 + TASKS[each.task].decimals
    line = [each.task, each.setting]
    for values, at_chance in (
        (each.first, each.first_at_chance),
        (each.second, each.second_at_chance),
    ):
        line.append(f"{fmean(values):.{decimals}f}")
        line.append(f"{stdev(values):.{decimals}f}" if len(values) > 1 else "")
        line += [str(len(values)), {None: "", True: "yes", False: "no"}[at_chance]]
    return [*line, f"{each.gain:.{decimals}f}", _verdict(each, called)]


def _verdict(each: TaskComparison, called: Sequence[str]) -> str:
    if min(len(each.first), len(each.second)) == 1:
        return "one seed"
    return {"first": called[0], "second": called[1], None: "no"}[each.better]


def _figure(values: Sequence[float], task: str, at_chance: bool | None) -> str:
    decimals = TASKS[task].decimals
    spread = f" ±{stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{decimals}f}{spread}{f' {MARK}' if at_chance else ''}"
