"""A sweep: every asked-for pair of upstream and task, planned first, then run one by one.

What is done already is reused; what failed or was cut short is run again; one failure does not
stop the others.
"""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from superbit.benchmark.progress import Reporter
from superbit.benchmark.records.schema import FURTHER_FIELDS, RunIdentity, RunRecord
from superbit.benchmark.running import record, run
from superbit.benchmark.running.candidate import InterruptedRun
from superbit.benchmark.running.record import Job
from superbit.benchmark.sweeping.plan import Plan, PlannedRun
from superbit.benchmark.tasks.catalog import find_task
from superbit.benchmark.tasks.configs import total_steps
from superbit.upstreams import encoder_kinds, stopping
from superbit.upstreams.errors import InputError
from superbit.upstreams.machine import end_with_parent

if TYPE_CHECKING:
    from superbit.benchmark.features.planning import FeaturePlan
    from superbit.benchmark.features.supply import Supply, Uses
    from superbit.benchmark.progress import RunsProgress
    from superbit.benchmark.running.run import RunContext
    from superbit.upstreams.registry import LoadedUpstream


@dataclass
class SweepOutcome:
    """What a sweep came to."""

    done: list[RunRecord] = field(default_factory=list)
    reused: list[RunIdentity] = field(default_factory=list)
    failed: list[RunRecord] = field(default_factory=list)
    left: list[PlannedRun] = field(default_factory=list)

    def add(self, records: Sequence[RunRecord]) -> None:
        """Take a run's records, done or failed."""
        self.done += [record for record in records if record.status == "done"]
        self.failed += [record for record in records if record.status == "failed"]


def carry_out(
    plan: Plan,
    *,
    context: RunContext,
    reporter: Reporter,
    jobs: int = 1,
    threads: int = 1,
    features: FeaturePlan | None = None,
) -> SweepOutcome:
    """Run everything in ``plan`` that is not done; stops early when the context says so.

    Runs of an upstream that cannot be built, or that failed when it was tried, are recorded as
    failed; the others go on.

    Args:
        jobs: runs at a time; above 1 each has a process of its own.
        threads: torch's threads in each of those processes.
        features: what to extract for the runs to read: an upstream's before the first of its runs,
            so that runs go upstream by upstream.

    Raises:
        InputError: the folder of results cannot be written to.
    """
    from superbit.benchmark.features.supply import Supply

    _refuse_what_other_processes_lack(plan, jobs=jobs)
    outcome = SweepOutcome(
        reused=[each for p in plan.runs for each in p.identities if each not in p.waiting]
    )
    _begin(plan, context)
    failures = plan.failures | (features.failures if features else {})
    _fail(plan, failures, outcome, context=context, reporter=reporter)
    waiting = [planned for planned in plan.waiting if planned.first.upstream not in failures]
    if features is not None:
        order = list(plan.upstreams)
        waiting.sort(key=lambda planned: order.index(planned.first.upstream))
    # One stands for a run without training, so that it counts in the time left.
    steps = [max(1, total_steps(planned.first.config)) for planned in waiting]
    work = [planned.job(plan.manifests) for planned in waiting]
    ended = set()
    with reporter.runs(labels=[planned.label for planned in waiting], steps=steps) as progress:
        supply = None
        if features is not None:
            supply = Supply(
                features,
                upstreams=plan.upstreams,
                say=progress.line,
                device=context.device,
                processes=jobs * threads,
                stop=context.stop,
            )
        if jobs > 1 and len(work) > 1:
            results = in_processes(
                work,
                count=jobs,
                threads=threads,
                context=context,
                progress=progress,
                supply=supply,
            )
        else:
            results = in_this_process(
                work,
                upstreams=plan.upstreams,
                context=context,
                progress=progress,
                supply=supply,
            )
        for index, records in results:
            if records is not None:
                ended.add(index)
                outcome.add(records)
                progress.finish(index, _result_lines(records))
    outcome.left = [planned for index, planned in enumerate(waiting) if index not in ended]
    return outcome


def _begin(plan: Plan, context: RunContext) -> None:
    """Note the searches; forget that an upstream could not be built once, which is here now."""
    try:
        for search in plan.searches:
            context.store.declare(search)
        for planned in plan.runs:
            if planned.first.upstream in plan.upstreams:
                for identity in planned.identities:
                    context.store.forget_unbuilt(identity)
    except OSError as error:
        raise InputError(
            f"--results: {context.store.root} cannot be written to ({error.strerror}): free some "
            "space, or give a folder that can."
        ) from error


def _fail(
    plan: Plan,
    failures: Mapping[str, BaseException],
    outcome: SweepOutcome,
    *,
    context: RunContext,
    reporter: Reporter,
) -> None:
    """Record every waiting run of an upstream that failed before any run of it could begin."""
    from superbit.benchmark.running import record

    for planned in plan.waiting:
        error = failures.get(planned.first.upstream)
        if error is not None:
            records = record.fail(
                planned.job(plan.manifests), error, context=context, started=datetime.now(UTC)
            )
            outcome.add(records)
            reporter.line(f"  {planned.label}: {_result_lines(records)}")


def _refuse_what_other_processes_lack(plan: Plan, *, jobs: int) -> None:
    waiting = plan.waiting
    if jobs == 1 or len(waiting) < 2:  # then no other process is asked
        return
    for name in dict.fromkeys(planned.first.upstream for planned in waiting):
        upstream = plan.upstreams.get(name)
        if upstream is None or upstream.entry.origin != "registered":
            continue
        if not encoder_kinds.is_installed(upstream.entry.kind):
            raise InputError(
                f"--jobs {jobs}: upstream {name!r} was registered in this process only; give it "
                "by path or as an entry point, or run with --jobs 1."
            )


def _result_line(record: RunRecord) -> str:
    if record.status == "failed":
        return f"failed: {record.reason}"
    task, interval = find_task(record.identity.task), record.interval
    text = f"{task.metric} {record.value:.{task.decimals}f}"
    if interval is not None:
        text += f" [{interval.low:.{task.decimals}f}, {interval.high:.{task.decimals}f}]"
    return text


def _result_lines(records: list[RunRecord]) -> str:
    if len(records) == 1:
        return _result_line(records[0])
    return "; ".join(f"lr {r.identity.learning_rate:g} {_result_line(r)}" for r in records)


# Seconds between two progress messages of one run.
_MESSAGE_INTERVAL = 0.2
Ended = Iterator[tuple[int, list[RunRecord] | None]]


def in_this_process(
    jobs: Sequence[Job],
    *,
    upstreams: dict[str, LoadedUpstream],
    context: run.RunContext,
    progress: RunsProgress,
    supply: Supply | None = None,
) -> Ended:
    """Run one after the other, with all of torch's threads.

    Args:
        supply: extracts the features of a run's upstream before the first run of it.
    """
    for index, job in enumerate(jobs):
        if context.stop():
            return
        try:
            with progress.waiting():
                uses = supply.of(job.first.upstream) if supply else {}
            progress.start(index)
            records = run.run(
                job,
                upstream=upstreams[job.first.upstream],
                context=replace(context, features=uses),
                on_step=partial(progress.step, index),
            )
        except InterruptedRun:
            return
        yield index, records


def in_processes(
    jobs: Sequence[Job],
    *,
    count: int,
    threads: int,
    context: run.RunContext,
    progress: RunsProgress,
    supply: Supply | None = None,
) -> Ended:
    """Run ``count`` at a time, each in a process of its own with ``threads`` threads.

    Args:
        supply: extracts the features of a run's upstream once the runs before are all begun;
            those go on meanwhile.
    """
    spawn = multiprocessing.get_context("spawn")
    with stopping.blocked():  # Python's own process beside these would inherit it
        messages, stop = spawn.Queue(), spawn.Event()
    slots = [
        _Slot(spawn, (messages, stop, threads, replace(context, stop=_never)))
        for _ in range(min(count, len(jobs)))
    ]
    waiting, began = list(enumerate(jobs)), datetime.now(UTC)
    with ThreadPoolExecutor(1) as beside:
        features = _Features(supply, beside)
        try:
            while waiting or any(slot.future for slot in slots):
                if context.stop():
                    stop.set()
                    waiting.clear()
                for slot in slots:
                    if not waiting or slot.future is not None:
                        continue
                    uses = features.of(waiting[0][1].first.upstream)
                    if uses is None:
                        break
                    slot.submit(*waiting.pop(0), uses)
                    progress.start(slot.index)
                running = [slot.future for slot in slots if slot.future]
                expected: list[Future[Any]] = [*running, *features.running]
                with nullcontext() if running else progress.waiting():
                    wait(expected, timeout=_MESSAGE_INTERVAL, return_when=FIRST_COMPLETED)
                _pass_on(messages, progress)
                for slot in slots:
                    if slot.future and slot.future.done():
                        yield slot.index, _ended(slot, jobs[slot.index], context, began)
        finally:
            stop.set()
            for slot in slots:
                slot.close(wait=False)
            for slot in slots:
                slot.close()


class _Features:
    """An upstream's features, extracted in a thread while other upstreams' runs go on."""

    def __init__(self, supply: Supply | None, beside: ThreadPoolExecutor) -> None:
        self._supply, self._beside = supply, beside
        self.running: list[Future[Uses]] = []

    def of(self, upstream: str) -> Uses | None:
        """Return what an upstream's runs may read; ``None`` while that is not known.

        To be asked about one upstream until there is an answer. What ends an extraction early
        ends the sweep as well, so that then there is none.
        """
        if self._supply is None:
            return {}
        if not self.running:
            self.running = [self._beside.submit(self._supply.of, upstream)]
        (extraction,) = self.running
        if not extraction.done():
            return None
        try:
            uses = extraction.result()
        except InterruptedRun:
            return None
        self.running = []
        return uses


def _ended(
    slot: _Slot, job: Job, context: run.RunContext, began: datetime
) -> list[RunRecord] | None:
    """What came of a run, whatever became of its process."""
    try:
        return slot.result()
    except BrokenProcessPool:
        slot.restart()
        error: BaseException = InputError(
            "the run's process was ended from outside, by a signal or for lack of memory; the "
            "same command runs it again."
        )
    except stopping.RAISED as trouble:
        stopping.raise_if_users(trouble)
        error = trouble
    return record.fail(job, error, context=context, started=began)


class _Slot:
    """One process at a time, so that one that dies takes only its own run with it."""

    def __init__(self, spawn: Any, arguments: tuple[Any, ...]) -> None:
        self._spawn, self._arguments = spawn, arguments
        self.index = -1
        self.future: Future[list[RunRecord] | None] | None = None
        self._pool = self._new_pool()

    def submit(self, index: int, job: Job, uses: Uses) -> None:
        self.index = index
        # The process starts here and inherits the mask: signals reach every process of a terminal
        # or of a queue's job, and it is the parent that decides what they mean.
        with stopping.blocked():
            self.future = self._pool.submit(_run_in_worker, index, job, uses)

    def result(self) -> list[RunRecord] | None:
        future, self.future = self.future, None
        return future.result() if future else None

    def restart(self) -> None:
        self.close()
        self._pool = self._new_pool()

    def close(self, *, wait: bool = True) -> None:
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, mp_context=self._spawn, initializer=_begin_worker, initargs=self._arguments
        )


def _pass_on(messages: Any, progress: RunsProgress) -> None:
    while True:
        try:
            progress.step(*messages.get_nowait())
        except queue.Empty:
            return


def _never() -> bool:
    return False


# --- in a worker ----------------------------------------------------------------------------------

_worker: dict[str, Any] = {}


def _begin_worker(messages: Any, stop: Any, threads: int, context: run.RunContext) -> None:
    import torch

    end_with_parent()
    stopping.ignore()
    torch.set_num_threads(threads)
    _worker.update(messages=messages, upstreams={}, context=replace(context, stop=stop.is_set))


def _run_in_worker(index: int, job: Job, uses: Uses) -> list[RunRecord] | None:
    sent, started = [0.0], datetime.now(UTC)
    context = replace(_worker["context"], features=uses)

    def on_step(step: int, what: str) -> None:
        if time.monotonic() - sent[0] >= _MESSAGE_INTERVAL:
            sent[0] = time.monotonic()
            _worker["messages"].put((index, step, what))

    try:
        upstream = _upstream(job.first)
    except stopping.RAISED as error:
        stopping.raise_if_users(error)
        return record.fail(job, error, context=context, started=started)
    try:
        return run.run(job, upstream=upstream, context=context, on_step=on_step)
    except InterruptedRun:
        return None


def _upstream(run: RunIdentity) -> LoadedUpstream:
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.identity.further import Further
    from superbit.upstreams.registry import load_upstream

    further = Further(**{name: getattr(run, name) for name in FURTHER_FIELDS})
    asked = run.upstream, further
    if asked not in _worker["upstreams"]:
        with Reporter().quiet():
            _worker["upstreams"] = {asked: load_upstream(run.upstream, planned=further)}
    return _worker["upstreams"][asked]
