"""Decisions by time saved per byte, against figures worked out by hand."""

import dataclasses

import pytest

from superbit.benchmark.features.costs import Cost
from superbit.benchmark.features.demand import Need, assumed_need, kind_of, shared_once
from superbit.benchmark.features.planning import decide, decision_lines
from superbit.benchmark.features.store import parse_size
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import resolve
from superbit.upstreams.errors import InputError

COST = Cost(
    layers=2, dim=10, rate=320, pace=0.5, measured=True, deviation=0.0, may_store=True
)  # fmt: skip


def need(task="PR", *, waveforms=10, seconds=20.0, draws=100, kind="frames", audio=None, **more):
    return Need(
        upstream="u", task=task, kind=kind, audio=audio or task, waveforms=waveforms,
        seconds=seconds, missing=(waveforms, seconds), training_draws=draws,
        draw_seconds=seconds / waveforms, **more,
    )  # fmt: skip


def decide_one(each, *, left=None, cost=COST):
    return decide([each], {"u": cost}, frame_bytes=2, left=left)[0]


def test_bytes_and_hours_by_hand():
    frames = decide_one(need())
    # 20 s are 1,000 frames of 2 layers × 10 numbers of 2 bytes
    assert frames.bytes == 1000 * 2 * 10 * 2
    assert frames.extraction == pytest.approx(20 * 0.5 / 3600)
    assert frames.without == pytest.approx(100 * 2.0 * 0.5 / 3600)
    assert frames.live == 0
    pooled = decide_one(need("KS", kind="pooled", drawn_share=0.25))
    assert pooled.bytes == 10 * 2 * 10 * 4
    assert pooled.live == pytest.approx(0.25 * pooled.without)
    assert pooled.store


def test_what_is_used_once_stays_live():
    assert not decide_one(need(draws=10)).store
    assert decide_one(need(draws=11)).store


def test_the_budget_goes_to_what_saves_most_per_byte():
    small_gain, large_gain = need("PR", draws=20), need("ASR", draws=500)
    one = decide_one(small_gain).bytes
    decisions = decide([small_gain, large_gain], {"u": COST}, frame_bytes=2, left=one)
    assert [decision.store for decision in decisions] == [False, True]
    assert "do not fit into" in decisions[0].why


def test_tasks_that_share_audio_share_one_fate():
    # Alone, PR asks for less than a store would hold; ASR pays for both.
    pr, asr = need("PR", draws=5, audio="librispeech"), need("ASR", draws=90, audio="librispeech")
    decisions = decide(shared_once([pr, asr]), {"u": COST}, frame_bytes=2, left=None)
    assert [decision.store for decision in decisions] == [True, True]
    assert decisions[1].bytes == 0


def test_an_upstream_whose_features_depend_on_the_batch_is_live_and_says_so():
    depends = Cost(
        layers=2, dim=10, rate=320, pace=0.5, measured=False, deviation=0.03, may_store=False
    )
    decision = decide_one(need(), cost=depends)
    assert not decision.store
    lines = "\n".join(decision_lines([decision], {"u": depends}))
    assert "0.03" in lines
    assert "--cache-any-upstream" in lines


def test_a_plan_says_what_only_the_number_of_frames_means():
    other = dataclasses.replace(COST, deviation=float("inf"), may_store=False)
    lines = "\n".join(decision_lines([decide_one(need(), cost=other)], {"u": other}))
    assert "the number of an utterance's frames depends on its batch; --cache-any" in lines
    zeros = dataclasses.replace(COST, zeros_follow=True)
    decision = decide_one(need(), cost=zeros)
    assert decision.store
    assert "nothing leaks" in "\n".join(decision_lines([decision], {"u": zeros}))


@pytest.mark.parametrize("task", TASKS)
def test_assumed_sizes_cover_every_task(task):
    config = resolve(task, scale="superb")
    assumed = assumed_need(task, config, upstream="u", runs=1)
    assert assumed.waveforms > 1000
    assert assumed.evaluation_draws > 0
    assert (assumed.training_draws == 0) == (task == "QbE")
    assert decide_one(assumed).store


def test_assumed_draws_are_steps_times_accumulated_batches():
    # SID: 200,000 steps of 4 batches of 8; PR: 100,000 of 2 of 16; ASR halves its 32.
    for task, draws in (("SID", 6_400_000), ("PR", 3_200_000), ("ASR", 3_200_000)):
        assert assumed_need(task, resolve(task, scale="superb"), upstream="u", runs=1
                            ).training_draws == draws  # fmt: skip
    assert all(task.audio.splits for task in TASKS.values())


def test_a_head_that_does_not_only_average_gets_frames():
    config = resolve("KS", scale="embedded")
    assert kind_of("KS", config) == "pooled"
    config["downstream_expert"]["modelrc"]["UtteranceLevel"]["pooling"] = "AttentivePooling"
    assert kind_of("KS", config) == "frames"


@pytest.mark.parametrize(
    ("text", "size"), [("200GB", 200e9), ("1.5 TB", 1.5e12), ("64", 64), ("10kb", 1e4)]
)
def test_sizes(text, size):
    assert parse_size(text, option="--cache-budget") == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "ten", "3 PB"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="--cache-budget"):
        parse_size(text, option="--cache-budget")
