"""Slot scores against s3prl's own functions and counts by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import superbit.upstreams  # noqa: F401  (s3prl imports only with its shims)
from superbit.benchmark.scoring.slots import (
    slot_items,
    slot_type_f1,
    slot_type_f1_interval,
    slot_value_cer,
    slot_value_cer_interval,
    slots_of,
)

pytest.importorskip("jiwer")


@pytest.fixture(scope="module")
def metric():
    """s3prl's module of metrics."""
    pytest.importorskip("s3prl")
    from s3prl.downstream.ctc import metric

    return metric


def score(reference: str, hypothesis: str) -> dict:
    return slot_items(["u"], [reference], [hypothesis])[0]


def test_slots_are_read_from_their_marks() -> None:
    text = "play B-artist the beatles E-artist on B-service spotify E-service"
    assert slots_of(text) == {"artist": ["the beatles"], "service": ["spotify"]}
    assert slots_of("B-a x E-a B-a y  z E-a") == {"a": ["x", "y z"]}
    # no end, another end, no value
    assert slots_of("B-a x E-b") == slots_of("B-a E-a") == slots_of("x y") == {}


def test_a_mark_inside_a_value_stays_in_a_reference_only() -> None:
    text = "B-a one B-b two E-b E-a"
    assert slots_of(text) == {"a": ["one B-b two E-b"]}
    assert slots_of(text, nested_marks=False) == {"a": ["one two"]}


def test_an_end_mark_needs_to_begin_with_the_name() -> None:
    assert slots_of("B-city rome E-city_name") == {"city": ["rome"]}
    assert slots_of("B-city_name rome E-city") == {}


@pytest.mark.parametrize(
    ("reference", "hypothesis", "f1", "errors", "length"),
    [
        ("B-a cat E-a", "B-a cat E-a", 1.0, 0, 3),
        ("B-a cat E-a", "B-a cut E-a", 1.0, 1, 3),
        # another name: nothing of the value counts as found
        ("B-a cat E-a", "B-b cat E-b", 0.0, 3, 3),
        ("B-a cat E-a", "cat", 0.0, 3, 3),
        # nothing to find, nothing found; nothing to find, something found
        ("cat", "dog", 1.0, 0, 0),
        ("cat", "B-a cat E-a", 0.0, 0, 0),
        # precision 1/2, recall 1/1; the superfluous value costs no characters
        ("B-a cat E-a", "B-a cat E-a B-b dog E-b", pytest.approx(2 / 3), 0, 3),
        # precision 1/1, recall 1/2
        ("B-a cat E-a B-b dog E-b", "B-a cat E-a", pytest.approx(2 / 3), 3, 6),
        # names are a set: the second value is missed in characters only
        ("B-a cat E-a B-a dog E-a", "B-a cat E-a", 1.0, 3, 6),
        # each value of the reference takes the nearest one, the same one twice if need be
        ("B-a cat E-a B-a bat E-a", "B-a dog E-a B-a cat E-a", 1.0, 1, 6),
        # edits may exceed the reference
        ("B-a x E-a", "B-a yyyy E-a", 1.0, 4, 1),
        # 100 times the reference and more is no nearer than nothing
        ("B-a x E-a", f"B-a {'y' * 99} E-a", 1.0, 99, 1),
        ("B-a x E-a", f"B-a {'y' * 100} E-a", 1.0, 1, 1),
    ],
)
def test_scores_by_hand(reference, hypothesis, f1, errors, length) -> None:
    item = score(reference, hypothesis)
    assert item["slot_type_f1"] == f1
    assert (item["value_errors"], item["value_reference_length"]) == (errors, length)


# few names and letters, so that slots meet, nest, stay open and share beginnings
token = st.one_of(
    st.text("abc", min_size=1, max_size=4),
    st.sampled_from(["B-x", "E-x", "B-xy", "E-xy", "B-z", "E-z", "E-", "B-", ""]),
)
noise = st.lists(token, max_size=12).map(" ".join)
slot = st.tuples(
    st.sampled_from(["x", "xy", "z"]), st.lists(st.text("abc", min_size=1), min_size=1, max_size=3)
).map(lambda drawn: f"B-{drawn[0]} {' '.join(drawn[1])} E-{drawn[0]}")
tagged = st.lists(st.one_of(slot, st.text("abc", min_size=1, max_size=4)), max_size=6).map(" ".join)
transcripts = st.one_of(tagged, noise)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(transcripts, transcripts), min_size=1, max_size=5))
def test_both_numbers_are_s3prl_s(metric, pairs: list) -> None:
    references, hypotheses = map(list, zip(*pairs, strict=True))
    items = slot_items([str(i) for i in range(len(pairs))], references, hypotheses)
    theirs = metric.slot_type_f1(hypotheses, references)
    assert slot_type_f1(items) == pytest.approx(theirs, abs=1e-12)
    if sum(item["value_reference_length"] for item in items):
        theirs = metric.slot_value_cer(hypotheses, references)
        assert slot_value_cer(items) == pytest.approx(100 * theirs, abs=1e-9)
    else:
        with pytest.raises(ValueError, match="no reference has a slot"):
            slot_value_cer(items)


def test_values_may_hold_what_s3prl_separates_them_with() -> None:
    item = score("B-time 8:30 E-time", "B-time 8;30 E-time")
    assert (item["slot_type_f1"], item["value_errors"]) == (1.0, 1)


def test_intervals_hold_their_numbers() -> None:
    references = ["B-a cat E-a", "B-b dog E-b go", "stop", "B-a bird E-a B-b cow E-b"] * 3
    hypotheses = ["B-a cut E-a", "B-a dog E-a go", "stop", "B-a bird E-a"] * 3
    items = slot_items([str(i) for i in range(12)], references, hypotheses)
    f1, cer = slot_type_f1_interval(items), slot_value_cer_interval(items)
    assert slot_type_f1(items) == pytest.approx((1 + 0 + 1 + 2 / 3) / 4)
    assert slot_value_cer(items) == pytest.approx(100 * (1 + 3 + 0 + 3) / (3 + 3 + 0 + 7))
    assert 0 <= f1.low < slot_type_f1(items) < f1.high <= 1
    assert cer.low < slot_value_cer(items) < cer.high
