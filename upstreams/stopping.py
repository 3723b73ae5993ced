"""Signals that ask a process to stop: it finishes its step, saves, and ends with status 130.

Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP mean the same, as a queue may send any of them before
it takes a machine away. Where nothing can be saved, the first one ends the work at once, as
``KeyboardInterrupt`` does; within `gently` it is noted, and the second one ends it.

Standard library only, so that the command line can listen before it imports anything.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf

STATUS = 130
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
    if hasattr(signal, name)  # Windows has two of them
)
# A queue signals every process of a job and its parent passes it on: that is one request.
ONE_REQUEST_SECONDS = 1.0
# Before a limit on time: for the step at hand and for saving; of short limits a tenth.
_SECONDS_TO_SAVE = 300.0

Stop = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When long work is saved and when it stops; none of it changes a number.

    Attributes:
        stop: asked after every step; true saves and ends the work.
        save_seconds: after so long it is saved as well, beside the steps that its config names.
    """

    stop: Stop = lambda: False
    save_seconds: float = inf


class Stopped(Exception):
    """The user, a queue or a limit on time asked to stop; the same command goes on."""


@dataclass
class _Listening:
    """What this process hears; ``gentle`` says what the first signal does."""

    pid: int = field(default_factory=os.getpid)
    asked: float | None = None  # time.monotonic() of the first signal
    gentle: Callable[[str], None] | None = None


_listening: _Listening | None = None


@contextmanager
def listening() -> Iterator[None]:
    """Take every one of `SIGNALS` as Ctrl-C until the block ends.

    What is ignored already stays so, as SIGHUP under ``nohup``. Only a process's main thread hears
    of signals: in another one nothing changes.
    """
    global _listening
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, handlers = _listening, {number: signal.getsignal(number) for number in SIGNALS}
    _listening = _Listening()
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # None: set by something else than Python
                signal.signal(number, handler)
        _listening = before


@contextmanager
def gently(say: Callable[[str], None], *, deadline: float | None = None) -> Iterator[Stop]:
    """Note the first signal in place of ending at once; yield what tells whether to stop.

    Args:
        say: called with a line when the first signal comes.
        deadline: of `time.monotonic`, after which to stop as well; see `deadline_after`.
    """
    said_late = [False]

    def late() -> bool:
        if deadline is None or time.monotonic() < deadline:
            return False
        if not said_late[0]:
            said_late[0] = True
            say("superbit: the limit on time is near: stopping after this step.")
        return True

    if threading.current_thread() is not threading.main_thread():
        yield late
        return
    with listening() if _listening is None else _nothing():
        heard = _listening
        assert heard is not None
        outer, heard.gentle = heard.gentle, say
        try:
            yield lambda: heard.asked is not None or late()
        finally:
            heard.gentle = outer


def deadline_after(hours: float | None, *, began: float) -> float | None:
    """Return when to stop so that all is saved ``hours`` after ``began``, of `time.monotonic`."""
    if hours is None:
        return None
    limit = hours * 3600
    return began + limit - min(_SECONDS_TO_SAVE, limit / 10)


def is_the_users(error: BaseException) -> bool:
    """Whether ``error`` is a Ctrl-C or its like, not what some code raised by itself."""
    if not isinstance(error, KeyboardInterrupt):
        return False
    return _listening is None or _listening.asked is not None


def raise_if_users(error: BaseException) -> None:
    """Raise ``error`` again where it is the user's.

    To be called first where everything is caught that somebody else's code may raise: Exception,
    SystemExit and KeyboardInterrupt.
    """
    if is_the_users(error):
        raise error


# What the code of an upstream may raise; `raise_if_users` comes first in what handles it.
RAISED = (Exception, SystemExit, KeyboardInterrupt)


def ignore() -> None:
    """Leave all signals to the process that started this one, which tells it by other means."""
    global _listening
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # else its own processes inherit that
    _listening = _Listening()


@contextmanager
def blocked() -> Iterator[None]:
    """Keep signals from processes that start within the block, until they call `ignore`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _on_signal(number: int, _frame: object) -> None:
    heard = _listening
    if heard is None or heard.pid != os.getpid():  # a process of a data loader inherited this
        return
    now = time.monotonic()
    if heard.asked is None:
        heard.asked = now
        if heard.gentle is not None:
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            with suppress(Exception):  # as a line that was being written
                heard.gentle(
                    f"superbit: stopping after this step ({name}); once more to stop at once."
                )
            return
    elif now - heard.asked < ONE_REQUEST_SECONDS:
        return
    heard.asked = min(heard.asked, now - ONE_REQUEST_SECONDS)
    for each in SIGNALS:  # code that catches everything cannot outlive a third
        if signal.getsignal(each) is _on_signal:
            signal.signal(each, signal.SIG_DFL)
    raise KeyboardInterrupt
