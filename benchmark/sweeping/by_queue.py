"""A sweep by a queue: submitted, and watched by what its tasks leave in the store of records."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.progress import Reporter
from superbit.benchmark.records.schema import RunIdentity
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.sweeping import queues
from superbit.benchmark.sweeping.launch import SweepOutcome, settle
from superbit.benchmark.sweeping.plan import Plan, PlannedRun, SweepRequest
from superbit.benchmark.sweeping.queues import Launcher, Queue, SlurmOptions
from superbit.benchmark.sweeping.submissions import (
    Submission,
    read_submissions,
    submissions_folder,
)
from superbit.benchmark.sweeping.submit import Given, submit
from superbit.benchmark.sweeping.sweep import Say, Swept, prepare, search_lines
from superbit.upstreams import stopping
from superbit.upstreams.errors import InputError

if TYPE_CHECKING:
    from superbit.benchmark.features.store import CacheSettings

_SECONDS_BETWEEN_LOOKS = 0.5
# A shared folder shows a record some time after the queue forgot its job.
_SECONDS_TO_APPEAR = 10.0

Stamps = Mapping[str, int | None]


def sweep_by_queue(
    request: SweepRequest,
    *,
    paths: Path,
    results: Path,
    storing: CacheSettings | None,
    reporter: Reporter,
    launcher: Launcher,
    slurm: SlurmOptions,
    given: Given,
    device: str | None = None,
    detach: bool = False,
    say: Say = lambda line: None,
) -> Swept:
    """Plan every run, say the plan, give what is not done to a queue, and watch what comes of it.

    Args:
        slurm: what the user says to Slurm.
        given: what each task is told.
        detach: return as soon as all is submitted.

    The others are those of `sweep`.

    Raises:
        InputError: whatever of it is wrong, or there is no queue here.
    """
    from superbit.benchmark.running.run import RunContext

    folder = submissions_folder(results)
    queue = queues.queue(launcher, folder, slurm)
    prepared = prepare(
        request,
        paths=paths,
        results=results,
        storing=storing,
        reporter=reporter,
        device=device,
        say=say,
    )
    plan, store = prepared.plan, prepared.store
    before = stamps(plan, store)
    context = RunContext(store=store, paths=prepared.paths)
    settle(plan, prepared.failures, context=context, reporter=reporter)
    with stopping.gently(reporter.line) as stop:
        submission = submit(
            prepared, request, queue=queue, launcher=launcher, given=given, say=reporter.line
        )
        if not detach:
            watch(
                plan,
                submission,
                store=store,
                queue=queue,
                before=before,
                stop=stop,
                reporter=reporter,
            )
    for line in () if detach else search_lines(plan, store):
        say(line)
    return Swept(store=store, plan=plan, outcome=outcome_of(plan, store, before))


def stamps(plan: Plan, store: ResultStore) -> dict[str, int | None]:
    """Return when the record of each run was written, by its key; None where there is none."""
    return {each.key: _stamp(store, each) for planned in plan.runs for each in planned.identities}


def watch(
    plan: Plan,
    submission: Submission,
    *,
    store: ResultStore,
    queue: Queue,
    before: Stamps,
    stop: Callable[[], bool],
    reporter: Reporter,
) -> None:
    """Wait until every run has a record, or the queue knows none of the jobs any more.

    Args:
        before: what `stamps` gave before anything was submitted: a failure that is newer counts.
        stop: true ends the watching; the jobs go on.
    """
    jobs = {job.id for job in submission.jobs}
    jobs |= {job.id for each in read_submissions(store.root) for job in each.jobs}
    asked, said, gone = time.monotonic(), -1, None
    while not stop():
        left = [planned for planned in plan.runs if not _has_ended(planned, store, before)]
        done = len(plan.runs) - len(left)
        if done != said:
            reporter.line(f"{done:,} of {len(plan.runs):,} runs have ended.")
            said = done
        if not left or (gone is not None and time.monotonic() - gone > _SECONDS_TO_APPEAR):
            return
        if gone is None and time.monotonic() - asked >= queue.patience:
            asked = time.monotonic()
            gone = None if _has_any(queue, jobs, reporter) else asked
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _has_any(queue: Queue, jobs: set[str], reporter: Reporter) -> bool:
    """Whether one of the jobs waits or runs; a queue that does not answer is asked again."""
    try:
        return bool(queue.left(sorted(jobs)))
    except InputError as error:
        reporter.line(f"{error}; asking again in {queue.patience:g} s.")
        return True


def outcome_of(plan: Plan, store: ResultStore, before: Stamps) -> SweepOutcome:
    """Return what the store says of a plan by now."""
    outcome = SweepOutcome()
    for planned in plan.runs:
        if not _has_ended(planned, store, before):
            outcome.left.append(planned)
            continue
        for identity in planned.identities:
            if identity in planned.waiting:
                outcome.add([store.read(identity)])
            else:
                outcome.reused.append(identity)
    return outcome


def _has_ended(planned: PlannedRun, store: ResultStore, before: Stamps) -> bool:
    """Whether each of its records is done, or a failure that was written since."""
    for identity in planned.waiting:
        if store.ended(identity) is not None:
            continue
        stamp = _stamp(store, identity)
        if stamp is None or stamp == before.get(identity.key):
            return False
    return True


def _stamp(store: ResultStore, identity: RunIdentity) -> int | None:
    try:
        return store.path(identity).stat().st_mtime_ns
    except OSError:
        return None
