"""A sweep's features: extracted as planned before its runs, opened by each of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from superbit.benchmark.features.cache import CacheSettings
from superbit.benchmark.features.demand import Kind
from superbit.benchmark.features.extraction import Shape, extract, is_over_budget
from superbit.benchmark.features.planning import Cost, Need
from superbit.benchmark.features.preparing import FeaturePlan
from superbit.benchmark.features.source import FeatureSource, UpstreamFeatures
from superbit.benchmark.features.store import CacheError
from superbit.benchmark.features.waves import KnownFiles
from superbit.benchmark.features.workers import Workers
from superbit.benchmark.progress import Reporter
from superbit.benchmark.training_state import InterruptedRun
from superbit.upstreams.registry import LoadedUpstream

# Below so much work for one core, starting other processes takes longer than it saves.
_SECONDS_WORTH_PROCESSES = 20.0


@dataclass(frozen=True, kw_only=True)
class FeatureUse:
    """Leave for the runs of one task to read one upstream's features."""

    settings: CacheSettings
    kind: Kind
    cost: Cost

    def open(
        self, upstream: LoadedUpstream, *, work_dir: Path, device: str
    ) -> Callable[[nn.Module, float], FeatureSource]:
        """Return what :class:`Experiment` asks for its source of features."""

        def source(expert: nn.Module, rate: float) -> FeatureSource:
            return FeatureSource(
                self.settings.store(upstream, self.kind),
                files=KnownFiles(work_dir),
                upstream=UpstreamFeatures(
                    expert, rate=rate, pooled=self.kind == "pooled", device=device
                ),
                zeros_follow=self.cost.zeros_follow,
                alone=not self.cost.invariant,
            )

        return source

    def describe(self, source: FeatureSource) -> dict[str, Any]:
        """Return what a record says of the features it was made of."""
        deviation = self.cost.deviation
        return {
            "kind": self.kind,
            "precision": self.settings.dtype(self.kind),
            "stored": source.stored,
            "live": source.live,
            "damaged": source.damaged,
            # JSON has no infinity
            "deviation": str(deviation) if deviation == float("inf") else deviation,
            **({"zeros_follow": True} if self.cost.zeros_follow else {}),
        }


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
    workers = Workers(processes) if _worth_processes(plan, device, processes) else None
    try:
        return _Extraction(
            plan=plan,
            upstreams=upstreams,
            reporter=reporter,
            device=device,
            workers=workers,
            stop=stop,
        ).run()
    finally:
        if workers is not None:
            workers.close()


def _worth_processes(plan: FeaturePlan, device: str, processes: int) -> bool:
    hours = sum(decision.extraction for decision in plan.decisions if decision.store)
    return processes > 1 and device == "cpu" and hours * 3600 > _SECONDS_WORTH_PROCESSES


@dataclass(frozen=True, kw_only=True)
class _Extraction:
    """What :func:`prepare` does, with the processes that do it."""

    plan: FeaturePlan
    upstreams: dict[str, LoadedUpstream]
    reporter: Reporter
    device: str
    workers: Workers | None
    stop: Callable[[], bool]

    def run(self) -> dict[tuple[str, str], FeatureUse]:
        # Tasks together, so that all processes are busy but at an upstream's end, and one upstream
        # after the other: a process has one of them.
        groups: dict[tuple[str, Kind], list[Need]] = {
            (name, kind): [] for name in self.upstreams for kind in ("pooled", "frames")
        }
        for decision in self.plan.decisions:
            if decision.store:
                groups[decision.need.upstream, decision.need.kind].append(decision.need)
        return {
            (need.upstream, need.task): FeatureUse(
                settings=self.plan.settings, kind=need.kind, cost=self.plan.costs[need.upstream]
            )
            for needs in filter(None, groups.values())
            for need in self._extracted(needs)
        }

    def _extracted(self, needs: list[Need]) -> list[Need]:
        """Extract what these tasks need, one by one where that fails; return which have it."""
        try:
            self._extract(needs)
        except (CacheError, InterruptedRun):
            raise
        except Exception as error:
            if len(needs) > 1:
                return [need for each in needs for need in self._extracted([each])]
            reason = " ".join(str(error).split()) or type(error).__name__
            what = f"{needs[0].task} × {needs[0].upstream}"
            self.reporter.line(f"{what}: no features are stored: {reason}")
            return []
        return needs

    def _extract(self, needs: list[Need]) -> None:
        """Extract what several tasks need of one kind of one upstream's features."""
        name, kind = needs[0].upstream, needs[0].kind
        upstream, cost = self.upstreams[name], self.plan.costs[name]
        demands = [self.plan.demands[name, need.task] for need in needs]
        waves = {key: wave for demand in demands for key, wave in demand.waves.items()}
        of_tasks = ", ".join(need.task for need in needs)
        with torch.random.fork_rng(devices=[]):
            extract(
                list(waves.values()),
                upstream=upstream,
                kind=kind,
                shape=Shape(layers=cost.layers, dim=cost.dim, rate=cost.rate),
                settings=self.plan.settings,
                invariant=cost.invariant,
                # What was registered in this process is unknown to others.
                workers=self.workers if upstream.entry.origin != "registered" else None,
                device=self.device,
                stop=self.stop,
                on_progress=_Pace(self.reporter, f"features of {name} for {of_tasks}").show,
            )
        if is_over_budget(self.plan.settings):
            store = self.plan.settings.store(upstream, kind)
            lacking = sum(key not in store for key in waves)
            if lacking:
                self.reporter.line(
                    f"features of {name} for {of_tasks}: the cache is full by now (another sweep "
                    f"may fill it as well): {lacking:,} of {len(waves):,} waveforms stay live; a "
                    "larger --cache-budget would hold them."
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
        left = max(0.0, total - done) / pace
        self._reporter.line(
            f"{self._what}: {done / 3600:.2f} of {total / 3600:.2f} h of audio, {pace:,.0f} h an "
            f"hour, about {left / 60:.0f} min left"
        )
