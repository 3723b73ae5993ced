"""A sweep's features planned from its runs."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from superbit.benchmark.corpora.paths import CorpusPaths
from superbit.benchmark.features.cache import (
    TOLERANCE,
    CacheSettings,
    deviation_of,
)
from superbit.benchmark.features.decisions import (
    Cost,
    Decision,
    Need,
    assumed_need,
    decide,
    need_of,
    shared_once,
)
from superbit.benchmark.features.demand import Demand, Lengths, find_demand
from superbit.benchmark.features.extraction import (
    bytes_left,
    measured_rate,
    refuse_small_budget,
)
from superbit.benchmark.features.store import CacheError, said_of_cache
from superbit.benchmark.features.waves import SAMPLE_RATE, KnownFiles
from superbit.benchmark.progress import Reporter
from superbit.benchmark.records.schema import RunIdentity
from superbit.benchmark.tasks.bindings import Places
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.contract.blame import blamed, not_finite, require_frames, require_rate
from superbit.upstreams.errors import InputError, one_line
from superbit.upstreams.files import require_writable
from superbit.upstreams.registry import LoadedUpstream

_PROBE_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """What a sweep stores, and what each of its runs may then read.

    Attributes:
        failures: by upstream, what it raised when it was tried; none of its runs can be done.
        unknown: by upstream and task, why nobody knows what the runs will ask for: they are live.
    """

    settings: CacheSettings
    decisions: tuple[Decision, ...]
    costs: dict[str, Cost]
    demands: dict[tuple[str, str], Demand]
    failures: dict[str, BaseException] = field(default_factory=dict)
    unknown: dict[tuple[str, str], str] = field(default_factory=dict)


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

    An upstream that fails when it is tried, and a task whose datasets cannot be walked through,
    are noted, and the others go on.

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
    asked_for = {name: upstreams[name] for name in dict.fromkeys(run.upstream for run in runs)}
    costs, failures = _costs(asked_for, settings, reporter)
    demands: dict[tuple[str, str], Demand] = {}
    unknown: dict[tuple[str, str], str] = {}
    walked: dict[tuple[str, float], Demand | str] = {}
    for (name, task), run in first.items():
        if name in failures:
            continue
        rate = costs[name].rate
        asked = task, rate if TASKS[task].cuts_by_frames else 0.0
        if asked not in walked:
            places = Places(paths=paths, work_dir=work_dir, fold=run.fold)
            with reporter.quiet():
                walked[asked] = _walked(
                    task, run.config, places=places, files=files, rate=rate, lengths=lengths
                )
        demand = walked[asked]
        if isinstance(demand, str):
            unknown[name, task] = demand
        else:
            demands[name, task] = replace(demand, kind=costs[name].kind(demand.kind))
    # What is not remembered is measured again.
    with contextlib.suppress(CacheError), said_of_cache(settings.folder):
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
    return FeaturePlan(
        settings=settings,
        decisions=_decide(needs, costs, settings),
        costs=costs,
        demands=demands,
        failures=failures,
        unknown=unknown,
    )


def _costs(
    upstreams: dict[str, LoadedUpstream], settings: CacheSettings, reporter: Reporter
) -> tuple[dict[str, Cost], dict[str, BaseException]]:
    """What each upstream gives and takes; what those that fail raised."""
    costs: dict[str, Cost] = {}
    failures: dict[str, BaseException] = {}
    for name, upstream in upstreams.items():
        with reporter.quiet():
            try:
                costs[name] = cost_of(upstream, settings)
            except (Exception, SystemExit) as error:
                failures[name] = blamed(error, upstream.expert, spec=upstream.spec.typed)
    return costs, failures


def _walked(task: str, config: dict[str, Any], **how: Any) -> Demand | str:
    """What a task asks for, or why that cannot be told: then its runs say what is wrong.

    Raises:
        InputError: something the user gave is wrong, which shows before any run.
    """
    try:
        return find_demand(task, config, **how)
    except InputError:
        raise
    except Exception as error:
        return one_line(error)


def plan_assumed(
    configs: dict[str, tuple[dict[str, Any], int]],
    *,
    upstreams: dict[str, LoadedUpstream],
    settings: CacheSettings,
    reporter: Reporter,
) -> FeaturePlan:
    """Plan for SUPERB's corpora from their sizes alone.

    Args:
        configs: by task, its resolved config and how many runs make its number.
    """
    refuse_small_budget(settings)
    costs, failures = _costs(upstreams, settings, reporter)
    needs = [
        assumed_need(task, config, upstream=name, runs=runs)
        for name in costs
        for task, (config, runs) in configs.items()
    ]
    needs = [replace(need, kind=costs[need.upstream].kind(need.kind)) for need in needs]
    return FeaturePlan(
        settings=settings,
        decisions=_decide(shared_once(needs), costs, settings),
        costs=costs,
        demands={},
        failures=failures,
    )


def cost_of(upstream: LoadedUpstream, settings: CacheSettings) -> Cost:
    """Measure what an upstream gives and takes; the global generators stay as they are.

    Raises:
        BrokenContract: it gives no rate, another number of frames than s3prl accepts, or NaN.
    """
    from s3prl.upstream.interfaces import Featurizer

    require_rate(upstream.expert, spec=upstream.spec.typed)
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
        _require_sound(states, samples=len(noise[0]), rate=featurizer.downsample_rate)
        deviation, zeros_follow = deviation_of(upstream, featurizer.downsample_rate)
    measured = measured_rate(settings.upstream_folder(upstream))
    return Cost(
        layers=len(states) if isinstance(states, list | tuple | dict) else 1,
        dim=featurizer.output_dim,
        rate=featurizer.downsample_rate,
        pace=measured if measured is not None else pace,
        measured=measured is not None,
        deviation=deviation,
        may_store=deviation <= TOLERANCE or settings.any_upstream,
        zeros_follow=zeros_follow,
    )


def _require_sound(states: Any, *, samples: int, rate: float) -> None:
    layers = list(states.values()) if isinstance(states, dict) else states
    for layer in layers if isinstance(layers, list | tuple) else [layers]:
        require_frames(layer.shape[1], samples=samples, rate=rate)
        if not bool(layer.isfinite().all()):
            raise not_finite()


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
