"""Sweeps that share a folder: each takes the next free run, and waits only for what is left."""

import threading
from contextlib import ExitStack

import pytest

from superbit.benchmark.corpora.paths import load_paths
from superbit.benchmark.progress import Reporter
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.running.checkpoints import run_folder
from superbit.benchmark.sweeping.plan import SweepRequest, make_plan
from superbit.upstreams import files


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


@pytest.fixture
def sweep(superbit, tiny_paths_file, overrides, hubconf, store):
    def call(*more):
        return superbit(
            "sweep", "--upstreams", f"{hubconf}:energies", "--tasks", "KS", "--scale", "embedded",
            "--paths", tiny_paths_file, "--overrides", overrides, "--results", store.root,
            "--no-cache", "--seed", "1,2,3", *more,
        )  # fmt: skip

    return call


@pytest.fixture
def jobs(tiny_paths_file, overrides, hubconf, store):
    """What a sweep of three seeds would do."""
    plan = make_plan(
        SweepRequest(
            upstreams=(f"{hubconf}:energies",),
            tasks=("KS",),
            scale="embedded",
            seeds=(1, 2, 3),
            overrides=overrides,
        ),
        store=store,
        paths=load_paths(tiny_paths_file),
        reporter=Reporter(),
    )
    return [planned.job(plan.manifests) for planned in plan.runs]


def held(store, job):
    """The claim of another sweep on a run."""
    return files.locked(store.root / "work" / "locks" / run_folder(store.root, job.key).name)


def wait_for(condition):
    while not condition():
        threading.Event().wait(0.02)


def test_a_run_that_another_sweep_is_at_comes_last(sweep, jobs, store):
    order = []

    def another():
        with held(store, jobs[0]):
            claimed.set()
            wait_for(lambda: len(store.read_all()) == 2)
            order.extend(record.identity.seed for record in store.read_all())

    claimed, thread = threading.Event(), threading.Thread(target=another)
    thread.start()
    claimed.wait()
    status, out, err = sweep()
    thread.join()
    assert status == 0, out + err
    assert sorted(order) == [2, 3]
    assert len(store.read_all()) == 3
    assert err.count("seed 1: another sweep is at it; others come first") == 1


def test_what_another_sweep_saw_fail_is_not_tried_again_by_each(sweep, jobs, store, hubconf):
    """Here it would do; there it failed, on a disk that was full, say."""
    from datetime import UTC, datetime

    from superbit.benchmark.running import record
    from superbit.benchmark.running.record import RunContext

    context = RunContext(store=store, paths=None)

    def another():
        with held(store, jobs[0]):
            claimed.set()
            wait_for(lambda: len(store.read_all()) == 2)
            record.fail(jobs[0], OSError("full"), context=context, started=datetime.now(UTC))

    claimed, thread = threading.Event(), threading.Thread(target=another)
    thread.start()
    claimed.wait()
    status, out, err = sweep()
    thread.join()
    assert status == 1, out + err
    failed = [each for each in store.read_all() if each.status == "failed"]
    assert [(each.identity.seed, each.reason) for each in failed] == [(1, "OSError: full")]
    assert sweep()[0] == 0  # the next call does try it again


def test_stopped_while_others_hold_all_that_is_left(sweep, jobs, store):
    with ExitStack() as claims:
        for job in jobs:
            claims.enter_context(held(store, job))
        status, out, _ = sweep("--max-hours", "0.0015")
    assert status == 130
    assert out.count("not run: ") == 3
    assert store.read_all() == []
