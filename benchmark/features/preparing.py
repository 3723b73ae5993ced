"""A sweep's features: planned from its runs, extracted before them, opened by each of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from superbit.benchmark.bindings import Places
from superbit.benchmark.corpora.paths import CorpusPaths
from superbit.benchmark.corpora.work import require_writable
from superbit.benchmark.features.cache import (
    TOLERANCE,
    CacheSettings,
    deviation_of,
)
from superbit.benchmark.features.demand import Demand, Lengths, find_demand, kind_of
from superbit.benchmark.features.extraction import (
    Shape,
    bytes_left,
    extract,
    measured_rate,
    refuse_small_budget,
)
from superbit.benchmark.features.planning import Cost, Decision, Need, decide, need_of
from superbit.benchmark.features.sizes import assumed_need, shared_once
from superbit.benchmark.features.source import FeatureSource, UpstreamFeatures
from superbit.benchmark.features.store import CacheError, whole_or_nothing
from superbit.benchmark.features.waves import SAMPLE_RATE, KnownFiles
from superbit.benchmark.progress import Reporter
from superbit.benchmark.results import RunIdentity
from superbit.benchmark.tasks import TASKS
from superbit.benchmark.training_state import InterruptedRun
from superbit.upstreams.registry import LoadedUpstream

# Below so much work for one core, starting other processes takes longer than it saves.
_SECONDS_WORTH_A_PROCESS = 30.0
_PROBE_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """What a sweep stores, and what each of its runs may then read."""

    settings: CacheSettings
    decisions: tuple[Decision, ...]
    costs: dict[str, Cost]
    demands: dict[tuple[str, str], Demand]


@dataclass(frozen=True, kw_only=True)
class FeatureUse:
    """Leave for the runs of one task to read one upstream's features."""

    settings: CacheSettings
    deviation: float

    def open(
        self, identity: RunIdentity, upstream: LoadedUpstream, *, work_dir: Path, device: str
    ) -> Callable[[nn.Module, float], FeatureSource]:
        """Return what :class:`Experiment` asks for its source of features."""

        def source(expert: nn.Module, rate: float) -> FeatureSource:
            kind = kind_of(identity.task, identity.config)
            return FeatureSource(
                self.settings.store(upstream, kind),
                files=KnownFiles(work_dir),
                upstream=UpstreamFeatures(
                    expert, rate=rate, pooled=kind == "pooled", device=device
                ),
            )

        return source

    def describe(self, identity: RunIdentity, source: FeatureSource) -> dict[str, Any]:
        """Return what a record says of the features it was made of."""
        kind = kind_of(identity.task, identity.config)
        return {
            "kind": kind,
            "precision": self.settings.dtype(kind),
            "stored": source.stored,
            "live": source.live,
            "damaged": source.damaged,
            # JSON has no infinity
            "deviation": str(self.deviation) if self.deviation == float("inf") else self.deviation,
        }


def plan_features(
    runs: Sequence[RunIdentity],
    *,
    upstreams: dict[str, LoadedUpstream],
    settings: CacheSettings,
    paths: CorpusPaths,
    work_dir: Path,
    reporter: Reporter,
) -> FeaturePlan:
    """Walk through the datasets of what has to be run, and decide what to store.

    Args:
        runs: of a sweep that are not done.

    Raises:
        InputError: the budget is below one shard, or the folder cannot be written to.
    """
    require_writable(
        settings.folder, option="--cache-dir", instead="give a folder that can, or say --no-cache"
    )
    refuse_small_budget(settings)
    folds = Counter((run.upstream, run.task) for run in runs)
    first = {(run.upstream, run.task): run for run in reversed(runs)}
    files, lengths = KnownFiles(work_dir), Lengths(settings.folder / "lengths.json")
    with reporter.quiet():
        costs = {
            name: cost_of(upstreams[name], settings)
            for name in dict.fromkeys(run.upstream for run in runs)
        }
    demands: dict[tuple[str, str], Demand] = {}
    walked: dict[tuple[str, float], Demand] = {}
    for (name, task), run in first.items():
        rate = costs[name].rate
        if (task, rate) not in walked:
            places = Places(paths=paths, work_dir=work_dir, fold=run.fold)
            with reporter.quiet():
                walked[task, rate] = find_demand(
                    task, run.config, places=places, files=files, rate=rate, lengths=lengths
                )
        demands[name, task] = walked[task, rate]
    with whole_or_nothing(settings.folder):
        lengths.save()
    needs, planned = [], set[tuple[str, str, str]]()
    for (name, task), demand in demands.items():
        store = settings.store(upstreams[name], demand.kind)
        absent = [wave for key, wave in demand.waves.items() if key not in store]
        new = [wave for wave in absent if (name, demand.kind, wave.key) not in planned]
        if costs[name].may_store:
            planned |= {(name, demand.kind, wave.key) for wave in new}
        needs.append(
            need_of(
                demand,
                upstream=name,
                audio=TASKS[task].corpus,
                runs=folds[name, task],
                present=len(demand.waves) - len(absent),
                missing=(len(new), sum(wave.seconds for wave in new)),
            )
        )
    decisions = _decide(needs, costs, settings)
    return FeaturePlan(settings=settings, decisions=decisions, costs=costs, demands=demands)


def plan_assumed(
    configs: dict[str, tuple[dict[str, Any], int]],
    *,
    upstreams: dict[str, LoadedUpstream],
    settings: CacheSettings,
) -> FeaturePlan:
    """Plan for SUPERB's corpora from their sizes alone.

    Args:
        configs: by task, its resolved config and how many runs make its number.
    """
    refuse_small_budget(settings)
    costs = {name: cost_of(upstream, settings) for name, upstream in upstreams.items()}
    needs = [
        assumed_need(task, config, upstream=name, runs=runs)
        for name in upstreams
        for task, (config, runs) in configs.items()
    ]
    decisions = _decide(shared_once(needs), costs, settings)
    return FeaturePlan(settings=settings, decisions=decisions, costs=costs, demands={})


def prepare(
    plan: FeaturePlan,
    *,
    upstreams: dict[str, LoadedUpstream],
    reporter: Reporter,
    device: str,
    processes: int,
    stop: Callable[[], bool],
) -> dict[tuple[str, str], FeatureUse]:
    """Extract what the plan stores; return what runs may read, by upstream and task.

    A forward pass that fails is no reason to stop: its runs stay live, and their records say why.

    Raises:
        CacheError: the disk is full, or the folder cannot be written to.
        InterruptedRun: ``stop`` said so; the next call continues.
    """
    uses = {}
    for decision in plan.decisions:
        need = decision.need
        if not decision.store:
            continue
        upstream, cost = upstreams[need.upstream], plan.costs[need.upstream]
        demand = plan.demands[need.upstream, need.task]
        alone = (
            decision.extraction * 3600 < _SECONDS_WORTH_A_PROCESS
            or device != "cpu"
            or upstream.entry.origin == "registered"
        )
        progress = _Pace(reporter, f"features of {need.upstream} for {need.task}")
        try:
            with torch.random.fork_rng(devices=[]):
                extract(
                    list(demand.waves.values()),
                    upstream=upstream,
                    kind=need.kind,
                    shape=Shape(layers=cost.layers, dim=cost.dim, rate=cost.rate),
                    settings=plan.settings,
                    invariant=cost.deviation <= TOLERANCE,
                    processes=1 if alone else processes,
                    device=device,
                    stop=stop,
                    on_progress=progress.show,
                )
        except (CacheError, InterruptedRun):
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            reporter.line(f"{need.task} × {need.upstream}: no features are stored: {reason}")
            continue
        uses[need.upstream, need.task] = FeatureUse(
            settings=plan.settings, deviation=cost.deviation
        )
    return uses


def cost_of(upstream: LoadedUpstream, settings: CacheSettings) -> Cost:
    """Measure what an upstream gives and takes; the global generators stay as they are."""
    from s3prl.upstream.interfaces import Featurizer

    expert = upstream.expert.eval()
    device = next((str(p.device) for p in expert.parameters()), "cpu")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        featurizer = Featurizer(expert, "hidden_states", upstream_device=device)
        noise = [0.1 * torch.randn(_PROBE_SECONDS * SAMPLE_RATE, device=device)]
        expert(noise)
        began = time.process_time()
        states = expert(noise)["hidden_states"]
        pace = (time.process_time() - began) / _PROBE_SECONDS
        deviation = deviation_of(upstream, featurizer.downsample_rate)
    measured = measured_rate(settings.upstream_folder(upstream))
    return Cost(
        layers=len(states) if isinstance(states, list | tuple | dict) else 1,
        dim=featurizer.output_dim,
        rate=featurizer.downsample_rate,
        pace=measured if measured is not None else pace,
        measured=measured is not None,
        deviation=deviation,
        may_store=deviation <= TOLERANCE or settings.any_upstream,
    )


def _decide(
    needs: Sequence[Need], costs: dict[str, Cost], settings: CacheSettings
) -> tuple[Decision, ...]:
    return tuple(
        decide(
            needs,
            costs,
            frame_bytes=2 if settings.precision == "float16" else 4,
            left=bytes_left(settings),
        )
    )


class _Pace:
    """Shows hours of audio done and how fast it goes, every ten seconds."""

    def __init__(self, reporter: Reporter, what: str) -> None:
        self._reporter, self._what = reporter, what
        self._began = self._last = time.monotonic()

    def show(self, done: float, total: float) -> None:
        """``done`` of ``total`` seconds of audio are stored."""
        now = time.monotonic()
        if now - self._last < 10.0 and done < total:
            return
        if now - self._began < 1.0:
            return
        self._last = now
        pace = done / (now - self._began)
        left = (total - done) / pace
        self._reporter.line(
            f"{self._what}: {done / 3600:.2f} of {total / 3600:.2f} h of audio, {pace:,.0f} h an "
            f"hour, about {left / 60:.0f} min left"
        )
