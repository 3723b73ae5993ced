"""Two models' runs of one task: what they differ by on the items that both were scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from superbit.benchmark.pairing.difference import (
    Difference,
    Side,
    difference,
    holm,
    mcnemar,
    of_seeds,
)
from superbit.benchmark.pairing.items import ItemsOfRuns, RunItems, in_common
from superbit.benchmark.pairing.resamples import (
    RESAMPLES,
    ResampledUnits,
    draw,
    equal_error_rates,
    ratios,
    units_of,
)
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.resampling import Resampling
from superbit.benchmark.tasks.task import Task
from superbit.upstreams.errors import InputError

SIGNIFICANT = 0.05

Verdict = Literal["better", "worse", "not told apart"]


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One measure of one task, of two models.

    Attributes:
        task: SUPERB's short name.
        measure: what is measured; empty for the number of Table 2.
        first: each seed's value on the common items, in the measure's unit.
        second: likewise.
        higher_is_better: of the measure.
        decimals: as printed.
        found: first minus second; None where there is no telling.
        items: how many both were scored on.
        item: what they are called.
        units: what was resampled in words, e.g. ``"28 speakers"``.
        mcnemar: McNemar's exact p of each seed that both have; empty where it does not apply.
        adjusted: p by Holm's correction over what it was compared with; None without ``found``.
    """

    task: str
    measure: str
    first: tuple[float, ...]
    second: tuple[float, ...]
    higher_is_better: bool
    decimals: int
    found: Difference | None
    items: int
    item: str
    units: str
    mcnemar: tuple[float, ...] = ()
    adjusted: float | None = None

    @property
    def verdict(self) -> Verdict | None:
        """Of the first model beside the second; None where there is no telling."""
        if self.found is None or self.adjusted is None:
            return None
        if self.adjusted >= SIGNIFICANT:
            return "not told apart"
        return "better" if (self.found.value > 0) == self.higher_is_better else "worse"

    @property
    def mcnemar_p(self) -> float | None:
        """One p of all seeds."""
        return of_seeds(self.mcnemar)

    @property
    def sample(self) -> str:
        """What it rests on: items, what was resampled, seeds."""
        seeds = " and ".join(dict.fromkeys(str(len(side)) for side in (self.first, self.second)))
        parts = [f"{self.items:,} {self.item}"]
        parts += [self.units] if self.units else []
        return ", ".join([*parts, f"{seeds} seed{'' if seeds == '1' else 's'}"])


def pair(
    first: Sequence[RunRecord], second: Sequence[RunRecord], items: ItemsOfRuns
) -> tuple[Paired, ...]:
    """Return what two models differ by, one entry a measure of the task; not yet adjusted.

    Args:
        first: one model's runs of a task, one a seed.
        second: the other's, made alike.
        items: where their items are.

    Raises:
        InputError: the items are not there, or none is common to all runs.
    """
    task, resampling = TASKS[first[0].identity.task], items.resampling(first[0])
    laid = in_common([items.of(run) for run in (*first, *second)])
    if not laid[0].names:
        raise InputError(f"{task.name}: no test item is common to all runs.")
    seeds = [[run.identity.seed for run in runs] for runs in (first, second)]
    return tuple(
        _of_measure(task, resampling, number, laid, seeds)
        for number in range(len(resampling.measures))
    )


def _of_measure(
    task: Task,
    resampling: Resampling,
    number: int,
    laid: Sequence[RunItems],
    seeds: list[list[int]],
) -> Paired:
    measure = resampling.measures[number]
    tops = np.stack([each.tops[number] for each in laid])
    bottoms = np.stack([each.bottoms[number] for each in laid])
    flags = tops > 0.5 if measure.right_or_wrong else None
    count = tops.shape[1]
    units, words = _units(task, laid[0])
    if task.folds:
        tops, bottoms = _of_folds(tops, bottoms, laid[0].folds)
    drawn = draw(units.count, resamples=RESAMPLES)
    drawn = np.vstack([np.ones(units.count), drawn])  # all items once: the values themselves
    if measure.kind == "eer":
        found = equal_error_rates(tops, bottoms[0], units, drawn)
    else:
        found = ratios(tops, bottoms, units, drawn, scale=measure.scale)
    cut = len(seeds[0])
    sides = [Side(values=v[0], resampled=v[1:]) for v in (found[:, :cut], found[:, cut:])]
    told = difference(
        *sides,
        units=units.count,
        unit=words.partition(" ")[2] or resampling.item,
        unbiased=not units.in_pairs,
        right=None if flags is None else (flags[:cut], flags[cut:]),
        items=count,
        scale=measure.scale,
    )
    higher = measure.higher_is_better
    return Paired(
        task=task.name,
        measure=measure.name,
        first=tuple(sides[0].values.tolist()),
        second=tuple(sides[1].values.tolist()),
        higher_is_better=task.higher_is_better if higher is None else higher,
        decimals=task.decimals if measure.decimals is None else measure.decimals,
        found=told,
        items=count,
        item=resampling.item,
        units=words,
        mcnemar=() if flags is None else _mcnemar(flags, seeds),
    )


def _units(task: Task, items: RunItems) -> tuple[ResampledUnits, str]:
    """What is drawn, and that in words; no words where it is the items."""
    if task.folds:
        folds = [(fold,) for fold in dict.fromkeys(items.folds.tolist())]
        return units_of(folds), f"{len(folds)} folds"
    units = units_of(items.speakers)
    if units.of_speakers == 0 or units.count < 2:
        return units_of([()] * len(items.names)), ""
    single = units.count - units.of_speakers
    words = f"{units.of_speakers:,} speakers"
    return units, f"{words} and {single} without one" if single else words


def _of_folds(
    tops: np.ndarray, bottoms: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each fold's ratio over one, as the mean over folds weighs them alike: (runs, folds)."""
    members = [folds == fold for fold in dict.fromkeys(folds.tolist())]
    each = [tops[:, m].sum(axis=1) / bottoms[:, m].sum(axis=1) for m in members]
    return np.stack(each, axis=1), np.ones((len(tops), len(members)))


def _mcnemar(flags: np.ndarray, seeds: list[list[int]]) -> tuple[float, ...]:
    first, second = seeds
    return tuple(
        mcnemar(flags[row], flags[len(first) + second.index(seed)])
        for row, seed in enumerate(first)
        if seed in second
    )


def adjusted(pairs: Sequence[Paired]) -> list[Paired]:
    """Return the pairs with their p adjusted over all of them that have one (Holm)."""
    told = [each.found.p for each in pairs if each.found is not None]
    values = iter(holm(told))
    return [replace(p, adjusted=next(values)) if p.found is not None else p for p in pairs]
