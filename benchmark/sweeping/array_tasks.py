"""What one task of an array on a cluster does: a sweep of one run, or of one share of features.

It is the same command as on a terminal, in a process of its own. A record that is there is not made
again, so a task that is begun twice, on whatever node, does what the first one left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from superbit.benchmark.running.heartbeat import UNTIL
from superbit.upstreams import stopping

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

What = Literal["features", "run"]
# What a queue sends a task whose time is nearly over, and submitit one that it begins again.
AGAIN = signal.SIGUSR2
# A queue that takes a node away kills what is left after its own patience; a task that ended
# by itself meanwhile might count as done.
_SECONDS_TO_BE_ENDED = 60.0


@dataclass(frozen=True, kw_only=True)
class ArrayTask:
    """One command, as a task of an array.

    Attributes:
        what: features of one upstream, or one run.
        label: for people.
        options: of ``superbit sweep``.
        folders: of the runs that it is about, their names in ``work/runs``.
        cpus: how many it may use.
        hours: after which the queue ends it.
    """

    what: What
    label: str
    options: tuple[str, ...]
    folders: tuple[str, ...]
    cpus: int = 1
    hours: float | None = None

    def __call__(self) -> int:
        """Run the command; return its status.

        Raises:
            RuntimeError: features were not all computed; what depends on them does not begin.
        """
        command = [sys.executable, "-m", "superbit", "sweep", *self.options]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.cpus)}
        if self.hours is not None:
            environment[UNTIL] = f"{time.time() + 3600 * self.hours:.0f}"
        heard: list[int] = []
        with stopping.blocked():
            child = subprocess.Popen(command, env=environment, preexec_fn=_listen)
        with _passed_on(child, heard):
            status = child.wait()
        if status == stopping.STATUS and AGAIN in heard:
            signal.raise_signal(AGAIN)  # submitit's handler asks the queue to begin this again
        if status == stopping.STATUS and heard and "SLURM_JOB_ID" in os.environ:
            time.sleep(_SECONDS_TO_BE_ENDED)
        if status and self.what == "features":
            raise RuntimeError(f"{self.label}: status {status}")
        return status

    def checkpoint(self) -> DelayedSubmission:
        """Return what submitit begins again: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _listen() -> None:
    """Let the command hear signals again, which were held back until this process passes them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def _passed_on(child: subprocess.Popen[bytes], heard: list[int]) -> Iterator[None]:
    """Note the signals that this process hears, and pass them on."""

    def on_signal(number: int, _frame: object) -> None:
        heard.append(number)
        with suppress(OSError):
            child.send_signal(number)

    handlers: dict[int, Any] = {each: signal.getsignal(each) for each in stopping.SIGNALS}
    for number in handlers:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def features_task(
    *,
    upstream: str,
    tasks: Sequence[str],
    runs: Sequence[str],
    share: tuple[int, int],
    options: Sequence[str],
    cpus: int,
    hours: float,
) -> ArrayTask:
    """Return the task that computes a share of an upstream's features.

    Args:
        upstream: as typed.
        tasks: whose runs read them.
        runs: names of those runs' folders.
        share: which, from 0, of how many.
        options: of the sweep, whatever is asked for.
    """
    number, of = share[0] + 1, share[1]
    part = f" {number}/{of}" if of > 1 else ""
    return ArrayTask(
        what="features",
        label=f"features of {upstream}{part}",
        options=(
            *("--upstreams", upstream, "--tasks", ",".join(tasks)),
            *("--features-only", f"{number}/{of}", *options),
        ),
        folders=tuple(runs),
        cpus=cpus,
        hours=hours,
    )
