"""Computes chunks of waveforms and writes a shard of each, here or in processes of their own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from superbit.benchmark.features.passes import passes
from superbit.benchmark.features.source import UpstreamFeatures
from superbit.benchmark.features.store import CacheError, Features, write_shard
from superbit.benchmark.features.waves import Wave
from superbit.upstreams.errors import InputError
from superbit.upstreams.machine import end_with_parent

# Seconds of audio, and those that they took.
Computed = Iterator[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class ChunkJob:
    """What every chunk of an extraction shares, in whatever process."""

    folder: Path
    dtype: str
    pooled: bool
    rate: float
    invariant: bool
    device: str


def compute_chunk(chunk: Sequence[Wave], job: ChunkJob, upstream: Any) -> tuple[float, float]:
    """Write one shard; return seconds of audio, and what they took."""
    began = time.process_time() if job.device == "cpu" else time.perf_counter()
    features = UpstreamFeatures(upstream, rate=job.rate, pooled=job.pooled, device=job.device)
    found = []
    for indices in passes([wave.samples for wave in chunk], together=job.invariant):
        batch = [chunk[index] for index in indices]
        states = features.compute([wave.decode() for wave in batch])
        for wave, state in zip(batch, states, strict=True):
            array = state.cpu().numpy()
            with np.errstate(over="ignore"):
                stored = array.astype(job.dtype)
            if not np.isfinite(stored).all():
                raise CacheError(
                    f"features of {wave.file.path} reach {np.abs(array).max():.3g}, more than "
                    "float16 holds: say --cache-precision float32."
                )
            found.append(
                Features(key=wave.key, states=stored, samples=wave.samples, rate=wave.rate)
            )
    write_shard(job.folder, found)
    clock = time.process_time() if job.device == "cpu" else time.perf_counter()
    return sum(wave.seconds for wave in chunk), clock - began


def compute_here(
    chunks: Sequence[list[Wave]], job: ChunkJob, expert: Any, *, stop: Callable[[], bool]
) -> Computed:
    """Compute chunk after chunk in this process, with all of torch's threads."""
    expert = expert.to(job.device).eval()
    for chunk in chunks:
        if stop():
            return
        yield compute_chunk(chunk, job, expert)


class Workers:
    """Processes with one thread each, which start at the first use and serve every upstream."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def compute(
        self,
        chunks: Sequence[list[Wave]],
        job: ChunkJob,
        upstream: str,
        *,
        stop: Callable[[], bool],
    ) -> Computed:
        """Compute chunks, ``count`` at a time, on the upstream of that spec."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.count,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin_worker,
            )
        waiting = list(chunks)
        running: set[Future[tuple[float, float]]] = set()
        try:
            while waiting or running:
                while waiting and len(running) < self.count and not stop():
                    running.add(
                        self._pool.submit(_compute_in_worker, waiting.pop(0), job, upstream)
                    )
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            self.close()  # the next upstream gets processes that live
            raise
        finally:
            wait(running)  # nothing is written any more once the caller has its error

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


_worker: dict[str, Any] = {}


def _begin_worker() -> None:
    import signal

    import torch

    end_with_parent()
    # Ctrl-C reaches every process of the terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _compute_in_worker(chunk: list[Wave], job: ChunkJob, upstream: str) -> tuple[float, float]:
    try:
        return _compute(chunk, job, upstream)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        # Of somebody else's exceptions not all survive the way to the parent.
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def _compute(chunk: list[Wave], job: ChunkJob, upstream: str) -> tuple[float, float]:
    if _worker.get("upstream") != upstream:
        from superbit.benchmark.progress import Reporter
        from superbit.upstreams.registry import load

        with Reporter().quiet():
            expert = load(upstream).to(job.device).eval()
        _worker.update(upstream=upstream, expert=expert)
    return compute_chunk(chunk, job, _worker["expert"])
