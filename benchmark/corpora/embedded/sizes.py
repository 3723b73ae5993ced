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
    """The VoxCeleb1 layout: speakers, their utterances a split of SID, trials of ASV.

    A split maps to (videos, utterances a video) of every speaker.
    """

    dev_speakers: int
    test_speakers: int
    splits: dict[str, tuple[int, int]]
    trials: int

    @property
    def files(self) -> int:
        """Audio files in all."""
        of_speaker = sum(videos * utterances for videos, utterances in self.splits.values())
        return (self.dev_speakers + self.test_speakers) * of_speaker


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
class QuerySearch:
    """The QUESST 2014 layout: documents, and a split's queries that occur in them or do not.

    ``single_words`` of the ``present`` queries are one word, the others two. ``speakers`` say the
    documents, ``query_speakers`` the queries of a split.
    """

    documents: int
    present: int
    single_words: int
    absent: int
    speakers: int
    query_speakers: int

    @property
    def files(self) -> int:
        """Audio files in all: documents and the queries of two splits."""
        return self.documents + 2 * (self.present + self.absent)


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
VOXCELEB1 = {
    "tiny": Voices(
        dev_speakers=12,
        test_speakers=8,
        splits={"train": (3, 2), "dev": (1, 2), "test": (1, 2)},
        trials=240,
    ),
    "demo": Voices(
        dev_speakers=75,
        test_speakers=25,
        splits={"train": (3, 2), "dev": (1, 1), "test": (1, 2)},
        trials=1000,
    ),
}
# Speakers a split; each of them says every intent once.
FLUENT_SPEECH_COMMANDS = {
    "tiny": {"train": 12, "valid": 4, "test": 8},
    "demo": {"train": 36, "valid": 8, "test": 20},
}
INTENTS = 15
IEMOCAP = {
    "tiny": Emotions(sentences=4, others=2),
    "demo": Emotions(sentences=12, others=4),
}
SESSIONS, EMOTIONS = 5, 4
LIBRI2MIX = {
    "tiny": {
        "train": Conversations(speakers=12, recordings=24),
        "dev": Conversations(speakers=6, recordings=8),
        "test": Conversations(speakers=8, recordings=12),
    },
    "demo": {
        "train": Conversations(speakers=24, recordings=60),
        "dev": Conversations(speakers=8, recordings=12),
        "test": Conversations(speakers=12, recordings=30),
    },
}
QUESST14 = {
    "tiny": QuerySearch(
        documents=40, present=10, single_words=2, absent=3, speakers=8, query_speakers=4
    ),
    "demo": QuerySearch(
        documents=80, present=20, single_words=3, absent=5, speakers=16, query_speakers=6
    ),
}
# Utterances of every speaker of a split; the splits have 8, 4 and 4 speakers.
AUDIO_SNIPS = {
    "tiny": {"train": 12, "valid": 4, "test": 8},
    "demo": {"train": 30, "valid": 10, "test": 25},
}
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
    snips = AUDIO_SNIPS[size]
    made += 8 * snips["train"] + 4 * snips["valid"] + 4 * snips["test"]
    return made
