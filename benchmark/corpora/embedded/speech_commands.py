"""Synthesizes a corpus in Speech Commands' layout: one second, one word, somewhere, in noise.

Clean words at a fixed place are too easy: the mel spectrogram's mean tells them apart. A random
place and noise make an upstream's knowledge count.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from superbit.benchmark.corpora.audio import SAMPLE_RATE
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.embedded.acoustics import NOISE_KINDS, noise, record, say
from superbit.benchmark.corpora.embedded.espeak import Espeak
from superbit.benchmark.corpora.embedded.exact import draw, gain, write
from superbit.benchmark.corpora.embedded.texts import UNKNOWN_WORDS
from superbit.benchmark.corpora.embedded.voices import TABLE_COLUMNS, Speaker, draw_speakers
from superbit.benchmark.corpora.speech_commands import (
    KEYWORDS,
    NOISE,
    SILENCE,
    UNKNOWN,
    split_of,
)

_CLIP_SAMPLES = SAMPLE_RATE
_SNR_DB = (15, 35)
_LEVEL_DB = (-34, -14)
_TILT = (-0.3, 0.4)
_ECHO_DB = (12, 26)
_SILENCE_LEVEL_DB = (-60, -26)
_NOISE_SECONDS = 6


def make(out: Path, *, size: str, seed: int, on_item: Callable[[], None]) -> None:
    """Write ``speech_commands/{train,test}`` under ``out``.

    Every random choice follows from ``seed``; ``on_item`` is called after each file.
    """
    root = out / "speech_commands"
    random = np.random.default_rng(seed)
    espeak = Espeak(seed)
    names = _names(size, seed)
    speakers = iter(draw_speakers([name for of in names.values() for name in of], random))
    table = [",".join(TABLE_COLUMNS)]
    # A deck, so that every unknown word is in every split that is large enough.
    unknown_words = _deck(UNKNOWN_WORDS, random)
    for split, plan in sizes.SPEECH_COMMANDS[size].items():
        for _ in names[split]:
            speaker = next(speakers)
            table.append(speaker.row(split))
            words = [*KEYWORDS, *itertools.islice(unknown_words, plan.unknown_words)]
            for word in words:
                class_name = word if word in KEYWORDS else UNKNOWN
                folder = root / ("test/" + class_name if split == "test" else "train/" + word)
                # The number tells two unknown words of one speaker apart in one folder.
                number = UNKNOWN_WORDS.index(word) if class_name == UNKNOWN else 0
                write(
                    folder / f"{speaker.name}_nohash_{number}.wav",
                    _clip(word, speaker, espeak, random),
                )
                on_item()
    for kind in NOISE_KINDS:
        write(root / "train" / NOISE / f"{kind}.wav", _silence(_NOISE_SECONDS, kind, random))
        on_item()
    for index in range(sizes.SPEECH_COMMANDS[size]["test"].speakers):
        kind = NOISE_KINDS[index % len(NOISE_KINDS)]
        write(root / "test" / SILENCE / f"{index}.wav", _silence(1, kind, random))
        on_item()
    (root / "speakers.csv").write_text("\n".join(table) + "\n", encoding="utf-8")


def _names(size: str, seed: int) -> dict[str, list[str]]:
    """Eight hexadecimal digits a speaker, such that the corpus's own rule puts it into its split.

    Speakers of the test come from the tenth that the rule leaves out of train and dev, as they do
    in the real corpus.
    """
    wanted = {split: plan.speakers for split, plan in sizes.SPEECH_COMMANDS[size].items()}
    names: dict[str, list[str]] = {split: [] for split in wanted}
    for index in itertools.count():
        if all(len(names[split]) == count for split, count in wanted.items()):
            return names
        name = hashlib.sha256(f"{seed} {index}".encode()).hexdigest()[:8]
        split = split_of(f"{name}_nohash_0.wav") or "test"
        if len(names[split]) < wanted[split]:
            names[split].append(name)
    raise AssertionError("unreachable: hashes do not end")


def _deck(words: tuple[str, ...], random: np.random.Generator) -> Iterator[str]:
    while True:
        for index in random.permutation(len(words)):
            yield words[index]


def _clip(word: str, speaker: Speaker, espeak: Espeak, random: np.random.Generator) -> np.ndarray:
    """One second with the word at a random place."""
    speech = say(word, speaker, espeak)[:_CLIP_SAMPLES]
    return record(
        speech,
        samples=_CLIP_SAMPLES,
        start=int(random.integers(0, _CLIP_SAMPLES - len(speech), endpoint=True)),
        snr_db=draw(random, *_SNR_DB),
        tilt=draw(random, *_TILT),
        level_db=draw(random, *_LEVEL_DB),
        echo_db=_ECHO_DB,
        random=random,
    )


def _silence(seconds: int, kind: str, random: np.random.Generator) -> np.ndarray:
    made = noise(kind, seconds * SAMPLE_RATE, random)
    return np.clip(made * gain(draw(random, *_SILENCE_LEVEL_DB)), -0.99, 0.99)
