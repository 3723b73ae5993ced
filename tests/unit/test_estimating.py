"""A plan's minutes come from seconds that were measured here, or it says that it does not know."""

import pytest

from superbit.benchmark.records.provenance import Provenance
from superbit.benchmark.records.schema import Corpus, RateSearch, RunIdentity, RunRecord, Tried
from superbit.benchmark.sweeping.estimate import estimate_lines, estimates
from superbit.benchmark.sweeping.plan import PlannedRun
from superbit.benchmark.tasks.configs import resolve
from superbit.upstreams.machine import cpu_model

CORPUS = "c0" * 32


def identity(task="KS", *, upstream="fbank", steps=100, corpus=CORPUS, rate=0.01, seed=1):
    config = resolve(task, scale="embedded", learning_rate=rate if task != "QbE" else None)
    if "runner" in config:
        config["runner"]["total_steps"] = steps
    return RunIdentity(
        upstream=upstream, weights_sha256="5d" * 32, upstream_revision="1", task=task,
        task_revision=1, config=config, corpus_sha256=corpus, seed=seed, fold=None,
        learning_rate=rate if task != "QbE" else None,
    )  # fmt: skip


def planned(*identities):
    return PlannedRun(identities=identities, states=("to do",) * len(identities))


def done(of, seconds, *, stored=True, cpu=None, gpu=None, rates=()):
    tried = [Tried(learning_rate=rate) for rate in rates]
    return RunRecord(
        key=of.key, status="done", identity=of, scale="embedded", limited=False, untrained=False,
        value=1.0,
        corpus=Corpus(name="c", kind="synthesized", sha256=of.corpus_sha256),
        search=RateSearch(rule="best", selected_on="dev", tried=tried) if rates else None,
        provenance=Provenance(
            seconds=seconds, cpu=cpu or cpu_model(), gpu=gpu,
            features={"kind": "pooled"} if stored else None,
        ),
    )  # fmt: skip


def text(runs, records, stored=(("fbank", "KS"), ("fbank", "QbE")), **more):
    return "\n".join(estimate_lines(estimates(runs, records, stored=set(stored), **more)))


def test_nothing_is_known_before_the_first_run():
    said = text([planned(identity()), planned(identity("QbE"))], [])
    assert said == (
        "training and evaluation of KS, QbE: not known, as no run like it was done here yet"
    )


def test_one_earlier_run_is_one_run():
    said = text([planned(identity(seed=5))], [done(identity(seed=2), 60)])
    assert "by 1 earlier run here (" in said


def test_the_median_of_the_same_runs_for_each_that_is_planned():
    earlier = [done(identity(seed=seed), seconds) for seed, seconds in ((2, 50), (3, 60), (4, 900))]
    said = text([planned(identity(seed=5)), planned(identity(seed=6))], earlier)
    assert said == (
        "training and evaluation: about 2.0 min for all runs, one after the other, by 3 earlier "
        "runs here (a run: KS 1.0 min)"
    )


def test_twice_the_steps_take_twice_as_long_and_many_times_as_many_are_not_known():
    earlier = [done(identity(seed=2, steps=50), 30)]
    assert "about 1.0 min" in text([planned(identity())], earlier)
    assert "not known" in text([planned(identity(steps=100_000))], earlier)


@pytest.mark.parametrize(
    "other",
    [
        done(identity(corpus="c1" * 32), 30),
        done(identity(), 30, stored=False),  # its upstream ran on every draw
        done(identity(), 30, cpu="another"),
        done(identity(), 30, gpu="one"),
        done(identity(), 30, rates=(0.1, 0.01)),  # both trained in that time
        done(identity(), 30).model_copy(update={"status": "failed"}),
        done(identity("QbE"), 30),
    ],
)
def test_what_is_not_alike_tells_nothing(other):
    assert "not known" in text([planned(identity(seed=9))], [other])


def test_a_live_upstreams_time_is_known_of_the_same_upstream_only():
    earlier = [done(identity(upstream="hubert"), 600, stored=False)]
    assert "not known" in text([planned(identity())], earlier, stored=())
    mine = planned(identity(upstream="hubert", seed=2))
    assert "about 10.0 min" in text([mine], earlier, stored=())


def test_the_same_upstream_goes_before_others_and_candidates_before_one():
    earlier = [done(identity(), 30), done(identity(upstream="hubert"), 300)]
    assert "about 30.0 s" in text([planned(identity(seed=2))], earlier)
    both = planned(identity(rate=0.1), identity(rate=0.02))
    assert "not known" in text([both], earlier)
    side_by_side = done(identity(seed=3), 80, rates=(0.1, 0.02))
    assert "about 1.3 min" in text([both], [*earlier, side_by_side])


def test_what_is_known_in_part_says_so():
    earlier = [done(identity(), 30)]
    runs = [planned(identity(seed=2)), planned(identity("QbE")), planned(identity(steps=5000))]
    said = text(runs, earlier)
    assert "about 30.0 s for 1 of 3 runs" in said
    assert "training and evaluation of 1 of 2 runs of KS, QbE: not known" in said
