"""Audio SNIPS' text, without torch: transcripts of all splits with a slot a word.

A line of ``all.iob.snips.txt`` is ``<Speaker>-<utterance> BOS WORDS EOS<tab>O slot … intent``: a
slot a word, ``O`` for none, the intent under ``EOS``.
"""

from __future__ import annotations

from pathlib import Path

from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_text

TRANSCRIPTS = "all.iob.snips.txt"
NO_SLOT = "O"


def read_transcripts(source: Path) -> dict[str, str]:
    """The text of every utterance, words and slots, by utterance name.

    Raises:
        InputError: the file is missing, is not UTF-8, or gives an utterance two texts.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(read_text(source).splitlines(), start=1):
        name, _, text = line.strip().partition(" ")
        if name and found.setdefault(name, text) != text:
            raise InputError(
                f"{source}, line {number}, gives {name} a second text: it should have one."
            )
    return found


def words_and_slots(text: str) -> tuple[list[str], list[str], str]:
    """(words, a slot a word, the intent) of an utterance's text.

    Raises:
        ValueError: it has not the form ``BOS WORDS EOS<tab>O slot … intent``.
    """
    words, _, slots = (part.split(" ") for part in text.partition("\t"))
    if len(words) != len(slots) or len(words) < 3 or (words[0], words[-1]) != ("BOS", "EOS"):
        raise ValueError(f"{text!r} is not 'BOS WORDS EOS<tab>O slot … intent'")
    return words[1:-1], slots[1:-1], slots[-1]
