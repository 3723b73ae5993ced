"""How much of each embedded corpus is made, by size. Part of the recipe: see ``recipe.VERSION``."""

from __future__ import annotations

from dataclasses import dataclass

NOISE_FILES = 8  # one of each kind; each is an item of the silence class of train and dev
KEYWORDS = 10


@dataclass(frozen=True, kw_only=True)
class ReadSpeech:
    """A split of the LibriSpeech layout: speakers, and sentences that each of them reads."""

    speakers: int
    utterances: int


@dataclass(frozen=True, kw_only=True)
class Commands:
    """A split of the Speech Commands layout.

    Every speaker says each keyword once and ``unknown_words`` of the other words.
    """

    speakers: int
    unknown_words: int


LIBRISPEECH = {
    "tiny": {
        "train-clean-100": ReadSpeech(speakers=14, utterances=10),
        "dev-clean": ReadSpeech(speakers=6, utterances=4),
        "test-clean": ReadSpeech(speakers=8, utterances=8),
    },
    "demo": {
        "train-clean-100": ReadSpeech(speakers=24, utterances=25),
        "dev-clean": ReadSpeech(speakers=8, utterances=10),
        "test-clean": ReadSpeech(speakers=8, utterances=19),
    },
}
SPEECH_COMMANDS = {
    "tiny": {
        "train": Commands(speakers=16, unknown_words=4),
        "dev": Commands(speakers=8, unknown_words=2),
        "test": Commands(speakers=16, unknown_words=1),
    },
    "demo": {
        "train": Commands(speakers=36, unknown_words=4),
        "dev": Commands(speakers=12, unknown_words=2),
        "test": Commands(speakers=28, unknown_words=1),
    },
}
SIZES = tuple(LIBRISPEECH)


def audio_files(size: str) -> int:
    """How many audio files are made in all."""
    read = sum(plan.speakers * plan.utterances for plan in LIBRISPEECH[size].values())
    commands = SPEECH_COMMANDS[size]
    words = sum(plan.speakers * (KEYWORDS + plan.unknown_words) for plan in commands.values())
    # The test's silence has as many clips as each of its keywords.
    return read + words + NOISE_FILES + commands["test"].speakers
