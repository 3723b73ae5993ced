"""What a corpus declares of itself, its files by split, and the report of what is there.

A corpus module (``librispeech``, ``speech_commands``) ends in its ``CORPUS``: what SUPERB's copy
holds, ``files(section)`` and ``look(section, found)``, which tells an :class:`Inspection` what is
there. All that reports have in common is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from superbit.benchmark.corpora.audio import read_header
from superbit.upstreams.errors import InputError
from superbit.upstreams.sound import SAMPLE_RATE

Read = TypeVar("Read")


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


class Inspection:
    """What is found of a corpus while it is looked at.

    Args:
        expected: utterances of each split in SUPERB's own copy.
        batch_size: items a training batch; fewer to train on are a problem, because s3prl's loaders
            then give no batch, or the same items again.

    Attributes:
        problems: takes whatever is wrong.
    """

    def __init__(self, expected: Mapping[str, int], *, batch_size: int | None) -> None:
        self._expected, self._batch_size = expected, batch_size
        self.problems = Problems()
        self.splits: list[SplitReport] = []

    def each_split(self, read: Callable[[str], Read]) -> Iterator[tuple[str, Read]]:
        """Yield each declared split with what ``read`` gives of it; note where it cannot."""
        for split in self._expected:
            try:
                found = read(split)
            except InputError as error:
                self.problems.add(f"split {split}", str(error))
                continue
            yield split, found

    def add_split(
        self, name: str, *, utterances: int, speakers: int | None, seconds: float
    ) -> None:
        """Report what a split holds; ``speakers`` is ``None`` where nothing tells them."""
        self.splits.append(
            SplitReport(
                name=name,
                utterances=utterances,
                speakers=speakers,
                hours=seconds / 3600,
                expected_utterances=self._expected[name],
            )
        )

    @property
    def is_whole(self) -> bool:
        """Whether every declared split was there."""
        return len(self.splits) == len(self._expected)

    def require_batch(self, there: str, count: int, items: str) -> None:
        """Note where ``there`` (a folder) has fewer ``items`` to train on than a batch."""
        if self._batch_size is not None and count < self._batch_size:
            self.problems.add(
                "batch",
                f"{there} has {count} {items}, fewer than a batch of {self._batch_size}; it should "
                "have more, or the batch should be smaller.",
            )


@dataclass(frozen=True, kw_only=True)
class CorpusLayout:
    """What a corpus declares, and what the rest of superbit asks of it.

    Attributes:
        name: of its section in a paths file.
        title: for reports, with the tasks that read it.
        expected: utterances of each split in SUPERB's own copy.
        files: every file that its tasks read, of a section of a paths file.
        look: tells an :class:`Inspection` what is there and what is wrong; returns notes. From
            folders, headers and text: audio is not decoded.
        published: (what, where) for each piece of the corpus that can be obtained.
    """

    name: str
    title: str
    expected: Mapping[str, int]
    files: Callable[[Any], CorpusFiles]
    look: Callable[[Any, Inspection], Iterable[str]]
    published: tuple[tuple[str, str], ...] = ()

    def check(self, section: Any, *, batch_size: int | None = None) -> CorpusReport:
        """What is there and what is wrong.

        Args:
            section: of a paths file.
            batch_size: items a training batch; a smaller training split is a problem.
        """
        found = Inspection(self.expected, batch_size=batch_size)
        notes = tuple(self.look(section, found))
        return CorpusReport(
            corpus=self.name,
            title=self.title,
            root=section.root,
            splits=tuple(found.splits),
            notes=notes,
            problems=found.problems.sentences(),
            published=self.published,
        )


def seconds_of(samples: int) -> float:
    """Length of so many samples at 16 kHz."""
    return samples / SAMPLE_RATE


def refuse(_kind: str, sentence: str) -> NoReturn:
    """Raise InputError with a fault, for who reads a corpus rather than reporting on it."""
    raise InputError(sentence)
