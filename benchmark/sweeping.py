"""``superbit sweep``: plan, run, say what came of it."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from superbit.benchmark.corpora.paths import load_paths
from superbit.benchmark.progress import Reporter
from superbit.benchmark.results import ResultStore
from superbit.benchmark.sweep import Outcome, SweepRequest, carry_out, make_plan, plan_lines
from superbit.benchmark.sweep import split_list as split
from superbit.upstreams.errors import InputError
from superbit.upstreams.machine import cores


def sweep_command(arguments: argparse.Namespace) -> int:
    """Carry out ``superbit sweep`` and return its exit status."""
    _check_options(arguments)
    request = SweepRequest(
        upstreams=tuple(split(arguments.upstreams, option="--upstreams")),
        tasks=tuple(split(arguments.tasks, option="--tasks")),
        scale=arguments.scale,
        seed=arguments.seed,
        learning_rate=arguments.lr,
        overrides=arguments.overrides,
        limit=arguments.limit,
    )
    _make_results_folder(arguments.results)
    reporter, store = Reporter(), ResultStore(arguments.results)
    paths = load_paths(arguments.paths)
    plan = make_plan(request, store=store, paths=paths, reporter=reporter)
    for line in plan_lines(plan):
        print(line)
    if arguments.dry_run:
        return 0
    device = _device(arguments.device)

    from superbit.benchmark.runner import RunContext

    with _stop_on_interrupt(reporter) as stop:
        context = RunContext(store=store, paths=paths, device=device, stop=stop)
        outcome = carry_out(
            plan,
            context=context,
            reporter=reporter,
            jobs=arguments.jobs,
            threads=_threads(arguments.jobs),
        )
    return _report(outcome, store)


def _check_options(arguments: argparse.Namespace) -> None:
    for name, least in (("limit", 1), ("jobs", 1), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise InputError(f"--{name}: {value} must be at least {least}.")
    rate = arguments.lr
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise InputError(f"--lr: {rate} must be a number above 0.")


def _make_results_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"--results: {folder} cannot be written to ({error.strerror}): give a folder that can."
        ) from error


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
        what = f"{record.identity.task}{fold} × {record.identity.upstream}"
        print(f"failed: {what}: {record.reason}")
    if outcome.left:
        return 130
    return 1 if outcome.failed else 0
