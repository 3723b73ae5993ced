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


@dataclass(frozen=True, kw_only=True)
class Voices:
    """The VoxCeleb1 layout: who is identified, and who is verified.

    Attributes:
        dev_speakers: in ``dev/wav``, on whom ASV trains; no part of SID.
        dev: (videos, utterances a video) of each of them.
        test_speakers: in ``test/wav``, whom SID identifies; ASV's trials are between the first
            utterances of the videos of SID's test.
        splits: of SID; a split maps to (videos, utterances a video) of every such speaker.
        trials: of ASV.
    """

    dev_speakers: int
    dev: tuple[int, int]
    test_speakers: int
    splits: dict[str, tuple[int, int]]
    trials: int

    @property
    def files(self) -> int:
        """Audio files in all."""
        of_speaker = sum(videos * utterances for videos, utterances in self.splits.values())
        return self.dev_speakers * self.dev[0] * self.dev[1] + self.test_speakers * of_speaker


@dataclass(frozen=True, kw_only=True)
class Emotions:
    """A session of the IEMOCAP layout: a man and a woman say each sentence in each emotion.

    ``others`` more utterances have an emotion that SUPERB leaves out.
    """

    sentences: int
    others: int


@dataclass(frozen=True, kw_only=True)
class Conversations:
    """A split of the Libri2Mix layout: recordings, each of two of the split's speakers."""

    speakers: int
    recordings: int


@dataclass(frozen=True, kw_only=True)
class Queries:
    """A split's queries; ``single_words`` of the ``present`` ones are one word, the others two."""

    speakers: int
    present: int
    single_words: int
    absent: int


@dataclass(frozen=True, kw_only=True)
class QuerySearch:
    """The QUESST 2014 layout: documents, and a split's queries that occur in them or do not.

    Attributes:
        documents: how many.
        speakers: who say them.
        splits: of the queries.
    """

    documents: int
    speakers: int
    splits: dict[str, Queries]

    @property
    def files(self) -> int:
        """Audio files in all: documents and queries."""
        return self.documents + sum(q.present + q.absent for q in self.splits.values())


@dataclass(frozen=True, kw_only=True)
class Names:
    """A split of the Audio SNIPS layout: voices of each name, utterances of each voice."""

    voices: int
    utterances: int


LIBRISPEECH = {
    "tiny": {
        "train-clean-100": ReadSpeech(speakers=14, utterances=10),
        "dev-clean": ReadSpeech(speakers=6, utterances=4),
        "test-clean": ReadSpeech(speakers=8, utterances=8),
    },
    "demo": {
        "train-clean-100": ReadSpeech(speakers=48, utterances=20),
        "dev-clean": ReadSpeech(speakers=10, utterances=12),
        "test-clean": ReadSpeech(speakers=24, utterances=20),
    },
}
SPEECH_COMMANDS = {
    "tiny": {
        "train": Commands(speakers=16, unknown_words=4),
        "dev": Commands(speakers=8, unknown_words=2),
        "test": Commands(speakers=16, unknown_words=1),
    },
    "demo": {
        "train": Commands(speakers=80, unknown_words=4),
        "dev": Commands(speakers=16, unknown_words=2),
        "test": Commands(speakers=54, unknown_words=1),
    },
}
VOXCELEB1 = {
    "tiny": Voices(
        dev_speakers=12,
        dev=(3, 2),
        test_speakers=10,
        splits={"train": (3, 2), "dev": (1, 2), "test": (5, 1)},
        trials=200,
    ),
    "demo": Voices(
        dev_speakers=60,
        dev=(3, 2),
        test_speakers=40,
        splits={"train": (6, 2), "dev": (3, 1), "test": (8, 2)},
        trials=1200,
    ),
}
# Speakers a split; each of them says every intent once.
FLUENT_SPEECH_COMMANDS = {
    "tiny": {"train": 12, "valid": 4, "test": 8},
    "demo": {"train": 75, "valid": 10, "test": 42},
}
INTENTS = 15
IEMOCAP = {
    "tiny": Emotions(sentences=4, others=2),
    "demo": Emotions(sentences=16, others=4),
}
SESSIONS, EMOTIONS = 5, 4
LIBRI2MIX = {
    "tiny": {
        "train": Conversations(speakers=12, recordings=24),
        "dev": Conversations(speakers=6, recordings=8),
        "test": Conversations(speakers=8, recordings=12),
    },
    "demo": {
        "train": Conversations(speakers=40, recordings=90),
        "dev": Conversations(speakers=12, recordings=16),
        "test": Conversations(speakers=24, recordings=64),
    },
}
QUESST14 = {
    "tiny": QuerySearch(
        documents=40,
        speakers=8,
        splits={
            "dev": Queries(speakers=4, present=10, single_words=2, absent=3),
            "eval": Queries(speakers=4, present=10, single_words=2, absent=3),
        },
    ),
    "demo": QuerySearch(
        documents=120,
        speakers=24,
        splits={
            "dev": Queries(speakers=8, present=20, single_words=3, absent=5),
            "eval": Queries(speakers=16, present=60, single_words=3, absent=8),
        },
    ),
}
# The corpus's 8, 4 and 4 names of a split stand for as many or more voices.
AUDIO_SNIPS = {
    "tiny": {
        "train": Names(voices=1, utterances=12),
        "valid": Names(voices=1, utterances=4),
        "test": Names(voices=1, utterances=8),
    },
    "demo": {
        "train": Names(voices=3, utterances=32),
        "valid": Names(voices=3, utterances=8),
        "test": Names(voices=3, utterances=30),
    },
}
SNIPS_NAMES = {"train": 8, "valid": 4, "test": 4}
SIZES = tuple(LIBRISPEECH)


def audio_files(size: str) -> int:
    """How many audio files are made in all."""
    read = sum(plan.speakers * plan.utterances for plan in LIBRISPEECH[size].values())
    commands = SPEECH_COMMANDS[size]
    words = sum(plan.speakers * (KEYWORDS + plan.unknown_words) for plan in commands.values())
    # The test's silence has as many clips as each of its keywords.
    made = read + words + NOISE_FILES + commands["test"].speakers
    made += VOXCELEB1[size].files
    made += INTENTS * sum(FLUENT_SPEECH_COMMANDS[size].values())
    emotions = IEMOCAP[size]
    made += SESSIONS * (2 * EMOTIONS * emotions.sentences + emotions.others)
    made += sum(plan.recordings for plan in LIBRI2MIX[size].values())
    made += QUESST14[size].files
    made += sum(
        SNIPS_NAMES[split] * names.voices * names.utterances
        for split, names in AUDIO_SNIPS[size].items()
    )
    return made
