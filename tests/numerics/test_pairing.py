"""Paired differences against scipy, brute force, closed forms, and how often they are right."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from superbit.benchmark.bench import coverage
from superbit.benchmark.pairing import student
from superbit.benchmark.pairing.difference import (
    Side,
    difference,
    holm,
    mcnemar,
    of_seeds,
)
from superbit.benchmark.pairing.resamples import draw, equal_error_rates, ratios, units_of
from superbit.benchmark.scoring.verification import equal_error_rate


def compared(tops, bottoms=None, *, seeds=1, speakers=None, resamples=20_000, **options):
    """The difference of two models, ``tops`` and ``bottoms`` (2 × seeds, items)."""
    tops = np.asarray(tops, dtype=float)
    bottoms = np.ones_like(tops) if bottoms is None else np.asarray(bottoms, dtype=float)
    units = units_of([() if s is None else (s,) for s in speakers or [None] * tops.shape[1]])
    drawn = np.vstack([np.ones(units.count), draw(units.count, resamples=resamples)])
    found = ratios(tops, bottoms, units, drawn, scale=100.0)
    sides = [
        Side(values=side[0], resampled=side[1:]) for side in (found[:, :seeds], found[:, seeds:])
    ]
    return difference(*sides, units=units.count, unit="items", **options)


# --- Student's t, Holm, McNemar --------------------------------------------------------------


@pytest.mark.parametrize("degrees", [1, 1.7, 2, 4.3, 30, 1000.5])
def test_student_s_t_is_scipy_s(degrees):
    for t in (0.0, 1e-4, 0.5, 1.96, 4.3, 40.0):
        assert student.two_sided_p(t, degrees) == pytest.approx(
            2 * stats.t.sf(t, degrees), rel=1e-9
        )
    for probability in (0.6, 0.8, 0.975, 0.9995):
        expected = stats.t.ppf(probability, degrees)
        assert student.quantile(probability, degrees) == pytest.approx(expected, rel=1e-9)
    assert student.two_sided_p(math.inf, degrees) == 0.0


def test_holm_s_own_procedure():
    # by hand: 4 × 0.005, then 3 × 0.01, 2 × 0.03, 1 × 0.04 which must not fall
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_is_the_sign_test_of_what_is_apart(seed):
    first, second = np.random.default_rng(seed).random((2, 40)) < 0.6
    apart = first[first != second]
    expected = stats.binomtest(int(apart.sum()), apart.size).pvalue
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_is_a_permutation_test():
    """Every way to swap the two models' answers, item by item: 2^9 of them."""
    first = np.array([1, 1, 1, 1, 1, 0, 0, 1, 1], dtype=bool)
    second = np.array([0, 0, 0, 1, 0, 1, 0, 0, 1], dtype=bool)
    signed = first.astype(int) - second
    sums = [abs(np.dot(signs, signed)) for signs in itertools.product((1, -1), repeat=9)]
    share = np.mean([each >= abs(signed.sum()) for each in sums])
    assert mcnemar(first, second) == pytest.approx(share)
    assert mcnemar(first, first) == 1.0


def test_the_p_of_several_seeds():
    assert of_seeds([]) is None
    assert of_seeds([0.3]) == 0.3
    assert of_seeds([0.001, 0.02, 0.9]) == 0.04


# --- metrics on resamples --------------------------------------------------------------------


def test_an_equal_error_rate_of_resamples_is_that_of_the_trials_repeated():
    rng = np.random.default_rng(1)
    same = (np.arange(60) % 4 == 0).astype(float)
    # rounded, so that scores are equal now and then
    scores = np.round(rng.normal(size=(2, 60)) + same, 1)
    units = units_of([()] * 60)
    drawn = np.vstack([np.ones(60), draw(60, resamples=40, seed=2)])
    found = equal_error_rates(scores, same, units, drawn)
    assert found.shape == (41, 2)
    for row, often in enumerate(drawn.astype(int)):
        labels = np.repeat(same.astype(int), often)
        for run in range(2):
            expected = equal_error_rate(labels, np.repeat(scores[run], often)).percent
            assert found[row, run] == pytest.approx(expected, abs=1e-4)


def test_a_trial_of_two_speakers_counts_as_often_as_both_were_drawn():
    units = units_of([("a", "a"), ("a", "b"), ("b", "c"), ()])
    assert (units.count, units.of_speakers, units.in_pairs) == (4, 3, True)
    assert units.weights(np.array([2.0, 3.0, 0.0, 1.0])).tolist() == [2, 6, 0, 1]
    tops, bottoms = np.array([[1.0, 2.0, 4.0, 8.0]]), np.ones((1, 4))
    found = ratios(tops, bottoms, units, np.array([[2.0, 3.0, 0.0, 1.0]]), scale=1.0)
    assert found[0, 0] == pytest.approx((2 * 1 + 6 * 2 + 8) / 9)


def test_items_of_one_speaker_are_drawn_together():
    tops = np.array([[1.0, 2.0, 3.0, 4.0]])
    bottoms = np.array([[2.0, 2.0, 5.0, 5.0]])
    units = units_of([("a",), ("b",), ("a",), ("b",)])
    found = ratios(tops, bottoms, units, np.array([[2.0, 0.0], [1.0, 1.0]]), scale=100.0)
    assert found[:, 0] == pytest.approx([100 * 4 / 7, 100 * 10 / 14])


# --- difference, interval, p -----------------------------------------------------------------


def test_of_one_seed_and_independent_items_it_is_student_s_paired_t_test():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.5, 0.2, (2, 12)) + rng.normal(0, 0.3, 12)
    found = compared([first, second])
    test = stats.ttest_rel(first, second)
    interval = test.confidence_interval()
    assert found.value == pytest.approx(100 * (first - second).mean())
    assert (found.low, found.high) == pytest.approx(
        (100 * interval.low, 100 * interval.high), rel=0.03
    )
    assert found.p == pytest.approx(test.pvalue, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_p_is_that_of_all_permutations(seed):
    """Every way to swap the models, item by item: exact, and made in another way."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(0.5, 0.2, (2, 12)) + rng.normal(0, 0.3, 12)
    second = second - 0.1
    exact = stats.permutation_test(
        (first, second), lambda a, b: np.mean(a - b), permutation_type="samples",
        n_resamples=2**12,
    )  # fmt: skip
    assert compared([first, second]).p == pytest.approx(exact.pvalue, abs=0.02)


def test_speakers_are_permuted_whole():
    """An error rate of speakers with several utterances; models are swapped a speaker at a time."""
    rng = np.random.default_rng(7)
    speakers = np.repeat(np.arange(10), 6)
    lengths = rng.integers(4, 20, 60)
    rates = 0.3 + 0.1 * rng.normal(size=(2, 10))[:, speakers] + [[0.06], [0.0]]
    errors = rng.poisson(np.clip(rates, 0.01, None) * lengths)
    found = compared(errors, [lengths, lengths], speakers=speakers.tolist())
    by_speaker = np.stack([np.bincount(speakers, weights=e) for e in errors])
    gap = by_speaker[0] - by_speaker[1]
    sums = np.array(list(itertools.product((1, -1), repeat=10))) @ gap
    exact = np.mean(np.abs(sums) >= abs(gap.sum()) - 1e-9)
    assert found.value == pytest.approx(100 * gap.sum() / lengths.sum())
    assert found.p == pytest.approx(exact, abs=0.03)
    # utterances taken as independent look as if they said more
    alone = compared(errors, [lengths, lengths])
    assert alone.high - alone.low < found.high - found.low


def test_seeds_and_items_are_those_of_a_two_way_analysis_of_variance():
    """The variance by mean squares of a crossed design, computed by hand."""
    rng = np.random.default_rng(3)
    items, seeds = 60, 4
    sides = [
        rng.normal(0, 1, (seeds, 1)) * 0.05 + rng.normal(0, 1, items) * 0.2
        + rng.normal(0, 0.1, (seeds, items))
        for _ in range(2)
    ]  # fmt: skip

    def of_seeds(table):
        rows = table.mean(axis=1)
        residual = table - rows[:, None] - table.mean(axis=0) + table.mean()
        within = (residual**2).sum() / ((items - 1) * (seeds - 1)) / (items * seeds)
        return rows.var(ddof=1) / seeds - within

    parts = [(sides[0] - sides[1]).mean(axis=0).var(ddof=1) / items, *map(of_seeds, sides)]
    free = [items - 1, seeds - 1, seeds - 1]
    assert min(parts) > 0
    degrees = sum(parts) ** 2 / sum(p**2 / f for p, f in zip(parts, free, strict=True))
    half = stats.t.ppf(0.975, degrees) * math.sqrt(sum(parts))
    found = compared(np.vstack(sides), seeds=seeds)
    assert (found.high - found.low) / 2 == pytest.approx(100 * half, rel=0.02)
    assert found.smallest == pytest.approx(
        100 * half * (1 + stats.t.ppf(0.8, degrees) / stats.t.ppf(0.975, degrees)), rel=0.02
    )


def test_p_and_interval_say_the_same():
    rng = np.random.default_rng(5)
    for _ in range(20):
        found = compared(rng.random((2, 15)) + np.array([[0.15], [0.0]]), resamples=500)
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_models_that_answer_alike_are_not_known_to_be_equal():
    right = np.ones((1, 100), dtype=bool)
    found = compared(np.ones((2, 100)), right=(right, right))
    # Agresti and Min: half an item in each cell that is empty
    assert (found.low, found.high) == pytest.approx((-100 * 1.959964 / 102, 100 * 1.959964 / 102))
    assert found.p == 1.0
    rates = compared(np.ones((2, 30)), 2 * np.ones((2, 30)))
    assert rates.high == -rates.low == pytest.approx(100 * (1 - 0.025 ** (1 / 30)))
    assert rates.value == 0


def test_two_constant_answers_of_five_equal_folds_have_their_items_interval():
    """Each is right on a quarter of every fold, on other items: folds say nothing, items do."""
    first, second = np.tile(np.arange(20) % 4 == 0, 5), np.tile(np.arange(20) % 4 == 1, 5)
    found = compared(np.full((2, 5), 0.25), right=(first[None], second[None]), items=100)
    # by hand: 25.5 items each alone, of 102
    half = 100 * 1.959964 * math.sqrt(51) / 102
    assert (found.low, found.high) == pytest.approx((-half, half))


def test_no_telling():
    assert compared(np.ones((2, 1))) is None
    # an error rate that half of all resamples do not have
    assert compared([[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]) is None


@pytest.mark.parametrize(
    "name",
    [
        "accuracy, 300 items, 3 seeds",
        "accuracy, 5 speakers, 3 seeds",
        "error rate, 8 speakers, 3 seeds",
        "equal error rate, 1,000 trials, 1 seed",
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(name):
    """95 of 100; `superbit.benchmark.bench.coverage` counts thousands."""
    trials = 40 if name.startswith("equal") else 150
    share = coverage.coverage(coverage.SCENARIOS[name], trials=trials, resamples=199)
    # below that with a probability of 1 in 2,000
    assert share >= stats.binom.ppf(5e-4, trials, 0.95) / trials


@pytest.mark.slow
@pytest.mark.parametrize("name", list(coverage.SCENARIOS))
def test_intervals_hold_the_truth_93_to_97_times_of_100(name):
    assert 0.93 <= coverage.coverage(coverage.SCENARIOS[name], trials=2000) <= 0.97
