"""A lexicon in ARPAbet for the words that espeak-ng speaks.

espeak-ng's phonemes of American English are mapped to the symbols of SUPERB's PR task. Stress is
folded away (every vowel carries the digit 1): with a few hundred utterances a model cannot learn
to tell stress digits apart, and the task would measure little else.
"""

from __future__ import annotations

from collections.abc import Iterable

from superbit.benchmark.corpora.embedded.espeak import Espeak

_VOICE = "en-us"
# A noun after each word makes function words take their spoken form ("a": AH, not EY).
_CARRIER = "basket"

# espeak-ng's mnemonic → ARPAbet; a vowel before r, one symbol there, is two here.
_CONSONANTS = {
    **{symbol: symbol.upper() for symbol in "bdfgklmnprstvwz"},
    "h": "HH",
    "j": "Y",
    "tS": "CH",
    "dZ": "JH",
    "S": "SH",
    "Z": "ZH",
    "T": "TH",
    "D": "DH",
    "N": "NG",
    "t#": "T",
    "?": "T",
    ";": "",
}
_VOWELS = {
    "0": "AA1",
    "A:": "AA1",
    "A@": "AA1 R",
    "a": "AE1",
    "aa": "AE1",
    "a#": "AH1",
    "V": "AH1",
    "@": "AH1",
    "@2": "AH1",
    "@L": "AH1 L",
    "n-": "AH1 N",
    "O:": "AO1",
    "O@": "AO1 R",
    "aU": "AW1",
    "aU@": "AW1 ER1",
    "aU3": "AW1 ER1",
    "aI": "AY1",
    "aI@": "AY1 AH1",
    "aI3": "AY1 ER1",
    "E": "EH1",
    "e@": "EH1 R",
    "3": "ER1",
    "3:": "ER1",
    "eI": "EY1",
    "I": "IH1",
    "I#": "IH1",
    "I2": "IH1",
    "i@3": "IH1 R",
    "i": "IY1",
    "i:": "IY1",
    "oU": "OW1",
    "o@": "AO1 R",
    "OI": "OY1",
    "U": "UH1",
    "U@": "UH1 R",
    "u:": "UW1",
}
_ARPABET = {**_CONSONANTS, **_VOWELS}


def make_lexicon(words: Iterable[str], espeak: Espeak) -> dict[str, tuple[str, ...]]:
    """Phones of each word, upper case, in ARPAbet with every vowel's stress digit 1.

    Raises:
        ValueError: a word has a phoneme that the table does not know.
    """
    return {word.upper(): _phones(word, espeak) for word in words}


def lexicon_text(lexicon: dict[str, tuple[str, ...]]) -> str:
    """The lexicon as a file: ``WORD PH ON EMES`` a line, sorted."""
    return "".join(f"{word} {' '.join(phones)}\n" for word, phones in sorted(lexicon.items()))


def _phones(word: str, espeak: Espeak) -> tuple[str, ...]:
    first, *rest = espeak.phonemes(f"{word} {_CARRIER}", voice=_VOICE)
    if len(rest) != 1:
        raise ValueError(f"espeak-ng does not speak {word!r} as one word.")
    unknown = [phoneme for phoneme in first if phoneme not in _ARPABET]
    if unknown:
        raise ValueError(f"No ARPAbet symbol for espeak-ng's {unknown[0]!r} in {word!r}.")
    return tuple(phone for phoneme in first for phone in _ARPABET[phoneme].split())
