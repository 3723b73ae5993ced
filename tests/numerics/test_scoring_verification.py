"""The equal error rate against its definition, closed forms and s3prl's own function."""

import math
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import superbit.upstreams  # noqa: F401  (s3prl imports only with its shims)
from superbit.benchmark.scoring.verification import eer_interval, equal_error_rate, trial_items

pytest.importorskip("sklearn")


def eer_by_definition(labels: list[int], scores: list[float]) -> float:
    """Walk the ROC curve's straight pieces until one meets false alarm rate = miss rate."""
    same = [score for label, score in zip(labels, scores, strict=True) if label]
    other = [score for label, score in zip(labels, scores, strict=True) if not label]
    curve = [(0.0, 1.0)]
    for threshold in sorted(set(scores), reverse=True):
        false_alarm = sum(score >= threshold for score in other) / len(other)
        miss = sum(score < threshold for score in same) / len(same)
        curve.append((false_alarm, miss))
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 <= y0 and x1 >= y1:
            # (x0 + t (x1 - x0)) = (y0 + t (y1 - y0))
            t = (y0 - x0) / ((y0 - x0) + (x1 - y1))
            return 100 * (x0 + t * (x1 - x0))
    raise AssertionError("the curve runs from (0, 1) to (1, 0), so it crosses")


trials = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-4, 4).map(lambda n: n / 4)), min_size=2, max_size=30
)


@settings(max_examples=150, deadline=None)
@given(trials)
def test_the_rate_is_where_the_curve_crosses(drawn: list) -> None:
    labels, scores = map(list, zip(*drawn, strict=True))
    assume(0 < sum(labels) < len(labels))
    found = equal_error_rate(labels, scores)
    assert found.percent == pytest.approx(eer_by_definition(labels, scores), abs=1e-9)
    assert min(scores) <= found.threshold <= max(scores)


@settings(max_examples=150, deadline=None)
@given(trials)
def test_the_rate_is_s3prl_s(drawn: list) -> None:
    pytest.importorskip("s3prl")
    from s3prl.downstream.sv_voxceleb1.utils import EER

    labels, scores = map(np.array, zip(*drawn, strict=True))
    assume(0 < labels.sum() < labels.size)
    theirs, _ = EER(labels, scores)
    assert equal_error_rate(labels, scores).percent == pytest.approx(100 * theirs, abs=1e-8)


def test_separable_scores_have_no_error() -> None:
    found = equal_error_rate([1, 1, 0, 0, 0], [0.9, 0.7, 0.6, -0.2, 0.1])
    assert found.percent == 0.0
    assert 0.6 <= found.threshold <= 0.7
    assert equal_error_rate([0, 0, 1], [0.9, 0.7, 0.6]).percent == 100.0


def test_scores_that_say_nothing_have_an_error_of_one_half() -> None:
    assert equal_error_rate([1, 0, 0, 1, 0], [0.3] * 5).percent == pytest.approx(50.0)


def test_a_rate_by_hand() -> None:
    # accepting the three highest: 1 of 4 impostors, 2 of 3 targets; the next target closes it
    labels = [1, 1, 0, 1, 0, 0, 0]
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    assert equal_error_rate(labels, scores).percent == pytest.approx(25.0)


def test_two_normal_distributions_have_their_closed_form() -> None:
    # means 2 apart with spread 1: the rates meet half way, at the normal tail of 1
    rng = np.random.default_rng(1)
    labels = np.repeat([1, 0], 40_000)
    scores = rng.normal(2.0 * labels, 1.0)
    found = equal_error_rate(labels, scores)
    assert found.percent == pytest.approx(100 * NormalDist().cdf(-1.0), abs=0.5)
    assert found.threshold == pytest.approx(1.0, abs=0.03)


@settings(max_examples=50, deadline=None)
@given(trials)
def test_only_the_order_of_scores_counts(drawn: list) -> None:
    labels, scores = map(np.array, zip(*drawn, strict=True))
    assume(0 < labels.sum() < labels.size)
    plain = equal_error_rate(labels, scores).percent
    assert equal_error_rate(labels, np.exp(3 * scores)).percent == pytest.approx(plain)
    # the mirror image: labels and order both turned round
    assert equal_error_rate(1 - labels, -scores).percent == pytest.approx(plain)


def normal_trials(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat([1, 0], [count // 4, count - count // 4])
    return labels, rng.normal(1.5 * labels, 1.0)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    truth = 100 * NormalDist().cdf(-0.75)
    rng = np.random.default_rng(2)
    rounds = 20
    hits = 0
    for _ in range(rounds):
        found = eer_interval(*normal_trials(rng, 300))
        hits += found.low <= truth <= found.high
    # 95 % of 20 is 19; fewer than 15 has probability under 1e-3
    assert hits >= 15
    assert found.method == "percentile bootstrap over trials"


def test_four_times_the_trials_halve_the_interval() -> None:
    rng = np.random.default_rng(4)
    narrow, wide = (eer_interval(*normal_trials(rng, n)) for n in (8000, 2000))
    ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
    assert ratio == pytest.approx(2.0, rel=0.25)
    assert narrow == eer_interval(*normal_trials(np.random.default_rng(4), 8000))


def test_speakers_who_differ_widen_the_interval() -> None:
    # every speaker has a level of its own that moves all of its trials
    rng = np.random.default_rng(6)
    level = rng.normal(0, 1.0, size=12)
    pairs = [(i, j) for i in range(12) for j in range(12) for _ in range(8)]
    labels = [int(i == j) for i, j in pairs]
    scores = [2.0 * (i == j) + level[i] + level[j] + rng.normal(0, 0.3) for i, j in pairs]
    alone = eer_interval(labels, scores)
    clustered = eer_interval(labels, scores, speakers=pairs)
    assert clustered.method == "percentile bootstrap over speakers"
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)
    value = equal_error_rate(labels, scores).percent
    assert clustered.low <= value <= clustered.high


def test_a_trial_of_two_speakers_counts_as_often_as_both_were_drawn() -> None:
    # "b" drawn twice and "a" once (or more) leaves a-b trials; without "a" there are none, so
    # three of four resamples of two speakers have an undefined rate or one speaker alone
    labels, scores = [1, 1, 0], [0.9, 0.1, 0.5]
    pairs = [("a", "a"), ("b", "b"), ("a", "b")]
    assert eer_interval(labels, scores, speakers=pairs) is None


def test_four_separable_scores_do_not_make_a_certainty() -> None:
    found = eer_interval([1, 1, 0, 0], [4, 3, 2, 1])
    assert found.low == 0.0
    # of a share above that, four trials without an error would be rarer than 2.5 %
    assert found.high == pytest.approx(100 * (1 - 0.025**0.25))


def test_items_hold_every_trial() -> None:
    items = trial_items([("e1", "t1"), ("e2", "t2")], [1, 0], np.array([0.5, -0.25]))
    assert items == [
        {"enrolment": "e1", "test": "t1", "same_speaker": True, "score": 0.5},
        {"enrolment": "e2", "test": "t2", "same_speaker": False, "score": -0.25},
    ]


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([1, 0], [0.1], "2 labels do not go with 1 scores"),
        ([1, 1], [0.1, 0.2], "trials of both"),
        ([1, 2], [0.1, 0.2], "labels 0 and 1"),
        ([], [], "trials of both"),
        ([1, 0], [0.1, math.nan], "finite"),
    ],
)
def test_trials_without_a_rate_are_refused(labels: list, scores: list, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        equal_error_rate(labels, scores)
    with pytest.raises(ValueError, match=says):
        eer_interval(labels, scores)


def test_speakers_come_in_one_pair_a_trial() -> None:
    with pytest.raises(ValueError, match="one pair a trial"):
        eer_interval([1, 0], [0.5, 0.1], speakers=[("a", "a")])
