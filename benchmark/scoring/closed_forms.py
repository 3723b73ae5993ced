"""Intervals that counts alone give, without numpy: tables need them too."""

from __future__ import annotations

from statistics import NormalDist

from superbit.benchmark.records.measured import Interval

LEVEL = 0.95


def wilson_interval(correct: int, count: int, *, level: float = LEVEL) -> Interval:
    """Return Wilson's score interval of ``correct`` of ``count``, in percent."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = correct / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = share * (1 - share) / count + z**2 / (4 * count**2)
    half = z / (1 + z**2 / count) * spread**0.5
    return Interval(
        low=100 * max(0.0, centre - half),
        high=100 * min(1.0, centre + half),
        level=level,
        method="Wilson score",
    )


def agreeing_interval(
    value: float, count: int, *, highest: float, lowest: float = 0.0, level: float = LEVEL
) -> Interval:
    """Return the interval of a metric whose items all agree.

    A share s of other items goes unseen among ``count`` with the probability (1 − s)^count. At most
    so large a share as that leaves 2.5 % on either side pulls the metric to ``lowest`` or
    ``highest``: of nothing correct and everything correct that is Clopper and Pearson's interval.

    Args:
        value: the metric.
        count: of items, or of what was resampled.
        highest: the metric's highest value, as far as it has one.
        lowest: its lowest.
        level: confidence level as a fraction.
    """
    share = 1 - ((1 - level) / 2) ** (1 / count)
    return Interval(
        low=value - share * max(0.0, value - lowest),
        high=value + share * max(0.0, highest - value),
        level=level,
        method="exact, as all items agree",
    )
