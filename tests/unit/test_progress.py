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
