"""QbE's number: the maximum term-weighted value (MTWV), and an interval for it.

A trial is a query and a document with a score; it is detected where the score is at least the
threshold. At one threshold for all queries (NIST 2006 STD plan, here by documents, not seconds)

    TWV = 1 − mean over queries of (Pmiss + β · Pfa),    β = Cfa / Cmiss · (1 − P) / P
    Pmiss = share of the documents holding the query that are not detected
    Pfa   = share of the documents not holding it that are

QUESST 2014 sets P = 0.0008, Cfa = 1, Cmiss = 100: β = 12.49. Its scorer is given the effective
prior 0.0741289 = Cmiss·P / (Cmiss·P + Cfa·(1 − P)), into which the costs are already folded:
(1 − 0.0741289) / 0.0741289 is the same 12.49. Costs and that prior together would be wrong.

MTWV is the highest TWV of all thresholds, the one above all scores among them (nothing detected,
TWV 0), so it is never negative. A query that no document holds has no Pmiss and is left out of
the mean altogether, its false alarms with it, as NIST and Kaldi do. A trial without a score
counts as scored −10, as in the official scorer's call.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from superbit.benchmark.records.measured import Interval
from superbit.benchmark.scoring.statistics import LEVEL, bootstrap_interval
from superbit.upstreams.errors import InputError

EFFECTIVE_PRIOR = 0.0741289
FALSE_ALARM_WEIGHT = (1 - EFFECTIVE_PRIOR) / EFFECTIVE_PRIOR
MISSING_SCORE = -10.0
# s3prl calls a query's documents detected above this many standard deviations
DECISION_SCORE = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """Queries against documents.

    Attributes:
        queries: those that some document holds, by name.
        documents: all, by name.
        scores: (queries, documents).
        holds: (queries, documents), True where the document holds the query.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    scores: np.ndarray
    holds: np.ndarray


@dataclass(frozen=True, kw_only=True)
class MaximumTermWeightedValue:
    """The highest term-weighted value and where it is.

    Attributes:
        value: as it is defined, at most 1; SUPERB's tables show 100 times it.
        threshold: the lowest score detected; None where detecting nothing is best.
    """

    value: float
    threshold: float | None


def normalize_scores(scores: np.ndarray, *, decimals: int | None = 4) -> np.ndarray:
    """Standardize each query's scores over its documents, as s3prl does before it writes them.

    Mean 0 and standard deviation 1 (that of the population, at least 1e-9), then rounded to the
    four decimals that s3prl's XML file holds: what is equal there is one threshold.

    Args:
        scores: (documents,) or (queries, documents), higher for a better match.
        decimals: None keeps all.
    """
    scores = np.asarray(scores, dtype=np.float64)
    spread = np.maximum(scores.std(axis=-1, keepdims=True), 1e-9)
    normalized = (scores - scores.mean(axis=-1, keepdims=True)) / spread
    if decimals is None:
        return normalized
    # np.round is off by one last digit now and then, where Python's is exact
    exact = [round(score, decimals) for score in normalized.ravel().tolist()]
    return np.array(exact, dtype=np.float64).reshape(normalized.shape)


def collect_trials(
    scores: Mapping[str, Mapping[str, float]],
    occurrences: Mapping[str, Collection[str]],
    *,
    documents: Collection[str],
    missing_score: float = MISSING_SCORE,
) -> Trials:
    """Lay out scores and truth side by side.

    Args:
        scores: query → document → score. What is absent gets ``missing_score``.
        occurrences: query → the documents that hold it, for every query of the evaluation, also
            those without a score: they are missed.
        documents: all documents of the evaluation, also those without a score.

    Raises:
        InputError: a scored query is not among ``occurrences``, a document not among
            ``documents``, no document holds any query, or a score is not finite.
    """
    names = tuple(sorted(documents))
    column = {name: index for index, name in enumerate(names)}
    unknown = sorted(set(scores) - set(occurrences))
    if unknown:
        raise InputError(
            f"query {unknown[0]!r} has scores but no entry in the ground truth, which needs one "
            "a query (an empty one where no document holds it)."
        )
    for query, held in (*occurrences.items(), *scores.items()):
        strange = sorted(name for name in held if name not in column)
        if strange:
            raise InputError(
                f"query {query!r} names the document {strange[0]!r}, which is not one of the "
                f"{len(names)} documents of the evaluation."
            )
    queries = tuple(sorted(query for query, held in occurrences.items() if held))
    if not queries:
        raise InputError("no document holds any of the queries, so there is no TWV.")
    table = np.full((len(queries), len(names)), missing_score, dtype=np.float64)
    holds = np.zeros(table.shape, dtype=bool)
    for row, query in enumerate(queries):
        holds[row, [column[name] for name in occurrences[query]]] = True
        given = scores.get(query, {})
        table[row, [column[name] for name in given]] = list(given.values())
    if not np.isfinite(table).all():
        row, place = np.argwhere(~np.isfinite(table))[0]
        raise InputError(
            f"query {queries[row]!r} has the score {table[row, place]} for {names[place]!r}: "
            "scores need to be finite, and absent where there is none."
        )
    return Trials(queries=queries, documents=names, scores=table, holds=holds)


def term_weighted_value(
    trials: Trials, threshold: float | None, *, false_alarm_weight: float = FALSE_ALARM_WEIGHT
) -> float:
    """Return the term-weighted value at one threshold; None detects nothing."""
    missed, false_alarm = _rates(trials, threshold)
    return float(1.0 - np.mean(missed + false_alarm_weight * false_alarm))


def maximum_term_weighted_value(
    trials: Trials, *, false_alarm_weight: float = FALSE_ALARM_WEIGHT
) -> MaximumTermWeightedValue:
    """Return the highest term-weighted value over all thresholds."""
    pooled = _pool(trials, false_alarm_weight)
    values = np.cumsum(pooled.gains)[pooled.ends] / len(trials.queries)
    best = int(np.argmax(values))
    if values[best] <= 0.0:
        return MaximumTermWeightedValue(value=0.0, threshold=None)
    return MaximumTermWeightedValue(
        value=float(values[best]), threshold=float(pooled.scores[pooled.ends[best]])
    )


def mtwv_interval(
    trials: Trials,
    *,
    false_alarm_weight: float = FALSE_ALARM_WEIGHT,
    scale: float = 100.0,
    level: float = LEVEL,
) -> Interval | None:
    """Return the bootstrap interval of ``scale`` × MTWV over queries.

    Whole queries are resampled, and every resample finds its own best threshold, as the metric
    does. The documents stay the same.

    Returns:
        The interval, or None for a single query.
    """
    pooled = _pool(trials, false_alarm_weight)

    def value(weights: np.ndarray) -> float:
        # (queries,) drawn this often -> TWV after each run of equal scores
        values = np.cumsum(pooled.gains * weights[pooled.query])[pooled.ends]
        return scale * max(0.0, float(values.max())) / weights.sum()

    return bootstrap_interval(
        value, len(trials.queries), over="queries", level=level, highest=scale
    )


def query_items(
    trials: Trials, threshold: float | None, *, false_alarm_weight: float = FALSE_ALARM_WEIGHT
) -> list[dict[str, Any]]:
    """Return one sidecar item a query at ``threshold``; the mean of ``twv`` is the TWV there."""
    missed, false_alarm = _rates(trials, threshold)
    held = trials.holds.sum(axis=1).tolist()
    return [
        {
            "id": query,
            "documents_holding_it": held[row],
            "miss_rate": float(missed[row]),
            "false_alarm_rate": float(false_alarm[row]),
            "twv": float(1.0 - missed[row] - false_alarm_weight * false_alarm[row]),
        }
        for row, query in enumerate(trials.queries)
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pooled:
    # all trials by falling score: (trials,)
    scores: np.ndarray
    query: np.ndarray
    # what detecting a trial adds to the sum over queries of 1 - Pmiss - weight * Pfa
    gains: np.ndarray
    # the last trial of each run of equal scores: the thresholds there are
    ends: np.ndarray


def _pool(trials: Trials, false_alarm_weight: float) -> _Pooled:
    held = trials.holds.sum(axis=1, keepdims=True)
    others = np.maximum(len(trials.documents) - held, 1)
    gains = np.where(trials.holds, 1.0 / held, -false_alarm_weight / others).ravel()
    scores = trials.scores.ravel()
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    return _Pooled(
        scores=scores,
        query=order // len(trials.documents),
        gains=gains[order],
        ends=np.flatnonzero(np.diff(scores, append=-np.inf)),
    )


def _rates(trials: Trials, threshold: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return every query's miss rate and false alarm rate, (queries,) each."""
    detected = trials.scores >= (np.inf if threshold is None else threshold)
    held = trials.holds.sum(axis=1)
    missed = (trials.holds & ~detected).sum(axis=1) / held
    # a query that every document holds has no document to be falsely found in
    others = np.maximum(len(trials.documents) - held, 1)
    return missed, (detected & ~trials.holds).sum(axis=1) / others
