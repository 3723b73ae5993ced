"""A sweep's plan: every run that is asked for, resolved and checked before the first one starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from superbit.benchmark.corpora.manifest import CorpusManifest, build_manifest
from superbit.benchmark.corpora.paths import CorpusPaths
from superbit.benchmark.progress import Reporter
from superbit.benchmark.records import rate_search
from superbit.benchmark.records.schema import UNKNOWN, RunIdentity
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.running.checkpoints import CHECKPOINT, run_folder
from superbit.benchmark.running.doing import Died, doing, watch_now
from superbit.benchmark.tasks.catalog import find_task
from superbit.benchmark.tasks.configs import Scale, rates_to_search, resolve, total_steps
from superbit.benchmark.tasks.task import Task
from superbit.upstreams import stopping
from superbit.upstreams.errors import BrokenUpstream, InputError
from superbit.upstreams.spec import UpstreamSpec, typed

if TYPE_CHECKING:
    from superbit.benchmark.running.record import Job
    from superbit.upstreams.registry import LoadedUpstream

State = Literal["done", "diverged", "to do", "failed before", "unfinished", "cannot run"]


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What the user asked for.

    Attributes:
        upstreams: upstream specs.
        tasks: task names.
        scale: protocol of the benchmark, or the small one.
        seeds: each asked-for run is made with each of them.
        learning_rates: in place of each config's; several are searched. ``"search"`` takes each
            task's own list.
        overrides: a YAML file of config overrides, laid out like ``embedded.yaml``.
        limit: at most so many steps and evaluation batches; such runs enter no table.
        only: of all that is asked for, the runs whose folders have these names; empty for all.
    """

    upstreams: tuple[str, ...]
    tasks: tuple[str, ...]
    scale: Scale
    seeds: tuple[int, ...] = (1337,)
    learning_rates: tuple[float, ...] | Literal["search"] = ()
    overrides: Path | None = None
    limit: int | None = None
    only: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a plan, or the candidates of one search side by side, by falling rate.

    Attributes:
        identities: one for each learning rate.
        states: whether anything has to be done for each.
        one_of_seeds: the plan holds the same run with other seeds.
    """

    identities: tuple[RunIdentity, ...]
    states: tuple[State, ...]
    one_of_seeds: bool = False

    @property
    def first(self) -> RunIdentity:
        """Stands for all in what they share."""
        return self.identities[0]

    @property
    def waiting(self) -> tuple[RunIdentity, ...]:
        """Those that have to be run; a training that diverged would diverge again."""
        return tuple(
            identity
            for identity, state in zip(self.identities, self.states, strict=True)
            if state not in ("done", "diverged")
        )

    @property
    def label(self) -> str:
        """E.g. ``KS × bq_vanilla_nano``: the upstream as people type it."""
        fold = "" if self.first.fold is None else f" fold {self.first.fold}"
        seed = f" seed {self.first.seed}" if self.one_of_seeds else ""
        return f"{self.first.task}{fold} × {typed(self.first.upstream)}{seed}"

    @property
    def folder(self) -> str:
        """The name of its folder while it is unfinished, whatever of it is done by now."""
        from superbit.benchmark.running.record import key_of

        return run_folder(Path(), key_of(self.identities)).name

    def job(self, manifests: dict[str, CorpusManifest]) -> Job:
        """Return what has to be done, with what a process of its own needs for it."""
        from superbit.benchmark.running.record import Job

        return Job(
            label=self.label,
            identities=self.waiting,
            manifest=manifests[find_task(self.first.task).corpus],
            searched=self.identities if len(self.identities) > 1 else (),
        )


@dataclass(frozen=True, kw_only=True)
class Unbuilt:
    """An upstream that cannot be built, and why."""

    spec: UpstreamSpec
    error: BaseException


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs of a sweep in order, and what they need in memory.

    Attributes:
        failures: by upstream, why none of its runs can be carried out.
    """

    runs: tuple[PlannedRun, ...]
    upstreams: dict[str, LoadedUpstream]
    manifests: dict[str, CorpusManifest]
    failures: dict[str, BaseException] = field(default_factory=dict)

    @property
    def waiting(self) -> list[PlannedRun]:
        """Those for which anything has to be done."""
        return [planned for planned in self.runs if planned.waiting]

    @property
    def searches(self) -> list[rate_search.DeclaredSearch]:
        """The searches over learning rates, one for all folds of a task."""
        found = [
            rate_search.declared_by(p.identities)
            for p in self.runs
            if len(p.identities) > 1 and p.first.weights_sha256 != UNKNOWN
        ]
        return list({declared.key: declared for declared in found}.values())


def make_plan(
    request: SweepRequest, *, store: ResultStore, paths: CorpusPaths, reporter: Reporter
) -> Plan:
    """Resolve every name, config, corpus and upstream, so that mistakes show before any run.

    Raises:
        InputError: an unknown upstream, task or key; a corpus that is missing or broken; no
            upstream can be built.
    """
    from superbit.upstreams.contract.blame import blamed

    tasks = list({task.name: task for task in map(find_task, request.tasks)}.values())
    configs = {task.name: _configs(task, request) for task in tasks}
    seeds = {name: _seeds(request, several[0]) for name, several in configs.items()}
    sizes = _batch_sizes(tasks, {name: several[0] for name, several in configs.items()})
    manifests = {
        corpus: _manifest(corpus, paths=paths, store=store, reporter=reporter, batch_size=size)
        for corpus, size in sizes.items()
    }
    upstreams = load_each(request.upstreams, reporter=reporter)
    runs = []
    for task in tasks:
        for name, seed, fold in product(
            upstreams, seeds[task.name], range(1, task.folds + 1) if task.folds else [None]
        ):
            asked: dict[str, Any] = {
                "fold": fold,
                "seed": seed,
                "one_of_seeds": len(seeds[task.name]) > 1,
                "configs": configs[task.name],
                "manifest": manifests[task.corpus],
            }
            upstream = upstreams[name]
            if not isinstance(upstream, Unbuilt):
                try:
                    with doing("trying", str(upstream.spec)):
                        run = _run(task, upstream=_known(upstream), **asked)
                    key = run.job(manifests).key
                    states = tuple(_state(each, store, key=key) for each in run.identities)
                    runs.append(replace(run, states=states))
                    continue
                except stopping.RAISED as error:
                    stopping.raise_if_users(error)
                    if _is_the_users(error):
                        raise
                    reason = blamed(error, upstream.expert, spec=upstream.spec.typed)
                    upstream = upstreams[name] = Unbuilt(spec=upstream.spec, error=reason)
            # It can only be recorded as failed.
            run = _run(task, upstream=_unknown(upstream), **asked)
            never: tuple[State, ...] = tuple("cannot run" for _ in run.identities)
            runs.append(replace(run, states=never))
    if request.only:
        runs = _only(request.only, runs)
    by_spec = {str(upstream.spec): upstream for upstream in upstreams.values()}
    return Plan(
        runs=tuple(runs),
        upstreams={s: each for s, each in by_spec.items() if not isinstance(each, Unbuilt)},
        manifests=manifests,
        failures={s: each.error for s, each in by_spec.items() if isinstance(each, Unbuilt)},
    )


def _only(names: Sequence[str], runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    found = {planned.folder: planned for planned in runs}
    for name in names:
        if name not in found:
            raise InputError(
                f"--only: {name!r} is no run of this plan: the upstream, the config or the corpus "
                "is another now, or the name is; plan the sweep again."
            )
    return [found[name] for name in names]


def load_each(specs: Sequence[str], *, reporter: Reporter) -> dict[str, LoadedUpstream | Unbuilt]:
    """Build every upstream, or find out why one cannot be; by what the user wrote.

    Raises:
        InputError: a name that nobody knows, a file that is not there, one upstream named twice;
            or none of them can be built.
    """
    found: dict[str, LoadedUpstream | Unbuilt] = {}
    with reporter.quiet():
        for spec in dict.fromkeys(specs):
            found[spec] = _load(spec)
    _refuse_twice(found)
    broken = [each.error for each in found.values() if isinstance(each, Unbuilt)]
    if len(broken) == len(found) and all(map(_is_a_sentence, broken)):
        raise InputError(" ".join(map(str, broken))) from broken[0]
    return found


def _is_a_sentence(error: BaseException) -> bool:
    """Whether it is told by what it says, not by records: nothing was begun."""
    return isinstance(error, InputError) and not isinstance(error, Died)


def _is_the_users(error: BaseException) -> bool:
    """Whether the command line is wrong, not what one upstream is made of."""
    return isinstance(error, InputError) and not isinstance(error, BrokenUpstream)


def _load(text: str) -> LoadedUpstream | Unbuilt:
    from superbit.upstreams.contract.blame import blamed
    from superbit.upstreams.registry import load, load_upstream

    spec = UpstreamSpec.parse(text).normalized()
    died = watch_now().lost_upstreams().get(str(spec))
    if died is not None:
        return Unbuilt(spec=spec, error=died)
    try:
        with doing("building", str(spec), label=spec.typed):
            return load_upstream(text)
    except stopping.RAISED as error:
        stopping.raise_if_users(error)
        if _is_the_users(error):
            raise
        reason: BaseException = error
        if not isinstance(error, InputError):  # it was built, and fails when it is looked at
            try:
                reason = blamed(error, load(text), spec=spec.typed)
            except stopping.RAISED as raised:
                stopping.raise_if_users(raised)
        return Unbuilt(spec=spec, error=reason)


def _seeds(request: SweepRequest, config: dict[str, Any]) -> tuple[int, ...]:
    """Without a head nothing is drawn, and one run is every seed's."""
    seeds = tuple(dict.fromkeys(request.seeds))
    return seeds if "optimizer" in config else seeds[:1]


def _configs(task: Task, request: SweepRequest) -> list[dict[str, Any]]:
    """One resolved config for each learning rate."""
    if request.learning_rates == "search":
        rates = rates_to_search(task.name, scale=request.scale, overrides=request.overrides)
    else:
        rates = sorted(set(request.learning_rates), reverse=True)
    each_rate: list[float | None] = [*rates] or [None]
    configs = [
        resolve(
            task.name,
            scale=request.scale,
            overrides=request.overrides,
            learning_rate=rate,
            limit=request.limit,
        )
        for rate in each_rate
    ]
    # A task without a head trains nothing, whatever the rate.
    return configs if "optimizer" in configs[0] else configs[:1]


def _run(
    task: Task,
    *,
    fold: int | None,
    seed: int,
    one_of_seeds: bool,
    configs: list[dict[str, Any]],
    manifest: CorpusManifest,
    upstream: dict[str, Any],
) -> PlannedRun:
    """A run of which nobody has looked yet whether it was done.

    Args:
        upstream: what its identity says of the upstream.
    """
    identities = tuple(
        RunIdentity(
            **upstream,
            task=task.name,
            task_revision=task.revision,
            config=config,
            corpus_sha256=manifest.sha256,
            learning_rate=config["optimizer"]["lr"] if "optimizer" in config else None,
            seed=seed,
            fold=fold,
        )
        for config in configs
    )
    unknown: tuple[State, ...] = tuple("to do" for _ in identities)
    return PlannedRun(identities=identities, states=unknown, one_of_seeds=one_of_seeds)


def _known(upstream: LoadedUpstream) -> dict[str, Any]:
    """What a run's identity says of an upstream."""
    return {
        "upstream": str(upstream.spec),
        "weights_sha256": upstream.weights_sha256,
        "upstream_revision": upstream.entry.revision,
        **upstream.further.fields(),
    }


def _unknown(upstream: Unbuilt) -> dict[str, Any]:
    """The same of one that cannot be built: only its name."""
    return {
        "upstream": str(upstream.spec),
        "weights_sha256": UNKNOWN,
        "upstream_revision": UNKNOWN,
    }


def _state(identity: RunIdentity, store: ResultStore, *, key: str) -> State:
    ended = store.ended(identity)
    if ended is not None:
        return "done" if ended.status == "done" else "diverged"
    if store.holds(identity):
        return "failed before"
    checkpoint = run_folder(store.root, key) / CHECKPOINT
    return "unfinished" if checkpoint.exists() else "to do"


def _batch_sizes(tasks: list[Task], configs: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The largest training batch that any of the tasks takes from each corpus."""
    sizes: dict[str, int] = {}
    for task in tasks:
        size = task.binding.batch_size(configs[task.name]["downstream_expert"])
        sizes[task.corpus] = max(sizes.get(task.corpus, 0), size)
    return sizes


def _manifest(
    corpus: str, *, paths: CorpusPaths, store: ResultStore, reporter: Reporter, batch_size: int
) -> CorpusManifest:
    from superbit.benchmark.corpora import catalog

    checked = catalog.find(corpus).check(paths.section(corpus), batch_size=batch_size)
    checked.raise_for_problems()
    with reporter.counting(f"reading {corpus}") as on_progress:
        return build_manifest(corpus, paths, work_dir=store.root / "work", on_progress=on_progress)


def _refuse_twice(upstreams: dict[str, LoadedUpstream | Unbuilt]) -> None:
    seen: dict[str, str] = {}
    for given, upstream in upstreams.items():
        canonical = str(upstream.spec)
        if canonical in seen:
            raise InputError(
                f"--upstreams: {seen[canonical]!r} and {given!r} are both {upstream.spec.typed!r}; "
                "name it once."
            )
        seen[canonical] = given


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan as text: one line a run, then what it adds up to."""
    width = max(len(planned.label) for planned in plan.runs)
    rates = [", ".join(_rate(each.learning_rate) for each in p.identities) for p in plan.runs]
    for planned, text in zip(plan.runs, rates, strict=True):
        together = " side by side" if len(planned.identities) > 1 else ""
        yield (
            f"{planned.label:<{width}}  {total_steps(planned.first.config):>7,} steps  "
            f"lr {text + together:<{max(7, *map(len, rates))}}  {_states(planned)}"
        )
    states = Counter(state for planned in plan.runs for state in planned.states)
    count, done = sum(states.values()), states["done"] + states["diverged"]
    cannot = f", {states['cannot run']} that cannot run" if states["cannot run"] else ""
    runs = f"{count} run{'' if count == 1 else 's'}"
    to_run = count - done - states["cannot run"]
    yield f"{runs}: {to_run} to run, {done} done before{cannot}."


def _states(planned: PlannedRun) -> str:
    """The state, or how many candidates have which."""
    counts = Counter(planned.states)
    if len(counts) == 1:
        return planned.states[0]
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _rate(learning_rate: float | None) -> str:
    return "none (no training)" if learning_rate is None else f"{learning_rate:g}"


def split_list(text: str, *, option: str) -> Sequence[str]:
    """Split a comma-separated option.

    Raises:
        InputError: nothing is left.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError(f"{option}: name at least one.")
    return parts
