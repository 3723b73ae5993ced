"""A sweep: every asked-for pair of upstream and task, planned first, then run one by one.

What is done already is reused; what failed or was cut short is run again; one failure does not
stop the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from superbit.benchmark.progress import Reporter
from superbit.benchmark.records.schema import RunIdentity, RunRecord
from superbit.benchmark.running import doing as watched
from superbit.benchmark.running import record
from superbit.benchmark.running.candidate import InterruptedRun
from superbit.benchmark.sweeping.here import in_this_process
from superbit.benchmark.sweeping.plan import Plan, PlannedRun
from superbit.benchmark.tasks.catalog import find_task
from superbit.benchmark.tasks.configs import total_steps
from superbit.upstreams import encoder_kinds
from superbit.upstreams.errors import InputError

if TYPE_CHECKING:
    from superbit.benchmark.features.extraction import Share
    from superbit.benchmark.features.planning import FeaturePlan
    from superbit.benchmark.running.run import RunContext


@dataclass
class SweepOutcome:
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
) -> SweepOutcome:
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
    from superbit.benchmark.features.supply import Supply
    from superbit.benchmark.sweeping.processes import in_processes

    _refuse_what_other_processes_lack(plan, jobs=jobs)
    outcome, waiting = _left_over(plan, context)
    _begin(plan, context)
    failures = plan.failures | (features.failures if features else {})
    lost = watched.watch.lost_runs()

    def failure(planned: PlannedRun) -> BaseException | None:
        """What every run of its upstream, or what a process before this one, died of."""
        return failures.get(planned.first.upstream) or lost.get(planned.job(plan.manifests).key)

    for planned in waiting:
        _fail(planned, failure(planned), plan, outcome, context=context, reporter=reporter)
    waiting = [planned for planned in waiting if failure(planned) is None]
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
            results = in_processes(
                work,
                count=jobs,
                threads=threads,
                context=context,
                progress=progress,
                supply=supply,
            )
        else:
            results = in_this_process(
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
                watched.tell_ended(record.key for record in records)
                progress.finish(index, _result_lines(records))
    outcome.left = [planned for index, planned in enumerate(waiting) if index not in ended]
    return outcome


def compute_features(
    plan: Plan,
    *,
    share: Share,
    context: RunContext,
    reporter: Reporter,
    jobs: int,
    threads: int,
    features: FeaturePlan | None,
) -> SweepOutcome:
    """Compute what the runs of ``plan`` will read, of a share of the audio; run nothing.

    Runs of an upstream that cannot be built, or that failed when it was tried, are recorded as
    failed. What is stopped early is left over.
    """
    from superbit.benchmark.features.supply import Supply

    failures = plan.failures | (features.failures if features else {})
    outcome, waiting = settle(plan, failures, context=context, reporter=reporter)
    if features is None:
        return outcome
    supply = Supply(
        features,
        upstreams=plan.upstreams,
        say=reporter.line,
        device=context.device,
        processes=jobs * threads,
        stop=context.stop,
        share=share,
    )
    for upstream in plan.upstreams:
        try:
            if upstream not in failures:
                with watched.doing("extracting features of", upstream):
                    supply.of(upstream)
        except InterruptedRun:
            outcome.left = waiting
            break
    return outcome


def settle(
    plan: Plan,
    failures: Mapping[str, BaseException],
    *,
    context: RunContext,
    reporter: Reporter,
) -> tuple[SweepOutcome, list[PlannedRun]]:
    """Record what cannot be run, and return what is known by then and what is to be run.

    Args:
        failures: by upstream, why none of its runs can be carried out.

    Raises:
        InputError: the folder of results cannot be written to.
    """
    outcome, waiting = _left_over(plan, context)
    _begin(plan, context)
    for planned in waiting:
        error = failures.get(planned.first.upstream)
        _fail(planned, error, plan, outcome, context=context, reporter=reporter)
    return outcome, [planned for planned in waiting if planned.first.upstream not in failures]


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


def _left_over(plan: Plan, context: RunContext) -> tuple[SweepOutcome, list[PlannedRun]]:
    """What is known before anything is run, and what is to be run.

    Where a process of the same command died, its records count as of this one, and what failed
    there is not tried again.
    """
    ended = watched.watch.ended
    outcome = SweepOutcome()
    for planned in plan.runs:
        for identity in planned.identities:
            if identity.key in ended:
                outcome.add([context.store.read(identity)])
            elif identity not in planned.waiting:
                outcome.reused.append(identity)
    waiting = [p for p in plan.waiting if any(each.key not in ended for each in p.waiting)]
    return outcome, waiting


def _fail(
    planned: PlannedRun,
    error: BaseException | None,
    plan: Plan,
    outcome: SweepOutcome,
    *,
    context: RunContext,
    reporter: Reporter,
) -> None:
    """Record a run as failed that cannot begin, if there is an error that says so."""
    if error is None:
        return
    job = planned.job(plan.manifests)
    records = record.fail(job, error, context=context, started=datetime.now(UTC))
    outcome.add(records)
    watched.tell_ended(each.key for each in records)
    reporter.line(f"  {planned.label}: {_result_lines(records)}")


def _refuse_what_other_processes_lack(plan: Plan, *, jobs: int) -> None:
    waiting = plan.waiting
    if jobs == 1 or len(waiting) < 2:  # then no other process is asked
        return
    for name in dict.fromkeys(planned.first.upstream for planned in waiting):
        upstream = plan.upstreams.get(name)
        if upstream is None or upstream.entry.origin != "registered":
            continue
        if not encoder_kinds.is_installed(upstream.entry.kind):
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
