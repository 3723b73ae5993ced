"""``superbit sweep``: its options read, a sweep, and what is said of it."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from superbit.benchmark.cli.launching import (
    QUEUES,
    add_launcher,
    check_launcher,
    given_to_tasks,
    jobs_of,
    slurm_options,
)
from superbit.benchmark.cli.options import (
    add_cache_folder,
    add_results,
    add_stopping,
    add_trust,
    seconds,
)
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.spec import typed

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs
    from superbit.benchmark.features.extraction import Share
    from superbit.benchmark.features.store import CacheSettings
    from superbit.benchmark.records.store import ResultStore
    from superbit.benchmark.sweeping.launch import SweepOutcome
    from superbit.benchmark.sweeping.plan import SweepRequest


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("sweep", help="run tasks over upstreams; reuses what is done")
    verb.add_argument("--upstreams", required=True, metavar="SPEC,…")
    verb.add_argument("--tasks", required=True, metavar="TASK,…")
    verb.add_argument(
        "--scale",
        choices=["superb", "embedded"],
        required=True,
        help="the benchmark's protocol, or the small one",
    )
    verb.add_argument(
        "--paths",
        type=Path,
        metavar="FILE",
        help="where the corpora lie (downstream_configs/paths.example.yaml)",
    )
    verb.add_argument(
        "--overrides",
        type=Path,
        metavar="FILE",
        help="config overrides, laid out like embedded.yaml",
    )
    verb.add_argument(
        "--lr",
        metavar="RATE,…|search",
        help="in place of each task's own; several train side by side and the best on dev counts, "
        "search takes each task's list",
    )
    verb.add_argument(
        "--seed", default="1337", metavar="N,…", help="of the heads; with several, a run of each"
    )
    verb.add_argument("--device", default=None, help="cpu or cuda; cuda where there is one")
    verb.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time, each in a process with its share of the cores (default: 1)",
    )
    verb.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="at most N steps and evaluation batches; enters no table",
    )
    verb.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    verb.add_argument(
        "--only",
        metavar="RUN,…",
        help="of the plan, the runs whose folders in work/runs have these names",
    )
    verb.add_argument(
        "--features-only",
        type=_share,
        nargs="?",
        const="1/1",
        metavar="I/N",
        help="compute the features that the runs will read, or one of N shares of them, and stop",
    )
    add_launcher(verb)
    add_stopping(verb)
    add_trust(verb)
    verb.add_argument(
        "--run-timeout",
        type=seconds,
        metavar="TIME",
        help="end a run that takes longer, e.g. 30min or 6h, and record it as failed",
    )
    verb.add_argument(
        "--assume",
        choices=["superb-sizes"],
        help="with --dry-run: plan features for SUPERB's corpora without having them",
    )
    add_cache_folder(verb)
    verb.add_argument("--no-cache", action="store_true", help="run the upstream on every batch")
    verb.add_argument(
        "--cache-budget", metavar="SIZE", help="what the plan may fill of it, e.g. 200GB"
    )
    verb.add_argument(
        "--cache-precision",
        choices=["float16", "float32"],
        default="float16",
        help="of frames; means over time are float32 (default: float16)",
    )
    verb.add_argument(
        "--cache-any-upstream",
        action="store_true",
        help="also store features that depend on the batch; each is then computed alone",
    )
    add_results(verb)
    verb.set_defaults(verb=run, watched=True)


def run(arguments: argparse.Namespace) -> int:
    """Carry out ``superbit sweep`` and return its exit status."""
    from superbit.benchmark.progress import Reporter
    from superbit.benchmark.running.doing import watch_now
    from superbit.benchmark.sweeping.plan import SweepRequest, split_list
    from superbit.benchmark.sweeping.sweep import SweepPace, sweep

    _check_options(arguments)
    check_launcher(arguments)
    if arguments.assume is not None:
        return _plan_on_assumed_sizes(arguments)
    request = SweepRequest(
        upstreams=tuple(split_list(arguments.upstreams, option="--upstreams")),
        tasks=tuple(split_list(arguments.tasks, option="--tasks")),
        scale=arguments.scale,
        seeds=_seeds(arguments.seed),
        learning_rates=_rates(arguments.lr),
        overrides=arguments.overrides,
        limit=arguments.limit,
        only=() if arguments.only is None else tuple(split_list(arguments.only, option="--only")),
    )
    if arguments.launcher in QUEUES and not arguments.dry_run:
        return _by_queue(request, arguments)
    swept = sweep(
        request,
        paths=arguments.paths,
        results=arguments.results,
        storing=_settings(arguments),
        device=arguments.device,
        jobs=jobs_of(arguments),
        pace=SweepPace(
            checkpoint_minutes=arguments.checkpoint_minutes,
            max_hours=arguments.max_hours,
            run_timeout=arguments.run_timeout,
        ),
        dry_run=arguments.dry_run,
        share=_as_share(arguments.features_only),
        reporter=Reporter(),
        say=_nothing if watch_now().was_planned else print,
    )
    if swept.outcome is None:
        return _dry_report(swept.failures)
    if arguments.features_only is not None:
        return _features_report(swept.outcome)
    return _report(swept.outcome, swept.store)


def _by_queue(request: SweepRequest, arguments: argparse.Namespace) -> int:
    """Submit the sweep, and wait for it unless the user does not want to."""
    from superbit.benchmark.progress import Reporter
    from superbit.benchmark.sweeping.by_queue import sweep_by_queue

    swept = sweep_by_queue(
        request,
        paths=arguments.paths,
        results=arguments.results,
        storing=_settings(arguments),
        device=arguments.device,
        reporter=Reporter(),
        launcher=arguments.launcher,
        slurm=slurm_options(arguments),
        given=given_to_tasks(arguments),
        detach=arguments.detach,
        say=print,
    )
    assert swept.outcome is not None
    if arguments.detach:
        _say_failed(swept.outcome)
        return 1 if swept.outcome.failed else 0
    return _report(swept.outcome, swept.store)


def _nothing(_line: str) -> None:
    pass


def _dry_report(failures: Mapping[str, BaseException]) -> int:
    """Name the upstreams whose runs would all fail; return the exit status."""
    from superbit.upstreams.errors import one_line

    for name, error in failures.items():
        print(f"would fail: every run of {typed(name)}: {one_line(error)}")
    return 1 if failures else 0


def _settings(arguments: argparse.Namespace) -> CacheSettings | None:
    """What the user wants stored; ``None`` for nothing."""
    from superbit.benchmark.features.store import cache_settings

    return cache_settings(
        results=arguments.results,
        folder=arguments.cache_dir,
        none=arguments.no_cache,
        budget=arguments.cache_budget,
        precision=arguments.cache_precision,
        any_upstream=arguments.cache_any_upstream,
    )


def _plan_on_assumed_sizes(arguments: argparse.Namespace) -> int:
    """Print what features would take and save on SUPERB's corpora, which need not be there."""
    settings = _settings(arguments)
    if not arguments.dry_run or settings is None:
        raise InputError("--assume superb-sizes only plans: say --dry-run, without --no-cache.")
    from superbit.benchmark.features.planning import decision_lines, plan_assumed
    from superbit.benchmark.progress import Reporter
    from superbit.benchmark.sweeping.plan import Unbuilt, load_each, split_list
    from superbit.benchmark.tasks.catalog import find_task
    from superbit.benchmark.tasks.configs import resolve

    tasks = [find_task(name) for name in split_list(arguments.tasks, option="--tasks")]
    reporter = Reporter()
    named = load_each(split_list(arguments.upstreams, option="--upstreams"), reporter=reporter)
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
    _settings(arguments)
    _refuse_together("assume", arguments, "lr", "limit", "only", "features_only")
    _refuse_together("no_cache", arguments, "features_only")


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
    from superbit.benchmark.sweeping.plan import split_list

    parts = split_list(text, option="--seed")
    for part in parts:
        if not part.isdecimal():
            raise InputError(f"--seed: {part!r} must be a whole number, at least 0.")
    return tuple(map(int, parts))


def _rates(text: str | None) -> tuple[float, ...] | Literal["search"]:
    """Read ``--lr``: a rate, several, ``search``, or nothing."""
    from superbit.benchmark.sweeping.plan import split_list

    if text is None:
        return ()
    if text.strip().lower() == "search":
        return "search"
    rates = []
    for part in split_list(text, option="--lr"):
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


def _share(text: str) -> tuple[int, int]:
    """Read ``--features-only``: ``2/4`` is the second of four shares."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) <= 1000):
        raise argparse.ArgumentTypeError(f"{text!r} must be like 2/4, the second of four shares")
    return int(number) - 1, int(of)


def _as_share(asked: tuple[int, int] | None) -> Share | None:
    if asked is None:
        return None
    from superbit.benchmark.features.extraction import Share

    return Share(number=asked[0], of=asked[1])


def _features_report(outcome: SweepOutcome) -> int:
    _say_failed(outcome)
    if outcome.left:
        print("superbit: stopped; the same command continues.", file=sys.stderr)
        return 130
    return 1 if outcome.failed else 0


def _report(outcome: SweepOutcome, store: ResultStore) -> int:
    print(f"Results are in {store.root}: {len(outcome.done)} new, {len(outcome.reused)} reused.")
    for planned in outcome.left:
        print(f"not run: {planned.label}")
    if outcome.left:
        print("superbit: stopped; the same command continues.", file=sys.stderr)
    _say_failed(outcome)
    if outcome.left:
        return 130
    return 1 if outcome.failed else 0


def _say_failed(outcome: SweepOutcome) -> None:
    for record in outcome.failed:
        fold = "" if record.identity.fold is None else f" fold {record.identity.fold}"
        what = f"{record.identity.task}{fold} × {typed(record.identity.upstream)}"
        print(f"failed: {what}: {record.reason}")
