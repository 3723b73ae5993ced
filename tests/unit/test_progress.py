"""What libraries say is kept from the terminal."""

import logging
import sys

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
