"""``superbit compare A B``: two upstreams, task by task, beside the spread over seeds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from superbit.benchmark.counted import counted
from superbit.benchmark.records import RunRecord
from superbit.benchmark.results import ResultStore
from superbit.benchmark.table_formats import Format
from superbit.benchmark.table_markup import html, latex, markdown
from superbit.benchmark.tasks import TASKS, TaskSpec
from superbit.benchmark.where import parse_where
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import UpstreamSpec


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One task of two upstreams, in the table's unit.

    Attributes:
        task: SUPERB's short name.
        first: values by rising seed.
        second: likewise.
        better: ``"first"`` or ``"second"`` where each of its seeds is better than each of the
            other's; ``None`` where they overlap, or where either has a single seed.
    """

    task: str
    first: tuple[float, ...]
    second: tuple[float, ...]
    better: Literal["first", "second"] | None

    @property
    def gain(self) -> float:
        """Difference of the means; above 0 where the first upstream is better."""
        difference = fmean(self.first) - fmean(self.second)
        return difference if TASKS[self.task].higher_is_better else -difference


def compare_command(
    first: str, second: str, results: Path, where: Sequence[str], format: Format
) -> int:
    """Print how two upstreams compare; return 0.

    Raises:
        InputError: an upstream without runs, or runs that differ in more than the seed.
    """
    store = ResultStore(results)
    specs = [str(UpstreamSpec.parse(text)) for text in (first, second)]
    runs = counted(store.read_all(), where=parse_where(where), searches=store.read_searches()).runs
    compared = compare(runs, *specs)
    print(_render(compared, specs, format), end="")
    return 0


def compare(runs: Sequence[RunRecord], first: str, second: str) -> list[Comparison]:
    """Compare two upstreams on every task that both have.

    Args:
        runs: that count, see `superbit.benchmark.counted`.
        first: canonical spec.
        second: likewise.

    Raises:
        InputError: an upstream without runs, no task in common, or two runs of one seed.
    """
    values = {spec: _values(runs, spec) for spec in (first, second)}
    tasks = [name for name in TASKS if name in values[first] and name in values[second]]
    if not tasks:
        raise InputError(f"{first} and {second} have no task in common that is done.")
    return [_compared(TASKS[name], values[first][name], values[second][name]) for name in tasks]


def _values(runs: Sequence[RunRecord], upstream: str) -> Mapping[str, tuple[float, ...]]:
    of_task: dict[str, dict[int, float]] = {}
    for run in sorted(runs, key=lambda run: run.identity.seed):
        identity = run.identity
        if identity.upstream != upstream or run.value is None:
            continue
        seeds = of_task.setdefault(identity.task, {})
        if identity.seed in seeds:
            raise InputError(
                f"{identity.task} of {upstream} has several runs of seed {identity.seed}: choose "
                "with --where FIELD=VALUE, e.g. scale=embedded."
            )
        seeds[identity.seed] = run.value
    if not of_task:
        known = ", ".join(sorted({run.identity.upstream for run in runs})) or "none"
        raise InputError(f"{upstream} has no runs there; upstreams that have: {known}.")
    return {task: tuple(seeds.values()) for task, seeds in of_task.items()}


def _compared(task: TaskSpec, first: tuple[float, ...], second: tuple[float, ...]) -> Comparison:
    sign = 1 if task.higher_is_better else -1
    one, other = [sign * value for value in first], [sign * value for value in second]
    better: Literal["first", "second"] | None = None
    if min(len(one), len(other)) > 1:
        if min(one) > max(other):
            better = "first"
        elif min(other) > max(one):
            better = "second"
    return Comparison(task=task.name, first=first, second=second, better=better)


def _render(compared: Sequence[Comparison], specs: Sequence[str], format: Format) -> str:
    if format == "json":
        objects = [asdict(each) | {"gain": each.gain} for each in compared]
        return (
            json.dumps({"first": specs[0], "second": specs[1], "tasks": objects}, indent=1) + "\n"
        )
    header = ["task", *specs, "gain", "beyond the seeds"]
    lines = [
        [
            f"{each.task}{TASKS[each.task].arrow}",
            _figure(each.first, each.task),
            _figure(each.second, each.task),
            f"{each.gain:+.{TASKS[each.task].decimals}f}",
            _verdict(each, specs),
        ]
        for each in compared
    ]
    if format == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([header, *lines])
        return out.getvalue()
    wins = [sum(each.better == side for each in compared) for side in ("first", "second")]
    notes = [
        "Mean ± standard deviation over seeds of the head. gain: above 0 where "
        f"{specs[0]} is better.",
        "beyond the seeds: the upstream each of whose seeds is better than each of the other's.",
        f"{specs[0]} on {wins[0]} of {len(compared)} tasks, {specs[1]} on {wins[1]}.",
    ]
    title = f"{specs[0]} and {specs[1]}"
    if format == "md":
        return markdown(title, header, lines, notes)
    return {"latex": latex, "html": html}[format](title, header, [lines], notes, text_columns=1)


def _verdict(each: Comparison, specs: Sequence[str]) -> str:
    if min(len(each.first), len(each.second)) == 1:
        return "one seed"
    return {"first": specs[0], "second": specs[1], None: "no"}[each.better]


def _figure(values: Sequence[float], task: str) -> str:
    decimals = TASKS[task].decimals
    spread = f" ±{stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{decimals}f}{spread}"
