"""Intervals against closed forms and known coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superbit.benchmark.scoring.closed_forms import agreeing_interval
from superbit.benchmark.scoring.statistics import (
    accuracy_interval,
    bootstrap_interval,
    error_rate_interval,
    mean_interval,
    ratio_interval,
)

pytest.importorskip("scipy")

Z = 1.959963984540054  # the standard normal's 97.5 % point


def wilson(successes: int, n: int) -> tuple[float, float]:
    p = successes / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return 100 * (centre - half), 100 * (centre + half)


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 8), (90, 96), (2950, 3081)]
)
def test_an_accuracy_has_wilson_s_interval(successes: int, n: int) -> None:
    found = accuracy_interval([True] * successes + [False] * (n - successes))
    assert (found.low, found.high) == pytest.approx(wilson(successes, n), abs=1e-9)
    assert (found.level, found.method, found.resamples) == (0.95, "Wilson score", None)


def test_wilson_s_own_figures() -> None:
    # Newcombe 1998, Table I, method 3: 81 of 263 gives 0.2553 to 0.3662, 15 of 148 0.0624 to 0.1605
    for successes, n, low, high in [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05)]:
        found = accuracy_interval([1] * successes + [0] * (n - successes))
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.005)


def test_everything_correct_is_not_certainty() -> None:
    found = accuracy_interval([True] * 10)
    assert found.high == pytest.approx(100)
    assert found.low == pytest.approx(100 * 10 / (10 + Z**2))


def test_an_error_rate_s_interval_agrees_with_the_delta_method() -> None:
    rng = np.random.default_rng(3)
    lengths = rng.integers(5, 40, size=800)
    errors = rng.binomial(lengths, 0.2)
    value = errors.sum() / lengths.sum()
    residuals = errors - value * lengths
    half = Z * np.sqrt(np.mean(residuals**2) / lengths.size) / lengths.mean()
    found = error_rate_interval(errors.tolist(), lengths.tolist())
    expected = (100 * (value - half), 100 * (value + half))
    assert (found.low, found.high) == pytest.approx(expected, abs=0.1 * 100 * half)
    assert (found.method, found.resamples) == ("BCa bootstrap over utterances", 9999)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    trials = 60
    for _ in range(trials):
        lengths = rng.integers(3, 20, size=40)
        errors = rng.binomial(lengths, 0.3)
        found = error_rate_interval(errors, lengths)
        hits += found.low <= 30.0 <= found.high
    # 95 % of 60 is 57; fewer than 50 has probability under 1e-3
    assert hits >= 50


def test_errors_stay_paired_with_their_lengths() -> None:
    # every utterance has 25 to 26 % errors though lengths differ 100-fold: a bootstrap that
    # resampled the two counts apart would spread over many times that
    lengths = [4, 40, 400, 4, 40, 400]
    errors = [1, 10, 104, 1, 10, 104]
    found = error_rate_interval(errors, lengths)
    assert 25 - 1e-9 <= found.low <= found.high <= 26 + 1e-9


def test_the_same_counts_give_the_same_interval() -> None:
    assert error_rate_interval([1, 0, 3, 2], [9, 8, 7, 6]) == error_rate_interval(
        [1, 0, 3, 2], [9, 8, 7, 6]
    )


@pytest.mark.parametrize(("errors", "value"), [([0, 0, 0], 0.0), ([1, 2, 4], 50.0)])
def test_utterances_that_are_all_alike_are_no_certainty(errors: list[int], value: float) -> None:
    found = error_rate_interval(errors, [2, 4, 8])
    # three alike leave 2.5 % for a share of 1 - 0.025^(1/3) of all others to be unlike them
    share = 1 - 0.025 ** (1 / 3)
    expected = (value - share * value, value + share * (100 - value))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.resamples is None


@pytest.mark.parametrize("count", [1, 5, 480])
def test_what_all_items_agree_on_has_clopper_and_pearson_s_interval(count: int) -> None:
    from scipy.stats import binomtest

    for right in (0, count):
        found = agreeing_interval(100 * right / count, count, highest=100.0)
        bounds = binomtest(right, count).proportion_ci(method="exact")
        assert (found.low, found.high) == pytest.approx((100 * bounds.low, 100 * bounds.high))


def test_one_utterance_says_nothing_of_the_spread() -> None:
    assert error_rate_interval([1], [3]) is None
    assert error_rate_interval([1, 2], [3, 3], speakers=["a", "a"]) is None


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=2, max_size=12).filter(
        lambda counts: any(length for _, length in counts)
    )
)
def test_any_counts_give_an_ordered_interval_or_none(counts: list[tuple[int, int]]) -> None:
    errors, lengths = zip(*counts, strict=True)
    found = error_rate_interval(errors, lengths)
    assert found is None or 0 <= found.low <= found.high


def test_speakers_who_differ_widen_the_interval() -> None:
    # two speakers of 50 utterances each at 0 and 100 %: 100 utterances say little of speakers
    speakers = [f"speaker {i // 25}" for i in range(100)]
    correct = [i // 25 % 2 == 0 for i in range(100)]
    alone = accuracy_interval(correct)
    clustered = accuracy_interval(correct, speakers=speakers)
    assert clustered.method.endswith("over speakers")
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)


def test_one_utterance_a_speaker_is_the_bootstrap_over_utterances() -> None:
    errors, lengths = [1, 0, 3, 2, 5], [9, 8, 7, 6, 9]
    clustered = ratio_interval(errors, lengths, speakers=list("abcde"))
    plain = ratio_interval(errors, lengths)
    assert (clustered.low, clustered.high) == (plain.low, plain.high)


def test_the_scale_is_a_factor() -> None:
    percent, fraction = (ratio_interval([1, 0, 3], [9, 8, 7], scale=s) for s in (100.0, 1.0))
    assert percent.low == pytest.approx(100 * fraction.low)
    assert percent.high == pytest.approx(100 * fraction.high)


@pytest.mark.parametrize(
    ("errors", "lengths", "says"),
    [
        ([], [], "at least one"),
        ([1, 2], [1], "one count an item"),
        ([0, 0], [0, 0], "sum to zero"),
        ([1, 1], [3, -1], "not negative"),
        ([1, float("nan")], [1, 1], "finite"),
    ],
)
def test_counts_that_make_no_ratio_are_refused(errors: list, lengths: list, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        error_rate_interval(errors, lengths)


@pytest.mark.parametrize("correct", [[], [2, 1], [0.5]])
def test_flags_that_are_no_flags_are_refused(correct: list) -> None:
    with pytest.raises(ValueError, match="each true or false"):
        accuracy_interval(correct)


def test_a_mean_s_interval_agrees_with_its_standard_error() -> None:
    values = np.random.default_rng(8).beta(2, 5, size=500)
    half = Z * values.std() / math.sqrt(values.size)
    found = mean_interval(values, scale=100.0)
    expected = (100 * (values.mean() - half), 100 * (values.mean() + half))
    assert (found.low, found.high) == pytest.approx(expected, abs=0.1 * 100 * half)
    unscaled = mean_interval(values)
    assert unscaled.high == pytest.approx(found.high / 100)


def mean_of(values: np.ndarray):
    return lambda weights: float(weights @ values / weights.sum())


def test_any_statistic_s_interval_agrees_with_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(9).normal(3.0, 2.0, size=400)
    half = Z * values.std() / math.sqrt(values.size)
    found = bootstrap_interval(mean_of(values), values.size, over="queries")
    expected = (values.mean() - half, values.mean() + half)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.1 * half)
    assert (found.method, found.resamples) == ("percentile bootstrap over queries", 1999)
    assert found == bootstrap_interval(mean_of(values), values.size, over="queries")


def test_strata_keep_their_sizes() -> None:
    strata = ["a"] * 3 + ["b"] * 5
    seen = []

    def statistic(weights: np.ndarray) -> float:
        seen.append((weights[:3].sum(), weights[3:].sum()))
        return 0.0

    bootstrap_interval(statistic, 8, over="trials", strata=strata, resamples=50)
    assert set(seen) == {(3, 5)}
    # all the spread lies between the strata, so none is left
    found = bootstrap_interval(
        mean_of(np.array([0.0] * 3 + [1.0] * 5)), 8, over="trials", strata=strata, highest=1.0
    )
    assert found.method == "exact, as all items agree"
    assert 0 < found.low < 5 / 8 < found.high < 1


def test_a_statistic_undefined_for_many_resamples_has_no_interval() -> None:
    def needs_the_first(weights: np.ndarray) -> float:
        return float(weights[1:].sum()) if weights[0] else math.nan

    # an item of three is left out of (2/3)³ of the resamples, one alone in its stratum of none
    assert bootstrap_interval(needs_the_first, 3, over="speakers") is None
    assert bootstrap_interval(needs_the_first, 3, over="speakers", strata="abc") is not None
    assert bootstrap_interval(mean_of(np.ones(1)), 1, over="speakers") is None


def test_items_that_make_no_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        bootstrap_interval(mean_of(np.ones(1)), 0, over="speakers")
    with pytest.raises(ValueError, match="one entry an item"):
        bootstrap_interval(mean_of(np.ones(3)), 3, over="speakers", strata=["a"])
