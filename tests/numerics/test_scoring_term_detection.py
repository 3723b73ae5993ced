"""MTWV against the definition written out, threshold by threshold and trial by trial."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superbit.benchmark.scoring.statistics import mean_interval
from superbit.benchmark.scoring.term_detection import (
    FALSE_ALARM_WEIGHT,
    collect_trials,
    maximum_term_weighted_value,
    mtwv_interval,
    normalize_scores,
    query_items,
    term_weighted_value,
)
from superbit.upstreams.errors import InputError

DOCUMENTS = [f"doc{i}" for i in range(6)]


def twv_by_definition(scores: dict, occurrences: dict, threshold: float, beta: float) -> float:
    total, counted = 0.0, 0
    for query, held in occurrences.items():
        if not held:
            continue
        counted += 1
        missed = alarms = others = 0
        for document in DOCUMENTS:
            detected = scores.get(query, {}).get(document, -10.0) >= threshold
            if document in held:
                missed += not detected
            else:
                others += 1
                alarms += detected
        total += missed / len(held) + (beta * alarms / others if others else 0.0)
    return 1 - total / counted


def test_costs_and_prior_are_those_of_quesst() -> None:
    # target prior 0.0008, a miss 100, a false alarm 1
    beta = (1 / 100) * (1 - 0.0008) / 0.0008
    assert beta == pytest.approx(12.49)
    assert pytest.approx(beta, rel=1e-5) == FALSE_ALARM_WEIGHT
    # the prior that the scorer is given has the costs folded in
    effective = 100 * 0.0008 / (100 * 0.0008 + 1 - 0.0008)
    assert effective == pytest.approx(0.0741289, abs=1e-7)


# few distinct scores, so that ties between targets and others are the rule
cases = st.tuples(
    st.dictionaries(
        st.sampled_from("qrst"),
        st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(-3, 3).map(float), max_size=6),
        max_size=4,
    ),
    st.dictionaries(st.sampled_from("uvw"), st.frozensets(st.sampled_from(DOCUMENTS)), max_size=2),
    st.lists(st.frozensets(st.sampled_from(DOCUMENTS)), min_size=4, max_size=4),
    st.sampled_from([0.1, 1.0, FALSE_ALARM_WEIGHT]),
)


@settings(max_examples=200, deadline=None)
@given(cases)
def test_the_maximum_is_the_definition_s(case: tuple) -> None:
    scores, unscored, truths, beta = case
    occurrences = {**dict(zip("qrst", truths, strict=True)), **unscored}
    if not any(occurrences.values()):
        with pytest.raises(InputError, match="no document holds any"):
            collect_trials(scores, occurrences, documents=DOCUMENTS)
        return
    trials = collect_trials(scores, occurrences, documents=DOCUMENTS)
    thresholds = [-10.0, *np.arange(-3.0, 4.0), math.inf]
    values = [twv_by_definition(scores, occurrences, t, beta) for t in thresholds]
    for threshold, value in zip(thresholds, values, strict=True):
        found = term_weighted_value(trials, threshold, false_alarm_weight=beta)
        assert found == pytest.approx(value, abs=1e-12)
    best = maximum_term_weighted_value(trials, false_alarm_weight=beta)
    assert best.value == pytest.approx(max(values), abs=1e-12)
    if best.threshold is not None:
        there = twv_by_definition(scores, occurrences, best.threshold, beta)
        assert there == pytest.approx(best.value, abs=1e-12)
    items = query_items(trials, best.threshold, false_alarm_weight=beta)
    assert np.mean([item["twv"] for item in items]) == pytest.approx(best.value, abs=1e-12)


def test_a_value_by_hand() -> None:
    # at 0.5: q finds one of two, r both of its one with one false alarm among five
    scores = {
        "q": {"doc0": 0.9, "doc1": 0.1},
        "r": {"doc2": 0.8, "doc3": 0.5},
    }
    occurrences = {"q": {"doc0", "doc1"}, "r": {"doc2"}}
    trials = collect_trials(scores, occurrences, documents=DOCUMENTS)
    at_half = 1 - (0.5 + 0 + 0 + FALSE_ALARM_WEIGHT / 5) / 2
    assert term_weighted_value(trials, 0.5) == pytest.approx(at_half)
    best = maximum_term_weighted_value(trials)
    assert (best.value, best.threshold) == (pytest.approx(0.75), 0.8)
    assert query_items(trials, 0.5) == [
        {
            "id": "q", "documents_holding_it": 2, "miss_rate": 0.5, "false_alarm_rate": 0.0,
            "twv": 0.5,
        },
        {
            "id": "r", "documents_holding_it": 1, "miss_rate": 0.0, "false_alarm_rate": 0.2,
            "twv": pytest.approx(1 - FALSE_ALARM_WEIGHT / 5),
        },
    ]  # fmt: skip


def test_perfect_scores_are_worth_one_and_useless_ones_nothing() -> None:
    occurrences = {"q": {"doc0"}, "r": {"doc5"}}
    perfect = {q: {d: float(d in held) for d in DOCUMENTS} for q, held in occurrences.items()}
    trials = collect_trials(perfect, occurrences, documents=DOCUMENTS)
    assert maximum_term_weighted_value(trials).value == pytest.approx(1.0)
    turned = {q: {d: -s for d, s in row.items()} for q, row in perfect.items()}
    worthless = maximum_term_weighted_value(
        collect_trials(turned, occurrences, documents=DOCUMENTS)
    )
    assert (worthless.value, worthless.threshold) == (0.0, None)


def test_a_query_without_occurrence_counts_neither_way() -> None:
    scores = {"q": {"doc0": 2.0}, "nowhere": dict.fromkeys(DOCUMENTS, 5.0)}
    trials = collect_trials(scores, {"q": {"doc0"}, "nowhere": set()}, documents=DOCUMENTS)
    assert trials.queries == ("q",)
    assert maximum_term_weighted_value(trials).value == pytest.approx(1.0)


def test_a_query_without_scores_is_missed() -> None:
    scores = {"q": {"doc0": 2.0}}
    occurrences = {"q": {"doc0"}, "unheard": {"doc1"}}
    trials = collect_trials(scores, occurrences, documents=DOCUMENTS)
    assert maximum_term_weighted_value(trials).value == pytest.approx(0.5)


def test_scores_are_standardized_by_query_and_rounded_as_written() -> None:
    raw = np.array([[1.0, 2.0, 3.0, 6.0], [-7.0, -7.0, -7.0, -7.0]])
    found = normalize_scores(raw)
    spread = math.sqrt((4 + 1 + 0 + 9) / 4)
    expected = [float(f"{(x - 3.0) / spread:.4f}") for x in raw[0]]
    assert found[0].tolist() == expected
    assert found[1].tolist() == [0.0] * 4
    exact = normalize_scores(raw[0], decimals=None)
    assert exact.mean() == pytest.approx(0, abs=1e-12)
    assert exact.std() == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 0, width=32), min_size=1, max_size=40))
def test_rounding_is_that_of_a_number_printed_with_four_decimals(raw: list) -> None:
    exact = normalize_scores(np.array(raw), decimals=None)
    assert normalize_scores(np.array(raw)).tolist() == [float(f"{x:.4f}") for x in exact]


def random_trials(queries: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    documents = [f"d{i}" for i in range(100)]
    scores, occurrences = {}, {}
    for number in range(queries):
        held = rng.choice(100, size=3, replace=False)
        row = rng.normal(size=100)
        row[held] += rng.normal(3.0, 1.5, size=3)
        scores[f"q{number}"] = dict(zip(documents, row.tolist(), strict=True))
        occurrences[f"q{number}"] = [documents[i] for i in held]
    return collect_trials(scores, occurrences, documents=documents)


def test_the_interval_is_that_of_a_mean_where_the_threshold_hardly_moves() -> None:
    trials = random_trials(150)
    best = maximum_term_weighted_value(trials)
    found = mtwv_interval(trials)
    assert found.low <= 100 * best.value <= found.high
    fixed = mean_interval(
        [item["twv"] for item in query_items(trials, best.threshold)], scale=100.0
    )
    # each resample's best threshold is worth a little more than the one fixed for all
    assert found.high - found.low == pytest.approx(fixed.high - fixed.low, rel=0.15)
    assert fixed.low <= found.low
    assert fixed.high <= found.high
    assert found.method == "percentile bootstrap over queries"


def test_one_query_says_nothing_of_the_spread() -> None:
    assert mtwv_interval(random_trials(1)) is None


@pytest.mark.parametrize(
    ("scores", "occurrences", "says"),
    [
        ({"q": {"doc0": 1.0}}, {"r": {"doc0"}}, "'q' has scores but no entry"),
        ({"q": {"doc9": 1.0}}, {"q": {"doc0"}}, "'doc9'.*one of the 6 documents"),
        ({"q": {"doc0": 1.0}}, {"q": {"doc9"}}, "'doc9'"),
        ({"q": {"doc0": math.nan}}, {"q": {"doc0"}}, "'q' has the score nan for 'doc0'"),
    ],
)
def test_scores_and_truth_that_do_not_fit_are_named(scores, occurrences, says) -> None:
    with pytest.raises(InputError, match=says):
        collect_trials(scores, occurrences, documents=DOCUMENTS)
