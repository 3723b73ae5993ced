"""What is said: sentences of two small grammars over closed vocabularies, and keywords.

In both vocabularies all 39 phones of English and all 26 letters occur. That of `READ` is small, so
that a few hundred short utterances hold each word often enough for PR and ASR to learn it; that of
`TOLD` gives the other tasks sentences of which hardly any comes twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """Sentences as sequences of word classes, and the words of each class."""

    words: Mapping[str, tuple[str, ...]]
    sentences: tuple[str, ...]

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word, sorted."""
        return tuple(sorted(word for words in self.words.values() for word in words))


# Sentences of three to five words, one to two seconds of speech.
READ = Grammar(
    words={
        "determiner": _words("the my every our"),
        "adjective": _words("old young lazy quiet"),
        "person": _words("farmer teacher child boy judge"),
        "handles": _words("found pushed watched measured"),
        "object": _words("book box horse wheel"),
        "moves": _words("ran stood"),
        "preposition": _words("through behind"),
        "place": _words("town church"),
        "time": _words("again"),
    },
    sentences=(
        "determiner person handles determiner object",
        "determiner adjective person moves",
        "determiner person moves time",
        "determiner adjective person moves time",
        "determiner person moves preposition place",
        "person handles determiner adjective object",
        "determiner person moves",
    ),
)

WORDS: dict[str, tuple[str, ...]] = {
    "determiner": _words("the a every my her our this that"),
    "adjective": _words("old young little quiet yellow green white heavy brave lazy clever poor"),
    "person": _words(
        "farmer sister brother doctor teacher captain queen child judge boy sailor girl"
    ),
    "object": _words(
        "basket horse table window flower book letter knife jacket box wheel treasure"
    ),
    "place": _words("river garden kitchen church mountain village bridge forest harbor"),
    "handles": _words("carried found watched bought opened painted forgot measured brought pushed"),
    "moves": _words("walked waited laughed ran stood sang"),
    "preposition": _words("behind through near across under toward past"),
    "time": _words("yesterday tonight again early twice"),
}

# Sentences of six to eight words: two to three and a half seconds of speech.
TOLD = Grammar(
    words=WORDS,
    sentences=(
        "determiner adjective person handles determiner object",
        "determiner person handles determiner adjective object",
        "determiner person moves preposition determiner adjective place",
        "determiner adjective person moves preposition determiner place",
        "time determiner person handles determiner object",
        "determiner person handles determiner object time",
        "determiner person handles determiner object preposition determiner place",
    ),
)

# Speech Commands v0.01 has 30 words: SUPERB's ten keywords and these twenty; five more are ours,
# for as many kinds of word as possible behind one class.
UNKNOWN_WORDS = _words(
    "bed bird cat dog eight five four happy house marvin nine one seven sheila six three tree two "
    "wow zero water number paper music letter"
)


class Sentences:
    """An endless supply of a grammar's sentences.

    Words of a class come from a shuffled deck that is used up before it is shuffled again, so
    every word occurs about equally often and none is missing from a few dozen sentences.
    """

    def __init__(self, random: np.random.Generator, grammar: Grammar = TOLD) -> None:
        self._grammar = grammar
        self._random = random
        self._decks: dict[str, list[str]] = {}

    def draw(self) -> str:
        """The next sentence, lower case, without punctuation."""
        classes = self._draw("", self._grammar.sentences).split()
        words = self._grammar.words
        return " ".join(self._draw(word_class, words[word_class]) for word_class in classes)

    def _draw(self, name: str, items: tuple[str, ...]) -> str:
        if not self._decks.get(name):
            self._decks[name] = [items[i] for i in self._random.permutation(len(items))]
        return self._decks[name].pop()
