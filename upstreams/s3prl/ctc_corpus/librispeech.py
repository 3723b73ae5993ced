"""LibriSpeech's text, without torch: utterances, transcripts, and the phones of words.

Layout: ``root/<split>/<speaker>/<chapter>/<utterance>.flac`` with ``<speaker>-<chapter>.trans.txt``
beside the audio. A lexicon is a list of text files of lines ``WORD PH ON EMES``; a word's first
pronunciation counts, as in SUPERB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from superbit.upstreams.errors import InputError
from superbit.upstreams.files import existing_folder, read_text
from superbit.upstreams.visible import visible

# Utterances in SUPERB's splits (Yang et al., Interspeech 2021, tasks PR and ASR).
SPLITS = {"train-clean-100": 28_539, "dev-clean": 2_703, "test-clean": 2_620}
TRAIN = "train-clean-100"


class LibriSpeechSection(Protocol):
    """Where a copy of LibriSpeech lies: a section of the paths file, or `LibriSpeech`."""

    @property
    def root(self) -> Path:
        """The folder that holds the splits."""

    @property
    def lexicon(self) -> tuple[Path, ...]:
        """Lexicon files, earlier ones first."""


@dataclass(frozen=True, kw_only=True)
class LibriSpeech:
    """Where a copy of LibriSpeech lies, as `LibriSpeechSection` says."""

    root: Path
    lexicon: tuple[Path, ...]


@dataclass(frozen=True)
class Lexicon:
    """Phones of every word, and the files they were read from."""

    files: tuple[Path, ...]
    phones: Mapping[str, tuple[str, ...]]


def audio_files(section: LibriSpeechSection, split: str) -> list[tuple[str, Path]]:
    """(path below the root, path) of every utterance of a split, sorted.

    Raises:
        InputError: the split is unknown, missing or empty.
    """
    if split not in SPLITS:
        raise InputError(f"LibriSpeech has no split {split!r}: it has {', '.join(SPLITS)}.")
    folder = existing_folder(
        section.root / split, f"the split {split} of LibriSpeech, folders <speaker>/<chapter>"
    )
    # Sorted as text: paths sort by parts, which puts "12/…" and "12-…" elsewhere.
    found = sorted(
        (path.relative_to(section.root).as_posix(), path) for path in visible(folder, "*/*/*.flac")
    )
    if not found:
        raise InputError(
            f"{folder} is an empty split: it should hold <speaker>/<chapter>/<utterance>.flac."
        )
    return found


def transcript_files(section: LibriSpeechSection, split: str) -> list[Path]:
    """The files that hold the words of a split, sorted."""
    # Only under the name by which s3prl looks for it.
    return sorted(
        path
        for path in visible(section.root / split, "*/*/*.trans.txt")
        if path.name == f"{path.parent.parent.name}-{path.parent.name}.trans.txt"
    )


def transcripts(section: LibriSpeechSection, split: str) -> dict[str, str]:
    """The words of every utterance of a split, by utterance name.

    Raises:
        InputError: a transcript file is not UTF-8 text.
    """
    found: dict[str, str] = {}
    for path in transcript_files(section, split):
        for line in read_text(path).splitlines():
            name, _, words = line.strip().partition(" ")
            if name:
                found[name] = words.strip()
    return found


def utterances(section: LibriSpeechSection, split: str) -> Iterator[tuple[Path, str]]:
    """(audio file, its words) of every utterance of a split, in sorted order.

    Raises:
        InputError: the split is unknown, missing or empty; an utterance has no transcript, or an
            empty one.
    """
    spoken = transcripts(section, split)
    for _, path in audio_files(section, split):
        yield path, words_of(path, spoken)


def words_of(audio: Path, spoken: Mapping[str, str]) -> str:
    """The words of one utterance.

    Raises:
        InputError: it has no transcript, or an empty one.
    """
    words = spoken.get(audio.stem)
    if words:
        return words
    chapter = audio.stem.rpartition("-")[0]
    found = "an empty transcript" if words == "" else "no transcript"
    raise InputError(
        f"{audio} has {found}: {chapter}.trans.txt beside it should have a line "
        f"'{audio.stem} THE WORDS'."
    )


def read_lexicon(section: LibriSpeechSection) -> Lexicon:
    """Phones of every word; the first pronunciation wins, over the files in their given order.

    Raises:
        InputError: a lexicon is missing or not UTF-8 text.
    """
    phones: dict[str, tuple[str, ...]] = {}
    for path in section.lexicon:
        for line in read_text(path).splitlines():
            word, *pronunciation = line.split() or [""]
            if word:
                phones.setdefault(word, tuple(pronunciation))
    return Lexicon(section.lexicon, phones)


def to_phones(audio: Path, words: str, lexicon: Lexicon) -> list[str]:
    """The phones of an utterance's words, in their order; ``audio`` is for error messages.

    Raises:
        InputError: a word is not in the lexicon.
    """
    try:
        return [phone for word in words.split() for phone in lexicon.phones[word]]
    except KeyError as error:
        raise InputError(absent_word(audio, error.args[0], lexicon)) from None


def absent_word(audio: Path, word: str, lexicon: Lexicon) -> str:
    """What is wrong with a word that the lexicon lacks, as a sentence."""
    where = ", ".join(str(path) for path in lexicon.files)
    return (
        f"The word {word!r} of utterance {audio.stem} has no entry in the lexicon {where}; "
        "every word of every transcript should have one."
    )
