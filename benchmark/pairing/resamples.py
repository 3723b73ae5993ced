"""A metric computed anew on resamples of test items, all models and seeds on the same ones.

Whole speakers are drawn, as one speaker's items resemble each other. An item of two speakers (a
trial of two voices, a mixture) counts as often as the one was drawn times the other (Owen 2007, the
pigeonhole bootstrap): rather too wide than too narrow. An item whose speaker is not known is drawn
by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1999
SEED = 0
# numbers held at once: 4 million float64 are 32 MB
_BATCH_NUMBERS = 4_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class ResampledUnits:
    """What is drawn: speakers, or items where those are not known.

    Attributes:
        first: each item's speaker, by number: (items,).
        second: its other one; the same where there is one: (items,).
        count: how many units there are.
        of_speakers: how many of them are speakers, the others being single items.
    """

    first: np.ndarray
    second: np.ndarray
    count: int
    of_speakers: int

    @property
    def in_pairs(self) -> bool:
        """Whether any item has two speakers."""
        return bool((self.first != self.second).any())

    def weights(self, drawn: np.ndarray) -> np.ndarray:
        """How often each item counts where units were drawn so often: (…, units) → (…, items)."""
        first = drawn[..., self.first]
        if not self.in_pairs:
            return first
        return np.where(self.first == self.second, first, first * drawn[..., self.second])


def units_of(speakers: Sequence[tuple[Hashable, ...]]) -> ResampledUnits:
    """Return the units of items.

    Args:
        speakers: of each item: none where not known, one, or two.
    """
    index: dict[Hashable, int] = {}
    known = [
        [index.setdefault(name, len(index)) for name in (pair[0], pair[-1])] if pair else None
        for pair in speakers
    ]
    of_speakers = count = len(index)
    places = np.empty((len(known), 2), dtype=np.int64)
    for item, pair in enumerate(known):
        if pair is None:
            places[item] = count
            count += 1
        else:
            places[item] = pair
    return ResampledUnits(
        first=places[:, 0], second=places[:, 1], count=count, of_speakers=of_speakers
    )


def draw(count: int, *, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Return how often each unit was drawn in each resample: (resamples, count)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1.0 / count), size=resamples).astype(np.float64)


def ratios(
    tops: np.ndarray, bottoms: np.ndarray, units: ResampledUnits, drawn: np.ndarray, *, scale: float
) -> np.ndarray:
    """Return ``scale`` × sum(tops) / sum(bottoms) of each run on each resample.

    Args:
        tops: (runs, items).
        bottoms: (runs, items).
        units: of the items.
        drawn: (resamples, units).

    Returns:
        (resamples, runs); NaN where what was drawn has only zero denominators.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        if not units.in_pairs:
            both = [_summed(counts, units) for counts in (tops, bottoms)]
            return scale * (drawn @ both[0].T) / (drawn @ both[1].T)
        found = []
        for part in _parts(drawn, tops.shape[1]):
            weights = units.weights(part)
            found.append(scale * (weights @ tops.T) / (weights @ bottoms.T))
        return np.concatenate(found)


def equal_error_rates(
    scores: np.ndarray, same: np.ndarray, units: ResampledUnits, drawn: np.ndarray
) -> np.ndarray:
    """Return the equal error rate, in percent, of each run on each resample.

    As `superbit.benchmark.scoring.verification.equal_error_rate` defines it.

    Args:
        scores: (runs, trials).
        same: (trials,), 1 for one speaker, 0 for two.
        units: of the trials.
        drawn: (resamples, units).

    Returns:
        (resamples, runs); NaN where what was drawn lacks trials of one kind.
    """
    orders = np.argsort(-scores, axis=1, kind="stable")
    # equal scores are accepted together: a point of the curve after each run of them
    ends = [
        np.flatnonzero(np.diff(of_run[order], append=-np.inf))
        for of_run, order in zip(scores, orders, strict=True)
    ]
    found = []
    for part in _parts(drawn, scores.shape[1]):
        # trials first, so that sums run over whole rows; counts are exact in 24 bits
        weights = np.ascontiguousarray(units.weights(part).T, dtype=np.float32)
        kinds = (weights * same[:, None].astype(np.float32), weights)
        kinds[1][same > 0.5] = 0.0
        rates = [
            _equal(*(np.cumsum(kind[order], axis=0)[points] for kind in kinds))
            for order, points in zip(orders, ends, strict=True)
        ]
        found.append(np.stack(rates, axis=1))
    return np.concatenate(found)


def _equal(hits: np.ndarray, alarms: np.ndarray) -> np.ndarray:
    """Where the curve's false alarm rate equals its miss rate, percent.

    Args:
        hits: sums so far, (points, resamples).
        alarms: likewise.
    """
    columns = np.arange(hits.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        hit_rate, alarm_rate = hits / hits[-1].astype(float), alarms / alarms[-1].astype(float)
        excess = alarm_rate + hit_rate - 1.0  # rises from −1, at no point accepted, to 1
        after = np.argmax(excess >= 0, axis=0)
        before = np.maximum(after - 1, 0)
        low = np.where(after > 0, excess[before, columns], -1.0)
        start = np.where(after > 0, alarm_rate[before, columns], 0.0)
        share = -low / (excess[after, columns] - low)
        return 100.0 * (start + share * (alarm_rate[after, columns] - start))


def _summed(counts: np.ndarray, units: ResampledUnits) -> np.ndarray:
    """(runs, items) → (runs, units)."""
    return np.stack([np.bincount(units.first, weights=c, minlength=units.count) for c in counts])


def _parts(drawn: np.ndarray, items: int) -> list[np.ndarray]:
    return np.array_split(drawn, max(1, -(-len(drawn) * items // _BATCH_NUMBERS)))
