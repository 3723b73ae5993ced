"""Noise of the lengths that the real corpora's utterances have: for measuring time only.

Mean lengths are those of ``benchmark/tasks/`` (hours by utterances); how they
spread is stated in :data:`LENGTHS`. Lengths are evenly spaced quantiles in random order, so that
few files have the mean and the tail of many.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.sound import SAMPLE_RATE

# Longer than the 0.1 s from which sox takes silence for such.
_PAUSE_SECONDS = 0.3
# VoxCeleb1's audio that ASV's silence trimming leaves (306 of 340 hours).
VOICED_SHARE = 0.9


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long a corpus's utterances are, in seconds.

    Attributes:
        tail: ``"exponential"`` above the shortest, cut at the longest, as of talk; or
            ``"bounded"``, a power of an even spread, as of read speech of limited length.
    """

    shortest: float
    mean: float
    longest: float
    tail: str = "exponential"

    def quantiles(self, count: int) -> np.ndarray:
        """``count`` lengths at evenly spaced quantiles, rising."""
        places = (np.arange(count) + 0.5) / count
        if self.shortest == self.longest:
            return np.full(count, self.mean)
        if self.tail == "bounded":
            power = (self.longest - self.mean) / (self.mean - self.shortest)
            return self.shortest + (self.longest - self.shortest) * places**power
        above = self.mean - self.shortest
        return np.minimum(self.shortest - above * np.log1p(-places), self.longest)


def _mean(task: str, split: str) -> float:
    count, hours = TASKS[task].audio.splits[split]
    return 3600 * hours / count


# By corpus and split; dev and test alike.
LENGTHS: dict[str, dict[str, Lengths]] = {
    # 1 to 16 s, half of them above 13 s; dev and test are not cut at 16 s
    "librispeech": {
        "train": Lengths(shortest=1.0, mean=_mean("PR", "train"), longest=16.0, tail="bounded"),
        "test": Lengths(shortest=1.5, mean=_mean("PR", "test"), longest=35.0),
    },
    "speech_commands": {
        "train": Lengths(shortest=1.0, mean=1.0, longest=1.0),
        "test": Lengths(shortest=1.0, mean=1.0, longest=1.0),
        "noise": Lengths(shortest=60.0, mean=66.0, longest=95.0),
    },
    # 4 s and more, mean 8.2 s, 39 % above the 8 s from which SID and ASV crop
    "voxceleb1": {
        "train": Lengths(shortest=4.0, mean=_mean("SID", "train"), longest=145.0),
        "test": Lengths(shortest=4.0, mean=_mean("SID", "test"), longest=145.0),
    },
    "fluent_speech_commands": {
        "train": Lengths(shortest=1.2, mean=_mean("IC", "train"), longest=10.0),
        "test": Lengths(shortest=1.2, mean=_mean("IC", "test"), longest=10.0),
    },
    "iemocap": {"train": Lengths(shortest=0.6, mean=_mean("ER", "train"), longest=34.0)},
    "audio_snips": {
        "train": Lengths(shortest=1.2, mean=_mean("SF", "train"), longest=7.5, tail="bounded"),
        "test": Lengths(shortest=1.2, mean=_mean("SF", "test"), longest=7.5, tail="bounded"),
    },
    # mode max: the longer of two utterances of LibriSpeech
    "libri2mix": {
        "train": Lengths(shortest=5.0, mean=_mean("SD", "train"), longest=16.8, tail="bounded"),
        "test": Lengths(shortest=5.0, mean=_mean("SD", "test"), longest=35.0),
    },
    # documents, and queries of a word or two; together the 4.2 h of sizes.py
    "quesst14": {
        "train": Lengths(shortest=1.5, mean=6.1, longest=30.0),
        "test": Lengths(shortest=0.8, mean=1.5, longest=4.0),
    },
}


class Voice:
    """Writes noise that rises and falls as syllables do, of the lengths of a corpus."""

    def __init__(self, corpus: str, seed: int, distinct_seconds: float) -> None:
        self.corpus, self.random = corpus, np.random.default_rng(seed)
        self._left = distinct_seconds
        self._written: list[tuple[Path, float]] = []
        self._links = 0

    def lengths(self, split: str, count: int) -> Iterator[float]:
        """``count`` lengths of a split in random order."""
        known = LENGTHS[self.corpus]
        if split not in known:
            split = "test" if split != "train" and "test" in known else "train"
        drawn = known[split].quantiles(count)
        return iter(self.random.permutation(drawn).tolist())

    def write(self, path: Path, seconds: float, *, alone: bool = False) -> float:
        """Write a file; return its length in seconds, whole samples.

        Args:
            alone: of its own kind: no other file is a link to it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._left < seconds and self._written and not alone:
            earlier, length = self._written[self._links % len(self._written)]
            self._links += 1
            os.link(earlier, path)
            return length
        sound = speech_like(
            round(seconds * SAMPLE_RATE), self.random, pauses=self.corpus == "voxceleb1"
        )
        soundfile.write(path, sound, SAMPLE_RATE, subtype="PCM_16")
        length = len(sound) / SAMPLE_RATE
        if not alone:
            self._left -= length
            self._written.append((path, length))
        return length


def speech_like(samples: int, random: np.random.Generator, *, pauses: bool) -> np.ndarray:
    """Noise with four swells a second, float32; never silent but for pauses, a tenth of it."""
    seconds = np.arange(samples) / SAMPLE_RATE
    swell = 0.6 + 0.4 * np.sin(2 * math.pi * 4 * seconds + random.uniform(0, 2 * math.pi))
    sound = (0.1 * swell * random.standard_normal(samples)).clip(-0.99, 0.99)
    if pauses:
        period = _PAUSE_SECONDS / (1 - VOICED_SHARE)
        within = (seconds + random.uniform(0, period)) % period
        sound[within < _PAUSE_SECONDS] = 0.0
    return sound.astype(np.float32)
