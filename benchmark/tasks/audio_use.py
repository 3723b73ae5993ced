"""What audio a task asks an upstream for, and what of it may be stored.

Utterances and hours are those of SUPERB's own corpora, which a plan counts with where the corpora
themselves are not at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RandomCrops:
    """Training draws whose audio is a random crop: never stored, always computed live.

    Attributes:
        share: of training draws.
        files: that are cropped and are no utterances of the training split; ``None`` where long
            utterances of the split itself are cropped.
        seconds: mean length of the files that are cropped; 0 where they are none of the split's.
        crop_seconds: length of a crop, likewise.
    """

    share: float
    files: int | None = None
    seconds: float = 0.0
    crop_seconds: float = 0.0


# VoxCeleb1's utterances above 8 s: lengths from 4 s on fall off exponentially to a mean of 8.2 s,
# so that the long ones are 4.2 s above 8 s each.
ABOVE_EIGHT_SECONDS = RandomCrops(
    share=math.exp(-(8.0 - 4.0) / (8.2 - 4.0)), seconds=8.0 + 4.2, crop_seconds=8.0
)


@dataclass(frozen=True, kw_only=True)
class AudioUse:
    """What a task reads.

    Attributes:
        splits: (utterances, hours) by the expert's name of a split.
        evaluated_once: (utterances, hours) that all evaluations read, where splits share files.
        shared: names the waveforms where another task reads the very same; ``None`` if none does.
        crops: what is cropped at random in training, if anything is.
        head_may_average: the head is linear up to a mean over time where the config says so: then
            that mean is all that has to be stored.
        cuts_by_frames: the audio that it reads depends on the upstream's downsample rate.
    """

    splits: Mapping[str, tuple[int, float]]
    evaluated_once: tuple[int, float] | None = None
    shared: str | None = None
    crops: RandomCrops | None = None
    head_may_average: bool = False
    cuts_by_frames: bool = False
