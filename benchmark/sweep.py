"""A sweep: every asked-for pair of upstream and task, planned first, then run one by one.

What is done already is reused; what failed or was cut short is run again; one failure does not
stop the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from superbit.benchmark.configs import total_steps
from superbit.benchmark.plan import Plan, PlannedRun
from superbit.benchmark.progress import Reporter
from superbit.benchmark.results import RunIdentity, RunRecord
from superbit.benchmark.tasks import find_task
from superbit.upstreams.errors import InputError

if TYPE_CHECKING:
    from superbit.benchmark.features.preparing import FeaturePlan
    from superbit.benchmark.runner import RunContext


@dataclass
class Outcome:
    """What a sweep came to."""

    done: list[RunRecord] = field(default_factory=list)
    reused: list[RunIdentity] = field(default_factory=list)
    failed: list[RunRecord] = field(default_factory=list)
    left: list[PlannedRun] = field(default_factory=list)


def carry_out(
    plan: Plan,
    *,
    context: RunContext,
    reporter: Reporter,
    jobs: int = 1,
    threads: int = 1,
    features: FeaturePlan | None = None,
) -> Outcome:
    """Run everything in ``plan`` that is not done; stops early when the context says so.

    Args:
        jobs: runs at a time; above 1 each has a process of its own.
        threads: torch's threads in each of those processes.
        features: what to extract before the runs, for them to read.

    Raises:
        InputError: features cannot be written.
    """
    from superbit.benchmark import launchers

    _refuse_what_other_processes_lack(plan, jobs=jobs)
    waiting = plan.waiting
    outcome = Outcome(
        reused=[each for p in plan.runs for each in p.identities if each not in p.waiting]
    )
    for search in plan.searches:
        context.store.declare(search)
    if features is not None and waiting:
        prepared = _prepared(features, plan, context, reporter, processes=jobs * threads)
        if prepared is None:
            outcome.left = waiting
            return outcome
        context = prepared
    # One stands for a run without training, so that it counts in the time left.
    steps = [max(1, total_steps(planned.first.config)) for planned in waiting]
    work = [planned.job(plan.manifests) for planned in waiting]
    ended = set()
    with reporter.runs(labels=[planned.label for planned in waiting], steps=steps) as progress:
        if jobs > 1 and len(work) > 1:
            results = launchers.in_processes(
                work, count=jobs, threads=threads, context=context, progress=progress
            )
        else:
            results = launchers.in_this_process(
                work, upstreams=plan.upstreams, context=context, progress=progress
            )
        for index, records in results:
            if records is not None:
                ended.add(index)
                outcome.done += [record for record in records if record.status == "done"]
                outcome.failed += [record for record in records if record.status == "failed"]
                progress.finish(index, _result_lines(records))
    outcome.left = [planned for index, planned in enumerate(waiting) if index not in ended]
    return outcome


def _prepared(
    features: FeaturePlan, plan: Plan, context: RunContext, reporter: Reporter, *, processes: int
) -> RunContext | None:
    """Extract features; return the context with leave to read them, or ``None`` if stopped."""
    from superbit.benchmark.features.storing import prepare
    from superbit.benchmark.training_state import InterruptedRun

    try:
        uses = prepare(
            features,
            upstreams=plan.upstreams,
            reporter=reporter,
            device=context.device,
            processes=processes,
            stop=context.stop,
        )
    except InterruptedRun:
        return None
    return replace(context, features=uses)


def _refuse_what_other_processes_lack(plan: Plan, *, jobs: int) -> None:
    for name, upstream in plan.upstreams.items():
        if jobs > 1 and upstream.entry.origin == "registered":
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
