"""What every corpus module hands over: its files by split, and a report of what is there.

A corpus module (``librispeech``, ``speech_commands``) offers two functions over its section of a
paths file: ``files(section) -> CorpusFiles`` and ``check(section, ...) -> CorpusReport``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from superbit.benchmark.corpora.audio import read_header
from superbit.upstreams.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusFile:
    """One file of a corpus.

    Attributes:
        key: its name inside the corpus, the same wherever the corpus lies.
        path: where it is now.
    """

    key: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class CorpusFiles:
    """Every file that the corpus's tasks read.

    Attributes:
        audio: audio files by split, sorted by key.
        text: transcripts, lexicons and lists, sorted by key.
        sample_rate: of every audio file, Hz; a corpus that is not 16 kHz is resampled by its task.
    """

    audio: Mapping[str, tuple[CorpusFile, ...]]
    text: tuple[CorpusFile, ...] = ()
    sample_rate: int = 16_000


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What one split holds; ``expected_utterances`` is the count in SUPERB's own copy."""

    name: str
    utterances: int
    speakers: int | None
    hours: float
    expected_utterances: int


@dataclass(frozen=True, kw_only=True)
class CorpusReport:
    """What is there, and what is wrong with it.

    Attributes:
        problems: one sentence for each kind of fault; empty for a corpus that tasks can use.
        published: (what, where) for each piece of the corpus that can be obtained.
    """

    corpus: str
    title: str
    root: Path
    splits: tuple[SplitReport, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    published: tuple[tuple[str, str], ...] = ()

    def raise_for_problems(self) -> None:
        """Raise InputError with the first problem, if there is any."""
        if self.problems:
            raise InputError(self.problems[0])


@dataclass
class Problems:
    """Collects faults, one sentence a kind: the first of its kind, and how many more there are."""

    _first: dict[str, str] = field(default_factory=dict)
    _count: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, sentence: str) -> None:
        """Note a fault; ``kind`` groups those that one remedy cures."""
        self._first.setdefault(kind, sentence)
        self._count[kind] = self._count.get(kind, 0) + 1

    def small_batch(self, there: str, *, batch_size: int) -> None:
        """Note that ``there`` ("FOLDER has N utterances") is less than a training batch."""
        self.add(
            "batch",
            f"{there}, fewer than a batch of {batch_size}; it should have more, or the batch "
            "should be smaller.",
        )

    def samples(self, audio: Iterable[Path]) -> int:
        """Add up the lengths of files, and note those whose header cannot be read."""
        total = 0
        for path in audio:
            try:
                total += read_header(path).samples
            except InputError as error:
                self.add("audio", str(error))
        return total

    def sentences(self) -> tuple[str, ...]:
        """The faults in the order in which their kinds were first seen."""
        return tuple(
            f"{sentence} ({more:,} more like it.)" if (more := self._count[kind] - 1) else sentence
            for kind, sentence in self._first.items()
        )
