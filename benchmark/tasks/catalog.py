"""The ten SUPERB tasks, one a file of this folder, in the order of the paper's Table 2."""

from __future__ import annotations

from superbit.benchmark.tasks import asr, asv, er, ic, ks, pr, qbe, sd, sf, sid
from superbit.benchmark.tasks.task import Task
from superbit.upstreams.errors import InputError, did_you_mean

TASKS: dict[str, Task] = {
    module.TASK.name: module.TASK for module in (asr, ks, sf, sid, pr, qbe, ic, asv, sd, er)
}

SHOWN_FIRST = "KS"  # of a page that shows one task at a time: quick, and far from its floor


def find_task(name: str) -> Task:
    """Return the task called ``name``, in any case.

    Raises:
        InputError: no such task.
    """
    by_lower = {known.lower(): task for known, task in TASKS.items()}
    task = by_lower.get(name.lower())
    if task is None:
        hint = did_you_mean(name.upper(), list(TASKS))
        raise InputError(f"unknown task {name!r}: the tasks are {', '.join(TASKS)}.{hint}")
    return task
