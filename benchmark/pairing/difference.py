"""What two models differ by, with an interval and a p, from one metric on resamples of test items.

Both models are scored on the same resamples, so that what is hard for both cancels. Two things
vary: which speakers are in the test set, and which seeds the heads were trained from. Per model,
seeds and speakers are crossed (every seed is scored on every speaker), so that the variance of a
mean over k seeds is

    between speakers, of that mean  +  between seeds / k  −  what both count

as in a two-way analysis of variance with random effects. The first is the variance over resamples;
the second that of the seeds' values; what both count is how much less the mean over seeds varies
over resamples than a single seed does. The interval is Student's t with Satterthwaite's degrees of
freedom: with three seeds and four speakers percentiles of resamples would be far too narrow. p is
the same statement: it is below 0.05 where the 95 % interval leaves out 0.

Where nothing varies, that is not certainty: see `_of_right_and_wrong` and `_where_all_agree`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

import numpy as np

from superbit.benchmark.pairing import student

LEVEL = 0.95
# of tests like this one, how many a difference of `smallest` would show in
POWER = 0.8
# below this share of the numbers themselves, a standard error is rounding
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first model minus the second, in the metric's unit.

    Attributes:
        value: difference of the means over seeds.
        low: of the interval.
        high: likewise.
        p: two-sided, of no difference.
        smallest: the difference that such a test shows four times of five.
        method: in words.
    """

    value: float
    low: float
    high: float
    p: float
    smallest: float
    method: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """One model's numbers.

    Attributes:
        values: of each seed, on all items: (seeds,).
        resampled: on each resample: (resamples, seeds).
    """

    values: np.ndarray
    resampled: np.ndarray


def difference(
    first: Side,
    second: Side,
    *,
    units: int,
    unit: str,
    unbiased: bool = True,
    right: tuple[np.ndarray, np.ndarray] | None = None,
    items: int | None = None,
    scale: float = 100.0,
    level: float = LEVEL,
) -> Difference | None:
    """Return what the first model has more than the second.

    Args:
        first: one model.
        second: the other, on the same resamples.
        units: how many speakers or items were drawn from.
        unit: what they are called, in the plural.
        unbiased: a resample of units varies by (units − 1) / units too little; not where items have
            two units, as that scheme varies too much already.
        right: of either model which items are right, (seeds, items) each, for tasks of that kind.
        items: how many there are; by default as many as units.
        scale: 100 for percent: the width of what the metric can reasonably be.
        level: confidence level as a fraction.

    Returns:
        None where there is no telling: a single unit, or a metric that many resamples do not have.
    """
    value = float(first.values.mean() - second.values.mean())
    both = np.hstack([first.resampled, second.resampled])
    defined = np.isfinite(both).all(axis=1)
    if units < 2 or defined.mean() < level:
        return None
    one, other = first.resampled[defined], second.resampled[defined]
    factor = units / (units - 1) if unbiased else 1.0
    parts = [(factor * float((one.mean(axis=1) - other.mean(axis=1)).var(ddof=1)), units - 1)]
    for side, resampled in ((first, one), (second, other)):
        parts.append((_between_seeds(side.values, resampled, factor), side.values.size - 1))
    variance = sum(part for part, _ in parts)
    if math.sqrt(variance) <= _ROUNDING * scale:
        if right is not None:
            return _of_right_and_wrong(value, *right, scale=scale, level=level)
        return _where_all_agree(value, items or units, scale=scale, level=level)
    degrees = variance**2 / sum(part**2 / max(free, 1) for part, free in parts if part)
    error = math.sqrt(variance)
    half = student.quantile((1 + level) / 2, degrees) * error
    seeds = " and seeds" if max(first.values.size, second.values.size) > 1 else ""
    return Difference(
        value=value,
        low=value - half,
        high=value + half,
        p=student.two_sided_p(value / error, degrees),
        smallest=half + student.quantile(POWER, degrees) * error,
        method=f"t over {unit}{seeds}, {len(both)} resamples",
    )


def _between_seeds(values: np.ndarray, resampled: np.ndarray, factor: float) -> float:
    """What seeds add to the variance of their mean; 0 where there is one.

    Args:
        values: (seeds,).
        resampled: (resamples, seeds).
        factor: see ``unbiased`` of `difference`.
    """
    seeds = values.size
    if seeds < 2:
        return 0.0
    single, mean = resampled.var(axis=0, ddof=1).mean(), resampled.mean(axis=1).var(ddof=1)
    counted_twice = factor * float(single - mean) / (seeds - 1)
    return max(0.0, float(values.var(ddof=1)) / seeds - counted_twice)


def _of_right_and_wrong(
    value: float, first: np.ndarray, second: np.ndarray, *, scale: float, level: float
) -> Difference:
    """Of matched proportions, half an item added to each of the four cells (Agresti and Min 2005).

    For models whose every unit differs by the same, e.g. two that always give one answer each: the
    items still say how far they may be apart elsewhere.
    """
    count = first.shape[1] + 2
    only_first = float(np.mean([(a & ~b).sum() for a in first for b in second])) + 0.5
    only_second = float(np.mean([(b & ~a).sum() for a in first for b in second])) + 0.5
    gap = (only_first - only_second) / count
    error = math.sqrt(only_first + only_second - gap * (only_first - only_second)) / count
    normal = NormalDist()
    half = normal.inv_cdf((1 + level) / 2) * error
    return Difference(
        value=value,
        low=min(value, scale * (gap - half)),
        high=max(value, scale * (gap + half)),
        p=2 * (1 - normal.cdf(abs(gap) / error)),
        smallest=scale * (half + normal.inv_cdf(POWER) * error),
        method="Agresti and Min, as no unit differs from another",
    )


def _where_all_agree(value: float, count: int, *, scale: float, level: float) -> Difference:
    """At most so large a share of all items is not like these, and by at most ``scale``.

    A share s of other items stays unseen among ``count`` with the probability (1 − s)^count.
    """
    half = scale * (1 - ((1 - level) / 2) ** (1 / count))
    return Difference(
        value=value,
        low=value - half,
        high=value + half,
        p=min(1.0, 2 * max(0.0, 1 - abs(value) / scale) ** count),
        smallest=half,
        method="exact, as all items agree",
    )


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return McNemar's exact p: of items that one model alone has right, is it either as often.

    It takes items as independent, and says nothing of other seeds.

    Args:
        first: (items,), True where the first model is right.
        second: likewise.
    """
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    apart = one + other
    below = sum(math.comb(apart, count) for count in range(min(one, other) + 1))
    return min(1.0, 2 * below / 2**apart)


def of_seeds(ps: Sequence[float]) -> float | None:
    """Return one p of those of several seeds, on the same items and so not independent.

    Twice their median, which is valid however they depend on each other (Rüger 1978); of one, it.
    """
    if not ps:
        return None
    return ps[0] if len(ps) == 1 else min(1.0, 2 * median(ps))


def holm(ps: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p of each of several tests (Holm 1979), in their order."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted
