"""Where runs execute: in this process, or in several local ones.

A launcher takes runs in order and yields, as each ends, its index and its records, one for each
learning rate; ``None`` where the run was stopped before its end. A run whose process dies leaves
failed records, and the others go on.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from superbit.benchmark import recording, runner
from superbit.benchmark.recording import Job
from superbit.benchmark.records import FURTHER_FIELDS
from superbit.benchmark.results import RunIdentity, RunRecord
from superbit.benchmark.training_state import InterruptedRun
from superbit.upstreams.errors import InputError
from superbit.upstreams.machine import end_with_parent

if TYPE_CHECKING:
    from superbit.benchmark.features.storing import Supply, Uses
    from superbit.benchmark.progress import RunsProgress
    from superbit.upstreams.registry import LoadedUpstream

# Seconds between two progress messages of one run.
_MESSAGE_INTERVAL = 0.2
Ended = Iterator[tuple[int, list[RunRecord] | None]]


def in_this_process(
    jobs: Sequence[Job],
    *,
    upstreams: dict[str, LoadedUpstream],
    context: runner.RunContext,
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
            records = runner.run(
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
    context: runner.RunContext,
    progress: RunsProgress,
    supply: Supply | None = None,
) -> Ended:
    """Run ``count`` at a time, each in a process of its own with ``threads`` threads.

    Args:
        supply: extracts the features of a run's upstream once the runs before are all begun;
            those go on meanwhile.
    """
    spawn = multiprocessing.get_context("spawn")
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
    slot: _Slot, job: Job, context: runner.RunContext, began: datetime
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
    except (Exception, SystemExit) as trouble:
        error = trouble
    return recording.fail(job, error, context=context, started=began)


class _Slot:
    """One process at a time, so that one that dies takes only its own run with it."""

    def __init__(self, spawn: Any, arguments: tuple[Any, ...]) -> None:
        self._spawn, self._arguments = spawn, arguments
        self.index = -1
        self.future: Future[list[RunRecord] | None] | None = None
        self._pool = self._new_pool()

    def submit(self, index: int, job: Job, uses: Uses) -> None:
        self.index = index
        # The process starts here and inherits the mask: Ctrl-C reaches every process of the
        # terminal, and it is the parent that decides what it means.
        with _blocked_interrupt():
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


@contextmanager
def _blocked_interrupt() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


def _begin_worker(messages: Any, stop: Any, threads: int, context: runner.RunContext) -> None:
    import torch

    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
    except (Exception, SystemExit) as error:
        return recording.fail(job, error, context=context, started=started)
    try:
        return runner.run(job, upstream=upstream, context=context, on_step=on_step)
    except InterruptedRun:
        return None


def _upstream(run: RunIdentity) -> LoadedUpstream:
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.identifying import Further
    from superbit.upstreams.registry import load_upstream

    further = Further(**{name: getattr(run, name) for name in FURTHER_FIELDS})
    asked = run.upstream, further
    if asked not in _worker["upstreams"]:
        with Reporter().quiet():
            _worker["upstreams"] = {asked: load_upstream(run.upstream, planned=further)}
    return _worker["upstreams"][asked]
