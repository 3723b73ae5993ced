"""Speakers: accent × voice variant × pitch × rate × pitch range × length of the vocal tract."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np

from superbit.benchmark.corpora.embedded.exact import draw

ACCENTS = (
    "en-us",
    "en-us-nyc",
    "en",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
)

# espeak-ng's variants that sound like people: no whispers, robots or croaks.
VARIANTS = (
    *("f1", "f2", "f3", "f4", "f5", "Alicia", "Andrea", "Annie", "anika", "aunty", "belinda"),
    *("grandma", "linda", "shelby", "steph", "steph2"),
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Alex", "Andy", "Denis", "Diogo", "Gene"),
    *("Gene2", "Henrique", "Jacky", "Lee", "Marco", "Mario", "Mike", "Nguyen", "boris", "david"),
    *("ed", "grandpa", "gustave", "ian", "iven", "iven3", "john", "klatt", "marcelo", "max"),
    *("michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert"),
    *("travis", "victor"),
)

# A voice is a pair of accent and variant. These 120 are for pre-training alone, the other 360 for
# the corpora of tasks: an encoder has heard none of the voices that it is measured on. They are the
# voices that the shipped encoders were trained on.
_OF_PRETRAINING = {
    "en": "Alicia Andy Annie Jacky Marco Mario anika f1 grandma m6 norbert steph2",
    "en-029": (
        "Annie Denis Jacky Nguyen boris david f3 ian klatt m4 michel miguel quincy robert steph2"
    ),
    "en-gb-scotland": "Alicia Gene Henrique Marco belinda f2 grandma john linda m2 max pablo",
    "en-gb-x-gbclan": (
        "Andrea Andy Diogo Gene2 Lee aunty ed f4 f5 grandpa iven m3 m7 paul pedro "
        "robert steph victor"
    ),
    "en-gb-x-gbcwmd": (
        "Alex Andrea Denis Henrique f5 gustave iven3 linda m3 m6 m8 norbert rob shelby victor"
    ),
    "en-gb-x-rp": "Alex Diogo Gene Mario Mike anika aunty f2 grandpa klatt m5 m8 quincy",
    "en-us": "Lee belinda f1 f4 iven iven3 m1 m5 m7 marcelo miguel pablo pedro rob travis",
    "en-us-nyc": (
        "Gene2 Mike Nguyen anika david ed f3 gustave ian john m1 m2 m4 marcelo max "
        "michel paul shelby steph travis"
    ),
}
Voice = tuple[str, str]
PRETRAINING_VOICES: frozenset[Voice] = frozenset(
    (accent, variant)
    for accent, variants in _OF_PRETRAINING.items()
    for variant in variants.split()
)
TASK_VOICES: frozenset[Voice] = (
    frozenset((accent, variant) for accent in ACCENTS for variant in VARIANTS) - PRETRAINING_VOICES
)

# espeak-ng's default rate is 175 words a minute and its default pitch and range are 50.
_RATES_WPM = (135, 195)
_PITCHES = (30, 70)
_PITCH_RANGES = (30, 75)
_VOCAL_TRACTS = (0.89, 1.13)

TABLE_COLUMNS = (
    *("speaker", "split", "accent", "variant", "pitch", "pitch_range", "rate", "vocal_tract"),
)


class Synthesis(TypedDict):
    """What espeak-ng must know of a speaker: see :meth:`espeak.Espeak.synthesize`."""

    voice: str
    rate: int
    pitch: int
    pitch_range: int


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One voice.

    Attributes:
        name: identity in the corpus's file names.
        accent: espeak-ng's name of an English accent.
        variant: espeak-ng's name of a voice variant.
        pitch: 0 to 99.
        pitch_range: 0 to 99.
        rate: words a minute, as heard.
        vocal_tract: factor on every resonance; above 1 is a shorter vocal tract.
    """

    name: str
    accent: str
    variant: str
    pitch: int
    pitch_range: int
    rate: int
    vocal_tract: float

    @property
    def synthesis(self) -> Synthesis:
        """Arguments for the synthesizer, whose output is then played faster by ``vocal_tract``.

        The rate is divided by that factor, so that playing faster brings it to ``rate``.
        """
        return {
            "voice": f"{self.accent}+{self.variant}",
            "rate": round(self.rate / self.vocal_tract),
            "pitch": self.pitch,
            "pitch_range": self.pitch_range,
        }

    def row(self, split: str) -> str:
        """The speaker as a line of a table with the columns ``TABLE_COLUMNS``."""
        values = {"speaker": self.name, "split": split, **asdict(self)}
        return ",".join(str(values[column]) for column in TABLE_COLUMNS)


def draw_speakers(
    names: Sequence[str],
    random: np.random.Generator,
    *,
    among: Collection[Voice] = TASK_VOICES,
) -> list[Speaker]:
    """A distinct voice for each of ``names``.

    Variants come from a shuffled deck, so that two speakers share one only after all were used,
    and then with another accent.

    Args:
        names: of the speakers.
        random: decides everything.
        among: the voices they may have.

    Raises:
        ValueError: there are more names than voices.
    """
    free = set(among)
    if len(names) > len(free):
        raise ValueError(f"There are no {len(names)} distinct voices.")
    deck: list[str] = []
    speakers = []
    for name in names:
        accents: list[str] = []
        while not accents:  # a variant may be taken with every accent
            deck = deck or [str(variant) for variant in random.permutation(VARIANTS)]
            variant = deck.pop()
            accents = [a for a in ACCENTS if (a, variant) in free]
        accent = str(random.choice(accents))
        free.remove((accent, variant))
        speakers.append(
            Speaker(
                name=name,
                accent=accent,
                variant=variant,
                pitch=int(random.integers(*_PITCHES, endpoint=True)),
                pitch_range=int(random.integers(*_PITCH_RANGES, endpoint=True)),
                rate=int(random.integers(*_RATES_WPM, endpoint=True)),
                vocal_tract=round(draw(random, *_VOCAL_TRACTS), 2),
            )
        )
    return speakers
