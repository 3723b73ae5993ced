"""How long the runs of a plan will take, by earlier runs of this machine in the same folder.

Only measured seconds count: of a run that nothing like it went before, nothing is said.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from superbit.benchmark.records.schema import RunIdentity, RunRecord
from superbit.benchmark.sweeping.plan import PlannedRun
from superbit.benchmark.tasks.configs import total_steps
from superbit.upstreams.machine import cpu_model

# What a run does once (datasets, the test) weighs too much in one that is shorter by more.
_MOST_TIMES_LONGER = 4


@dataclass(frozen=True, kw_only=True)
class TaskEstimate:
    """What the runs of one task will take.

    Attributes:
        runs: that are planned; of ``known`` of them the time is known.
        seconds: those take together, one after the other.
        by: earlier runs that say so.
    """

    task: str
    runs: int
    known: int
    seconds: float
    by: int


def estimates(
    planned: Sequence[PlannedRun],
    records: Iterable[RunRecord],
    *,
    stored: Collection[tuple[str, str]],
    gpu: bool = False,
) -> list[TaskEstimate]:
    """Estimate each task's waiting runs, without the extraction of features.

    Args:
        records: of earlier runs.
        stored: upstreams and tasks whose runs read features; of others the upstream is live, which
            only runs of the same upstream can tell.
        gpu: whether the runs have an accelerator.
    """
    usable = [record for record in records if _is_usable(record, gpu=gpu)]
    found: dict[str, list[tuple[float, set[str]] | None]] = {}
    for run in planned:
        reads = (run.first.upstream, run.first.task) in stored
        found.setdefault(run.first.task, []).append(_seconds(run, usable, reads=reads))
    return [
        TaskEstimate(
            task=task,
            runs=len(each),
            known=sum(one is not None for one in each),
            seconds=sum(one[0] for one in each if one),
            by=len({key for one in each if one for key in one[1]}),
        )
        for task, each in found.items()
    ]


def run_seconds(
    run: PlannedRun, records: Iterable[RunRecord], *, reads: bool, gpu: bool
) -> float | None:
    """Return the seconds of one run, as of `estimates`; None where no run like it was done."""
    usable = [record for record in records if _is_usable(record, gpu=gpu)]
    found = _seconds(run, usable, reads=reads)
    return None if found is None else found[0]


def _is_usable(record: RunRecord, *, gpu: bool) -> bool:
    """Whether its time is that of a whole run on a machine like this one."""
    made = record.provenance
    here = made.cpu == cpu_model() and (made.gpu is not None) == gpu
    return record.status == "done" and made.seconds is not None and here


def _seconds(
    run: PlannedRun, records: Sequence[RunRecord], *, reads: bool
) -> tuple[float, set[str]] | None:
    """Seconds of a run, and the keys of those that say so: the likest there are."""
    alike = [
        record
        for record in records
        if record.identity.task == run.first.task
        and record.identity.corpus_sha256 == run.first.corpus_sha256
        and record.scale == run.first.config["scale"]
        and (record.provenance.features is not None) == reads
        and _candidates(record) == len(run.identities)
    ]
    steps = total_steps(run.first.config)
    same = [r for r in alike if r.identity.upstream == run.first.upstream]
    for several in (same, alike if reads else []):
        for near in (
            [r for r in several if _but_rate(r.identity) == _but_rate(run.first)],
            [r for r in several if _is_near(total_steps(r.identity.config), steps)],
        ):
            if near:
                pace = [
                    (r.provenance.seconds or 0.0) / max(1, total_steps(r.identity.config))
                    for r in near
                ]
                return statistics.median(pace) * max(1, steps), {r.key for r in near}
    return None


def _candidates(record: RunRecord) -> int:
    """How many learning rates trained in its time, each of whose records has all of it."""
    return len(record.search.tried) if record.search is not None else 1


def _is_near(steps: int, wanted: int) -> bool:
    return steps <= _MOST_TIMES_LONGER * wanted and wanted <= _MOST_TIMES_LONGER * steps


def _but_rate(identity: RunIdentity) -> dict[str, Any]:
    return {name: part for name, part in identity.config.items() if name != "optimizer"}


def estimate_lines(found: Sequence[TaskEstimate]) -> Iterator[str]:
    """The estimates as text, and what is not known."""
    from superbit.benchmark.features.planning import hours_text

    known = [each for each in found if each.known]
    if known:
        each = ", ".join(f"{e.task} {hours_text(e.seconds / 3600 / e.known)}" for e in known)
        runs, of = sum(e.known for e in known), sum(e.runs for e in found)
        total = hours_text(sum(e.seconds for e in known) / 3600)
        which = "all runs" if runs == of else f"{runs} of {of} runs"
        by = sum(e.by for e in known)
        yield (
            f"training and evaluation: about {total} for {which}, one after the other, by "
            f"{by} earlier run{'' if by == 1 else 's'} here (a run: {each})"
        )
    lacking = [
        f"{e.runs - e.known} of {e.runs} runs of {e.task}" if e.known else e.task
        for e in found
        if e.known < e.runs
    ]
    if lacking:
        yield (
            f"training and evaluation of {', '.join(lacking)}: not known, as no run like it was "
            "done here yet"
        )
