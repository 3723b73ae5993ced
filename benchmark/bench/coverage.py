"""How often the intervals of `superbit compare` hold the true difference: 95 of 100 are wanted.

    python -m superbit.benchmark.bench.coverage [--trials 2000]

Two models are made up whose true difference is known exactly, their heads trained from seeds and
tested on speakers that are drawn anew in every trial, as is what each speaker finds hard for both
models or for one. One line of JSON a scenario.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from statistics import NormalDist

import numpy as np

from superbit.benchmark.pairing.difference import Side, difference
from superbit.benchmark.pairing.resamples import draw, equal_error_rates, ratios, units_of

RESAMPLES = 499

# (tops, bottoms), each (2 models × seeds, items)
Counts = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Two models on a test set.

    Attributes:
        make: draws both models' counts, the first's seeds before the second's.
        truth: first minus second, in percent.
        seeds: of each model.
        speakers: in the test set; 0 where items are independent.
        items: of each speaker, or in all.
        kind: as `Measure` has it.
    """

    make: Callable[[Scenario, np.random.Generator], Counts]
    truth: float
    seeds: int
    speakers: int = 0
    items: int
    kind: str = "ratio"

    @property
    def count(self) -> int:
        """Items in all."""
        return self.items * max(self.speakers, 1)


def _rates(
    scenario: Scenario, rng: np.random.Generator, *, base: float, spread: float, of_seeds: float
) -> np.ndarray:
    """True rates that add up, so that their mean is known: (models, seeds, items)."""
    speaker = np.repeat(np.arange(max(scenario.speakers, 1)), scenario.items)
    count = speaker[-1] + 1
    of_speakers = spread * (scenario.speakers > 0)
    both = rng.uniform(-2, 2, count) * of_speakers
    own = rng.uniform(-1, 1, (2, 1, count)) * of_speakers
    # the interval of a single seed speaks for no other
    seed = rng.uniform(-1.7, 1.7, (2, scenario.seeds, 1)) * of_seeds * (scenario.seeds > 1)
    models = np.array([base + scenario.truth / 200, base - scenario.truth / 200])[:, None, None]
    item = rng.uniform(-1, 1, (1, 1, scenario.count)) * spread
    return models + seed + (both + own)[..., speaker] + item


def accuracies(scenario: Scenario, rng: np.random.Generator) -> Counts:
    """Right or wrong; some items and some speakers are hard for both."""
    rates = _rates(scenario, rng, base=0.6, spread=0.07, of_seeds=0.02)
    right = rng.random((1, 1, scenario.count)) * 0.5 + rng.random(rates.shape) * 0.5
    # the mean of two uniform numbers is below its own distribution's r-quantile r of the time
    below = np.where(rates <= 0.5, np.sqrt(rates / 2), 1 - np.sqrt((1 - rates) / 2))
    tops = (right < below).astype(float).reshape(-1, scenario.count)
    return tops, np.ones_like(tops)


def error_rates(scenario: Scenario, rng: np.random.Generator) -> Counts:
    """Errors by reference length, which differs from item to item."""
    rates = _rates(scenario, rng, base=0.3, spread=0.04, of_seeds=0.01)
    lengths = rng.integers(3, 30, scenario.count)
    tops = rng.poisson(rates * lengths).reshape(-1, scenario.count).astype(float)
    return tops, np.broadcast_to(lengths.astype(float), tops.shape).copy()


_DISTANCES, _OF_SEEDS = (1.0, 0.7), 0.05


def trials(scenario: Scenario, rng: np.random.Generator) -> Counts:
    """Scores of trials, a tenth of them of one speaker; both models err on the same ones."""
    same = (np.arange(scenario.count) % 10 == 0).astype(float)
    of_seeds = rng.normal(0, _OF_SEEDS, (2, scenario.seeds)) * (scenario.seeds > 1)
    distance = np.array(_DISTANCES)[:, None] + of_seeds
    noise = rng.normal(0, 0.8, scenario.count) + rng.normal(
        0, 0.6, (2, scenario.seeds, scenario.count)
    )
    scores = (distance[..., None] * same + noise).reshape(-1, scenario.count)
    return scores, np.broadcast_to(same, scores.shape).copy()


def _true_eer(distance: float, *, of_seeds: float = _OF_SEEDS) -> float:
    """Percent: of two normal distributions so far apart, over the seeds' distances."""
    return 100 * NormalDist().cdf(-distance / 2 / (1 + of_seeds**2 / 4) ** 0.5)


SCENARIOS = {
    "accuracy, 300 items, 1 seed": Scenario(make=accuracies, truth=4.0, seeds=1, items=300),
    "accuracy, 300 items, 3 seeds": Scenario(make=accuracies, truth=4.0, seeds=3, items=300),
    "accuracy, 25 speakers, 3 seeds": Scenario(
        make=accuracies, truth=4.0, seeds=3, speakers=25, items=12
    ),
    "accuracy, 5 speakers, 1 seed": Scenario(
        make=accuracies, truth=4.0, seeds=1, speakers=5, items=96
    ),
    "accuracy, 5 speakers, 3 seeds": Scenario(
        make=accuracies, truth=4.0, seeds=3, speakers=5, items=96
    ),
    "error rate, 150 items, 1 seed": Scenario(make=error_rates, truth=2.0, seeds=1, items=150),
    "error rate, 8 speakers, 3 seeds": Scenario(
        make=error_rates, truth=2.0, seeds=3, speakers=8, items=19
    ),
    "error rate, 40 speakers, 3 seeds": Scenario(
        make=error_rates, truth=2.0, seeds=3, speakers=40, items=65
    ),
    "equal error rate, 1,000 trials, 1 seed": Scenario(
        make=trials,
        truth=_true_eer(_DISTANCES[0], of_seeds=0) - _true_eer(_DISTANCES[1], of_seeds=0),
        seeds=1,
        items=1000,
        kind="eer",
    ),
    "equal error rate, 1,000 trials, 3 seeds": Scenario(
        make=trials,
        truth=_true_eer(_DISTANCES[0]) - _true_eer(_DISTANCES[1]),
        seeds=3,
        items=1000,
        kind="eer",
    ),
}


def coverage(scenario: Scenario, *, trials: int, resamples: int = RESAMPLES) -> float:
    """Return the share of trials whose interval holds the true difference."""
    hits = 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        tops, bottoms = scenario.make(scenario, rng)
        speakers = np.repeat(np.arange(max(scenario.speakers, 1)), scenario.items)
        who: list[tuple[int, ...]] = [(int(s),) if scenario.speakers else () for s in speakers]
        units = units_of(who)
        drawn = np.vstack(
            [np.ones(units.count), draw(units.count, resamples=resamples, seed=trial)]
        )
        if scenario.kind == "eer":
            found = equal_error_rates(tops, bottoms[0], units, drawn)
        else:
            found = ratios(tops, bottoms, units, drawn, scale=100.0)
        sides = [found[:, : scenario.seeds], found[:, scenario.seeds :]]
        told = difference(
            *(Side(values=side[0], resampled=side[1:]) for side in sides),
            units=units.count,
            unit="units",
        )
        hits += told is not None and told.low <= scenario.truth <= told.high
    return hits / trials


def main() -> None:
    """Print one line a scenario."""
    from superbit.upstreams.machine import cpu_model

    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=2000)
    count = parser.parse_args().trials
    for name, scenario in SCENARIOS.items():
        share = coverage(scenario, trials=count)
        line = {"bench": "coverage", "scenario": name, "trials": count, "coverage": round(share, 4)}
        line |= {"resamples": RESAMPLES, "machine": cpu_model(), "date": f"{date.today()}"}
        command = f"python -m superbit.benchmark.bench.coverage --trials {count}"
        print(json.dumps(line | {"command": command}), flush=True)


if __name__ == "__main__":
    main()
