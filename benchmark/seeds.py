"""One figure from runs of several seeds: their mean and how far they spread.

A seed is of the head: its initialization, the order of batches, what dropout and SpecAug draw. The
learning rate may differ where each seed searched its own. Needs neither numpy nor torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

from superbit.benchmark.rate_search import without_rate
from superbit.benchmark.records import RunRecord


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Runs that differ in their seed, by rising seed; at least two."""

    runs: tuple[RunRecord, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(run.identity.seed for run in self.runs)

    @property
    def values(self) -> tuple[float, ...]:
        """Each seed's value, in the table's unit."""
        return tuple(run.value or 0.0 for run in self.runs)

    @property
    def deviation(self) -> float:
        """Sample standard deviation of the values."""
        return stdev(self.values)


def merge_seeds(records: Iterable[RunRecord]) -> tuple[list[RunRecord], dict[str, Seeds]]:
    """Put one record with the mean in the place of runs that differ in the seed.

    Runs of one seed and several learning rates are left as they are: which of them counts is not
    for a mean to say.

    Returns:
        The records, and by the keys of those that are means, what they are the mean of.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        shared = without_rate(record.identity).model_copy(update={"seed": 0})
        groups.setdefault(shared.key, []).append(record)
    merged: list[RunRecord] = []
    seeds: dict[str, Seeds] = {}
    for group in groups.values():
        if len(group) == 1 or len({run.identity.seed for run in group}) < len(group):
            merged += group
            continue
        each = Seeds(runs=tuple(sorted(group, key=lambda run: run.identity.seed)))
        first = each.runs[0]
        merged.append(first.model_copy(update={"value": fmean(each.values), "interval": None}))
        seeds[first.key] = each
    return merged, seeds
