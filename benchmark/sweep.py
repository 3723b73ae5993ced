"""A sweep: every asked-for pair of upstream and task, planned first, then run one by one.

What is done already is reused; what failed or was cut short is run again; one failure does not
stop the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
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

    def add(self, records: Sequence[RunRecord]) -> None:
        """Take a run's records, done or failed."""
        self.done += [record for record in records if record.status == "done"]
        self.failed += [record for record in records if record.status == "failed"]


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

    Runs of an upstream that cannot be built, or that failed when it was tried, are recorded as
    failed; the others go on.

    Args:
        jobs: runs at a time; above 1 each has a process of its own.
        threads: torch's threads in each of those processes.
        features: what to extract for the runs to read: an upstream's before the first of its runs,
            so that runs go upstream by upstream.

    Raises:
        InputError: the folder of results cannot be written to.
    """
    from superbit.benchmark import launchers
    from superbit.benchmark.features.storing import Supply

    _refuse_what_other_processes_lack(plan, jobs=jobs)
    outcome = Outcome(
        reused=[each for p in plan.runs for each in p.identities if each not in p.waiting]
    )
    _begin(plan, context)
    failures = plan.failures | (features.failures if features else {})
    _fail(plan, failures, outcome, context=context, reporter=reporter)
    waiting = [planned for planned in plan.waiting if planned.first.upstream not in failures]
    if features is not None:
        order = list(plan.upstreams)
        waiting.sort(key=lambda planned: order.index(planned.first.upstream))
    # One stands for a run without training, so that it counts in the time left.
    steps = [max(1, total_steps(planned.first.config)) for planned in waiting]
    work = [planned.job(plan.manifests) for planned in waiting]
    ended = set()
    with reporter.runs(labels=[planned.label for planned in waiting], steps=steps) as progress:
        supply = None
        if features is not None:
            supply = Supply(
                features,
                upstreams=plan.upstreams,
                say=progress.line,
                device=context.device,
                processes=jobs * threads,
                stop=context.stop,
            )
        if jobs > 1 and len(work) > 1:
            results = launchers.in_processes(
                work,
                count=jobs,
                threads=threads,
                context=context,
                progress=progress,
                supply=supply,
            )
        else:
            results = launchers.in_this_process(
                work,
                upstreams=plan.upstreams,
                context=context,
                progress=progress,
                supply=supply,
            )
        for index, records in results:
            if records is not None:
                ended.add(index)
                outcome.add(records)
                progress.finish(index, _result_lines(records))
    outcome.left = [planned for index, planned in enumerate(waiting) if index not in ended]
    return outcome


def _begin(plan: Plan, context: RunContext) -> None:
    """Note the searches; forget that an upstream could not be built once, which is here now."""
    try:
        for search in plan.searches:
            context.store.declare(search)
        for planned in plan.runs:
            if planned.first.upstream in plan.upstreams:
                for identity in planned.identities:
                    context.store.forget_unbuilt(identity)
    except OSError as error:
        raise InputError(
            f"--results: {context.store.root} cannot be written to ({error.strerror}): free some "
            "space, or give a folder that can."
        ) from error


def _fail(
    plan: Plan,
    failures: Mapping[str, BaseException],
    outcome: Outcome,
    *,
    context: RunContext,
    reporter: Reporter,
) -> None:
    """Record every waiting run of an upstream that failed before any run of it could begin."""
    from superbit.benchmark import recording

    for planned in plan.waiting:
        error = failures.get(planned.first.upstream)
        if error is not None:
            records = recording.fail(
                planned.job(plan.manifests), error, context=context, started=datetime.now(UTC)
            )
            outcome.add(records)
            reporter.line(f"  {planned.label}: {_result_lines(records)}")


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
