"""SUPERB's corpora in numbers, to plan for them without having them.

Counts of utterances are SUPERB's own, as ``superbit corpus check`` expects them. Lengths: hours as
the corpora's papers and pages give them; those marked "about" are estimates, and the share of
VoxCeleb1's utterances above 8 s follows from its published minimum of 4 s and mean of 8.2 s, taken
as an exponential tail: exp(-(8 - 4) / (8.2 - 4)) = 0.39, such an utterance being 12.2 s long.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from superbit.benchmark.features.demand import kind_of, splits_read, training_draws
from superbit.benchmark.features.planning import Need

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
