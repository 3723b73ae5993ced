"""Where a run stands, beside its checkpoint: for ``superbit status``, and to see one that hangs."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from superbit.benchmark.running.checkpoints import CHECKPOINT, LABEL, run_folders
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_json, read_text, write_text

FILE = "now.json"
# The variable that tells a task of a queue when its time is over, in seconds since 1970.
UNTIL = "SUPERBIT_JOB_UNTIL"
_SECONDS_BETWEEN = 10.0

OnStep = Callable[[int, str], None]


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The last that was heard of a run.

    Attributes:
        step: optimizer steps done, of ``steps``.
        what: was being done.
        time: when, in seconds since 1970.
        host: the machine's name.
        pid: of the process there.
        job: of a cluster's queue; None outside one.
        node: that queue's name of the machine.
        until: when the job's time is over, in seconds since 1970; None where that is not told.
    """

    step: int
    steps: int
    what: str
    time: float
    host: str
    pid: int
    job: str | None = None
    node: str | None = None
    until: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the process is known to have ended: it was one of this machine."""
        if self.host != platform.node():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


def beating(folder: Path, *, steps: int, on_step: OnStep) -> OnStep:
    """Return ``on_step`` that also notes in ``folder`` how far the run is, every ten seconds."""
    host, pid, last = platform.node(), os.getpid(), -_SECONDS_BETWEEN
    job, node, until = _place_in_queue()

    def beat(step: int, what: str) -> None:
        nonlocal last
        on_step(step, what)
        now = time.monotonic()
        if now - last < _SECONDS_BETWEEN:
            return
        last = now
        at = Beat(
            step=step,
            steps=steps,
            what=what,
            time=time.time(),
            host=host,
            pid=pid,
            job=job,
            node=node,
            until=until,
        )
        with suppress(OSError):  # a full disk ends no run for this
            write_text(folder / FILE, json.dumps(asdict(at)))

    return beat


def _place_in_queue() -> tuple[str | None, str | None, float | None]:
    """Return the job, the node and the end of its time, as Slurm tells a task of its."""
    told = os.environ.get
    array, task = told("SLURM_ARRAY_JOB_ID"), told("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else told("SLURM_JOB_ID")
    end = told(UNTIL, "")
    return job, told("SLURMD_NODENAME"), float(end) if end.isdecimal() else None


def last_beat(folder: Path) -> Beat | None:
    """Return the last that was heard of the run in ``folder``, None where nothing was."""
    try:
        return Beat(**read_json(folder / FILE, "where a run stands"))
    except (InputError, TypeError):
        return None


def describe(beat: Beat, *, now: float) -> str:
    """Return where a run stands in a few words."""
    where = f"step {beat.step:,} of {beat.steps:,}, {beat.what}"
    if beat.is_over:
        return f"{where}; it is not running now"
    return f"{where}; heard of {_ago(max(0.0, now - beat.time))} ago, {beat.host} ({beat.pid})"


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def unfinished(results: Path, *, recorded: Collection[str]) -> dict[str, list[str]]:
    """Return what is running and what could go on, a line a run, by what that is called.

    Args:
        recorded: names of the folders of runs that have a record.
    """
    running, stopped, now = [], [], time.time()
    for folder in sorted(run_folders(results).glob("*/")):
        try:
            label = read_text(folder / LABEL).strip()
        except InputError:
            continue
        beat = last_beat(folder)
        if beat is not None and not beat.is_over:
            running.append(f"{label}: {describe(beat, now=now)}")
        elif folder.name not in recorded and (folder / CHECKPOINT).exists():
            stopped.append(label if beat is None else f"{label}: {describe(beat, now=now)}")
    return {"Running:": running, "With a checkpoint to continue from:": stopped}
