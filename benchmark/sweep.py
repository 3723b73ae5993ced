"""A sweep: every asked-for pair of upstream and task, planned first, then run one by one.

What is done already is reused; what failed or was cut short is run again; one failure does not
stop the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from superbit.benchmark.checkpoints import CHECKPOINT, run_folder
from superbit.benchmark.configs import Scale, resolve, total_steps
from superbit.benchmark.corpora.manifest import Manifest, build_manifest
from superbit.benchmark.corpora.paths import CorpusPaths
from superbit.benchmark.progress import Reporter
from superbit.benchmark.results import ResultStore, RunIdentity, RunRecord
from superbit.benchmark.tasks import TaskSpec, find_task
from superbit.upstreams.errors import InputError

if TYPE_CHECKING:
    from superbit.benchmark.features.preparing import FeaturePlan
    from superbit.benchmark.runner import RunContext
    from superbit.upstreams.registry import LoadedUpstream

State = Literal["done", "to do", "failed before", "unfinished"]


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What the user asked for.

    Attributes:
        upstreams: upstream specs.
        tasks: task names.
        scale: protocol of the benchmark, or the small one.
        seed: of every run.
        learning_rate: in place of each config's.
        overrides: a YAML file of config overrides, laid out like ``embedded.yaml``.
        limit: at most so many steps and evaluation batches; such runs enter no table.
    """

    upstreams: tuple[str, ...]
    tasks: tuple[str, ...]
    scale: Scale
    seed: int = 1337
    learning_rate: float | None = None
    overrides: Path | None = None
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a plan, and whether anything has to be done for it."""

    identity: RunIdentity
    state: State

    @property
    def label(self) -> str:
        """E.g. ``KS × vanilla_nano+untrained``."""
        fold = "" if self.identity.fold is None else f" fold {self.identity.fold}"
        return f"{self.identity.task}{fold} × {self.identity.upstream}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs of a sweep in order, and what they need in memory."""

    runs: tuple[PlannedRun, ...]
    upstreams: dict[str, LoadedUpstream]
    manifests: dict[str, Manifest]


@dataclass
class Outcome:
    """What a sweep came to."""

    done: list[RunRecord] = field(default_factory=list)
    reused: list[PlannedRun] = field(default_factory=list)
    failed: list[RunRecord] = field(default_factory=list)
    left: list[PlannedRun] = field(default_factory=list)


def make_plan(
    request: SweepRequest, *, store: ResultStore, paths: CorpusPaths, reporter: Reporter
) -> Plan:
    """Resolve every name, config, corpus and upstream, so that mistakes show before any run.

    Raises:
        InputError: an unknown upstream, task or key; a corpus that is missing or broken.
    """
    from superbit.upstreams.registry import load_upstream

    tasks = list({task.name: task for task in map(find_task, request.tasks)}.values())
    configs = {
        task.name: resolve(
            task.name,
            scale=request.scale,
            overrides=request.overrides,
            learning_rate=request.learning_rate,
            limit=request.limit,
        )
        for task in tasks
    }
    manifests = {
        corpus: _manifest(corpus, paths=paths, store=store, reporter=reporter, batch_size=size)
        for corpus, size in _batch_sizes(tasks, configs).items()
    }
    with reporter.quiet():
        upstreams = {name: load_upstream(name) for name in dict.fromkeys(request.upstreams)}
    _refuse_twice(upstreams)
    runs = [
        _planned(
            upstream,
            task,
            fold=fold,
            request=request,
            config=configs[task.name],
            manifest=manifests[task.corpus],
            store=store,
        )
        for task in tasks
        for upstream in upstreams.values()
        for fold in (range(1, task.folds + 1) if task.folds else [None])
    ]
    by_spec = {str(upstream.spec): upstream for upstream in upstreams.values()}
    return Plan(runs=tuple(runs), upstreams=by_spec, manifests=manifests)


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
    outcome = Outcome(reused=[planned for planned in plan.runs if planned.state == "done"])
    waiting = [planned for planned in plan.runs if planned.state != "done"]
    if features is not None and waiting:
        prepared = _prepared(features, plan, context, reporter, processes=jobs * threads)
        if prepared is None:
            outcome.left = waiting
            return outcome
        context = prepared
    # One stands for a run without training, so that it counts in the time left.
    steps = [max(1, total_steps(planned.identity.config)) for planned in waiting]
    work = launchers.jobs_of([planned.identity for planned in waiting], manifests=plan.manifests)
    ended = set()
    with reporter.runs(labels=[planned.label for planned in waiting], steps=steps) as progress:
        if jobs > 1 and len(work) > 1:
            records = launchers.in_processes(
                work, count=jobs, threads=threads, context=context, progress=progress
            )
        else:
            records = launchers.in_this_process(
                work, upstreams=plan.upstreams, context=context, progress=progress
            )
        for index, record in records:
            if record is not None:
                ended.add(index)
                (outcome.done if record.status == "done" else outcome.failed).append(record)
                progress.finish(index, _result_line(record))
    outcome.left = [planned for index, planned in enumerate(waiting) if index not in ended]
    return outcome


def _prepared(
    features: FeaturePlan, plan: Plan, context: RunContext, reporter: Reporter, *, processes: int
) -> RunContext | None:
    """Extract features; return the context with leave to read them, or ``None`` if stopped."""
    from superbit.benchmark.features.preparing import prepare
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


def _planned(
    upstream: LoadedUpstream,
    task: TaskSpec,
    *,
    fold: int | None,
    request: SweepRequest,
    config: dict[str, Any],
    manifest: Manifest,
    store: ResultStore,
) -> PlannedRun:
    identity = RunIdentity(
        upstream=str(upstream.spec),
        weights_sha256=upstream.weights_sha256,
        upstream_revision=upstream.entry.revision,
        task=task.name,
        task_revision=task.revision,
        config=config,
        corpus_sha256=manifest.sha256,
        learning_rate=config["optimizer"]["lr"] if "optimizer" in config else None,
        seed=request.seed,
        fold=fold,
    )
    return PlannedRun(identity=identity, state=_state(identity, store))


def _state(identity: RunIdentity, store: ResultStore) -> State:
    if store.find(identity) is not None:
        return "done"
    if store.path(identity).exists():
        return "failed before"
    checkpoint = run_folder(store.root, identity.key) / CHECKPOINT
    return "unfinished" if checkpoint.exists() else "to do"


def _batch_sizes(tasks: list[TaskSpec], configs: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The largest training batch that any of the tasks takes from each corpus."""
    from superbit.benchmark.bindings import BINDINGS

    sizes: dict[str, int] = {}
    for task in tasks:
        size: Any = configs[task.name]["downstream_expert"]
        for key in BINDINGS[task.name].batch:
            size = size[key]
        sizes[task.corpus] = max(sizes.get(task.corpus, 0), size)
    return sizes


def _manifest(
    corpus: str, *, paths: CorpusPaths, store: ResultStore, reporter: Reporter, batch_size: int
) -> Manifest:
    from superbit.benchmark.corpora import catalog

    checked = catalog.find(corpus).check(paths.section(corpus), batch_size=batch_size)
    checked.raise_for_problems()
    with reporter.counting(f"reading {corpus}") as on_progress:
        return build_manifest(corpus, paths, work_dir=store.root / "work", on_progress=on_progress)


def _refuse_twice(upstreams: dict[str, LoadedUpstream]) -> None:
    seen: dict[str, str] = {}
    for given, upstream in upstreams.items():
        canonical = str(upstream.spec)
        if canonical in seen:
            raise InputError(
                f"--upstreams: {seen[canonical]!r} and {given!r} are both {canonical!r}; "
                "name it once."
            )
        seen[canonical] = given


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan as text: one line a run, then what it adds up to."""
    width = max(len(planned.label) for planned in plan.runs)
    for planned in plan.runs:
        config = planned.identity.config
        yield (
            f"{planned.label:<{width}}  {total_steps(config):>7,} steps  "
            f"lr {_rate(planned.identity.learning_rate):<7}  {planned.state}"
        )
    waiting = sum(planned.state != "done" for planned in plan.runs)
    yield f"{len(plan.runs)} runs: {waiting} to run, {len(plan.runs) - waiting} done before."


def _rate(learning_rate: float | None) -> str:
    return "none" if learning_rate is None else f"{learning_rate:g}"


def split_list(text: str, *, option: str) -> Sequence[str]:
    """Split a comma-separated option.

    Raises:
        InputError: nothing is left.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError(f"{option}: name at least one.")
    return parts
