"""Confidence intervals of the benchmark's metrics, from per-item counts.

Most metrics are two counts an item, summed over the items before they are divided: correct answers
over answers (accuracy), edit errors over reference length (WER, PER). That is all a bootstrap
needs. Metrics of another kind (EER, MTWV) are computed anew for every resample. An interval speaks
for other test items from the same source; it says nothing of other seeds or other corpora.

Where all items agree, resamples do too, and a bootstrap would give a point. That is no certainty:
`closed_forms.agreeing_interval` says how far other items may be.

scipy is imported where it is used, so that results can be read without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from superbit.benchmark.records.measured import Interval
from superbit.benchmark.scoring.closed_forms import LEVEL, agreeing_interval, wilson_interval

RESAMPLES = 9999
# of a metric that has to be computed anew for each, which takes milliseconds at full scale
STATISTIC_RESAMPLES = 1999
SEED = 0
# numbers held at once while resampling: 4 million float64 are 32 MB a count
_BATCH_NUMBERS = 4_000_000


def accuracy_interval(
    correct: Sequence[bool],
    *,
    speakers: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> Interval:
    """Return the confidence interval of an accuracy, in percent.

    Items count as independent: Wilson's score interval (Wilson 1927), which stays sensible where
    a bootstrap collapses to a point (everything correct, nothing correct). With ``speakers``,
    whole speakers are resampled instead, as `ratio_interval` does, unless all items agree.

    Args:
        correct: one flag an item.
        speakers: each item's speaker, for an interval over speakers rather than items.
        level: confidence level as a fraction.

    Raises:
        ValueError: no items, or a flag that is neither true nor false.
    """
    flags = np.asarray(correct, dtype=np.float64)
    if flags.ndim != 1 or flags.size == 0 or not np.isin(flags, (0.0, 1.0)).all():
        raise ValueError("correct needs at least one item, each true or false")
    if speakers is not None and 0 < flags.sum() < flags.size:
        clustered = ratio_interval(flags, np.ones_like(flags), speakers=speakers, level=level)
        if clustered is not None:
            return clustered
    return wilson_interval(int(flags.sum()), flags.size, level=level)


def error_rate_interval(
    errors: Sequence[float],
    reference_lengths: Sequence[float],
    *,
    speakers: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> Interval | None:
    """Return the confidence interval of sum(errors) / sum(reference_lengths), in percent.

    See `ratio_interval`; errors are substitutions, deletions and insertions of an utterance, in
    the unit of its reference length (words for WER, phones for PER).
    """
    return ratio_interval(errors, reference_lengths, speakers=speakers, level=level)


def mean_interval(
    values: Sequence[float] | np.ndarray, *, scale: float = 1.0, level: float = LEVEL
) -> Interval | None:
    """Return the bootstrap interval of ``scale`` × the mean of one value an item.

    See `ratio_interval`.
    """
    return ratio_interval(values, np.ones(len(values)), scale=scale, level=level)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    count: int,
    *,
    over: str,
    strata: Sequence[Hashable] | np.ndarray | None = None,
    level: float = LEVEL,
    resamples: int = STATISTIC_RESAMPLES,
    highest: float = 100.0,
) -> Interval | None:
    """Return the percentile bootstrap interval of any statistic of weighted items.

    The fixed seed makes the same items give the same interval.

    Args:
        statistic: weights (count,), how often each item was drawn → the metric; NaN where these
            items have none.
        count: number of items.
        over: what the items are, in the plural, for the record.
        strata: each item's stratum; given, every stratum keeps its size.
        level: confidence level as a fraction.
        resamples: how many.
        highest: the statistic's highest value; its lowest is 0.

    Returns:
        The interval, or None where there is none: a single item, or a metric undefined for more
        resamples than a tail of the interval holds.

    Raises:
        ValueError: no items, or not one stratum an item.
    """
    if count < 1:
        raise ValueError("an interval needs at least one item")
    if strata is not None and len(strata) != count:
        raise ValueError("strata needs one entry an item")
    if count < 2:
        return None
    groups: dict[Hashable, list[int]] = {}
    for item, stratum in enumerate([0] * count if strata is None else strata):
        groups.setdefault(stratum, []).append(item)
    members = [np.array(group) for group in groups.values()]
    rng = np.random.default_rng(SEED)
    values = np.empty(resamples)
    for resample in range(resamples):
        drawn = [group[rng.integers(group.size, size=group.size)] for group in members]
        values[resample] = statistic(np.bincount(np.concatenate(drawn), minlength=count))
    defined = values[np.isfinite(values)]
    tail = (1 - level) / 2
    if resamples - defined.size > tail * resamples:
        return None
    low, high = np.quantile(defined, [tail, 1 - tail])
    if defined.min() == defined.max():
        return agreeing_interval(float(low), count, highest=highest, level=level)
    return Interval(
        low=float(low),
        high=float(high),
        level=level,
        method=f"percentile bootstrap over {over}",
        resamples=resamples,
    )


def ratio_interval(
    numerators: Sequence[float] | np.ndarray,
    denominators: Sequence[float] | np.ndarray,
    *,
    scale: float = 100.0,
    speakers: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> Interval | None:
    """Return the bootstrap interval of ``scale * sum(numerators) / sum(denominators)``.

    Items are resampled in pairs with a fixed seed, so the same counts give the same interval.
    Bias-corrected and accelerated (BCa, Efron 1987), or percentile where BCa is undefined.

    Args:
        numerators: one count an item.
        denominators: one count an item, not negative, not all zero.
        scale: 100 for percent.
        speakers: each item's speaker; given, whole speakers are resampled (a cluster bootstrap),
            which is wider where a speaker's items resemble each other.
        level: confidence level as a fraction.

    Returns:
        The interval, or None where there is none: a single item (or speaker) says nothing of
        the spread, nor do items so few that many a resample has only zero denominators.

    Raises:
        ValueError: counts of different lengths, no items, a negative or all-zero denominator.
    """
    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.asarray(denominators, dtype=np.float64)
    if top.ndim != 1 or top.shape != bottom.shape or top.size == 0:
        raise ValueError("numerators and denominators need one count an item each, at least one")
    if not np.isfinite(top).all() or not np.isfinite(bottom).all() or (bottom < 0).any():
        raise ValueError("counts need to be finite, and denominators not negative")
    if bottom.sum() == 0:
        raise ValueError("the denominators sum to zero, so there is no ratio")
    over = "utterances"
    if speakers is not None:
        if len(speakers) != top.size:
            raise ValueError("speakers needs one entry an item")
        top, bottom = _sum_by_speaker(top, bottom, speakers)
        over = "speakers"
    if top.size < 2:
        return None

    value = top.sum() / bottom.sum()
    if np.allclose(top, value * bottom, rtol=1e-12, atol=0.0):
        return agreeing_interval(scale * float(value), top.size, highest=scale, level=level)
    for method in ("BCa", "percentile"):
        low, high = _bootstrap(top, bottom, method=method, level=level)
        if np.isfinite(low) and np.isfinite(high):
            return Interval(
                low=scale * low,
                high=scale * high,
                level=level,
                method=f"{method} bootstrap over {over}",
                resamples=RESAMPLES,
            )
    return None


def _sum_by_speaker(
    top: np.ndarray, bottom: np.ndarray, speakers: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    order = {speaker: index for index, speaker in enumerate(dict.fromkeys(speakers))}
    group = np.array([order[speaker] for speaker in speakers])  # (items,)
    return (
        np.bincount(group, weights=top, minlength=len(order)),
        np.bincount(group, weights=bottom, minlength=len(order)),
    )


def _bootstrap(
    top: np.ndarray, bottom: np.ndarray, *, method: str, level: float
) -> tuple[float, float]:
    from scipy.stats import bootstrap

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return a.sum(axis=axis) / b.sum(axis=axis)  # (resamples, items) -> (resamples,)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scipy warns where BCa is undefined: handled by the caller
        found = bootstrap(
            (top, bottom),
            ratio,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH_NUMBERS // top.size),
            confidence_level=level,
            method=method,
            rng=np.random.default_rng(SEED),
        ).confidence_interval
    return float(found.low), float(found.high)
