"""``superbit sweep``: plan, run, say what came of it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from superbit.benchmark.corpora.paths import load_paths
from superbit.benchmark.progress import Reporter
from superbit.benchmark.results import ResultStore
from superbit.benchmark.sweep import Outcome, SweepRequest, carry_out, make_plan, plan_lines
from superbit.benchmark.sweep import split_list as split
from superbit.upstreams.errors import InputError


def sweep_command(arguments: argparse.Namespace) -> int:
    """Carry out ``superbit sweep`` and return its exit status."""
    if arguments.limit is not None and arguments.limit < 1:
        raise InputError(f"--limit: {arguments.limit} must be at least 1.")
    if arguments.jobs < 1:
        raise InputError(f"--jobs: {arguments.jobs} must be at least 1.")
    request = SweepRequest(
        upstreams=tuple(split(arguments.upstreams, option="--upstreams")),
        tasks=tuple(split(arguments.tasks, option="--tasks")),
        scale=arguments.scale,
        seed=arguments.seed,
        learning_rate=arguments.lr,
        overrides=arguments.overrides,
        limit=arguments.limit,
    )
    reporter, store = Reporter(), ResultStore(arguments.results)
    paths = load_paths(arguments.paths)
    plan = make_plan(request, store=store, paths=paths, reporter=reporter)
    for line in plan_lines(plan):
        print(line)
    if arguments.dry_run:
        return 0

    from superbit.benchmark.runner import RunContext

    with _stop_on_interrupt(reporter) as stop:
        context = RunContext(store=store, paths=paths, device=_device(arguments.device), stop=stop)
        outcome = carry_out(
            plan,
            context=context,
            reporter=reporter,
            jobs=arguments.jobs,
            threads=max(1, (os.cpu_count() or 1) // arguments.jobs),
        )
    return _report(outcome, store)


def _device(asked: str | None) -> str:
    import torch

    available = torch.cuda.is_available()
    if asked is None:
        return "cuda" if available else "cpu"
    if asked.partition(":")[0] not in ("cpu", "cuda"):
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
        print(f"failed: {record.identity.task} × {record.identity.upstream}: {record.reason}")
    if outcome.left:
        return 130
    return 1 if outcome.failed else 0
