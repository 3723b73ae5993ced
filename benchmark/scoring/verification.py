"""ASV's number: the equal error rate over all trials, and an interval for it.

A trial is two utterances, a score (higher: more alike) and a label (1: one speaker, 0: two). The
ROC curve runs over every score; the equal error rate is where it, drawn with straight lines
between its points, meets false alarm rate = miss rate (s3prl ``sv_voxceleb1/utils.py`` finds the
same point by a root search).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from superbit.benchmark.records.measured import Interval
from superbit.benchmark.scoring.statistics import LEVEL, bootstrap_interval


@dataclass(frozen=True, kw_only=True)
class EqualErrorRate:
    """Where the false alarm rate equals the miss rate.

    Attributes:
        percent: that rate.
        threshold: the score there, in between two trials' scores where the curve is.
    """

    percent: float
    threshold: float


def equal_error_rate(
    labels: Sequence[int] | np.ndarray, scores: Sequence[float] | np.ndarray
) -> EqualErrorRate:
    """Return the equal error rate of trials.

    Args:
        labels: one a trial, 1 for one speaker, 0 for two.
        scores: one a trial, higher for more alike.

    Raises:
        ValueError: counts differ, labels of another kind or all of one kind, a score that is not
            finite.
    """
    from sklearn.metrics import roc_curve

    truth, values = _checked(labels, scores)
    false_alarms, hits, thresholds = roc_curve(truth, values, drop_intermediate=False)
    # the first threshold accepts nobody and is infinite
    thresholds[0] = thresholds[1]
    after, share = _crossing(false_alarms, hits)
    before = after - 1

    def between(curve: np.ndarray) -> float:
        return float(curve[before] + share * (curve[after] - curve[before]))

    return EqualErrorRate(percent=100.0 * between(false_alarms), threshold=between(thresholds))


def eer_interval(
    labels: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    *,
    speakers: Sequence[tuple[Hashable, Hashable]] | None = None,
    level: float = LEVEL,
) -> Interval | None:
    """Return the bootstrap interval of the equal error rate, in percent.

    Trials of one speaker and of two are resampled apart, so that there are always both. With
    ``speakers``, speakers are resampled instead: a trial of one speaker counts as often as that
    speaker was drawn, a trial of two as often as the one times the other (Owen 2007, the pigeonhole
    bootstrap). That is the honest one where few speakers share many trials, as in VoxCeleb1-O,
    and slightly too wide rather than too narrow.

    Args:
        labels: one a trial, 1 for one speaker, 0 for two.
        scores: one a trial.
        speakers: one pair a trial.
        level: confidence level as a fraction.

    Returns:
        The interval, or None where the trials do not support one.

    Raises:
        ValueError: as `equal_error_rate`, or not one pair of speakers a trial.
    """
    truth, values = _checked(labels, scores)
    order = np.argsort(-values, kind="stable")
    truth, values = truth[order], values[order]
    # equal scores are accepted together: a point of the curve after each run of them
    ends = np.flatnonzero(np.diff(values, append=-np.inf))

    def rate(weights: np.ndarray) -> float:
        hits = np.cumsum(weights * truth)[ends]
        false_alarms = np.cumsum(weights * (1 - truth))[ends]
        if hits[-1] == 0 or false_alarms[-1] == 0:
            return float("nan")
        false_alarms = np.concatenate([[0.0], false_alarms / false_alarms[-1]])
        after, share = _crossing(false_alarms, np.concatenate([[0.0], hits / hits[-1]]))
        low, high = false_alarms[after - 1 : after + 1]
        return 100.0 * float(low + share * (high - low))

    if speakers is None:
        return bootstrap_interval(rate, truth.size, strata=truth, over="trials", level=level)
    if len(speakers) != truth.size:
        raise ValueError("speakers needs one pair a trial")
    index: dict[Hashable, int] = {}
    pairs = np.array([[index.setdefault(name, len(index)) for name in pair] for pair in speakers])
    first, second = pairs[order].T
    same = first == second

    def rate_of_speakers(weights: np.ndarray) -> float:
        return rate(np.where(same, weights[first], weights[first] * weights[second]))

    return bootstrap_interval(rate_of_speakers, len(index), over="speakers", level=level)


def trial_items(
    pairs: Sequence[tuple[str, str]],
    labels: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
) -> list[dict[str, Any]]:
    """Return one sidecar item a trial: both utterances, whether one speaker, the score."""
    truth, values = _checked(labels, scores)
    return [
        {"enrolment": enrolment, "test": test, "same_speaker": bool(label), "score": float(score)}
        for (enrolment, test), label, score in zip(pairs, truth, values, strict=True)
    ]


def _checked(
    labels: Sequence[int] | np.ndarray, scores: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    truth = np.asarray(labels).reshape(-1)
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if truth.size != values.size:
        raise ValueError(f"{truth.size} labels do not go with {values.size} scores")
    if not np.isin(truth, (0, 1)).all() or np.unique(truth).size < 2:
        raise ValueError("an equal error rate needs labels 0 and 1, and trials of both")
    if not np.isfinite(values).all():
        raise ValueError("every trial needs a finite score")
    return truth.astype(np.int64), values


def _crossing(false_alarms: np.ndarray, hits: np.ndarray) -> tuple[int, float]:
    """Return the curve's first point with false alarms ≥ misses, and how far to it from the last.

    Both rates run from 0 to 1, so that false alarms − misses rises from −1 to 1.
    """
    excess = false_alarms + hits - 1.0
    after = int(np.searchsorted(excess, 0.0))
    return after, float(-excess[after - 1] / (excess[after] - excess[after - 1]))
