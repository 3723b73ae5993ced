"""Synthesizes a corpus in Libri2Mix's layout: two speakers, taking turns and interrupting.

Kaldi folders ``libri2mix/{train,dev,test}`` with the recordings beside them. Turns are placed
sample by sample, so that references are exact; a room's echo ends with its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from superbit.benchmark.corpora.audio import SAMPLE_RATE
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.embedded.acoustics import (
    NOISE_KINDS,
    level,
    noise,
    room,
    say,
)
from superbit.benchmark.corpora.embedded.espeak import Espeak
from superbit.benchmark.corpora.embedded.exact import draw, gain, write
from superbit.benchmark.corpora.embedded.texts import Sentences
from superbit.benchmark.corpora.embedded.voices import TABLE_COLUMNS, draw_speakers

_FIRST_SPEAKER = {"train": 5001, "dev": 6001, "test": 7001}
_TURNS = 3  # two by one speaker, with one by the other in between
_SHORTEST_SECONDS = 6.0
_MARGIN_SECONDS = (0.2, 0.6)
# From the end of a turn to the start of the next; below 0 they overlap.
_GAP_SECONDS = (-1.2, 0.7)
_SNR_DB = (20, 35)
_LEVEL_DB = (-26, -18)
_LEVEL_DIFFERENCE_DB = (-3, 3)
# What generation itself tolerates between a turn and the sound of its track.
_BOUNDARY_SAMPLES = SAMPLE_RATE // 50
_SOUND = 0.01  # of a turn's peak
_AUDIBLE = 0.02  # of a sentence's peak: fainter ends are cut off


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedTurn:
    """One sentence in a recording: samples ``start`` to ``end`` (excluded), by speaker 0 or 1."""

    speaker: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """A recording and what it was made of.

    Attributes:
        recording: shape ``(samples,)``.
        tracks: each speaker alone, without noise, shape ``(2, samples)``.
    """

    recording: np.ndarray
    tracks: np.ndarray
    turns: tuple[PlacedTurn, ...]


def mix(sentences: Sequence[np.ndarray], random: np.random.Generator) -> Mixture:
    """Two speakers in turn, with pauses and overlaps, over light noise.

    Args:
        sentences: 16 kHz, spoken by speaker 0, 1, 0, …

    Raises:
        RuntimeError: a turn is not where its track sounds, to 20 ms.
    """
    sentences = [_audible(sentence) for sentence in sentences]
    turns: list[PlacedTurn] = []
    start = _samples(draw(random, *_MARGIN_SECONDS))
    for index, sentence in enumerate(sentences):
        turns.append(PlacedTurn(speaker=index % 2, start=start, end=start + len(sentence)))
        start = max(
            turns[-1].end + _samples(draw(random, *_GAP_SECONDS)),
            # Nobody interrupts himself, nor begins before the turn that he interrupts.
            turns[-2].end if index else 0,
            turns[-1].start + SAMPLE_RATE,
        )
    end = max(turn.end for turn in turns) + _samples(draw(random, *_MARGIN_SECONDS))
    tracks = np.zeros((2, max(end, _samples(_SHORTEST_SECONDS))))
    gains = [gain(draw(random, *_LEVEL_DIFFERENCE_DB)) for _ in range(2)]
    for turn, sentence in zip(turns, sentences, strict=True):
        tracks[turn.speaker, turn.start : turn.end] = room(sentence, random) * (
            gains[turn.speaker] / level(sentence)
        )
    _check_boundaries(tracks, turns)
    speech = tracks[0] + tracks[1]
    kind = NOISE_KINDS[random.integers(len(NOISE_KINDS))]
    heard = speech + noise(kind, len(speech), random) * gain(-draw(random, *_SNR_DB))
    factor = min(gain(draw(random, *_LEVEL_DB)), 0.99 / float(np.abs(heard).max()))
    return Mixture(
        recording=heard * factor,
        tracks=tracks * factor,
        turns=tuple(turns),
    )


def make(out: Path, *, size: str, seed: int, on_item: Callable[[], None]) -> None:
    """Write ``libri2mix/`` under ``out``.

    Every random choice follows from ``seed``; ``on_item`` is called after each recording.
    """
    random = np.random.default_rng(seed)
    espeak = Espeak(seed)
    plans = sizes.LIBRI2MIX[size]
    names = {
        split: [str(_FIRST_SPEAKER[split] + index) for index in range(plan.speakers)]
        for split, plan in plans.items()
    }
    speakers = iter(draw_speakers([name for of in names.values() for name in of], random))
    table = [",".join(TABLE_COLUMNS)]
    for split, plan in plans.items():
        of_split = [next(speakers) for _ in names[split]]
        table += [speaker.row(split) for speaker in of_split]
        sentences = Sentences(random)
        tables = _Tables(out / "libri2mix" / split)
        for index in range(plan.recordings):
            # In turn, so that each speaker is heard about equally often.
            first = of_split[index % len(of_split)]
            second = of_split[(index + int(random.integers(1, len(of_split)))) % len(of_split)]
            pair = (first, second)
            spoken = []
            for turn in range(_TURNS):
                speaker = pair[turn % 2]
                spoken.append(say(sentences.draw(), speaker, espeak))
            mixture = mix(spoken, random)
            tables.add(f"{split}-{index:04d}", mixture, (first.name, second.name))
            on_item()
        tables.write()
    (out / "libri2mix" / "speakers.csv").write_text("\n".join(table) + "\n", encoding="utf-8")


class _Tables:
    """The Kaldi tables of one folder, whose recordings are written at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: dict[str, list[str]] = {
            name: [] for name in ("wav.scp", "segments", "utt2spk", "reco2dur", "rttm")
        }
        self._spoken: dict[str, list[str]] = {}
        (folder / "wav").mkdir(parents=True, exist_ok=True)

    def add(self, name: str, mixture: Mixture, speakers: tuple[str, str]) -> None:
        file = f"wav/{name}.wav"
        write(self._folder / file, mixture.recording)
        self._lines["wav.scp"].append(f"{name} {file}")
        self._lines["reco2dur"].append(f"{name} {len(mixture.recording) / SAMPLE_RATE:.4f}")
        for number, turn in enumerate(mixture.turns):
            speaker = speakers[turn.speaker]
            utterance = f"{speaker}_{name}_{number}"
            start, end = turn.start / SAMPLE_RATE, turn.end / SAMPLE_RATE
            self._lines["segments"].append(f"{utterance} {name} {start:.4f} {end:.4f}")
            self._lines["utt2spk"].append(f"{utterance} {speaker}")
            self._lines["rttm"].append(
                f"SPEAKER {name} 1 {start:.4f} {end - start:.4f} <NA> <NA> {speaker} <NA> <NA>"
            )
            self._spoken.setdefault(speaker, []).append(utterance)

    def write(self) -> None:
        # Kaldi's tables are sorted.
        self._lines["spk2utt"] = [f"{name} {' '.join(u)}" for name, u in self._spoken.items()]
        for name, lines in self._lines.items():
            text = "\n".join(lines if name == "rttm" else sorted(lines)) + "\n"
            (self._folder / name).write_text(text, encoding="utf-8")


def _audible(sentence: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(sentence) > _AUDIBLE * np.abs(sentence).max())
    return sentence[loud[0] : loud[-1] + 1]


def _samples(seconds: float) -> int:
    """Samples to the next 10 ms."""
    return round(seconds * 100) * (SAMPLE_RATE // 100)


def _check_boundaries(tracks: np.ndarray, turns: Sequence[PlacedTurn]) -> None:
    """Compare each turn with the first and the last sound in it, and each pause with silence."""
    silent = np.ones(tracks.shape, dtype=bool)
    for turn in turns:
        track = np.abs(tracks[turn.speaker, turn.start : turn.end])
        sound = np.flatnonzero(track > _SOUND * track.max())
        if sound[0] > _BOUNDARY_SAMPLES or len(track) - sound[-1] > _BOUNDARY_SAMPLES:
            raise RuntimeError(
                f"a turn is silent for its first {sound[0]} or its last {len(track) - sound[-1]} "
                f"samples; {_BOUNDARY_SAMPLES} are allowed."
            )
        silent[turn.speaker, turn.start : turn.end] = False
    if tracks[silent].any():
        raise RuntimeError("a speaker is heard outside of his turns.")
