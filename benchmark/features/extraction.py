"""Computes features and writes them: length-bucketed, shard by shard, continued where it ended.

A chunk of waveforms of similar length becomes one shard, so that whatever ends the process costs
at most the chunks in hand.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from superbit.benchmark.features.source import UpstreamFeatures
from superbit.benchmark.features.store import (
    CacheError,
    CacheSettings,
    Features,
    folder_bytes,
    locked,
    note_upstream,
    remove_leftovers,
    said_of_cache,
    write_shard,
)
from superbit.benchmark.features.waves import Wave, passes
from superbit.benchmark.running.candidate import InterruptedRun
from superbit.upstreams import stopping
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_json, write_text
from superbit.upstreams.machine import end_with_parent

if TYPE_CHECKING:
    from superbit.upstreams.registry import LoadedUpstream

SHARD_BYTES = 64 * 2**20
# A chunk is at most so much audio, so that little is lost when the process is killed.
CHUNK_SECONDS = 300.0
_SHORT_CHUNK_SECONDS = 30.0
# Less audio tells a rate too badly to take the place of one that is known.
_TELLING_SECONDS = 60.0

OnProgress = Callable[[float, float], None]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What one upstream gives: layers, width, samples a frame."""

    layers: int
    dim: int
    rate: float

    def bytes_of(self, wave: Wave, *, pooled: bool, dtype: str) -> int:
        """What one waveform's features take."""
        frames = 1 if pooled else round(wave.samples / self.rate)
        return frames * self.layers * self.dim * np.dtype(dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of an upstream's audio that one of several extractions takes.

    Attributes:
        number: from 0.
        of: how many there are; together they take all of it, and no two the same.
    """

    number: int = 0
    of: int = 1

    def has(self, wave: Wave) -> bool:
        """Whether a waveform belongs to it."""
        return int(wave.key[:8], 16) % self.of == self.number

    @property
    def name(self) -> str:
        """E.g. ``.2-of-4``; empty for the whole."""
        return f".{self.number + 1}-of-{self.of}" if self.of > 1 else ""


WHOLE = Share()


def extract(
    waves: Sequence[Wave],
    *,
    upstream: LoadedUpstream,
    kind: str,
    shape: Shape,
    settings: CacheSettings,
    invariant: bool,
    workers: Workers | None = None,
    device: str = "cpu",
    share: Share = WHOLE,
    stop: Callable[[], bool] = lambda: False,
    on_progress: OnProgress = lambda done, total: None,
) -> int:
    """Compute what the store lacks of ``waves``; return how many of them it lacked.

    Ends early where the cache holds more than its budget, which another sweep may fill as well:
    what is not stored then is computed live.

    Args:
        invariant: utterances may share a batch; else each passes alone.
        workers: processes that compute; without them this one does, with all of torch's threads.
        share: of the waveforms, those to compute; other processes may compute others meanwhile.
        on_progress: called with seconds of audio done and in all.

    Raises:
        CacheError: the disk is full, the folder cannot be written to, or a feature is too large
            for float16.
        InterruptedRun: ``stop`` said so; the next call continues.
    """
    folder = settings.upstream_folder(upstream)
    with locked(folder, stop=stop, part=share.name) as ours:
        if not ours:
            raise InterruptedRun
        with said_of_cache(folder):
            note_upstream(folder, upstream)
        store = settings.store(upstream, kind)
        if share.of == 1:  # else they may be what another one writes now
            remove_leftovers(store.folder)
        missing = [wave for wave in waves if share.has(wave) and wave.key not in store]
        if not missing:
            return 0
        job = ChunkJob(
            folder=store.folder,
            dtype=settings.dtype(kind),
            pooled=kind == "pooled",
            rate=shape.rate,
            invariant=invariant,
            device=device,
        )
        total = sum(wave.seconds for wave in missing)
        chunks = list(
            chunked(
                missing,
                shape=shape,
                pooled=job.pooled,
                dtype=job.dtype,
                seconds=_chunk_seconds(total, workers.count if workers else 1),
            )
        )
        done, busy, began = 0.0, 0.0, time.monotonic()

        def ends() -> bool:
            return stop() or is_over_budget(settings)

        try:
            computed = (
                workers.compute(chunks, job, str(upstream.spec), stop=ends)
                if workers
                else compute_here(chunks, job, upstream.expert, stop=ends)
            )
            for seconds, cost in computed:
                done, busy = done + seconds, busy + cost
                on_progress(done, total)
        finally:
            if done:
                _note_rate(folder, audio=done, seconds=busy, wall=time.monotonic() - began)
    if done < total - 1e-6 and stop():
        raise InterruptedRun
    return len(missing)


def chunked(
    waves: Sequence[Wave], *, shape: Shape, pooled: bool, dtype: str, seconds: float
) -> Iterator[list[Wave]]:
    """Cut waveforms, sorted by length, into chunks of at most a shard and ``seconds`` each."""
    chunk: list[Wave] = []
    size, audio = 0, 0.0
    for wave in sorted(waves, key=lambda wave: (-wave.samples, wave.key)):
        more = shape.bytes_of(wave, pooled=pooled, dtype=dtype)
        if chunk and (size + more > SHARD_BYTES or audio + wave.seconds > seconds):
            yield chunk
            chunk, size, audio = [], 0, 0.0
        chunk.append(wave)
        size, audio = size + more, audio + wave.seconds
    if chunk:
        yield chunk


def _chunk_seconds(total: float, workers: int) -> float:
    """Short enough that no worker waits long for the last one's chunk."""
    if workers == 1:
        return CHUNK_SECONDS
    return min(CHUNK_SECONDS, max(_SHORT_CHUNK_SECONDS, total / (32 * workers)))


def measured_rate(folder: Path) -> float | None:
    """Seconds of one core for a second of audio, as measured at extraction in this folder."""
    try:
        known = read_json(folder / "rate.json", "a measured rate")
        return float(known["seconds"]) / float(known["audio_seconds"])
    except (InputError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def refuse_small_budget(settings: CacheSettings) -> None:
    """Refuse a budget that holds not even one shard.

    Raises:
        InputError: it does not.
    """
    budget = settings.budget_bytes
    if budget is not None and budget < SHARD_BYTES:
        raise InputError(
            f"--cache-budget: {budget:,} bytes hold not even one shard of {SHARD_BYTES:,}: give "
            "more, or say --no-cache."
        )


def bytes_left(settings: CacheSettings) -> int | None:
    """What the budget leaves beside what is stored; ``None`` without a budget."""
    if settings.budget_bytes is None:
        return None
    return max(0, settings.budget_bytes - folder_bytes(settings.folder))


def is_over_budget(settings: CacheSettings) -> bool:
    """Whether more is stored than the budget allows."""
    budget = settings.budget_bytes
    return budget is not None and folder_bytes(settings.folder) > budget


def _note_rate(folder: Path, *, audio: float, seconds: float, wall: float) -> None:
    """Remember how long extraction took, for the next plan."""
    if audio < _TELLING_SECONDS and measured_rate(folder) is not None:
        return
    with contextlib.suppress(OSError):
        write_text(
            folder / "rate.json",
            json.dumps({"audio_seconds": audio, "seconds": seconds, "wall_seconds": wall}),
        )


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
                    with stopping.blocked():  # the processes start at the first of these
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
    import torch

    end_with_parent()
    stopping.ignore()  # the parent decides what signals mean
    torch.set_num_threads(1)


def _compute_in_worker(chunk: list[Wave], job: ChunkJob, upstream: str) -> tuple[float, float]:
    try:
        return _compute(chunk, job, upstream)
    except InputError:
        raise
    except stopping.RAISED as error:
        stopping.raise_if_users(error)
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
