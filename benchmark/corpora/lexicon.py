"""Pronunciations for PR: words to the phones of SUPERB's inventory.

A lexicon is a list of text files of lines ``WORD PH ON EMES``; a word's first pronunciation counts,
as in SUPERB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from superbit.benchmark.corpora.layout import Problems
from superbit.benchmark.corpora.paths import LibriSpeechPaths
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_text


@dataclass(frozen=True)
class Lexicon:
    """Phones of every word, and the files they were read from."""

    files: tuple[Path, ...]
    phones: Mapping[str, tuple[str, ...]]


def read_lexicon(section: LibriSpeechPaths) -> Lexicon:
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


def phone_inventory() -> frozenset[str]:
    """The phone symbols of SUPERB's PR task, as in ``downstream_configs/assets/phoneme.txt``."""
    asset = resources.files("superbit.downstream_configs") / "assets" / "phoneme.txt"
    return frozenset(asset.read_text(encoding="utf-8").split())


def check_lexicon(section: LibriSpeechPaths, problems: Problems) -> Lexicon | None:
    """The lexicon, with its faults added to ``problems``; None where it cannot be read."""
    try:
        lexicon = read_lexicon(section)
    except InputError as error:
        problems.add("lexicon", str(error))
        return None
    inventory = phone_inventory()
    for path in section.lexicon:
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            word, *phones = line.split() or [""]
            if word and not phones:
                problems.add(
                    "no phones",
                    f"{path}, line {number}: {word!r} has no phones; a line should be "
                    "'WORD PH ON EMES'.",
                )
            for phone in phones:
                if phone not in inventory:
                    problems.add(
                        "phone",
                        f"{path}, line {number}: the phone {phone!r} of {word!r} is not one of "
                        f"the {len(inventory)} that PR knows (AA0 … ZH, SIL, SPN).",
                    )
    return lexicon


def absent_word(audio: Path, word: str, lexicon: Lexicon) -> str:
    """What is wrong with a word that the lexicon lacks, as a sentence."""
    where = ", ".join(str(path) for path in lexicon.files)
    return (
        f"The word {word!r} of utterance {audio.stem} has no entry in the lexicon {where}; "
        "every word of every transcript should have one."
    )
