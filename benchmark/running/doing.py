"""What a process is at, told to the process that watches over it.

Where it dies of a segmentation fault, of `os._exit` or for lack of memory, no code of ours runs any
more. The one that watches then knows whose runs fail, and begins again without them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from superbit.upstreams.errors import BrokenUpstream

What = Literal["building", "trying", "extracting features of", "running"]


@dataclass(frozen=True, kw_only=True)
class Doing:
    """One piece of work that somebody else's code may end the process in.

    Attributes:
        what: is done.
        upstream: its canonical spec.
        run: the key of the run's folder; empty before runs.
        label: for messages.
    """

    what: What
    upstream: str
    run: str = ""
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What a process died in, and of what."""

    doing: Doing
    reason: str


def _tell_nobody(_what: object) -> None:
    pass


@dataclass(kw_only=True)
class Watch:
    """What this process tells and was told by the one that watches over it, if any does.

    Attributes:
        tell: called with what is begun, or None.
        tell_ended: called with the keys of records that a run has left.
        lost: what earlier processes of the same command died in.
        ended: keys of records that they left, done or failed.
        began: when the command began, of `time.monotonic`.
    """

    tell: Callable[[Doing | None], None] = _tell_nobody
    tell_ended: Callable[[list[str]], None] = _tell_nobody
    lost: tuple[Lost, ...] = ()
    ended: frozenset[str] = frozenset()
    began: float | None = None
    now: list[Doing | None] = field(default_factory=lambda: [None])

    @property
    def was_planned(self) -> bool:
        """Whether an earlier process had said its plan when it died."""
        return any(each.doing.what in ("running", "extracting features of") for each in self.lost)

    def lost_upstreams(self) -> dict[str, Died]:
        """Upstreams that a process died in before any run of theirs, and why."""
        return {
            each.doing.upstream: Died(each.reason)
            for each in self.lost
            if each.doing.what != "running"
        }

    def lost_runs(self) -> dict[str, Died]:
        """Runs that a process died in, by the key of their folder, and why."""
        return {
            each.doing.run: Died(each.reason) for each in self.lost if each.doing.what == "running"
        }

    def since(self) -> float:
        """Return when the command began: by default, now."""
        return time.monotonic() if self.began is None else self.began


class Died(BrokenUpstream):
    """The process of a run, or of what comes before runs, ended in the middle of it."""


watch = Watch()


def watch_now() -> Watch:
    """Return what this process tells and was told."""
    return watch


@contextmanager
def doing(what: What, upstream: str, *, run: str = "", label: str = "") -> Iterator[None]:
    """Let the process that watches know what this one is at."""
    now, before = Doing(what=what, upstream=upstream, run=run, label=label), watch.now[0]
    watch.now[0] = now
    watch.tell(now)
    died = False
    try:
        yield
    except SystemExit:
        died = True  # where nothing handles it, the process ends in the middle of this
        raise
    finally:
        if not died:
            watch.now[0] = before
            watch.tell(before)


def tell_ended(keys: Iterable[str]) -> None:
    """Let the process that watches know which records are there by now."""
    watch.tell_ended(list(keys))


def cause_of(exitcode: int | None) -> str:
    """Return what ended a process, by its exit code as of `multiprocessing`."""
    if exitcode is None or exitcode >= 0:
        return f"some code in it ended Python, with status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    by = {
        "SIGSEGV": "a segmentation fault",
        "SIGKILL": "it was ended from outside, for lack of memory or by hand",
        "SIGTERM": "it was ended from outside",
        "SIGABRT": "a library gave up",
        "SIGBUS": "a bus error",
        "SIGFPE": "an arithmetic error",
        "SIGILL": "an instruction that this processor lacks",
    }
    return f"{by[name]} ({name})" if name in by else name


def too_long(seconds: float) -> str:
    """Return what to say of a run that was ended as it took longer than its limit."""
    return f"it took longer than --run-timeout ({seconds:g} s); its log.txt says where it was"


def reason_of(what: What, cause: str) -> str:
    """Return the reason of a record whose process died at ``what``, of ``cause``."""
    when = "running" if what == "running" else f"{what} the upstream"
    return f"the process died {when}: {cause}; the same command tries again."
