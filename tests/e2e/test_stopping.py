"""A sweep that is asked to stop saves its step, whoever asks, and goes on as if never stopped."""

import multiprocessing
import os
import signal
import textwrap
import threading
import time

import pytest

from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.running import checkpoints
from superbit.upstreams.stopping import SIGNALS

OVERRIDES = """
KS:
  runner: {total_steps: 6, eval_step: 3, save_step: 100, log_step: 2}
  downstream_expert: {datarc: {batch_size: 8}}
"""


@pytest.fixture
def spec(hubconf):
    """An upstream whose n-th pass does what the file ``order`` says: ``EXPRESSION @ n``."""
    text = hubconf.read_text().replace(
        "    def misbehave(self, calls):\n",
        textwrap.indent(
            textwrap.dedent(
                """
                def misbehave(self, calls):
                    if (HERE / "code").exists():
                        code, _, when = (HERE / "code").read_text().rpartition("@")
                        if calls >= int(when):
                            (HERE / "code").unlink()
                            exec(code.strip())

                def misbehave_by_order(self, calls):
                """
            ),
            "    ",
        ),
    )
    hubconf.write_text(text)
    return f"{hubconf}:energies"


@pytest.fixture
def at_pass(hubconf):
    """Let the upstream run some code in its n-th pass from now on."""

    def write(code, number):
        (hubconf.parent / "calls").write_text("")
        (hubconf.parent / "code").write_text(f"{code} @ {number}")

    return write


@pytest.fixture
def sweep(superbit, tiny_paths_file, tmp_path):
    (tmp_path / "overrides.yaml").write_text(OVERRIDES)

    def call(upstreams, *more):
        return superbit(
            "sweep", "--upstreams", upstreams, "--tasks", "KS", "--scale", "embedded",
            "--paths", tiny_paths_file, "--overrides", tmp_path / "overrides.yaml",
            "--results", tmp_path / "results", "--no-cache", *more,
        )  # fmt: skip

    return call


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


def test_every_signal_saves_the_step_and_the_end_is_the_same(sweep, spec, store, at_pass):
    assert sweep(spec)[0] == 0
    (straight,) = store.read_all()
    items = store.read_items(straight)
    for path in store.root.rglob("*.json*"):
        path.unlink()
    # One after the other, in one run: each at a later step of it.
    # What was ignored when this process began, as under nohup, stays so.
    heard = [each for each in SIGNALS[1:] if signal.getsignal(each) is not signal.SIG_IGN]
    for number in heard:
        at_pass(f"os.kill(os.getpid(), {int(number)})", 4)
        status, out, err = sweep(spec)
        assert status == 130, err
        assert signal.Signals(number).name in err
        assert "not run: KS × " in out
    assert sweep(spec)[0] == 0
    (resumed,) = store.read_all()
    assert (resumed.value, resumed.metrics) == (straight.value, straight.metrics)
    assert store.read_items(resumed) == items


def test_the_second_signal_ends_it_at_once_and_leaves_no_part_of_a_file(
    sweep, spec, store, at_pass
):
    at_pass("os.kill(os.getpid(), 15); import time; time.sleep(1.1); os.kill(os.getpid(), 15)", 5)
    status, _, err = sweep(spec)
    assert (status, err.splitlines()[-1]) == (130, "superbit: stopped.")
    assert store.read_all() == []
    assert not list(store.root.rglob("*.partial"))


def test_it_is_saved_by_time(sweep, spec, monkeypatch):
    saved, save = [], checkpoints.save
    monkeypatch.setattr(
        checkpoints,
        "save",
        lambda path, experiment, **more: (
            saved.append(experiment.position.step),
            save(path, experiment, **more),
        ),
    )
    assert sweep(spec, "--checkpoint-minutes", "1e-6")[0] == 0
    assert set(saved) == {1, 2, 3, 4, 5, 6}
    saved.clear()
    assert sweep(spec, "--seed", "2")[0] == 0
    assert set(saved) == {3, 6}


def test_a_limit_on_time_begins_no_other_run(sweep, spec, store):
    status, out, err = sweep(spec, "--max-hours", "1e-6", "--seed", "1,2")
    assert status == 130
    assert out.count("not run: ") == 2
    assert "limit on time" in err
    assert store.read_all() == []


@pytest.mark.parametrize(
    ("code", "said", "number"),
    [
        ("raise KeyboardInterrupt", "KeyboardInterrupt: no message", 1),  # when it is tried
        ("import sys; sys.exit(0)", "SystemExit: 0", 4),  # in training
    ],
)
def test_what_an_upstream_raises_to_end_python_fails_its_run_only(
    sweep, spec, store, at_pass, code, said, number
):
    at_pass(code, number)
    status, out, err = sweep(f"fbank,{spec}")
    records = {record.identity.upstream: record for record in store.read_all()}
    assert records["fbank"].status == "done", out + err
    failed = [record for record in records.values() if record.status == "failed"]
    if failed:  # what raises once may be tried once more
        assert said in failed[0].reason
    assert status == len(failed)
    assert number == 1 or failed


@pytest.mark.slow  # two processes begin
def test_a_signal_to_every_process_of_a_job_stops_workers_by_the_parents_word(
    sweep, spec, store, hubconf
):
    (hubconf.parent / "calls").write_text("")

    def signal_all():
        while (hubconf.parent / "calls").stat().st_size < 5:
            time.sleep(0.05)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: None)  # of one that comes too late
    thread = threading.Thread(target=signal_all)
    thread.start()
    status, out, err = sweep(spec, "--jobs", "2", "--seed", "1,2,3")
    thread.join()
    signal.signal(signal.SIGTERM, before)
    assert status == 130, out + err
    assert not [record for record in store.read_all() if record.status == "failed"]
    assert sweep(spec, "--jobs", "2", "--seed", "1,2,3")[0] == 0
