"""Synthesizes a corpus in VoxCeleb1's layout: voices heard in several videos each.

A video stands for a room, a microphone, a level and a kind of noise. The splits of speaker
identification take different videos and different sentences, so that only the voice tells. SID
identifies the speakers of ``test/wav``, between whom ASV's trials are; ASV trains on those of
``dev/wav``, whom SID leaves out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from superbit.benchmark.corpora.audio import SAMPLE_RATE
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.embedded.acoustics import (
    NOISE_KINDS,
    level,
    microphone,
    noise,
    room,
    to_16_khz,
)
from superbit.benchmark.corpora.embedded.espeak import SAMPLE_RATE as ESPEAK_HZ
from superbit.benchmark.corpora.embedded.espeak import Espeak
from superbit.benchmark.corpora.embedded.exact import Range, draw, gain, write
from superbit.benchmark.corpora.embedded.texts import Sentences
from superbit.benchmark.corpora.embedded.voices import TABLE_COLUMNS, Speaker, draw_speakers
from superbit.upstreams.files import write_text

# Real VoxCeleb1 has its 40 speakers for verification from id10270 on.
_FIRST_SPEAKER = {"dev": 10_001, "test": 10_270}
_SPLIT_NUMBERS = {"train": 1, "dev": 2, "test": 3}
# ASV trains on what lasts more than 2 s without silence.
_SECONDS = {"dev": (2.6, 3.0), "test": (2.0, 2.4)}
_SNR_DB = (15, 35)
_ECHO_DB = (12, 26)
_LEVEL_DB = (-32, -16)
_TILT = (-0.3, 0.4)
_NAME_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True, kw_only=True)
class _Video:
    """What all recordings of one video have in common."""

    name: str
    room_seed: int
    noise_kind: str
    snr_db: float
    tilt: float
    level_db: float


def make(out: Path, *, size: str, seed: int, on_item: Callable[[], None]) -> None:
    """Write ``VoxCeleb1/`` with its identification split and its trials under ``out``.

    Every random choice follows from ``seed``; ``on_item`` is called after each utterance.
    """
    plan = sizes.VOXCELEB1[size]
    root = out / "VoxCeleb1"
    random = np.random.default_rng(seed)
    espeak = Espeak(seed)
    parts = ["dev"] * plan.dev_speakers + ["test"] * plan.test_speakers
    names = [
        f"id{_FIRST_SPEAKER[part] + index}"
        for part in _FIRST_SPEAKER
        for index in range(parts.count(part))
    ]
    # What a speaker says, by split; who is only trained on by ASV has no split of SID.
    of_part: dict[str, dict[str, tuple[int, int]]] = {"dev": {"": plan.dev}, "test": plan.splits}
    table = [",".join(TABLE_COLUMNS)]
    identification: list[str] = []
    spoken = ["path,text"]
    of_test: dict[str, list[str]] = {}
    sentences = _Unheard(Sentences(random))
    for part, speaker in zip(parts, draw_speakers(names, random), strict=True):
        table.append(speaker.row(part))
        for split, (videos, utterances) in of_part[part].items():
            for video in (_draw_video(random) for _ in range(videos)):
                for index in range(utterances):
                    text, speech = _speech(speaker, sentences, espeak, random, _SECONDS[part])
                    file = f"{speaker.name}/{video.name}/{index + 1:05d}.wav"
                    path = root / part / "wav" / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    recording = _recording(speech, video, random)
                    write(path, recording)
                    spoken.append(f"{part}/wav/{file},{text}")
                    if split:
                        identification.append(f"{_SPLIT_NUMBERS[split]} {file}\n")
                    if split == "test" and index == 0:
                        of_test.setdefault(speaker.name, []).append(file)
                    on_item()
    write_text(root / "iden_split.txt", "".join(identification))
    trials = _trials(of_test, plan.trials, random)
    write_text(root / "voxceleb1_test_v2.txt", "".join(trials))
    write_text(root / "speakers.csv", "\n".join(table) + "\n")
    write_text(root / "spoken.csv", "\n".join(spoken) + "\n")


class _Unheard:
    """Sentences of which none comes twice."""

    def __init__(self, sentences: Sentences) -> None:
        self._sentences = sentences
        self._drawn: set[str] = set()

    def draw(self) -> str:
        """The next sentence."""
        while (text := self._sentences.draw()) in self._drawn:
            pass
        self._drawn.add(text)
        return text


def _draw_video(random: np.random.Generator) -> _Video:
    letters = random.integers(len(_NAME_LETTERS), size=11)
    return _Video(
        name="".join(_NAME_LETTERS[letter] for letter in letters),
        room_seed=int(random.integers(2**31)),
        noise_kind=NOISE_KINDS[random.integers(len(NOISE_KINDS))],
        snr_db=draw(random, *_SNR_DB),
        tilt=draw(random, *_TILT),
        level_db=draw(random, *_LEVEL_DB),
    )


def _speech(
    speaker: Speaker,
    sentences: _Unheard,
    espeak: Espeak,
    random: np.random.Generator,
    seconds: Range,
) -> tuple[str, np.ndarray]:
    """Sentences and their beginning as samples, cut off as clips of interviews are."""
    samples = int(draw(random, *seconds) * SAMPLE_RATE)
    # Resampling takes most of the time: only what is kept is resampled.
    wanted = int((samples / SAMPLE_RATE + 0.05) * speaker.vocal_tract * ESPEAK_HZ)
    text = sentences.draw()
    clean = np.empty(0)
    while len(clean) < wanted:
        text = f"{text} {sentences.draw()}"
        clean = espeak.synthesize(text, **speaker.synthesis)
    speech = to_16_khz(clean[:wanted], vocal_tract=speaker.vocal_tract)
    return text, speech[:samples]


def _recording(speech: np.ndarray, video: _Video, random: np.random.Generator) -> np.ndarray:
    """The speech in the video's room, over its kind of noise, by its microphone."""
    # The same random numbers give the same room.
    heard = room(speech, np.random.default_rng(video.room_seed), echo_db=_ECHO_DB)
    noises = noise(video.noise_kind, len(heard), random)
    recording = heard + noises * (level(heard) * gain(-video.snr_db))
    recording = microphone(recording, video.tilt)
    recording *= gain(video.level_db) / level(microphone(heard, video.tilt))
    return recording * min(1.0, 0.99 / float(np.abs(recording).max()))


def _trials(files: dict[str, list[str]], number: int, random: np.random.Generator) -> list[str]:
    """Lines of trials, half of one speaker in two videos, half of two speakers."""
    same = [
        (first, second)
        for of_speaker in files.values()
        for first, second in itertools.combinations(of_speaker, 2)
        if first.split("/")[1] != second.split("/")[1]
    ]
    different = [
        pair
        for one, other in itertools.combinations(files.values(), 2)
        for pair in itertools.product(one, other)
    ]
    drawn = [
        (label, *pairs[index])
        for label, pairs in ((1, same), (0, different))
        for index in random.choice(len(pairs), number // 2, replace=False)
    ]
    return [f"{drawn[i][0]} {drawn[i][1]} {drawn[i][2]}\n" for i in random.permutation(len(drawn))]
