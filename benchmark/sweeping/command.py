"""``superbit sweep``: plan, run, say what came of it."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from superbit.benchmark.corpora.paths import CorpusPaths, load_paths
from superbit.benchmark.progress import Reporter
from superbit.benchmark.records import rate_search
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.sweeping.launch import Outcome, carry_out
from superbit.benchmark.sweeping.plan import Plan, SweepRequest, make_plan, plan_lines
from superbit.benchmark.sweeping.plan import split_list as split
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.files import require_writable
from superbit.upstreams.machine import cores
from superbit.upstreams.spec import typed

if TYPE_CHECKING:
    from superbit.benchmark.features.cache import CacheSettings
    from superbit.benchmark.features.planning import FeaturePlan

# Of each task, to estimate from: reading thousands would take longer than it helps.
_RECORDS_READ = 100


def sweep_command(arguments: argparse.Namespace) -> int:
    """Carry out ``superbit sweep`` and return its exit status."""
    _check_options(arguments)
    if arguments.assume is not None:
        return _plan_on_assumed_sizes(arguments)
    request = SweepRequest(
        upstreams=tuple(split(arguments.upstreams, option="--upstreams")),
        tasks=tuple(split(arguments.tasks, option="--tasks")),
        scale=arguments.scale,
        seeds=_seeds(arguments.seed),
        learning_rates=_rates(arguments.lr),
        overrides=arguments.overrides,
        limit=arguments.limit,
    )
    require_writable(arguments.results, option="--results")
    reporter, store = Reporter(), ResultStore(arguments.results)
    paths = load_paths(arguments.paths)
    plan = make_plan(request, store=store, paths=paths, reporter=reporter)
    for line in plan_lines(plan):
        print(line)
    features = _plan_features(arguments, plan, paths=paths, store=store, reporter=reporter)
    for line in _training_lines(plan, features, store, device=arguments.device):
        print(line)
    if arguments.dry_run:
        failures = plan.failures | (features.failures if features else _tried(plan, reporter))
        return _dry_report(failures)
    device = _device(arguments.device)

    from superbit.benchmark.running.run import RunContext

    with _stop_on_interrupt(reporter) as stop:
        context = RunContext(store=store, paths=paths, device=device, stop=stop)
        outcome = carry_out(
            plan,
            context=context,
            reporter=reporter,
            jobs=arguments.jobs,
            threads=_threads(arguments.jobs),
            features=features,
        )
    for line in _search_lines(plan, store):
        print(line)
    return _report(outcome, store)


def _tried(plan: Plan, reporter: Reporter) -> dict[str, BaseException]:
    """What upstreams break of the contract that have to run: without a store nothing else tells."""
    from superbit.upstreams.contract.blame import breaks, broken_rule

    failures: dict[str, BaseException] = {}
    for name in dict.fromkeys(planned.first.upstream for planned in plan.waiting):
        if name in plan.upstreams:
            with reporter.quiet():
                found = broken_rule(plan.upstreams[name].expert)
            if found is not None:
                failures[name] = breaks(*found, spec=typed(name))
    return failures


def _dry_report(failures: Mapping[str, BaseException]) -> int:
    """Name the upstreams whose runs would all fail; return the exit status."""
    from superbit.upstreams.errors import one_line

    for name, error in failures.items():
        print(f"would fail: every run of {typed(name)}: {one_line(error)}")
    return 1 if failures else 0


def _search_lines(plan: Plan, store: ResultStore) -> Iterator[str]:
    """What each search over learning rates has come to."""
    for declared in plan.searches:
        runs = [each for planned in plan.runs for each in planned.identities]
        ended = [record for record in map(store.ended, runs) if record is not None]
        found = rate_search.find(declared, ended)
        what = f"learning rate of {declared.identity.task} × {typed(declared.identity.upstream)}"
        if found.missing:
            yield f"{what}: to be chosen when all are done"
        else:
            yield f"{what}: {rate_search.summary(found.search)}"


def _settings(arguments: argparse.Namespace) -> CacheSettings | None:
    """What the user wants stored; ``None`` for nothing."""
    from superbit.benchmark.features.cache import CacheSettings, parse_size

    if arguments.no_cache:
        return None
    budget = arguments.cache_budget
    return CacheSettings(
        folder=arguments.cache_dir or arguments.results / "work" / "features",
        budget_bytes=None if budget is None else parse_size(budget, option="--cache-budget"),
        precision=arguments.cache_precision,
        any_upstream=arguments.cache_any_upstream,
    )


def _plan_features(
    arguments: argparse.Namespace,
    plan: Plan,
    *,
    paths: CorpusPaths,
    store: ResultStore,
    reporter: Reporter,
) -> FeaturePlan | None:
    """Plan the features of what is to run, and print that plan."""
    settings = _settings(arguments)
    # Candidates side by side ask for what one of them asks for.
    waiting = [p.first for p in plan.waiting if p.first.upstream not in plan.failures]
    if settings is None or not waiting:
        return None
    from superbit.benchmark.features.decisions import decision_lines
    from superbit.benchmark.features.planning import plan_features

    features = plan_features(
        waiting,
        upstreams=plan.upstreams,
        settings=settings,
        paths=paths,
        work_dir=store.root / "work",
        reporter=reporter,
    )
    for line in decision_lines(features.decisions, features.costs, features.unknown):
        print(line)
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


def _plan_on_assumed_sizes(arguments: argparse.Namespace) -> int:
    """Print what features would take and save on SUPERB's corpora, which need not be there."""
    settings = _settings(arguments)
    if not arguments.dry_run or settings is None:
        raise InputError("--assume superb-sizes only plans: say --dry-run, without --no-cache.")
    from superbit.benchmark.features.decisions import decision_lines
    from superbit.benchmark.features.planning import plan_assumed
    from superbit.benchmark.sweeping.plan import Unbuilt, load_each
    from superbit.benchmark.tasks.catalog import find_task
    from superbit.benchmark.tasks.configs import resolve

    tasks = [find_task(name) for name in split(arguments.tasks, option="--tasks")]
    reporter = Reporter()
    named = load_each(split(arguments.upstreams, option="--upstreams"), reporter=reporter)
    loaded = [each for each in named.values() if not isinstance(each, Unbuilt)]
    features = plan_assumed(
        {
            task.name: (
                resolve(task.name, scale=arguments.scale, overrides=arguments.overrides),
                max(1, task.folds),
            )
            for task in tasks
        },
        upstreams={str(upstream.spec): upstream for upstream in loaded},
        settings=settings,
        reporter=reporter,
    )
    print("On corpora of SUPERB's size, none of which was read:")
    for line in decision_lines(features.decisions, features.costs):
        print(line)
    print("Training and evaluation of heads come on top: a plan of a real sweep has those.")
    unbuilt = [each for each in named.values() if isinstance(each, Unbuilt)]
    return _dry_report({str(each.spec): each.error for each in unbuilt} | features.failures)


def _check_options(arguments: argparse.Namespace) -> None:
    if arguments.paths is None and arguments.assume is None:
        raise InputError("--paths: name the file that says where the corpora lie.")
    for name, least in (("limit", 1), ("jobs", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise InputError(f"--{name}: {value} must be at least {least}.")
    _rates(arguments.lr)
    _seeds(arguments.seed)
    _refuse_together("no_cache", arguments, "cache_dir", "cache_budget", "cache_any_upstream")
    _refuse_together("assume", arguments, "lr", "limit")


def _refuse_together(option: str, arguments: argparse.Namespace, *others: str) -> None:
    """Refuse options that ``option`` leaves without effect."""
    if not getattr(arguments, option):
        return
    for other in others:
        if getattr(arguments, other) not in (None, False):
            named, given = (f"--{name.replace('_', '-')}" for name in (option, other))
            raise InputError(f"{given} has no effect with {named}: leave one of them out.")


def _seeds(text: str) -> tuple[int, ...]:
    """Read ``--seed``: one, or several with commas between."""
    parts = split(text, option="--seed")
    for part in parts:
        if not part.isdecimal():
            raise InputError(f"--seed: {part!r} must be a whole number, at least 0.")
    return tuple(map(int, parts))


def _rates(text: str | None) -> tuple[float, ...] | Literal["search"]:
    """Read ``--lr``: a rate, several, ``search``, or nothing."""
    if text is None:
        return ()
    if text.strip().lower() == "search":
        return "search"
    rates = []
    for part in split(text, option="--lr"):
        try:
            rate = float(part)
        except ValueError:
            hint = did_you_mean(part.lower(), ["search"])
            raise InputError(
                f"--lr: {part!r} is no number: give a rate, several with commas between, or "
                f"'search' for each task's own list.{hint}"
            ) from None
        if not (math.isfinite(rate) and rate > 0):
            raise InputError(f"--lr: {part} must be a number above 0.")
        rates.append(rate)
    return tuple(rates)


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


@contextmanager
def _stop_on_interrupt(reporter: Reporter) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C lets the step finish and the checkpoint be saved; the second is Python's."""
    asked = [False]

    def on_interrupt(_signal: int, _frame: object) -> None:
        asked[0] = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        reporter.line("superbit: stopping after this step; Ctrl-C again to stop at once.")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: asked[0]
    finally:
        signal.signal(signal.SIGINT, before)


def _report(outcome: Outcome, store: ResultStore) -> int:
    print(f"Results are in {store.root}: {len(outcome.done)} new, {len(outcome.reused)} reused.")
    for planned in outcome.left:
        print(f"not run: {planned.label}")
    if outcome.left:
        print("superbit: stopped; the same command continues.", file=sys.stderr)
    for record in outcome.failed:
        fold = "" if record.identity.fold is None else f" fold {record.identity.fold}"
        what = f"{record.identity.task}{fold} × {typed(record.identity.upstream)}"
        print(f"failed: {what}: {record.reason}")
    if outcome.left:
        return 130
    return 1 if outcome.failed else 0
