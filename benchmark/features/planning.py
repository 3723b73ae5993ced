"""A sweep's features planned from its runs: what is worth its bytes, what it takes and saves.

Times are of one core. A task's time with a store is extraction, once, and the upstream on what is
drawn at random; without one, the upstream on every draw. Heads cost the same either way:
``sweeping.estimate`` has them.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from superbit.benchmark.corpora.paths import CorpusPaths
from superbit.benchmark.features.costs import Cost, cost_of
from superbit.benchmark.features.demand import (
    Demand,
    KnownLengths,
    Need,
    assumed_need,
    find_demand,
    need_of,
    shared_once,
)
from superbit.benchmark.features.extraction import bytes_left, refuse_small_budget
from superbit.benchmark.features.store import CacheError, CacheSettings, said_of_cache, size_text
from superbit.benchmark.features.waves import SAMPLE_RATE, KnownFiles
from superbit.benchmark.progress import Reporter
from superbit.benchmark.records.schema import RunIdentity
from superbit.benchmark.running.doing import doing
from superbit.benchmark.tasks.binding import RunPlaces
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams import stopping
from superbit.upstreams.contract.blame import blamed
from superbit.upstreams.errors import InputError, one_line
from superbit.upstreams.files import require_writable
from superbit.upstreams.registry import LoadedUpstream
from superbit.upstreams.spec import typed


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether one task's features of one upstream are stored, and why.

    Attributes:
        bytes: to write.
        extraction: hours of one core to compute what is missing.
        live: hours of the upstream beside the store: what is drawn at random.
        without: hours of the upstream if nothing were stored.
    """

    need: Need
    store: bool
    why: str
    bytes: int
    extraction: float
    live: float
    without: float

    @property
    def saved(self) -> float:
        """Hours that the store saves."""
        return self.without - self.live - self.extraction


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
    files, lengths = KnownFiles(work_dir), KnownLengths(settings.folder / "lengths.json")
    asked_for = {name: upstreams[name] for name in dict.fromkeys(run.upstream for run in runs)}
    costs, failures = _costs(asked_for, settings, reporter)
    demands: dict[tuple[str, str], Demand] = {}
    unknown: dict[tuple[str, str], str] = {}
    walked: dict[tuple[str, float], Demand | str] = {}
    for (name, task), run in first.items():
        if name in failures:
            continue
        rate = costs[name].rate
        asked = task, rate if TASKS[task].audio.cuts_by_frames else 0.0
        if asked not in walked:
            places = RunPlaces(paths=paths, work_dir=work_dir, fold=run.fold)
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
                with doing("trying", name):
                    costs[name] = cost_of(upstream, settings)
            except stopping.RAISED as error:
                stopping.raise_if_users(error)
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


# --- what is worth its bytes ----------------------------------------------------------------------


def decide(
    needs: Sequence[Need], costs: dict[str, Cost], *, frame_bytes: int, left: int | None
) -> list[Decision]:
    """Choose by time saved per byte what fits into ``left`` bytes; the needs' order is kept.

    Needs that share their audio (PR and ASR) share one fate: whoever comes first computes for all.

    Args:
        frame_bytes: of one number of a frame store (2 or 4).
        left: what the budget leaves; ``None`` for no budget.
    """
    found = [_priced(need, costs[need.upstream], frame_bytes) for need in needs]
    groups: dict[tuple[str, str, str], list[int]] = {}
    for index, need in enumerate(needs):
        groups.setdefault((need.upstream, need.kind, need.audio), []).append(index)
    worth = {
        name: sum(found[index].saved for index in group)
        / max(1, sum(found[index].bytes for index in group))
        for name, group in groups.items()
    }
    for name in sorted(groups, key=lambda name: -worth[name]):
        members = [found[index] for index in groups[name]]
        refusal = _refusal(members, costs[name[0]], left)
        for index in groups[name]:
            why = refusal or _use(found[index])
            found[index] = replace(found[index], store=refusal is None, why=why)
        if left is not None and refusal is None:
            left -= sum(decision.bytes for decision in members)
    return found


def _priced(need: Need, cost: Cost, frame_bytes: int) -> Decision:
    waveforms, seconds = need.missing
    if need.kind == "pooled":
        size = waveforms * cost.layers * cost.dim * 4
    else:
        size = round(seconds * SAMPLE_RATE / cost.rate) * cost.layers * cost.dim * frame_bytes
    mean = need.seconds / need.waveforms if need.waveforms else 0.0
    live = need.training_draws * need.drawn_share * need.draw_seconds
    stored = need.training_draws * (1 - need.drawn_share) * need.draw_seconds
    stored += need.evaluation_draws * mean
    return Decision(
        need=need,
        store=True,
        why="",
        bytes=size,
        extraction=seconds * cost.pace / 3600,
        live=live * cost.pace / 3600,
        without=(live + stored) * cost.pace / 3600,
    )


def _refusal(group: Sequence[Decision], cost: Cost, left: int | None) -> str | None:
    """Why features that share their audio are not stored; ``None`` if they are."""
    if not cost.may_store:
        what = (
            "the number of an utterance's frames depends on its batch"
            if cost.deviation == float("inf")
            else f"an utterance's features depend on its batch ({deviation_text(cost.deviation)})"
        )
        return f"{what}; --cache-any-upstream stores them all the same"
    if not any(decision.need.waveforms for decision in group):
        return "no file of it is in the corpus's manifest"
    size = sum(decision.bytes for decision in group)
    if size == 0:
        return None
    if sum(decision.saved for decision in group) <= 0:
        return "the runs ask for fewer waveforms than a store would have to hold"
    if left is not None and size > left:
        return f"{size_text(size)} do not fit into the {size_text(left)} left"
    return None


def _use(decision: Decision) -> str:
    need = decision.need
    if not need.missing[0]:
        return "all is stored already"
    times = need.training_draws * (1 - need.drawn_share) + need.evaluation_draws
    return f"each waveform is used {times / need.waveforms:,.1f} times"


def decision_lines(
    decisions: Sequence[Decision],
    costs: Mapping[str, Cost],
    unknown: Mapping[tuple[str, str], str] | None = None,
) -> Iterator[str]:
    """The decisions as text: one line an upstream, one a task, what it adds up to.

    Args:
        unknown: by upstream and task, why nobody knows what the runs will ask for.
    """
    for upstream, cost in costs.items():
        pace = "measured at extraction" if cost.measured else "from two short passes"
        zeros = (
            "; a batch adds frames of zeros to an utterance's own: nothing leaks, and they are "
            "stored all the same"
            if cost.zeros_follow
            else ""
        )
        yield (
            f"features of {typed(upstream)}: {cost.layers} layers × {cost.dim}, {cost.rate:g} "
            f"samples a frame; 1 h of audio takes {hours_text(cost.pace)} on one core ({pace})"
            f"{zeros}"
        )
        for decision in decisions:
            if decision.need.upstream == upstream:
                yield "  " + _line(decision)
        for (name, task), why in (unknown or {}).items():
            if name == upstream:
                yield f"  {task:<4} live: its datasets cannot be walked through: {why}"
    stored = [d for d in decisions if d.store]
    without = sum(d.without for d in decisions)
    remaining = sum(d.extraction + d.live for d in stored) + sum(
        d.without for d in decisions if not d.store
    )
    yield (
        f"upstreams in all: {hours_text(remaining)} of one core instead of "
        f"{hours_text(without)}; {size_text(sum(d.bytes for d in stored))} to write"
    )


def _line(decision: Decision) -> str:
    need = decision.need
    if not decision.store:
        return (
            f"{need.task:<4} live: {decision.why}; {hours_text(decision.without)} of the upstream"
        )
    what = "mean over time" if need.kind == "pooled" else "all frames"
    crops = (
        f"; live: random crops of {need.drawn:,} files, {100 * need.drawn_share:.1f} % of "
        "training draws"
        if need.drawn or need.drawn_share
        else ""
    )
    return (
        f"{need.task:<4} stored: {what} of {need.waveforms:,} waveforms, "
        f"{need.seconds / 3600:.2f} h of audio ({need.missing[0]:,} to compute, "
        f"{size_text(decision.bytes)}){crops}; {hours_text(decision.extraction + decision.live)} "
        f"of the upstream instead of {hours_text(decision.without)}: {decision.why}"
    )


def deviation_text(deviation: float) -> str:
    """E.g. ``by 0.03 of the largest``."""
    return f"by {deviation:.1g} of the largest"


def hours_text(hours: float) -> str:
    """Hours where there are any, else minutes or seconds."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"
