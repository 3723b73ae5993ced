"""A plan given to a queue: features as one array, heads as arrays that wait for them.

The store of records is the only truth. What is submitted twice, from two processes or after one
that died, runs once: a task whose run is done ends at once, and one whose run another task holds
waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.sweeping import submissions
from superbit.benchmark.sweeping.array_tasks import ArrayTask, features_task
from superbit.benchmark.sweeping.estimate import run_seconds
from superbit.benchmark.sweeping.queues import HOURS_UNKNOWN, Queue
from superbit.benchmark.sweeping.submissions import Submission, SubmittedJob
from superbit.benchmark.tasks.configs import Resources, resources_of
from superbit.upstreams.spec import typed

if TYPE_CHECKING:
    from superbit.benchmark.sweeping.plan import PlannedRun, SweepRequest
    from superbit.benchmark.sweeping.sweep import Prepared

Say = Callable[[str], None]
# Of what a like run took, for a slower node and a crowded disk.
_TIMES = 3.0
# One task computes features for about so long, so that little waits for the last of them.
_HOURS_OF_FEATURES = 4.0
_MOST_SHARES = 16
# Of each task, to estimate from.
_RECORDS_READ = 100


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a sweep's tasks are told beside what they are about.

    Attributes:
        options: of the command line, the same for all.
        on_gpu: whether a task asks for the accelerators of its resources.
        shares: tasks for each upstream's features; None: by how long they take.
    """

    options: tuple[str, ...]
    on_gpu: bool
    shares: int | None = None


def submit(
    prepared: Prepared,
    request: SweepRequest,
    *,
    queue: Queue,
    launcher: str,
    given: Given,
    say: Say,
) -> Submission:
    """Give what is not done to a queue, but for what waits or runs there already.

    Its file is written after every array, so that nothing is unknown where this process dies.
    """
    submission = submissions.new_submission(prepared.store.root, launcher)
    waiting = _not_submitted(prepared, queue, say)
    needs = _needs(prepared, request, waiting, given)
    upstreams = list(dict.fromkeys(planned.first.upstream for planned in waiting))
    ready = _submit_features(prepared, waiting, needs, queue, given)
    submission = _noted(submission, [job for jobs in ready.values() for job in jobs])
    for upstream in upstreams:
        own = [planned for planned in waiting if planned.first.upstream == upstream]
        for resources in dict.fromkeys(needs[planned.folder] for planned in own):
            runs = [planned for planned in own if needs[planned.folder] == resources]
            ids = queue.submit(
                [_run_task(planned, resources, given) for planned in runs],
                resources=resources,
                after=[job.id for job in ready.get(upstream, [])],
            )
            jobs = [_run_job(id, planned) for id, planned in zip(ids, runs, strict=bool(ids))]
            submission = _noted(submission, jobs)
    unknown = sum(needs[planned.folder].hours is None for planned in waiting)
    if unknown and launcher == "slurm":
        say(
            f"{unknown} of {len(waiting)} runs: nobody knows here how long they take; each is "
            f"given {HOURS_UNKNOWN:g} hours, and goes on after them."
        )
    if submission.jobs:
        arrays = ", ".join(dict.fromkeys(job.id.partition("_")[0] for job in submission.jobs))
        say(f"submitted {len(submission.jobs)} tasks as {arrays}; noted in {submission.file}")
    return submission


def _noted(submission: Submission, jobs: Sequence[SubmittedJob]) -> Submission:
    submission = replace(submission, jobs=(*submission.jobs, *jobs))
    if submission.jobs:
        submissions.write(submission)
    return submission


def _not_submitted(prepared: Prepared, queue: Queue, say: Say) -> list[PlannedRun]:
    """What is to be run, and neither waits nor runs as of an earlier submission."""
    failures = prepared.failures
    waiting = [p for p in prepared.plan.waiting if p.first.upstream not in failures]
    jobs = {
        job.folders[0]: job.id
        for submission in submissions.read_submissions(prepared.store.root)
        for job in submission.jobs
        if job.what == "run"
    }
    there = queue.left([jobs[planned.folder] for planned in waiting if planned.folder in jobs])
    left = [planned for planned in waiting if jobs.get(planned.folder) not in there]
    if len(left) < len(waiting):
        say(f"{len(waiting) - len(left)} runs wait or run already: superbit status shows them.")
    return left


# --- what each task needs -------------------------------------------------------------------------


def _needs(
    prepared: Prepared, request: SweepRequest, waiting: Sequence[PlannedRun], given: Given
) -> dict[str, Resources]:
    """Resources of each run, by its folder: its config's, and hours by what like runs took here."""
    store, features = prepared.store, prepared.features
    stored = {
        (d.need.upstream, d.need.task) for d in (features.decisions if features else ()) if d.store
    }
    records: dict[str, list[RunRecord]] = {}
    found = {}
    for planned in waiting:
        task = planned.first.task
        asked = resources_of(task, scale=request.scale, overrides=request.overrides)
        hours = asked.hours
        if hours is None:
            if task not in records:
                records[task] = list(store.newest(task, count=_RECORDS_READ))
            reads = (planned.first.upstream, task) in stored
            known = run_seconds(planned, records[task], reads=reads, gpu=given.on_gpu)
            hours = None if known is None else _rounded_up(_TIMES * known / 3600)
        gpus = asked.gpus if given.on_gpu else 0
        found[planned.folder] = asked.model_copy(update={"gpus": gpus, "hours": hours})
    return found


def _rounded_up(hours: float) -> float:
    """To 1, 2, 4, 8, … hours, so that few arrays differ."""
    return 2.0 ** max(0, math.ceil(math.log2(hours)))


def _together(several: Sequence[Resources], hours: float) -> Resources:
    """What is enough for each of several tasks."""
    return Resources(
        cpus=max(one.cpus for one in several),
        gpus=max(one.gpus for one in several),
        memory_gb=max(one.memory_gb for one in several),
        hours=hours,
    )


# --- tasks and their jobs -------------------------------------------------------------------------


def _submit_features(
    prepared: Prepared,
    waiting: Sequence[PlannedRun],
    needs: dict[str, Resources],
    queue: Queue,
    given: Given,
) -> dict[str, list[SubmittedJob]]:
    """Submit one array for the features that lack; return each upstream's jobs."""
    tasks: list[ArrayTask] = []
    hours = 1.0
    for upstream in dict.fromkeys(planned.first.upstream for planned in waiting):
        decisions = prepared.features.decisions if prepared.features else ()
        core_hours = sum(d.extraction for d in decisions if d.store and d.need.upstream == upstream)
        if core_hours == 0:
            continue
        runs = [planned for planned in waiting if planned.first.upstream == upstream]
        cpus = max(needs[planned.folder].cpus for planned in runs)
        takes = core_hours / cpus
        shares = given.shares or min(_MOST_SHARES, math.ceil(takes / _HOURS_OF_FEATURES))
        hours = max(hours, _rounded_up(_TIMES * takes / shares))
        seeds = ",".join(str(seed) for seed in dict.fromkeys(p.first.seed for p in runs))
        tasks += [
            features_task(
                upstream=typed(upstream),
                tasks=list(dict.fromkeys(planned.first.task for planned in runs)),
                runs=[planned.folder for planned in runs],
                share=(number, shares),
                options=("--seed", seeds, *given.options),
                cpus=cpus,
                hours=hours,
            )
            for number in range(shares)
        ]
    if not tasks:
        return {}
    own = [needs[folder] for task in tasks for folder in task.folders]
    ids = queue.submit(tasks, resources=_together(own, hours))
    ready: dict[str, list[SubmittedJob]] = {}
    of = {planned.folder: planned.first.upstream for planned in waiting}
    for id, task in zip(ids, tasks, strict=True):
        upstream = of[task.folders[0]]
        job = SubmittedJob(
            id=id,
            what="features",
            upstream=typed(upstream),
            task="",
            label=task.label,
            folders=task.folders,
            keys=(),
        )
        ready.setdefault(upstream, []).append(job)
    return ready


def _run_task(planned: PlannedRun, resources: Resources, given: Given) -> ArrayTask:
    first = planned.first
    return ArrayTask(
        what="run",
        label=planned.label,
        options=(
            *("--upstreams", typed(first.upstream), "--tasks", first.task),
            *("--seed", str(first.seed), "--only", planned.folder, *given.options),
        ),
        folders=(planned.folder,),
        cpus=resources.cpus,
        hours=resources.hours or HOURS_UNKNOWN,
    )


def _run_job(id: str, planned: PlannedRun) -> SubmittedJob:
    return SubmittedJob(
        id=id,
        what="run",
        upstream=typed(planned.first.upstream),
        task=planned.first.task,
        label=planned.label,
        folders=(planned.folder,),
        keys=tuple(identity.key for identity in planned.waiting),
    )
