"""What is extracted together, and what one task's trouble leaves to the others."""

from types import SimpleNamespace

import pytest

from superbit.benchmark.features import supply
from superbit.benchmark.features.costs import Cost
from superbit.benchmark.features.demand import Demand, need_of
from superbit.benchmark.features.planning import Decision, FeaturePlan
from superbit.benchmark.features.store import CacheError, CacheSettings
from superbit.benchmark.running.candidate import InterruptedRun

COST = Cost(layers=2, dim=10, rate=320, pace=0.5, measured=True, deviation=0.0, may_store=True)
KINDS = {"KS": "pooled", "SID": "pooled", "PR": "frames", "ASR": "frames"}
WAVES = {"KS": "ab", "SID": "c", "PR": "de", "ASR": "de"}
UPSTREAMS = ("one", "two")


@pytest.fixture
def plan(tmp_path):
    demands = {
        (name, task): Demand(
            task=task, kind=KINDS[task], waves={key: key for key in WAVES[task]}, drawn=0,
            drawn_share=0.0, training_draws=1, evaluation_draws=1,
        )
        for task in KINDS for name in UPSTREAMS
    }  # fmt: skip
    decisions = []
    for (name, task), demand in demands.items():
        stub = SimpleNamespace(seconds=1.0)
        need = need_of(
            Demand(**{**vars(demand), "waves": {key: stub for key in demand.waves}}),
            upstream=name, audio=task, runs=1, present=0, missing=(1, 1.0),
        )  # fmt: skip
        decisions.append(
            Decision(need=need, store=task != "SID" or name == "one", why="", bytes=0,
                     extraction=0.0, live=0.0, without=0.0)
        )  # fmt: skip
    return FeaturePlan(
        settings=CacheSettings(folder=tmp_path), decisions=tuple(decisions),
        costs=dict.fromkeys(UPSTREAMS, COST), demands=demands,
    )  # fmt: skip


@pytest.fixture
def prepare(plan, monkeypatch):
    """Prepare with an extraction that fails at some waves; returns uses, its calls and output."""

    def run(bad="", error=ValueError):
        calls, said = [], []

        def extract(waves, *, upstream, kind, **_):
            calls.append((upstream.name, kind, "".join(waves)))
            if any(wave in bad for wave in waves):
                raise error("this one is wrong")

        monkeypatch.setattr(supply, "extract", extract)
        made = supply.Supply(
            plan,
            upstreams={
                name: SimpleNamespace(name=name, entry=SimpleNamespace(origin="superbit"))
                for name in UPSTREAMS
            },
            say=said.append, device="cpu", processes=1, stop=lambda: False,
        )  # fmt: skip
        uses = {name: made.of(name) for name in UPSTREAMS}
        assert {name: made.of(name) for name in UPSTREAMS} == uses  # once an upstream
        return uses["one"] | uses["two"], calls, "\n".join(said)

    return run


def test_tasks_of_one_kind_go_together_and_upstreams_one_by_one(prepare):
    uses, calls, _ = prepare()
    assert calls == [
        ("one", "pooled", "abc"), ("one", "frames", "de"),
        ("two", "pooled", "ab"), ("two", "frames", "de"),
    ]  # fmt: skip
    assert set(uses) == {(n, t) for n in UPSTREAMS for t in KINDS} - {("two", "SID")}
    assert uses["one", "KS"].kind == "pooled"
    assert uses["one", "PR"].kind == "frames"


def test_a_task_that_fails_leaves_the_others_theirs(prepare):
    uses, _, said = prepare(bad="c")
    assert ("one", "KS") in uses
    assert ("one", "SID") not in uses
    assert "SID × one: no features are stored: ValueError: this one is wrong" in said


def test_trouble_of_the_cache_itself_leaves_runs_what_is_stored_by_then(prepare):
    uses, _, said = prepare(bad="d", error=CacheError)
    assert ("one", "PR") in uses
    assert "features of one for PR, ASR: what is not stored stays live: this one is wrong" in said


def test_a_sweep_that_is_stopped_stops(prepare):
    with pytest.raises(InterruptedRun):
        prepare(bad="d", error=InterruptedRun)


@pytest.mark.parametrize("error", [SystemExit, MemoryError])
def test_whatever_an_upstream_raises_leaves_its_runs_live(prepare, error):
    uses, _, said = prepare(bad="d", error=error)
    assert ("one", "KS") in uses
    assert ("one", "PR") not in uses
    assert "PR × two: no features are stored" in said
