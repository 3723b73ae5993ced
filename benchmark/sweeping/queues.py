"""Where array tasks run: under Slurm, or without it as processes of this machine, by submitit."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from superbit.benchmark.sweeping.array_tasks import ArrayTask
from superbit.benchmark.tasks.configs import Resources
from superbit.upstreams.errors import InputError

Launcher = Literal["slurm", "local", "debug"]
# Before a task's time is over, to save in, at true size a step may take a minute; at most a tenth.
_SECONDS_TO_SAVE = 300
# Where nobody knows what a run takes: it goes on from its checkpoint when it needs more.
HOURS_UNKNOWN = 12.0
# submitit gives a task up after so many limits on time; a run that saves may have as many as it
# needs.
_MOST_LIMITS = 1000
_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What the user says to Slurm.

    Attributes:
        parallelism: tasks of one array at a time; None for no limit.
        setup: shell lines before each task.
        options: further ones of sbatch, by name without dashes.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    parallelism: int | None = None
    setup: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


class Queue(Protocol):
    """Takes arrays of tasks.

    Attributes:
        patience: seconds to leave between two questions to it.
    """

    patience: float

    def submit(
        self, tasks: Sequence[ArrayTask], *, resources: Resources, after: Sequence[str] = ()
    ) -> list[str]:
        """Begin tasks once the jobs ``after`` have all ended well; return their jobs' ids."""

    def left(self, jobs: Sequence[str]) -> dict[str, str]:
        """Return the state of those jobs that wait or run, in the queue's words."""


def queue(launcher: Launcher, folder: Path, options: SlurmOptions) -> Queue:
    """Return a queue that keeps its scripts and logs in ``folder``.

    Raises:
        InputError: there is no Slurm here.
    """
    if launcher == "slurm":
        return SlurmQueue(folder, options)
    return LocalQueue(folder, launcher, at_a_time=options.parallelism or 2)


class SlurmQueue:
    """Slurm, by sbatch and squeue."""

    patience = 20.0  # it serves others too

    def __init__(self, folder: Path, options: SlurmOptions) -> None:
        for program in ("sbatch", "squeue"):
            if shutil.which(program) is None:
                raise InputError(
                    f"--launcher slurm: there is no {program} here; give the command on a login "
                    "node of the cluster, or say --launcher processes."
                )
        self._folder, self._options = folder, options

    def submit(
        self, tasks: Sequence[ArrayTask], *, resources: Resources, after: Sequence[str] = ()
    ) -> list[str]:
        import submitit

        executor = submitit.AutoExecutor(
            folder=self._folder, cluster="slurm", slurm_max_num_timeout=_MOST_LIMITS
        )
        executor.update_parameters(**self._parameters(resources, after))
        try:
            return [job.job_id for job in executor.map_array(_call, list(tasks))]
        except (subprocess.CalledProcessError, submitit.core.utils.FailedJobError) as error:
            said = " ".join(str(error).split())
            raise InputError(f"--launcher slurm: sbatch refused the array: {said}") from error

    def _parameters(self, resources: Resources, after: Sequence[str]) -> dict[str, Any]:
        asked, hours = self._options, resources.hours or HOURS_UNKNOWN
        further: dict[str, Any] = {"requeue": True, **asked.options}
        if after:
            further["dependency"] = "afterok:" + ":".join(after)
            further["kill_on_invalid_dep"] = "yes"
        parameters = {
            "name": "superbit",
            "cpus_per_task": resources.cpus,
            "slurm_mem": f"{math.ceil(resources.memory_gb * 1024)}M",
            "slurm_partition": asked.partition,
            "slurm_account": asked.account,
            "slurm_qos": asked.qos,
            "slurm_constraint": asked.constraint,
            "slurm_array_parallelism": asked.parallelism or 1000,
            "slurm_setup": list(asked.setup) or None,
            "slurm_gpus_per_node": resources.gpus or None,
            "slurm_signal_delay_s": round(min(_SECONDS_TO_SAVE, 360 * hours)),
            "timeout_min": max(1, math.ceil(60 * hours)),
            "slurm_additional_parameters": further,
        }
        return {name: value for name, value in parameters.items() if value is not None}

    def left(self, jobs: Sequence[str]) -> dict[str, str]:
        return squeue(jobs)


class LocalQueue:
    """This machine, without Slurm: processes of submitit's local executor, or of its debug one."""

    patience = 1.0

    def __init__(self, folder: Path, launcher: Launcher, *, at_a_time: int) -> None:
        self._folder, self._launcher, self._at_a_time = folder, launcher, at_a_time
        self._jobs: dict[str, Any] = {}

    def submit(
        self, tasks: Sequence[ArrayTask], *, resources: Resources, after: Sequence[str] = ()
    ) -> list[str]:
        """As of `Queue`; returns when the last of them has begun."""
        import submitit

        self._wait_for(after, at_most=0)
        if any(self._failed(job) for job in after):
            return []
        executor = submitit.AutoExecutor(folder=self._folder, cluster=self._launcher)
        executor.update_parameters(timeout_min=math.ceil(60 * (resources.hours or HOURS_UNKNOWN)))
        begun = []
        for task in tasks:
            self._wait_for(self._jobs, at_most=self._at_a_time - 1)
            job = executor.submit(_call, task)
            if self._launcher == "debug":
                job.wait()  # it runs here and now
            self._jobs[job.job_id] = job
            begun.append(job.job_id)
        return begun

    def left(self, jobs: Sequence[str]) -> dict[str, str]:
        return {job: "RUNNING" for job in jobs if job in self._jobs and not self._jobs[job].done()}

    def _failed(self, job: str) -> bool:
        return self._jobs[job].exception() is not None

    def _wait_for(self, jobs: Any, *, at_most: int) -> None:
        while len(self.left(list(jobs))) > at_most:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _call(task: ArrayTask) -> int:
    return task()


def squeue(jobs: Sequence[str]) -> dict[str, str]:
    """Return what Slurm says of those jobs that wait or run; nothing where there is no Slurm.

    Raises:
        InputError: Slurm does not answer.
    """
    if not jobs or shutil.which("squeue") is None:
        return {}
    arrays = sorted({job.partition("_")[0] for job in jobs})
    try:
        found = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%i|%T", f"--user={os.getuid()}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError("squeue did not answer within a minute") from error
    if found.returncode:
        raise InputError(f"squeue failed: {' '.join(found.stderr.split())[:200]}")
    states = dict(line.strip().split("|", 1) for line in found.stdout.splitlines() if "|" in line)
    return {job: states[job] for job in jobs if job in states and job.partition("_")[0] in arrays}
