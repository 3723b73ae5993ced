"""Where runs execute: in this process, or in several local ones.

A launcher takes runs in order and yields, as each ends, its index and its record; the record is
``None`` where the run was stopped before its end.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from superbit.benchmark import runner
from superbit.benchmark.corpora.manifest import Manifest
from superbit.benchmark.results import RunIdentity, RunRecord
from superbit.benchmark.tasks import find_task
from superbit.benchmark.training_state import InterruptedRun

if TYPE_CHECKING:
    from superbit.benchmark.progress import RunsProgress
    from superbit.upstreams.registry import LoadedUpstream

# Seconds between two progress messages of one run.
_MESSAGE_INTERVAL = 0.2
Ended = Iterator[tuple[int, RunRecord | None]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, with what a process of its own needs to carry it out."""

    identity: RunIdentity
    upstream_spec: str
    manifest: Manifest


def in_this_process(
    jobs: Sequence[Job],
    *,
    upstreams: dict[str, LoadedUpstream],
    context: runner.RunContext,
    progress: RunsProgress,
) -> Ended:
    """Run one after the other, with all of torch's threads."""
    for index, job in enumerate(jobs):
        if context.stop():
            return
        progress.start(index)
        try:
            record = runner.run(
                job.identity,
                upstream=upstreams[job.identity.upstream],
                manifest=job.manifest,
                context=context,
                on_step=partial(progress.step, index),
            )
        except InterruptedRun:
            return
        yield index, record


def in_processes(
    jobs: Sequence[Job],
    *,
    count: int,
    threads: int,
    context: runner.RunContext,
    progress: RunsProgress,
) -> Ended:
    """Run ``count`` at a time, each in a process of its own with ``threads`` threads."""
    spawn = multiprocessing.get_context("spawn")
    messages, stop = spawn.Queue(), spawn.Event()
    picklable = replace(context, stop=_never)
    with ProcessPoolExecutor(
        count, mp_context=spawn, initializer=_begin_worker,
        initargs=(messages, stop, threads, picklable),
    ) as pool:  # fmt: skip
        waiting = list(enumerate(jobs))
        running: dict[Future[RunRecord | None], int] = {}
        while waiting or running:
            if context.stop():
                stop.set()
                waiting.clear()
            while waiting and len(running) < count:
                index, job = waiting.pop(0)
                running[pool.submit(_run_in_worker, index, job)] = index
                progress.start(index)
            ended, _ = wait(running, timeout=_MESSAGE_INTERVAL, return_when=FIRST_COMPLETED)
            _pass_on(messages, progress)
            for future in ended:
                yield running.pop(future), future.result()


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

    # Ctrl-C reaches every process of the terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _worker.update(messages=messages, upstreams={}, context=replace(context, stop=stop.is_set))


def _run_in_worker(index: int, job: Job) -> RunRecord | None:
    sent = [0.0]

    def on_step(step: int, what: str) -> None:
        if time.monotonic() - sent[0] >= _MESSAGE_INTERVAL:
            sent[0] = time.monotonic()
            _worker["messages"].put((index, step, what))

    try:
        return runner.run(
            job.identity,
            upstream=_upstream(job.upstream_spec),
            manifest=job.manifest,
            context=_worker["context"],
            on_step=on_step,
        )
    except InterruptedRun:
        return None


def _upstream(spec: str) -> LoadedUpstream:
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.registry import load_upstream

    if spec not in _worker["upstreams"]:
        with Reporter().quiet():
            _worker["upstreams"] = {spec: load_upstream(spec)}
    return _worker["upstreams"][spec]


def jobs_of(
    identities: Sequence[RunIdentity],
    *,
    upstreams: dict[str, LoadedUpstream],
    manifests: dict[str, Manifest],
) -> list[Job]:
    """Pair each run with the upstream spec and the corpus manifest it needs."""
    return [
        Job(
            identity=identity,
            upstream_spec=str(upstreams[identity.upstream].spec),
            manifest=manifests[find_task(identity.task).corpus],
        )
        for identity in identities
    ]
