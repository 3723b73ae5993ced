"""Runs in processes of their own, several at a time; one that dies takes only its run with it."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from superbit.benchmark.records.schema import FURTHER_FIELDS, RunIdentity, RunRecord
from superbit.benchmark.running import doing, record, run
from superbit.benchmark.running.candidate import InterruptedRun
from superbit.benchmark.running.record import Job, RunContext
from superbit.benchmark.running.run import HeldElsewhere
from superbit.upstreams import stopping
from superbit.upstreams.errors import InputError, one_line
from superbit.upstreams.machine import cores, end_with_parent

if TYPE_CHECKING:
    from superbit.benchmark.features.supply import Supply, Uses
    from superbit.benchmark.progress import RunsProgress
    from superbit.benchmark.sweeping.here import Ended
    from superbit.upstreams.registry import LoadedUpstream

# Seconds between two progress messages of one run, and between two looks at all of them.
_MESSAGE_INTERVAL = 0.2
# Beyond a run's limit, in which it writes where it hangs.
_SECONDS_TO_SAY_WHERE = 2.0
# After a second Ctrl-C, in which partial files are removed.
_SECONDS_TO_END = 5.0


def in_processes(
    jobs: Sequence[Job],
    *,
    count: int,
    threads: int,
    context: RunContext,
    progress: RunsProgress,
    supply: Supply | None = None,
) -> Ended:
    """Run ``count`` at a time, each in a process of its own with ``threads`` threads.

    A run that another sweep holds is put off until nothing else is left.

    Args:
        supply: extracts the features of a run's upstream once the runs before are all begun;
            those go on meanwhile.
    """
    spawn = multiprocessing.get_context("spawn")
    with stopping.blocked():  # Python's own process beside these would inherit it
        messages, stop = spawn.Queue(), spawn.Event()
    slots = [
        _Slot(
            spawn,
            (
                *(messages, stop, threads),
                replace(context, stop=_never, device=device_of(number, context.device)),
            ),
            limit=context.run_timeout,
        )
        for number in range(min(count, len(jobs)))
    ]
    waiting, began = deque(enumerate(jobs)), datetime.now(UTC)
    held = PutOff()
    with ThreadPoolExecutor(1) as beside:
        features = _Features(supply, beside)
        try:
            while waiting or any(slot.is_busy for slot in slots):
                if context.stop():
                    stop.set()
                    waiting.clear()
                for slot in slots:
                    if slot.is_busy or not waiting or held.must_wait(waiting):
                        continue
                    uses = features.of(waiting[0][1].first.upstream)
                    if uses is None:
                        break
                    slot.submit(*waiting.popleft(), uses)
                    progress.start(slot.index)
                busy = [slot.ready for slot in slots if slot.is_busy]
                with nullcontext() if busy else progress.waiting():
                    if busy:
                        connection.wait(busy, _MESSAGE_INTERVAL)
                    else:
                        time.sleep(_MESSAGE_INTERVAL)
                _pass_on(messages, progress)
                for slot in slots:
                    ended = slot.ended()
                    if ended is None:
                        continue
                    if isinstance(ended, HeldElsewhere):
                        waiting.append((slot.index, replace(jobs[slot.index], seen=ended.seen)))
                        held.put_off(slot.index)
                        progress.put_off(slot.index)
                        continue
                    held.forget()
                    records = ended.records if isinstance(ended, _Left) else None
                    if isinstance(ended, BaseException):
                        job = jobs[slot.index]
                        records = record.fail(job, ended, context=context, started=began)
                    yield slot.index, records
        finally:
            stop.set()
            for slot in slots:
                slot.finish()
            for slot in slots:
                slot.close(_SECONDS_TO_END if slot.is_busy else None)


def slots(device: str | None) -> int:
    """Return how many runs this machine carries out at a time: one a GPU, else one a core."""
    import torch

    if (device is None and torch.cuda.is_available()) or device == "cuda":
        return max(1, torch.cuda.device_count())
    return 1 if device not in (None, "cpu") else cores()


def device_of(slot: int, device: str) -> str:
    """Return the device of one of several processes: with several GPUs, they take turns."""
    import torch

    count = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{slot % count}" if count > 1 else device


class PutOff:
    """Runs that other sweeps hold: asked for again once in a while when nothing else is left."""

    def __init__(self, every: float = 0.5) -> None:
        self._every, self._when = every, 0.0
        self._indices: set[int] = set()

    def put_off(self, index: int) -> None:
        self._indices.add(index)
        self._when = time.monotonic() + self._every

    def forget(self) -> None:
        self._indices.clear()

    def must_wait(self, waiting: deque[tuple[int, Job]]) -> bool:
        """Whether others hold all that waits, and were asked a moment ago."""
        held = all(index in self._indices for index, _ in waiting)
        return held and time.monotonic() < self._when


class _Features:
    """An upstream's features, extracted in a thread while other upstreams' runs go on."""

    def __init__(self, supply: Supply | None, beside: ThreadPoolExecutor) -> None:
        self._supply, self._beside = supply, beside
        self._asked: dict[str, Future[Uses]] = {}

    def of(self, upstream: str) -> Uses | None:
        """Return what an upstream's runs may read; ``None`` while that is not known.

        To be asked about one upstream until there is an answer. What ends an extraction early
        ends the sweep as well, so that then there is none.
        """
        if self._supply is None:
            return {}
        if upstream not in self._asked:
            self._asked[upstream] = self._beside.submit(self._supply.of, upstream)
        extraction = self._asked[upstream]
        if not extraction.done():
            return None
        try:
            return extraction.result()
        except InterruptedRun:
            return None


class _Left:
    """What a worker's run left: its records, or None where it was interrupted."""

    def __init__(self, records: list[RunRecord] | None) -> None:
        self.records = records


class _Slot:
    """One process at a time, begun again where it died.

    Args:
        limit: seconds that a run may take.
    """

    def __init__(self, spawn: Any, arguments: tuple[Any, ...], *, limit: float | None) -> None:
        self._spawn, self._arguments, self._limit = spawn, arguments, limit
        self._process: Any = None
        self._work: Any = None
        self._began = 0.0
        self._late = False
        self.index, self.is_busy = -1, False
        self.ready: Any = None

    def submit(self, index: int, job: Job, uses: Uses) -> None:
        if self._process is None or not self._process.is_alive():
            self._start()
        self._work.put((index, job, uses))
        self.index, self.is_busy, self._began, self._late = index, True, time.monotonic(), False

    def ended(self) -> _Left | BaseException | None:
        """Return what came of the run, whatever became of its process; None while it goes on."""
        if not self.is_busy:
            return None
        try:
            if self.ready.poll():
                found: _Left | BaseException = self.ready.recv()
                self.is_busy = False
                return found
        except (EOFError, OSError):
            return self._died()
        except Exception as error:  # what was sent cannot be read here
            self.is_busy = False
            return InputError(f"what its process left cannot be read: {one_line(error)}.")
        limit = self._limit
        if limit is not None and time.monotonic() - self._began > limit + _SECONDS_TO_SAY_WHERE:
            self._late = True
            self._process.kill()
        return None

    def finish(self) -> None:
        """Let the process end after its present run."""
        if self._process is not None:
            with suppress(ValueError, OSError):
                self._work.put(None)

    def close(self, patience: float | None = None) -> None:
        """Wait for the process, or end it once patience is over."""
        if self._process is None:
            return
        self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._work.cancel_join_thread()
        self._work.close()
        self._process = None

    def _died(self) -> BaseException:
        self._process.join()
        late, code = self._late, self._process.exitcode
        self.close()
        self.is_busy = False
        cause = doing.too_long(self._limit or 0.0) if late else doing.cause_of(code)
        return doing.Died(doing.reason_of("running", cause))

    def _start(self) -> None:
        self.close()
        self._work = self._spawn.Queue()
        self.ready, theirs = self._spawn.Pipe(duplex=False)
        self._process = self._spawn.Process(
            target=_work_in_process, args=(self._work, theirs, *self._arguments)
        )
        # The process inherits the mask: signals reach every process of a terminal or of a queue's
        # job, and it is the parent that decides what they mean.
        with stopping.blocked():
            self._process.start()
        theirs.close()


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


def _work_in_process(
    work: Any, results: Any, messages: Any, stop: Any, threads: int, context: RunContext
) -> None:
    import torch

    end_with_parent()
    stopping.ignore()
    torch.set_num_threads(threads)
    _worker.update(messages=messages, upstreams={}, context=replace(context, stop=stop.is_set))
    while (asked := work.get()) is not None:
        try:
            left: _Left | BaseException = _Left(_run_in_worker(*asked))
        except HeldElsewhere as held:
            left = held
        except stopping.RAISED as error:
            left = InputError(one_line(error))
        results.send(left)


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
