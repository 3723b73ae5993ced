"""Multiply-accumulates as the SUPERB challenge counts them, over 32 utterances of true lengths.

One utterance at a time, of LibriSpeech test-clean, eight in each of four buckets; the challenge's
figure is the sum. A model whose attention is sparse, or whose frames are fewer, gains with length,
which ten seconds of audio do not show. Source: Feng et al., "SUPERB @ SLT 2022",
https://arxiv.org/abs/2210.08634, and the leaderboard's own figures.
"""

from __future__ import annotations

from typing import Any

from superbit.benchmark.profiling.counting import samples_of
from superbit.benchmark.profiling.honest_accounting import foreign_cells, honest_cells
from superbit.upstreams.hubert import Hubert

BUCKETS = ("short", "medium", "long", "longer")
# Samples at 16 kHz, bucket after bucket.
LENGTHS = (
    20_560,
    34_560,
    38_480,
    42_560,
    45_600,
    48_720,
    52_000,
    55_120,
    59_120,
    62_720,
    66_400,
    71_200,
    75_200,
    78_640,
    82_800,
    87_520,
    92_720,
    98_560,
    104_400,
    111_120,
    118_480,
    125_040,
    132_720,
    142_640,
    154_000,
    166_720,
    180_880,
    197_920,
    217_920,
    239_280,
    268_160,
    326_000,
)
_OF_A_BUCKET = len(LENGTHS) // len(BUCKETS)
# What the leaderboard says of HuBERT Base, 10^9 MACs, by its own counter.
HUBERT_BASE_GMAC = 1_669.156


def challenge_macs(model: Hubert | Any) -> dict[str, int | None]:
    """Return MACs by bucket, and of all under ``"all"``; None where they cannot be known.

    Args:
        model: one of superbit's, on the meta device where weights are not needed, or somebody
            else's upstream.
    """
    ours = isinstance(model, Hubert)
    config = model.config if ours else None
    counted: list[int | None] = []
    for samples in LENGTHS:
        samples_of(samples / 16_000, config)  # refuses what is too short for a frame
        cells = honest_cells(model, samples) if ours else foreign_cells(model, samples)
        counted.append(cells.total_macs)
    found: dict[str, int | None] = {}
    for place, bucket in enumerate(BUCKETS):
        found[bucket] = _sum(counted[place * _OF_A_BUCKET :][:_OF_A_BUCKET])
    return found | {"all": _sum(counted)}


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
