"""The process that watches a sweep: whatever the other one dies of, the rest is done."""

import os
import signal
import sys
import textwrap
import threading
import time

import pytest

from superbit.benchmark.running import doing
from superbit.benchmark.sweeping import supervise as supervising
from superbit.benchmark.sweeping.supervise import supervise

# Runs one thing after the other, each of which may end the process; keeps what it was told.
MAIN = """
import ctypes, json, os, signal, sys, time
from superbit.benchmark.running import doing
from superbit.upstreams import stopping

def main(argv):
    log, *works = argv
    watch = doing.watch_now()
    lost = {at.doing.run or at.doing.upstream: at.reason for at in watch.lost}
    with open(log, "a") as out:
        print(json.dumps({"lost": lost, "ended": sorted(watch.ended)}), file=out)
    with stopping.gently(lambda line: None) as stop:
        for number, work in enumerate(works):
            key = f"{number}-{work}"
            if key in lost or key in watch.ended:
                continue
            with doing.doing("running", "upstream", run=key, label=work):
                if work == "segfault":
                    ctypes.string_at(0)
                if work == "exits":
                    os._exit(0)
                if work == "exit":
                    sys.exit(3)
                if work == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if work == "hangs":
                    with open(log, "a") as out:
                        print('"waiting"', file=out)
                    time.sleep(60)
                if work == "waits":
                    with open(log, "a") as out:
                        print('"waiting"', file=out)
                    while not stop():
                        time.sleep(0.01)
                    return 130
            doing.tell_ended([key])
        if "nowhere" in works:
            os._exit(5)
    return 1 if lost else 0
"""


@pytest.fixture(scope="module")
def main(tmp_path_factory):
    folder = tmp_path_factory.mktemp("main")
    (folder / "watched_main.py").write_text(textwrap.dedent(MAIN))
    sys.path.insert(0, str(folder))
    from watched_main import main

    yield main
    sys.path.remove(str(folder))


@pytest.fixture
def log(tmp_path):
    import json

    file = tmp_path / "log"
    return file, lambda: [json.loads(line) for line in file.read_text().splitlines()]


def test_each_death_fails_what_it_was_in_and_the_rest_is_done_once(main, log, capsys):
    file, told = log
    works = ["fine", "segfault", "exits", "exit", "killed", "fine"]
    assert supervise([str(file), *works], main=main) == 1
    last = told()[-1]
    assert last["ended"] == ["0-fine"]
    assert {key: reason.split("; ")[0] for key, reason in last["lost"].items()} == {
        "1-segfault": "the process died running: a segmentation fault (SIGSEGV)",
        "2-exits": "the process died running: some code in it ended Python, with status 0",
        "3-exit": "the process died running: some code in it ended Python, with status 3",
        "4-killed": "the process died running: it was ended from outside, for lack of memory or "
        "by hand (SIGKILL)",
    }
    assert len(told()) == 5
    assert capsys.readouterr().err.count("the sweep goes on without it") == 4


def test_what_hangs_is_ended_by_its_limit(main, log, monkeypatch):
    monkeypatch.setattr(supervising, "SECONDS_TO_SAY_WHERE", 0.0)
    file, told = log
    assert supervise([str(file), "hangs", "fine"], main=main, run_timeout=0.3) == 1
    assert told()[-1]["lost"]["0-hangs"].startswith(
        "the process died running: it took longer than --run-timeout (0.3 s)"
    )


def test_a_death_in_nothing_that_could_be_left_out_is_not_tried_for_ever(main, log, capsys):
    file, told = log
    assert supervise([str(file), "fine", "nowhere"], main=main) == 1
    assert len(told()) == 1
    assert "status 5" in capsys.readouterr().err


def _handle(_number, _frame):
    """A signal that comes when nothing is supervised any more ends no test run."""


@pytest.fixture(autouse=True)
def _safe():
    before = {number: signal.signal(number, _handle) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(main, log, number):
    file, _ = log

    def send():
        while not (file.exists() and "waiting" in file.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    assert supervise([str(file), "waits", "fine"], main=main) == 130
    thread.join()
    assert signal.getsignal(number) is _handle


def test_a_second_signal_ends_what_does_not_listen(main, log, monkeypatch):
    monkeypatch.setattr(supervising, "_SECONDS_TO_END", 0.1)
    monkeypatch.setattr(supervising.stopping, "ONE_REQUEST_SECONDS", 0.0)
    file, _ = log
    began = time.monotonic()

    def send():
        while not (file.exists() and "waiting" in file.read_text()):
            time.sleep(0.01)
        for _ in range(2):
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    assert supervise([str(file), "hangs"], main=main) == 130
    thread.join()
    assert time.monotonic() - began < 20


def test_what_is_told_of_a_death():
    assert doing.cause_of(-signal.SIGABRT) == "a library gave up (SIGABRT)"
    assert doing.cause_of(-signal.SIGUSR1) == "SIGUSR1"
    assert doing.cause_of(-200) == "signal 200"
