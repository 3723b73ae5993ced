"""What libraries say is kept from the terminal."""

import io
import logging
import sys

from superbit.benchmark import progress
from superbit.benchmark.progress import Reporter


def test_quiet_swallows_what_is_printed_and_gives_it_back(capsys):
    with Reporter().quiet() as out:
        print("library")
        print("library", file=sys.stderr)
        print("ours", file=out)
    print("afterwards")
    assert capsys.readouterr() == ("ours\nafterwards\n", "")


def test_a_log_handler_made_in_quiet_can_be_used_afterwards(capsys, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", True)
    with Reporter().quiet():
        handler = logging.StreamHandler()
    handler.emit(logging.makeLogRecord({"msg": "from a library"}))
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    """What, how far, how long; the clock stands still but for what the items take."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    for _ in Reporter(log).each("profiling", range(4)):
        now[0] += 15
    assert log.getvalue().splitlines() == [
        "profiling: 1 of 4, 45 s left",
        "profiling: 2 of 4, 30 s left",
        "profiling: 3 of 4, 15 s left",
        "profiling: 4 of 4, 0 s left",
    ]


def test_a_line_within_a_bar_stands_above_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    reporter = Reporter(terminal)
    with reporter.counting("profiling") as on_progress:
        on_progress(1, 2)
        reporter.line("measuring [vanilla]")
    assert "measuring [vanilla]\n" in terminal.getvalue()


def test_the_time_left_waits_until_steps_tell_a_pace(monkeypatch):
    """Data sets are built for a minute; then each step takes half a second."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    with Reporter(log).runs(labels=["a", "b"], steps=[200, 200]) as runs:
        runs.start(0)
        now[0] += 60.0
        for step in range(1, 121):
            runs.step(0, step, "loss 1.0")
            now[0] += 0.5
    lines = log.getvalue().splitlines()
    assert lines[1] == "  run 1, step 1 of 200: loss 1.0, time left unknown"
    # 379 of 400 steps are left, half a second each
    assert lines[2] == "  run 1, step 21 of 200: loss 1.0, about 3 min 10 s left for runs"
    assert not any(" h " in line for line in lines)


def test_of_few_runs_without_training_each_tells(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    with Reporter(log).runs(labels=list("abcd"), steps=[1] * 4) as runs:
        for index in range(4):
            runs.start(index)
            for _ in range(3):
                runs.step(index, 0, "search")
                now[0] += 10.0
            runs.finish(index, "mtwv 1.0")
    first = [line for line in log.getvalue().splitlines() if line.startswith("  run 1,")]
    assert first
    assert all("time left unknown" in line for line in first)
    second = [line for line in log.getvalue().splitlines() if line.startswith("  run 2,")]
    assert "about 1 min 30 s left for runs" in second[0]
