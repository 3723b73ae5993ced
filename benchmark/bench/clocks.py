"""Clocks of a sweep's bench: optimizer steps, evaluations, and where a step's time goes."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from superbit.benchmark.features.source import FeatureReader, UpstreamFeatures
from superbit.benchmark.progress import Reporter

now = time.perf_counter


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How long a block's steps took.

    Attributes:
        single: seconds of each step in turn: training changes what a step costs (denormals).
        start: seconds that the start and the end of a loader took besides the steps.
        parts: of a step, seconds each; only of a run on stored features.
    """

    steps: int
    seconds_a_step: float
    single: list[float]
    start: float
    parts: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationTime:
    """Seconds of an evaluation: those besides the utterances, and those of each."""

    split: str
    utterances: int
    start: float
    seconds_an_utterance: float
    scoring: float


class Clock:
    """How long a source reads batches, gathers features and runs the upstream."""

    def __init__(self, source: FeatureReader, upstream: UpstreamFeatures) -> None:
        self._spent = dict.fromkeys(("loading", "gathering", "upstream"), 0.0)
        reading = source.reading

        @contextlib.contextmanager
        def timed_reading() -> Iterator[None]:
            with self._timing("loading"), reading():
                yield

        vars(source)["reading"] = timed_reading
        gather = self._timed("gathering", source.gather)

        def timed_gather(wavs: Any) -> Any:
            batch = gather(wavs)
            vars(batch)["chunk"] = self._timed("gathering", batch.chunk)  # comes from disk there
            return batch

        vars(source)["gather"] = timed_gather
        vars(source)["compute_ahead"] = self._timed("gathering", source.compute_ahead)
        vars(upstream)["compute"] = self._timed("upstream", upstream.compute)

    def spent(self) -> dict[str, float]:
        """Seconds of each part so far."""
        return {
            "loading": self._spent["loading"],
            "store": self._spent["gathering"] - self._spent["upstream"],
            "upstream": self._spent["upstream"],
        }

    def _timed(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            with self._timing(what):
                return function(*args)

        return timed

    @contextlib.contextmanager
    def _timing(self, what: str) -> Iterator[None]:
        began = now()
        try:
            yield
        finally:
            self._spent[what] += now() - began


@contextlib.contextmanager
def optimizer_steps() -> Iterator[list[float]]:
    """Collect when each optimizer step of whatever optimizer ended."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    ends: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: ends.append(now()))
    try:
        yield ends
    finally:
        hook.remove()


def timed_steps(
    began: float,
    ends: list[float],
    ended: float,
    *,
    warm_up: int,
    steps: int,
    parts: dict[str, float] | None = None,
) -> Steps:
    if len(ends) != warm_up + steps:
        raise RuntimeError(f"{len(ends)} steps were taken instead of {warm_up + steps}")
    each = (ends[-1] - ends[warm_up - 1]) / steps
    return Steps(
        steps=steps,
        seconds_a_step=each,
        single=[after - before for before, after in itertools.pairwise(ends[warm_up - 1 :])],
        start=max(0.0, ends[warm_up - 1] - began - warm_up * each) + ended - ends[-1],
        parts=parts,
    )


def time_evaluation(
    split: str,
    heads: list[Any],
    evaluate: Callable[[], object],
    *,
    utterances: int | None = None,
    together: int = 1,
    search_follows: bool = False,
) -> EvaluationTime:
    """Time one evaluation.

    Args:
        heads: that are evaluated together.
        utterances: of the split, where a head takes each batch once a layer.
        together: batches of which the live waveforms pass through the upstream at once; its time
            comes before the first of them.
        search_follows: what comes after the utterances is QbE's search; else scoring counts for
            the utterances.
    """
    ends: list[float] = []
    counts: list[int] = []

    def on_forward(_head: object, inputs: tuple[Any, ...], _output: object) -> None:
        ends.append(now())
        counts.append(len(inputs[1]))

    scoring = 0.0

    def timed(log_records: Callable[..., Any]) -> Callable[..., Any]:
        def timed_log_records(*args: Any, **kwargs: Any) -> Any:
            nonlocal scoring
            at = now()
            saves = log_records(*args, **kwargs)
            scoring += now() - at
            return saves

        return timed_log_records

    # The last of several heads is through with a batch when all are.
    hook = heads[-1].register_forward_hook(on_forward)
    before = [head.log_records for head in heads]
    for head in heads:
        head.log_records = timed(head.log_records)
    try:
        with Reporter().quiet():
            began = now()
            evaluate()
            end = now()
    finally:
        hook.remove()
        for head, log_records in zip(heads, before, strict=True):
            head.log_records = log_records
    if utterances is not None:
        layers = len(counts) // utterances
        ends, counts = ends[::layers], counts[::layers]
    every, whole = sum(counts), end - began - scoring
    # The first of the last batches that passed together in full number: from the first batch to it
    # lie as many passes as heads of so many batches.
    last = (len(counts) // together - 1) * together
    each = (ends[last] - ends[0]) / sum(counts[1 : last + 1]) if last > 0 else whole / every
    return EvaluationTime(
        split=split,
        utterances=every,
        start=max(0.0, whole - every * each),
        seconds_an_utterance=each + (0.0 if search_follows else scoring / every),
        scoring=scoring,
    )
