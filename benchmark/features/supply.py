"""A sweep's features: extracted as planned before an upstream's runs, opened by each of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from superbit.benchmark.features.costs import Cost
from superbit.benchmark.features.demand import Kind, Need
from superbit.benchmark.features.extraction import (
    WHOLE,
    Shape,
    Share,
    Workers,
    extract,
    is_over_budget,
)
from superbit.benchmark.features.planning import FeaturePlan
from superbit.benchmark.features.source import FeatureReader, UpstreamFeatures
from superbit.benchmark.features.store import CacheError, CacheSettings
from superbit.benchmark.features.waves import KnownFiles
from superbit.benchmark.running.candidate import InterruptedRun
from superbit.upstreams import stopping
from superbit.upstreams.errors import one_line
from superbit.upstreams.registry import LoadedUpstream
from superbit.upstreams.spec import typed

# Below so much work for one core, starting other processes takes longer than it saves.
_SECONDS_WORTH_PROCESSES = 20.0


@dataclass(frozen=True, kw_only=True)
class FeatureUse:
    """Permission for the runs of one task to read one upstream's features."""

    settings: CacheSettings
    kind: Kind
    cost: Cost

    def open(
        self, upstream: LoadedUpstream, *, work_dir: Path, device: str
    ) -> Callable[[nn.Module, float], FeatureReader]:
        """Return what :class:`Experiment` asks for its source of features."""

        def source(expert: nn.Module, rate: float) -> FeatureReader:
            return FeatureReader(
                self.settings.store(upstream, self.kind),
                files=KnownFiles(work_dir),
                upstream=UpstreamFeatures(
                    expert, rate=rate, pooled=self.kind == "pooled", device=device
                ),
                zeros_follow=self.cost.zeros_follow,
                alone=not self.cost.invariant,
            )

        return source

    def describe(self, source: FeatureReader) -> dict[str, Any]:
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


Uses = dict[tuple[str, str], FeatureUse]


class Supply:
    """Extracts what a plan stores, one upstream at a time, when its first run is about to begin.

    Args:
        say: writes a line for the user.
        processes: at most so many at a time, of one thread each.
        stop: true ends an extraction by ``InterruptedRun``; the next sweep continues it.
        share: of the audio.
    """

    def __init__(
        self,
        plan: FeaturePlan,
        *,
        upstreams: dict[str, LoadedUpstream],
        say: Callable[[str], None],
        device: str,
        processes: int,
        stop: Callable[[], bool],
        share: Share = WHOLE,
    ) -> None:
        self._share = share
        self._plan, self._upstreams, self._say = plan, upstreams, say
        self._device, self._processes, self._stop = device, processes, stop
        self._workers: Workers | None = None
        self._ready: dict[str, Uses] = {}

    def of(self, upstream: str) -> Uses:
        """Return what an upstream's runs may read, by upstream and task; extract it at first.

        What fails is no reason to stop: its runs stay live, and their records say why.

        Raises:
            InterruptedRun: ``stop`` said so.
        """
        if upstream not in self._ready:
            if self._worth_processes(upstream):
                self._workers = Workers(self._processes)
            try:
                self._ready[upstream] = self._prepared(upstream)
            finally:
                # Each holds the upstream, and its runs need the memory.
                if self._workers is not None:
                    self._workers.close()
                self._workers = None
        return self._ready[upstream]

    def is_ready(self, upstream: str) -> bool:
        """Whether :meth:`of` has its answer already."""
        return upstream in self._ready

    def _worth_processes(self, upstream: str) -> bool:
        hours = sum(
            decision.extraction
            for decision in self._plan.decisions
            if decision.store and decision.need.upstream == upstream
        )
        worth = hours * 3600 > _SECONDS_WORTH_PROCESSES
        return self._processes > 1 and self._device == "cpu" and worth

    def _prepared(self, upstream: str) -> Uses:
        # Tasks together, so that all processes are busy but at an upstream's end.
        groups: dict[Kind, list[Need]] = {"pooled": [], "frames": []}
        for decision in self._plan.decisions:
            if decision.store and decision.need.upstream == upstream:
                groups[decision.need.kind].append(decision.need)
        return {
            (need.upstream, need.task): FeatureUse(
                settings=self._plan.settings, kind=need.kind, cost=self._plan.costs[upstream]
            )
            for needs in filter(None, groups.values())
            for need in self._extracted(needs)
        }

    def _extracted(self, needs: list[Need]) -> list[Need]:
        """Extract what these tasks need, one by one where that fails; return which may read."""
        try:
            self._extract(needs)
        except InterruptedRun:
            raise
        except CacheError as error:
            # What is stored by now counts; a whole night of runs is worth more than the rest.
            of_tasks = ", ".join(need.task for need in needs)
            self._say(
                f"features of {typed(needs[0].upstream)} for {of_tasks}: what is not stored stays "
                f"live: {one_line(error)}"
            )
        except stopping.RAISED as error:
            stopping.raise_if_users(error)
            if len(needs) > 1:
                return [need for each in needs for need in self._extracted([each])]
            what = f"{needs[0].task} × {typed(needs[0].upstream)}"
            self._say(f"{what}: no features are stored: {one_line(error)}")
            return []
        return needs

    def _extract(self, needs: list[Need]) -> None:
        """Extract what several tasks need of one kind of one upstream's features."""
        name, kind = needs[0].upstream, needs[0].kind
        upstream, cost = self._upstreams[name], self._plan.costs[name]
        demands = [self._plan.demands[name, need.task] for need in needs]
        waves = {key: wave for demand in demands for key, wave in demand.waves.items()}
        of_tasks = ", ".join(need.task for need in needs)
        with torch.random.fork_rng(devices=[]):
            extract(
                list(waves.values()),
                upstream=upstream,
                kind=kind,
                shape=Shape(layers=cost.layers, dim=cost.dim, rate=cost.rate),
                settings=self._plan.settings,
                invariant=cost.invariant,
                # What was registered in this process is unknown to others.
                workers=self._workers if upstream.entry.origin != "registered" else None,
                device=self._device,
                share=self._share,
                stop=self._stop,
                on_progress=_Pace(self._say, f"features of {typed(name)} for {of_tasks}").show,
            )
        if is_over_budget(self._plan.settings):
            store = self._plan.settings.store(upstream, kind)
            lacking = sum(self._share.has(wave) and key not in store for key, wave in waves.items())
            if lacking:
                self._say(
                    f"features of {typed(name)} for {of_tasks}: the cache is full by now (another "
                    f"sweep may fill it as well): {lacking:,} of {len(waves):,} waveforms stay "
                    "live; a larger --cache-budget would hold them."
                )


class _Pace:
    """Shows hours of audio done and how fast it goes, every ten seconds."""

    def __init__(self, say: Callable[[str], None], what: str) -> None:
        self._say, self._what = say, what
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
        self._say(
            f"{self._what}: {done / 3600:.2f} of {total / 3600:.2f} h of audio, {pace:,.0f} h an "
            f"hour, about {left / 60:.0f} min left"
        )
