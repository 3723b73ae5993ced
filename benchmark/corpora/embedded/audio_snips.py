"""Synthesizes a corpus in Audio SNIPS' layout: short commands with slots and intents.

Five intents over eight slots and a small vocabulary, so that a few hundred utterances are enough to
spell them. Speakers have the names of the real ones, each of which stands for some voices of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from superbit.benchmark.corpora.audio_snips import NO_SLOT, SLOTS, SPEAKERS, TRANSCRIPTS
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.embedded.acoustics import Conditions, record_with_margins, say
from superbit.benchmark.corpora.embedded.espeak import Espeak
from superbit.benchmark.corpora.embedded.exact import draw, write
from superbit.benchmark.corpora.embedded.voices import TABLE_COLUMNS, draw_speakers

# Names of slots and intents are the real corpus's; values of a slot may have several words.
SLOT_VALUES: dict[str, tuple[str, ...]] = {
    "artist": ("sheila", "marvin", "doctor wolf", "queen bird"),
    "city": ("paris", "london", "new york", "boston"),
    "condition_description": ("rain", "snow", "hail", "storm"),
    "genre": ("jazz", "rock", "folk", "opera"),
    "party_size_number": ("two", "three", "five", "seven"),
    "playlist": ("morning", "garden", "road trip", "quiet time"),
    "rating_value": ("zero", "four", "six"),
    "timeRange": ("tonight", "tomorrow", "next week", "sunday"),
}
_PATTERNS = (
    ("PlayMusic", "play some {genre} by {artist}"),
    ("PlayMusic", "play {genre} music from {artist}"),
    ("AddToPlaylist", "add {artist} to my {playlist} playlist"),
    ("AddToPlaylist", "put {artist} on the {playlist} list"),
    ("GetWeather", "will it {condition_description} in {city} {timeRange}"),
    ("GetWeather", "is there {condition_description} in {city} {timeRange}"),
    ("BookRestaurant", "book a table for {party_size_number} in {city}"),
    ("BookRestaurant", "find dinner for {party_size_number} people {timeRange}"),
    ("RateBook", "give this {genre} book {rating_value} stars"),
)
_TILT = (-0.3, 0.4)  # one microphone a speaker
_CONDITIONS = Conditions(
    margin_seconds=(0.05, 0.25),
    snr_db=(15, 35),
    tilt=_TILT,
    level_db=(-32, -18),
    echo_db=(12, 26),
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A sentence: words, a slot for each (``O`` for none), and what is wanted."""

    words: tuple[str, ...]
    slots: tuple[str, ...]
    intent: str

    @property
    def text(self) -> str:
        """The sentence as espeak-ng is to say it."""
        return " ".join(self.words)

    @property
    def line(self) -> str:
        """The transcript as the corpus writes it, without the utterance's name."""
        words = " ".join(["BOS", *self.words, "EOS"]).upper()
        return f"{words}\t{' '.join([NO_SLOT, *self.slots, self.intent])}"


class SlotCommands:
    """An endless supply of commands; patterns and values come from shuffled decks."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._decks: dict[str, list[str]] = {}

    def draw(self) -> Command:
        """The next command."""
        index = int(self._draw("", tuple(str(i) for i in range(len(_PATTERNS)))))
        intent, pattern = _PATTERNS[index]
        words: list[str] = []
        slots: list[str] = []
        for part in pattern.split():
            slot = part.strip("{}") if part.startswith("{") else NO_SLOT
            said = self._draw(slot, SLOT_VALUES[slot]) if slot != NO_SLOT else part
            words += said.split()
            slots += [slot] * len(said.split())
        return Command(words=tuple(words), slots=tuple(slots), intent=intent)

    def _draw(self, name: str, items: tuple[str, ...]) -> str:
        if not self._decks.get(name):
            self._decks[name] = [items[i] for i in self._random.permutation(len(items))]
        return self._decks[name].pop()


def make(out: Path, *, size: str, seed: int, on_item: Callable[[], None]) -> None:
    """Write ``audio_snips/`` under ``out``.

    Every random choice follows from ``seed``; ``on_item`` is called after each utterance.
    """
    random = np.random.default_rng(seed)
    espeak = Espeak(seed)
    root = out / "audio_snips"
    voices = {
        split: [(name, voice) for voice in range(plan.voices) for name in SPEAKERS[split]]
        for split, plan in sizes.AUDIO_SNIPS[size].items()
    }
    drawn = draw_speakers([f"{n}.{v}" for of in voices.values() for n, v in of], random)
    speakers = iter(drawn)
    table = [",".join(TABLE_COLUMNS)]
    lines = []
    for split, plan in sizes.AUDIO_SNIPS[size].items():
        commands = SlotCommands(random)
        for name, voice in voices[split]:
            speaker = next(speakers)
            table.append(speaker.row(split))
            conditions = replace(_CONDITIONS, tilt=draw(random, *_TILT))
            for index in range(voice * plan.utterances, (voice + 1) * plan.utterances):
                command = commands.draw()
                recording = record_with_margins(
                    say(command.text, speaker, espeak), conditions, random
                )
                utterance = f"{name}-snips-{split}-{index}"
                write(root / split / f"{utterance}.wav", recording)
                lines.append(f"{utterance} {command.line}\n")
                on_item()
    (root / TRANSCRIPTS).write_text("".join(lines), encoding="utf-8")
    # No line break at the end: s3prl would take it for one more slot.
    (root / SLOTS).write_text("\n".join([NO_SLOT, *SLOT_VALUES]), encoding="utf-8")
    (root / "speakers.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
