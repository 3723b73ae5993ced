"""What is said: sentences of a small grammar over a closed vocabulary, and keywords.

The vocabulary is chosen so that all 39 phones of English and all 26 letters occur: PR and ASR then
need every output, and a few hundred short utterances hold each of them often enough to learn.
"""

from __future__ import annotations

import numpy as np

# Word classes of the grammar.
_WORDS: dict[str, tuple[str, ...]] = {
    "determiner": tuple("the a every my her our this that".split()),
    "adjective": tuple(
        "old young little quiet yellow green white heavy brave lazy clever poor".split()
    ),
    "person": tuple(
        "farmer sister brother doctor teacher captain queen child judge boy sailor girl".split()
    ),
    "object": tuple(
        "basket horse table window flower book letter knife jacket box wheel treasure".split()
    ),
    "place": tuple("river garden kitchen church mountain village bridge forest harbor".split()),
    "handles": tuple(
        "carried found watched bought opened painted forgot measured brought pushed".split()
    ),
    "moves": tuple("walked waited laughed ran stood sang".split()),
    "preposition": tuple("behind through near across under toward past".split()),
    "time": tuple("yesterday tonight again early twice".split()),
}

# Sentences of six to eight words: two to three and a half seconds of speech.
_SENTENCES = (
    "determiner adjective person handles determiner object",
    "determiner person handles determiner adjective object",
    "determiner person moves preposition determiner adjective place",
    "determiner adjective person moves preposition determiner place",
    "time determiner person handles determiner object",
    "determiner person handles determiner object time",
    "determiner person handles determiner object preposition determiner place",
)

VOCABULARY = tuple(sorted(word for words in _WORDS.values() for word in words))

# Speech Commands v0.01 has 30 words: SUPERB's ten keywords and these twenty; five more are ours,
# for as many kinds of word as possible behind one class.
UNKNOWN_WORDS = tuple(
    "bed bird cat dog eight five four happy house marvin nine one seven sheila six three tree two "
    "wow zero water number paper music letter".split()
)


class Sentences:
    """An endless supply of sentences.

    Words of a class come from a shuffled deck that is used up before it is shuffled again, so
    every word occurs about equally often and none is missing from a few dozen sentences.
    """

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._decks: dict[str, list[str]] = {}

    def draw(self) -> str:
        """The next sentence, lower case, without punctuation."""
        classes = self._draw("", _SENTENCES).split()
        return " ".join(self._draw(word_class, _WORDS[word_class]) for word_class in classes)

    def _draw(self, name: str, items: tuple[str, ...]) -> str:
        if not self._decks.get(name):
            self._decks[name] = [items[i] for i in self._random.permutation(len(items))]
        return self._decks[name].pop()
