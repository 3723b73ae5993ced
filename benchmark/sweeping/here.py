"""Runs in this process, one after the other; what another sweep holds is put off."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.running import run
from superbit.benchmark.running.candidate import InterruptedRun
from superbit.benchmark.running.doing import doing
from superbit.benchmark.running.record import Job

if TYPE_CHECKING:
    from superbit.benchmark.features.supply import Supply
    from superbit.benchmark.progress import RunsProgress
    from superbit.upstreams.registry import LoadedUpstream

# The place of each run that has ended, and its records; None where there are none.
Ended = Iterator[tuple[int, list[RunRecord] | None]]
_SECONDS_BETWEEN_LOOKS = 0.5  # at runs that other sweeps hold, where nothing else is left


def in_this_process(
    jobs: Sequence[Job],
    *,
    upstreams: dict[str, LoadedUpstream],
    context: run.RunContext,
    progress: RunsProgress,
    supply: Supply | None = None,
) -> Ended:
    """Run one after the other, with all of torch's threads.

    A run that another sweep holds is put off until nothing else is left.

    Args:
        supply: extracts the features of a run's upstream before the first run of it.
    """
    waiting, held = deque(enumerate(jobs)), 0
    while waiting and not context.stop():
        if held == len(waiting):
            with progress.waiting():
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            held = 0
        index, job = waiting.popleft()
        upstream = upstreams[job.first.upstream]
        try:
            with progress.waiting(), doing("extracting features of", job.first.upstream):
                uses = supply.of(job.first.upstream) if supply else {}
            progress.start(index)
            with doing("running", job.first.upstream, run=job.key, label=job.label):
                records = run.run(
                    job,
                    upstream=upstream,
                    context=replace(context, features=uses),
                    on_step=partial(progress.step, index),
                )
        except run.HeldElsewhere as elsewhere:
            progress.put_off(index)
            waiting.append((index, replace(job, seen=elsewhere.seen)))
            held += 1
            continue
        except InterruptedRun:
            return
        held = 0
        yield index, records
