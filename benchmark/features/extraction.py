"""Computes features and writes them: length-bucketed, shard by shard, continued where it ended.

A chunk of waveforms of similar length is one forward after another and one shard at the end, so
that whatever ends the process costs at most the chunks in hand.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from superbit.benchmark.corpora.work import write_atomically
from superbit.benchmark.features.cache import CacheSettings, locked, note_upstream
from superbit.benchmark.features.source import UpstreamFeatures
from superbit.benchmark.features.store import (
    CacheError,
    Features,
    folder_bytes,
    remove_leftovers,
    whole_or_nothing,
    write_shard,
)
from superbit.benchmark.features.waves import SAMPLE_RATE, Wave
from superbit.benchmark.training_state import InterruptedRun
from superbit.upstreams.errors import InputError

if TYPE_CHECKING:
    from superbit.upstreams.registry import LoadedUpstream

SHARD_BYTES = 64 * 2**20
# A chunk is at most so much audio, so that little is lost when the process is killed.
CHUNK_SECONDS = 300.0
# Samples of one forward, padding included.
BATCH_SAMPLES = 30 * SAMPLE_RATE

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


def extract(
    waves: Sequence[Wave],
    *,
    upstream: LoadedUpstream,
    kind: str,
    shape: Shape,
    settings: CacheSettings,
    invariant: bool,
    processes: int = 1,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
    on_progress: OnProgress = lambda done, total: None,
) -> int:
    """Compute what the store lacks of ``waves``; return how many were computed.

    Args:
        invariant: utterances may share a batch; else each passes alone.
        processes: above 1, so many processes with one thread each.
        on_progress: called with seconds of audio done and in all.

    Raises:
        CacheError: the disk is full, the folder cannot be written to, or a feature is too large
            for float16.
        InterruptedRun: ``stop`` said so; the next call continues.
    """
    folder = settings.upstream_folder(upstream)
    with whole_or_nothing(folder):
        note_upstream(folder, upstream)
    with locked(folder, stop=stop) as ours:
        if not ours:
            raise InterruptedRun
        store = settings.store(upstream, kind)
        remove_leftovers(store.folder)
        missing = [wave for wave in waves if wave.key not in store]
        if not missing:
            return 0
        job = _Job(
            folder=store.folder,
            dtype=settings.dtype(kind),
            pooled=kind == "pooled",
            rate=shape.rate,
            invariant=invariant,
            device=device,
        )
        chunks = list(chunked(missing, shape=shape, pooled=job.pooled, dtype=job.dtype))
        total = sum(wave.seconds for wave in missing)
        done, busy, began = 0.0, 0.0, time.monotonic()
        try:
            for seconds, cost in _run(chunks, job, upstream, processes=processes, stop=stop):
                done, busy = done + seconds, busy + cost
                on_progress(done, total)
        finally:
            if done:
                _note_rate(folder, audio=done, seconds=busy, wall=time.monotonic() - began)
    if done < total - 1e-6:
        raise InterruptedRun
    return len(missing)


def chunked(
    waves: Sequence[Wave], *, shape: Shape, pooled: bool, dtype: str
) -> Iterator[list[Wave]]:
    """Cut waveforms, sorted by length, into chunks of one shard and of some minutes each."""
    chunk: list[Wave] = []
    size, seconds = 0, 0.0
    for wave in sorted(waves, key=lambda wave: (-wave.samples, wave.key)):
        more = shape.bytes_of(wave, pooled=pooled, dtype=dtype)
        if chunk and (size + more > SHARD_BYTES or seconds + wave.seconds > CHUNK_SECONDS):
            yield chunk
            chunk, size, seconds = [], 0, 0.0
        chunk.append(wave)
        size, seconds = size + more, seconds + wave.seconds
    if chunk:
        yield chunk


def batched(chunk: Sequence[Wave], *, invariant: bool) -> Iterator[list[Wave]]:
    """Cut a chunk, longest first, into forward passes."""
    batch: list[Wave] = []
    for wave in chunk:
        if batch and (not invariant or (len(batch) + 1) * batch[0].samples > BATCH_SAMPLES):
            yield batch
            batch = []
        batch.append(wave)
    if batch:
        yield batch


def measured_rate(folder: Path) -> float | None:
    """Seconds of one core for a second of audio, as measured at extraction in this folder."""
    try:
        known = json.loads((folder / "rate.json").read_text(encoding="utf-8"))
        return float(known["seconds"]) / float(known["audio_seconds"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
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


# --- chunks ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What every chunk of an extraction shares, in whatever process."""

    folder: Path
    dtype: str
    pooled: bool
    rate: float
    invariant: bool
    device: str


def _compute_chunk(chunk: Sequence[Wave], job: _Job, upstream: Any) -> tuple[float, float]:
    """Write one shard; return seconds of audio, and what they took."""
    began = time.process_time() if job.device == "cpu" else time.perf_counter()
    features = UpstreamFeatures(upstream, rate=job.rate, pooled=job.pooled, device=job.device)
    found = []
    for batch in batched(chunk, invariant=job.invariant):
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


def _run(
    chunks: list[list[Wave]],
    job: _Job,
    upstream: LoadedUpstream,
    *,
    processes: int,
    stop: Callable[[], bool],
) -> Iterator[tuple[float, float]]:
    if processes == 1 or len(chunks) == 1:
        expert = upstream.expert.to(job.device).eval()
        for chunk in chunks:
            if stop():
                return
            yield _compute_chunk(chunk, job, expert)
        return
    pool = ProcessPoolExecutor(
        min(processes, len(chunks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
        initargs=(str(upstream.spec), job),
    )
    waiting = list(chunks)
    running: set[Future[tuple[float, float]]] = set()
    try:
        while waiting or running:
            while waiting and len(running) < processes and not stop():
                running.add(pool.submit(_compute_in_worker, waiting.pop(0)))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: dict[str, Any] = {}


def _begin_worker(spec: str, job: _Job) -> None:
    import signal

    import torch

    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.registry import load

    # Ctrl-C reaches every process of the terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    with Reporter().quiet():
        _worker.update(job=job, upstream=load(spec).to(job.device).eval())


def _compute_in_worker(chunk: list[Wave]) -> tuple[float, float]:
    return _compute_chunk(chunk, _worker["job"], _worker["upstream"])


def _note_rate(folder: Path, *, audio: float, seconds: float, wall: float) -> None:
    """Remember how long extraction took, for the next plan."""
    with contextlib.suppress(OSError):
        write_atomically(
            folder / "rate.json",
            json.dumps({"audio_seconds": audio, "seconds": seconds, "wall_seconds": wall}),
        )
