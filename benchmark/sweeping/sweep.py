"""A sweep from what was asked for to what came of it; the verb and `superbit.evaluate` call it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.benchmark.corpora.paths import CorpusPaths, load_paths
from superbit.benchmark.progress import Reporter
from superbit.benchmark.records import rate_search
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.running.doing import doing, watch_now
from superbit.benchmark.sweeping.launch import SweepOutcome, carry_out, compute_features
from superbit.benchmark.sweeping.plan import Plan, SweepRequest, make_plan, plan_lines
from superbit.upstreams import stopping
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import remove_leftovers, require_writable
from superbit.upstreams.machine import cores
from superbit.upstreams.spec import typed

if TYPE_CHECKING:
    from superbit.benchmark.features.extraction import Share
    from superbit.benchmark.features.planning import FeaturePlan
    from superbit.benchmark.features.store import CacheSettings

Say = Callable[[str], None]
# Of each task, to estimate from: reading thousands would take longer than it helps.
_RECORDS_READ = 100


@dataclass(frozen=True, kw_only=True)
class SweepPace:
    """How often runs are saved, and when a sweep stops; none of it changes a number.

    Attributes:
        checkpoint_minutes: after so long a run is saved, beside every ``save_step`` of its config.
        max_hours: all is saved by then, and the sweep stops.
        run_timeout: seconds that one run may take; where nothing watches over the run (from Python,
            one at a time) it takes what it takes.
    """

    checkpoint_minutes: float = 15.0
    max_hours: float | None = None
    run_timeout: float | None = None


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What was planned, and what came of it.

    Attributes:
        store: the folder of results.
        plan: every run that was asked for.
        outcome: None where it was planned only.
        failures: by upstream, why its runs would all fail; looked for where it was planned only.
    """

    store: ResultStore
    plan: Plan
    outcome: SweepOutcome | None = None
    failures: Mapping[str, BaseException] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A plan, said, and what carries it out.

    Attributes:
        features: what is stored of which upstream; None where nothing is.
    """

    store: ResultStore
    paths: CorpusPaths
    plan: Plan
    features: FeaturePlan | None

    @property
    def failures(self) -> dict[str, BaseException]:
        """By upstream, why none of its runs can be carried out, as far as anybody has looked."""
        return self.plan.failures | (self.features.failures if self.features else {})


def prepare(
    request: SweepRequest,
    *,
    paths: Path,
    results: Path,
    storing: CacheSettings | None,
    reporter: Reporter,
    device: str | None = None,
    say: Say = lambda line: None,
) -> Prepared:
    """Plan every run and the features, and say both; the arguments are those of `sweep`.

    Raises:
        InputError: whatever of it is wrong.
    """
    require_writable(results, option="--results")
    remove_leftovers(results, without=("features", "corpora"))
    store, found = ResultStore(results), load_paths(paths)
    plan = make_plan(request, store=store, paths=found, reporter=reporter)
    for line in plan_lines(plan):
        say(line)
    features = _plan_features(
        plan, settings=storing, paths=found, store=store, reporter=reporter, say=say
    )
    for line in _training_lines(plan, features, store, device=device):
        say(line)
    return Prepared(store=store, paths=found, plan=plan, features=features)


def sweep(
    request: SweepRequest,
    *,
    paths: Path,
    results: Path,
    storing: CacheSettings | None,
    reporter: Reporter,
    device: str | None = None,
    jobs: int = 1,
    pace: SweepPace = SweepPace(),
    dry_run: bool = False,
    share: Share | None = None,
    say: Say = lambda line: None,
) -> Swept:
    """Plan every run, say the plan, and carry out what is not done.

    Args:
        paths: the file that says where the corpora lie.
        results: the folder of results.
        storing: what features are stored; None for none.
        reporter: of progress.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; None: cuda where there is one.
        jobs: runs at a time.
        pace: how often runs are saved, and when all of it stops.
        dry_run: plan only.
        share: compute features of so much of the audio, and run nothing.
        say: called with each line of the plan and of the choices that searches came to.

    Raises:
        InputError: whatever of it is wrong.
    """
    began = watch_now().since()
    prepared = prepare(
        request,
        paths=paths,
        results=results,
        storing=storing,
        reporter=reporter,
        device=device,
        say=say,
    )
    store, plan, features = prepared.store, prepared.plan, prepared.features
    if dry_run:
        more = {} if features else _tried(plan, reporter)
        return Swept(store=store, plan=plan, failures=prepared.failures | more)
    chosen = _device(device)

    from superbit.benchmark.running.run import RunContext

    deadline = stopping.deadline_after(pace.max_hours, began=began)
    with stopping.gently(reporter.line, deadline=deadline) as stop:
        context = RunContext(
            store=store,
            paths=prepared.paths,
            device=chosen,
            stop=stop,
            save_seconds=60 * pace.checkpoint_minutes,
            run_timeout=pace.run_timeout,
        )
        carrying: dict[str, Any] = {
            "context": context,
            "reporter": reporter,
            "jobs": jobs,
            "threads": _threads(jobs),
            "features": features,
        }
        if share is not None:
            outcome = compute_features(plan, share=share, **carrying)
            return Swept(store=store, plan=plan, outcome=outcome)
        outcome = carry_out(plan, **carrying)
    for line in search_lines(plan, store):
        say(line)
    return Swept(store=store, plan=plan, outcome=outcome)


def require_sound(request: SweepRequest, *, jobs: int) -> None:
    """Refuse numbers that no sweep can have.

    Raises:
        InputError: the message names the option.
    """
    for name, value in (("limit", request.limit), ("jobs", jobs)):
        if value is not None and value < 1:
            raise InputError(f"--{name}: {value} must be at least 1.")
    if request.learning_rates != "search":
        for rate in request.learning_rates:
            if not (math.isfinite(rate) and rate > 0):
                raise InputError(f"--lr: {rate:g} must be a number above 0.")
    if not request.seeds:
        raise InputError("--seed: name at least one.")
    for seed in request.seeds:
        if not isinstance(seed, int) or seed < 0:
            raise InputError(f"--seed: {seed!r} must be a whole number, at least 0.")


def _tried(plan: Plan, reporter: Reporter) -> dict[str, BaseException]:
    """What upstreams break of the contract that have to run: without a store nothing else tells."""
    from superbit.upstreams.contract.blame import breaks, broken_rule

    failures: dict[str, BaseException] = {}
    for name in dict.fromkeys(planned.first.upstream for planned in plan.waiting):
        if name in plan.upstreams:
            with reporter.quiet(), doing("trying", name):
                found = broken_rule(plan.upstreams[name].expert)
            if found is not None:
                failures[name] = breaks(*found, spec=typed(name))
    return failures


def search_lines(plan: Plan, store: ResultStore) -> Iterator[str]:
    """What each search over learning rates has come to."""
    for declared in plan.searches:
        runs = [each for planned in plan.runs for each in planned.identities]
        ended = [record for record in map(store.ended, runs) if record is not None]
        found = rate_search.outcome_of(declared, ended)
        what = f"learning rate of {declared.identity.task} × {typed(declared.identity.upstream)}"
        if found.missing:
            yield f"{what}: to be chosen when all are done"
        else:
            yield f"{what}: {rate_search.describe_search(found.search)}"


def _plan_features(
    plan: Plan,
    *,
    settings: CacheSettings | None,
    paths: CorpusPaths,
    store: ResultStore,
    reporter: Reporter,
    say: Say,
) -> FeaturePlan | None:
    """Plan the features of what is to run, and say that plan."""
    # Candidates side by side ask for what one of them asks for.
    waiting = [p.first for p in plan.waiting if p.first.upstream not in plan.failures]
    if settings is None or not waiting:
        return None
    from superbit.benchmark.features.planning import decision_lines, plan_features

    features = plan_features(
        waiting,
        upstreams=plan.upstreams,
        settings=settings,
        paths=paths,
        work_dir=store.root / "work",
        reporter=reporter,
    )
    for line in decision_lines(features.decisions, features.costs, features.unknown):
        say(line)
    return features


def _training_lines(
    plan: Plan, features: FeaturePlan | None, store: ResultStore, *, device: str | None
) -> Iterator[str]:
    """What the runs themselves will take, by those that were done before."""
    import torch

    from superbit.benchmark.sweeping.estimate import estimate_lines, estimates

    failures = plan.failures | (features.failures if features else {})
    waiting = [planned for planned in plan.waiting if planned.first.upstream not in failures]
    decisions = features.decisions if features else ()
    tasks = dict.fromkeys(planned.first.task for planned in waiting)
    yield from estimate_lines(
        estimates(
            waiting,
            [record for task in tasks for record in store.newest(task, count=_RECORDS_READ)],
            stored={(each.need.upstream, each.need.task) for each in decisions if each.store},
            gpu=torch.cuda.is_available() if device is None else device.startswith("cuda"),
        )
    )


def _threads(jobs: int) -> int:
    """Torch's threads in each of ``jobs`` processes; OMP_NUM_THREADS, where set, is the user's."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else max(1, cores() // jobs)


def _device(asked: str | None) -> str:
    import torch

    available = torch.cuda.is_available()
    if asked is None:
        return "cuda" if available else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", asked):
        raise InputError(f"--device: {asked!r} must be cpu, cuda or cuda:N.")
    if asked.startswith("cuda") and not available:
        raise InputError("--device: there is no CUDA device here; leave the option out or say cpu.")
    return asked
