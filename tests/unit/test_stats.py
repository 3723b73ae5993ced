"""Intervals against closed forms and known coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superbit.benchmark.stats import accuracy_interval, error_rate_interval, ratio_interval

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


@pytest.mark.parametrize(("errors", "point"), [([0, 0, 0], 0.0), ([1, 2, 4], 50.0)])
def test_utterances_that_are_all_alike_give_a_point(errors: list[int], point: float) -> None:
    found = error_rate_interval(errors, [2, 4, 8])
    assert (found.low, found.high) == (point, point)
    assert found.resamples is None


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
