"""Two upstreams, task by task: what they differ by, and whether that is more than luck.

Runs are compared where they were made alike: on the same corpus, with the same config, which holds
scale and limit. Only the learning rate may differ, which is each upstream's own. Verdicts are of
`superbit.benchmark.pairing`, over the test items that both were scored on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

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
from superbit.benchmark.scoring.chance import all_at_chance
from superbit.benchmark.tables.runs import Runs
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import Task
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import typed

if TYPE_CHECKING:
    from superbit.benchmark.pairing.items import ItemsOfRuns
    from superbit.benchmark.pairing.pair import Paired

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
        paired: what they differ by on the items that both were scored on, one entry a measure of
            the task, the table's own first; empty where that is not known.
        unpaired: why not, in a sentence.
    """

    task: str
    first: tuple[float, ...]
    second: tuple[float, ...]
    better: Literal["first", "second"] | None
    setting: str = ""
    first_at_chance: bool | None = None
    second_at_chance: bool | None = None
    paired: tuple[Paired, ...] = ()
    unpaired: str = ""

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
    runs: Runs,
    first: str,
    *others: str,
    where: Sequence[str] = (),
    label: Sequence[str] = (),
) -> list[Comparison]:
    """Compare an upstream with each of others, named as people type them, on the runs that count.

    Args:
        runs: those of these upstreams and more.
        first: an upstream.
        others: those it is compared with.
        where: conditions ``FIELD=VALUE`` on runs.
        label: what to call upstreams, each ``NAME=SPEC``.

    Raises:
        InputError: as :func:`compare`; the same upstream twice.
    """
    known = upstreams_in_order(runs.records)
    names = read_labels(label, known)
    one, *rest = (find_upstream(text, known, option="compare") for text in (first, *others))
    for text, other in zip(others, rest, strict=True):
        if other == one:
            raise InputError(f"compare: {first!r} and {text!r} are the same upstream: name two.")
    if len(set(rest)) < len(rest):
        raise InputError("compare: an upstream is named twice to compare with: name it once.")
    usable = usable_runs(runs.records, where=parse_where(where), searches=runs.searches).runs
    items = runs.items()
    return [compare(usable, one, other, names=names, items=items) for other in rest]


def compare(
    runs: Sequence[RunRecord],
    first: str,
    second: str,
    *,
    names: UpstreamNames | None = None,
    items: ItemsOfRuns | None = None,
) -> Comparison:
    """Compare two upstreams on every task for which both have runs that were made alike.

    Args:
        runs: that count, see `superbit.benchmark.records.choose`.
        first: canonical spec.
        second: likewise.
        names: what to call them.
        items: where the runs' test items are; without, nothing is said of single items.

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
            compared = _compared(TASKS[name], *pair, setting=which)
            comparisons.append(
                _with_items(compared, pair[0], pair[1], items) if items else compared
            )
        left_out += _left_out(name, ours, shared, called)
    if not comparisons:
        raise InputError(" ".join(left_out))
    return Comparison(
        first=first,
        second=second,
        called=called,
        tasks=tuple(_adjusted(comparisons)),
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


def _with_items(
    compared: TaskComparison,
    first: Sequence[RunRecord],
    second: Sequence[RunRecord],
    items: ItemsOfRuns,
) -> TaskComparison:
    from superbit.benchmark.pairing.pair import pair

    try:
        return replace(compared, paired=pair(first, second, items))
    except InputError as error:
        return replace(compared, unpaired=str(error))


def _adjusted(comparisons: Sequence[TaskComparison]) -> list[TaskComparison]:
    """With each p corrected over all of them."""
    if not any(each.paired for each in comparisons):
        return list(comparisons)
    from superbit.benchmark.pairing.pair import adjusted

    told = iter(adjusted([pair for each in comparisons for pair in each.paired]))
    return [replace(each, paired=tuple(next(told) for _ in each.paired)) for each in comparisons]


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
