"""What is worth its bytes: which features of a sweep to store, what that takes, what it saves.

Times are of one core. A task's time with a store is extraction, once, and the upstream on what is
drawn at random; without one, the upstream on every draw. Heads cost the same either way:
``estimating`` has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from superbit.benchmark.features.cache import TOLERANCE
from superbit.benchmark.features.demand import Demand, Kind, kind_of, splits_read, training_draws
from superbit.upstreams.sound import SAMPLE_RATE
from superbit.upstreams.spec import typed


@dataclass(frozen=True, kw_only=True)
class Need:
    """What all waiting runs of one task ask one upstream for, in numbers.

    Attributes:
        audio: names the audio; two needs of one name and kind share every waveform.
        waveforms: that can be stored, ``seconds`` of audio together.
        present: of those, already stored.
        missing: (waveforms, seconds) to compute, besides what an earlier need computes.
        drawn: files that are cropped at random; ``drawn_share`` of training draws.
        training_draws: of all runs; ``evaluation_draws`` likewise.
        draw_seconds: mean length of a training draw.
    """

    upstream: str
    task: str
    kind: Kind
    audio: str
    waveforms: int
    seconds: float
    present: int = 0
    missing: tuple[int, float] = (0, 0.0)
    drawn: int = 0
    drawn_share: float = 0.0
    training_draws: int = 0
    evaluation_draws: int = 0
    draw_seconds: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one upstream gives and takes.

    Attributes:
        layers: hidden states; each ``dim`` wide, ``rate`` samples a frame.
        pace: seconds of one core for a second of audio.
        measured: at an extraction; else by two short forward passes.
        deviation: between an utterance alone and in a batch, relative.
        may_store: its features are an utterance's own, or the user wants them all the same.
        zeros_follow: in a batch, frames of zeros follow an utterance's own.
    """

    layers: int
    dim: int
    rate: float
    pace: float
    measured: bool
    deviation: float
    may_store: bool
    zeros_follow: bool = False

    @property
    def invariant(self) -> bool:
        """Whether utterances may share a batch when their own features are computed."""
        return self.deviation <= TOLERANCE and not self.zeros_follow

    def kind(self, wanted: Kind) -> Kind:
        """What to store where a task wants that: a mean over zeros of a batch cannot be."""
        return "frames" if self.zeros_follow else wanted


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


def need_of(
    demand: Demand,
    *,
    upstream: str,
    audio: str,
    runs: int,
    present: int,
    missing: tuple[int, float],
) -> Need:
    """Put a walked-through demand into numbers, for ``runs`` runs of it (ER: folds)."""
    waveforms = len(demand.waves)
    seconds = sum(wave.seconds for wave in demand.waves.values())
    return Need(
        upstream=upstream,
        task=demand.task,
        kind=demand.kind,
        audio=audio,
        waveforms=waveforms,
        seconds=seconds,
        present=present,
        missing=missing,
        drawn=demand.drawn,
        drawn_share=demand.drawn_share,
        training_draws=demand.training_draws * runs,
        evaluation_draws=demand.evaluation_draws * runs,
        draw_seconds=seconds / waveforms if waveforms else 0.0,
    )


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


def size_text(size: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"


def hours_text(hours: float) -> str:
    """Hours where there are any, else minutes or seconds."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"


# (utterances, hours) by the expert's name of a split
SIZES: dict[str, dict[str, tuple[int, float]]] = {
    "PR": {"train": (28_539, 100.6), "dev": (2_703, 5.4), "test": (2_620, 5.4)},
    "ASR": {"train": (28_539, 100.6), "dev-clean": (2_703, 5.4), "test-clean": (2_620, 5.4)},
    "KS": {"train": (51_094, 14.2), "dev": (6_798, 1.9), "test": (3_081, 0.86)},
    "SID": {"train": (138_361, 315.0), "dev": (6_904, 15.7), "test": (8_251, 18.8)},
    # about a tenth of the audio is silence that the task trims
    "ASV": {"train": (148_642, 306.0), "test": (4_708, 9.7)},
    "IC": {"train": (23_132, 14.7), "dev": (3_118, 1.9), "test": (3_793, 2.4)},
    # about 4.5 s an utterance, all five sessions
    "ER": {"train": (3_548, 4.4), "dev": (887, 1.1), "test": (1_106, 1.4)},
    # about 15 s a mixture (16 kHz max)
    "SD": {"train": (13_900, 58.0), "dev": (3_000, 11.0), "test": (3_000, 11.0)},
    # about 3 s an utterance
    "SF": {"train": (104_672, 87.0), "dev": (2_800, 2.3), "test": (2_800, 2.3)},
    # English documents, and queries of dev and eval
    "QbE": {"dev": (2_438 + 138, 4.2), "test": (2_438 + 138, 4.2)},
}
_LONG_SHARE = math.exp(-(8.0 - 4.0) / (8.2 - 4.0))
_CROP_SECONDS = 8.0
# Training draws whose audio is a random crop: KS draws its twelve classes evenly.
_DRAWN = {"KS": 1 / 12, "SID": _LONG_SHARE, "ASV": _LONG_SHARE}


def assumed_need(task: str, config: dict[str, Any], *, upstream: str, runs: int) -> Need:
    """What runs of a task on SUPERB's corpora ask for, with nothing stored yet."""
    splits = SIZES[task]
    train, train_hours = splits.get("train", (0, 0.0))
    share = _DRAWN.get(task, 0.0)
    cropped = share if task in ("SID", "ASV") else 0.0
    # Short utterances are stored whole; the long ones, 4.2 s above 8 s each, only as crops.
    long_hours = cropped * train * (8.0 + 4.2) / 3600
    evaluations = {split: (count, *splits[split]) for split, count in splits_read(task, config)
                   if split != "train" and split in splits}  # fmt: skip
    once = (
        {"dev": (2_438 + 276, 4.4)} if task == "QbE" else {s: e[1:] for s, e in evaluations.items()}
    )
    waveforms = round(train * (1 - cropped)) + sum(count for count, _ in once.values())
    seconds = 3600 * (train_hours - long_hours + sum(hours for _, hours in once.values()))
    short = (train_hours - long_hours) * 3600 / max(1, round(train * (1 - cropped)))
    return Need(
        upstream=upstream,
        task=task,
        kind=kind_of(task, config),
        audio={"PR": "LibriSpeech", "ASR": "LibriSpeech"}.get(task, task),
        waveforms=waveforms,
        seconds=seconds,
        missing=(waveforms, seconds),
        drawn=6 if task == "KS" else round(cropped * train),
        drawn_share=share,
        training_draws=training_draws(task, config) * runs,
        evaluation_draws=runs * sum(count * size for count, size, _ in evaluations.values()),
        draw_seconds=(1 - cropped) * short + cropped * _CROP_SECONDS if train else 0.0,
    )


def shared_once(needs: list[Need]) -> list[Need]:
    """Let the first need of some audio compute it, and the others find it stored."""
    seen: set[tuple[str, str, str]] = set()
    found = []
    for need in needs:
        name = need.upstream, need.audio, need.kind
        shared = replace(need, present=need.waveforms, missing=(0, 0.0))
        found.append(shared if name in seen else need)
        seen.add(name)
    return found
