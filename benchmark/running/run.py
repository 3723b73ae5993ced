"""One run: an upstream, a task, learning rates → a record each.

Several rates train side by side; each gives the record that a run at that rate alone gives. A run
continues from its last checkpoint where there is one, selects weights on dev,
evaluates them on test, and checks superbit's figure against the expert's own before it is stored.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from superbit.benchmark.records.schema import RunIdentity, RunRecord
from superbit.benchmark.running import record
from superbit.benchmark.running.candidate import Candidate, InterruptedRun
from superbit.benchmark.running.checkpoints import LABEL, run_folder
from superbit.benchmark.running.experiment import Experiment
from superbit.benchmark.running.heartbeat import beating
from superbit.benchmark.running.record import Job, RunContext
from superbit.benchmark.running.session import Session
from superbit.benchmark.tasks.binding import RunPlaces
from superbit.benchmark.tasks.catalog import find_task
from superbit.benchmark.tasks.configs import total_steps
from superbit.benchmark.tasks.task import TestedByName
from superbit.upstreams import stopping
from superbit.upstreams.contract.blame import blamed, require_rate
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import locked
from superbit.upstreams.registry import LoadedUpstream
from superbit.upstreams.rng import seed_everything
from superbit.upstreams.s3prl import denormals
from superbit.upstreams.spec import typed

OnStep = Callable[[int, str], None]


def run(
    job: Job,
    *,
    upstream: LoadedUpstream,
    context: RunContext,
    on_step: OnStep = lambda step, what: None,
) -> list[RunRecord]:
    """Run what ``job`` says and store the records, done or failed.

    Args:
        on_step: called with the number of optimizer steps done and a word for what is being done.

    Raises:
        InterruptedRun: the context's ``stop`` said so; the next call continues.
        HeldElsewhere: another process works on the same run.
    """
    started = datetime.now(UTC)
    run_dir = run_folder(context.store.root, job.key)
    try:
        with _claimed(run_dir, context) as ours:
            stamps = {each.key: _written(each, context) for each in job.identities}
            if not ours:
                raise HeldElsewhere(job.seen or stamps)
            # Another sweep may have done some, or failed where this one saw it at work.
            left = [
                each
                for each in job.identities
                if context.store.find(each) is None
                and (job.seen is None or job.seen.get(each.key) == stamps[each.key])
            ]
            if left:
                _run_claimed(
                    replace(job, identities=tuple(left)),
                    upstream=upstream,
                    context=context,
                    run_dir=run_dir,
                    on_step=on_step,
                    started=started,
                )
            shutil.rmtree(run_dir, ignore_errors=True)
        return [context.store.read(identity) for identity in job.identities]
    except (InterruptedRun, HeldElsewhere):
        raise
    # One failing run must not end the sweep, nor may an upstream that calls sys.exit: it becomes
    # a record that says why.
    except stopping.RAISED as error:
        stopping.raise_if_users(error)
        reason = blamed(error, upstream.expert, spec=typed(job.first.upstream))
        return record.fail(job, reason, context=context, started=started)


class HeldElsewhere(Exception):
    """Another process works on this run; ``seen`` is for the job that asks again."""

    def __init__(self, seen: Mapping[str, int | None]) -> None:
        super().__init__(seen)
        self.seen = seen


def _written(identity: RunIdentity, context: RunContext) -> int | None:
    """When this run's record was written, done or failed; None where there is none."""
    try:
        return context.store.path(identity).stat().st_mtime_ns
    except OSError:
        return None


def _run_claimed(
    job: Job,
    *,
    upstream: LoadedUpstream,
    context: RunContext,
    run_dir: Path,
    on_step: OnStep,
    started: datetime,
) -> None:
    first = job.first
    if upstream.weights_sha256 != first.weights_sha256:
        raise _changed(first, "weights")
    found = upstream.further.fields()
    if any(found[name] != getattr(first, name) for name in found):
        raise _changed(first, "files")
    (run_dir / LABEL).write_text(f"{first.task} × {typed(first.upstream)}\n", encoding="utf-8")
    on_step = beating(run_dir, steps=total_steps(first.config), on_step=on_step)
    on_step(0, "reading its data")
    with (
        _output_to(run_dir / "log.txt") as log,
        _traces_to(log, after=context.run_timeout),
        denormals.as_zero(),
    ):
        candidates, tested, features = _train_and_test(
            job, upstream=upstream, context=context, run_dir=run_dir, on_step=on_step
        )
    record.store(job, candidates, tested, context=context, started=started, features=features)


def _changed(run: RunIdentity, what: str) -> InputError:
    return InputError(
        f"upstream {typed(run.upstream)!r} has other {what} now than when the sweep was "
        "planned: run the sweep again."
    )


@contextlib.contextmanager
def _claimed(run_dir: Path, context: RunContext) -> Iterator[bool]:
    """Keep the run's folder to one process; yield whether it is this one."""
    with locked(context.work_dir / "locks" / run_dir.name, stop=lambda: True) as ours:
        if ours:
            run_dir.mkdir(parents=True, exist_ok=True)
        yield ours


def _train_and_test(
    job: Job,
    *,
    upstream: LoadedUpstream,
    context: RunContext,
    run_dir: Path,
    on_step: OnStep,
) -> tuple[list[Candidate], TestedByName, dict[str, Any] | None]:
    first = job.first
    task = find_task(first.task)
    places = RunPlaces(paths=context.paths, work_dir=context.work_dir, fold=first.fold)
    config = copy.deepcopy(first.config)
    task.binding.bind(config["downstream_expert"], places)
    require_rate(upstream.expert, spec=typed(first.upstream))
    use = context.features.get((first.upstream, first.task))
    open_source = None
    if use is not None:
        open_source = use.open(upstream, work_dir=context.work_dir, device=context.device)
    seed_everything(first.seed)
    experiment = Experiment(
        upstream=upstream.expert,
        downstream=str(task.downstream),
        config=config,
        seed=first.seed,
        expdir=run_dir,
        device=context.device,
        stop=context.stop,
        save_seconds=context.save_seconds,
        learning_rates=[i.learning_rate for i in job.identities if i.learning_rate is not None],
        reinitialize_head=task.binding.reinitialize_head,
        feature_source=open_source,
    )
    tested = task.procedure(
        Session(
            experiment=experiment,
            binding=task.binding,
            places=places,
            run_dir=run_dir,
            key=job.key,
            on_step=on_step,
        )
    )
    if use is None or experiment.source is None:
        return experiment.candidates, tested, None
    return experiment.candidates, tested, use.describe(experiment.source)


@contextlib.contextmanager
def _traces_to(log: TextIO, *, after: float | None) -> Iterator[None]:
    """Write to a run's log where Python was when the process crashed, or ``after`` seconds."""
    ours = not faulthandler.is_enabled()
    if ours:
        faulthandler.enable(log)
    if after is not None:
        faulthandler.dump_traceback_later(after, file=log)
    try:
        yield
    finally:
        if after is not None:
            faulthandler.cancel_dump_traceback_later()
        if ours:
            faulthandler.disable()


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[TextIO]:
    """Send what s3prl prints, its progress bars included, to a file beside the run."""
    with (
        path.open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield log
