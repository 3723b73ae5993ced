"""Submitted tasks that are ended before their time."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from superbit.benchmark.sweeping import submissions
from superbit.benchmark.sweeping.queues import squeue
from superbit.benchmark.tasks.catalog import find_task
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import UpstreamSpec


def cancel(results: Path, *, upstream: str | None = None, task: str | None = None) -> int:
    """End the jobs of a folder of results that wait or run; return how many there were.

    Args:
        upstream: as typed; only its jobs, those of its features too if ``task`` is None.
        task: only its runs.

    Raises:
        InputError: Slurm cannot be asked.
    """
    found = submissions.read_submissions(results)
    if not found:
        return 0
    if shutil.which("scancel") is None:
        raise InputError("there is no scancel here; give the command on a node of the cluster.")
    if task is not None:
        task = find_task(task).name
    if upstream is not None:
        upstream = UpstreamSpec.parse(upstream).normalized().typed
    wanted = {
        job.id
        for submission in found
        for job in submission.jobs
        if (upstream is None or job.upstream == upstream) and (task is None or job.task == task)
    }
    there = sorted(squeue(sorted(wanted)))
    if there:
        said = subprocess.run(["scancel", *there], capture_output=True, text=True, timeout=60)
        if said.returncode:
            raise InputError(f"scancel failed: {' '.join(said.stderr.split())}")
    if upstream is None and task is None:
        for submission in found:
            submissions.write(replace(submission, cancelled=True))
    return len(there)
