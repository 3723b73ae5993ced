"""Synthesizes a corpus in IEMOCAP's layout: two actors a session, emotions as prosody.

Both actors say every sentence in every emotion, so that words tell nothing: rate, pitch, range,
level and vocal effort do. The contrasts are strong and vary from item to item.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from superbit.benchmark.corpora.audio import SAMPLE_RATE
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.embedded.acoustics import Conditions, record_with_margins, say
from superbit.benchmark.corpora.embedded.espeak import Espeak
from superbit.benchmark.corpora.embedded.exact import draw, draw_normal, write
from superbit.benchmark.corpora.embedded.texts import Sentences
from superbit.benchmark.corpora.embedded.voices import (
    ACCENTS,
    TABLE_COLUMNS,
    TASK_VOICES,
    Speaker,
    draw_speakers,
)
from superbit.upstreams.files import write_text

_VOICES = {
    "F": ("f1", "f2", "f3", "f4", "f5", "Annie", "linda", "steph"),
    "M": ("m1", "m2", "m3", "m4", "m6", "m7", "Andy", "david"),
}
# Shorter vocal tracts for women.
_VOCAL_TRACTS = {"F": (1.0, 1.13), "M": (0.89, 1.0)}
_PITCHES = {"F": (50, 60), "M": (35, 45)}


@dataclass(frozen=True, kw_only=True)
class _Prosody:
    """What an emotion changes.

    Attributes:
        rate: factor.
        pitch: added to the speaker's.
        pitch_range: 0 (monotone) to 99.
        level_db: full scale being 0.
        tilt: of the voice; more effort raises high frequencies.
        rating: valence, activation and dominance, 1 to 5.
    """

    rate: float
    pitch: int
    pitch_range: int
    level_db: float
    tilt: float
    rating: tuple[float, float, float]


PROSODY = {
    "neu": _Prosody(
        rate=1.0, pitch=0, pitch_range=40, level_db=-24, tilt=0.0, rating=(3.0, 2.5, 3.0)
    ),
    "hap": _Prosody(
        rate=1.1, pitch=28, pitch_range=90, level_db=-22, tilt=0.0, rating=(4.5, 3.5, 3.5)
    ),
    "exc": _Prosody(
        rate=1.2, pitch=32, pitch_range=95, level_db=-22, tilt=0.0, rating=(4.5, 4.5, 3.5)
    ),
    "ang": _Prosody(
        rate=1.45, pitch=6, pitch_range=60, level_db=-20, tilt=0.1, rating=(1.5, 4.5, 4.5)
    ),
    "sad": _Prosody(
        rate=0.7, pitch=-18, pitch_range=10, level_db=-26, tilt=-0.1, rating=(1.5, 1.5, 2.0)
    ),
    # An emotion that SUPERB leaves out.
    "fru": _Prosody(
        rate=1.1, pitch=-4, pitch_range=50, level_db=-22, tilt=0.0, rating=(2.0, 3.5, 3.5)
    ),
}
_OTHER = "fru"
_SNR_DB = (20, 36)
# Standard deviations from item to item.
_RATE_JITTER, _PITCH_JITTER, _RANGE_JITTER, _LEVEL_JITTER, _TILT_JITTER = 0.06, 4.0, 8.0, 4.0, 0.15
_ECHO_DB = (12, 26)
_MARGIN_SECONDS = (0.05, 0.2)
_PAUSE_SECONDS = 0.5


def make(out: Path, *, size: str, seed: int, on_item: Callable[[], None]) -> None:
    """Write ``IEMOCAP/Session1`` to ``Session5`` under ``out``.

    Every random choice follows from ``seed``; ``on_item`` is called after each utterance.
    """
    root = out / "IEMOCAP"
    random = np.random.default_rng(seed)
    espeak = Espeak(seed)
    table = [",".join(TABLE_COLUMNS)]
    actors = _draw_actors(random)
    for session in range(1, sizes.SESSIONS + 1):
        for gender in "FM":
            table.append(actors[session, gender].row(f"Session{session}"))
        turns = _draw_turns(sizes.IEMOCAP[size], random)
        half = len(turns) // 2
        for name, of_dialog in (("impro01", turns[:half]), ("impro02", turns[half:])):
            # Who wore the sensors names a dialog; both actors speak in it.
            dialog = f"Ses{session:02d}{'F' if name == 'impro01' else 'M'}_{name}"
            folder = root / f"Session{session}" / "sentences" / "wav" / dialog
            folder.mkdir(parents=True)
            lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n", "\n"]
            seconds, numbers = 0.0, {"F": 0, "M": 0}
            for gender, emotion, text in of_dialog:
                utterance = f"{dialog}_{gender}{numbers[gender]:03d}"
                numbers[gender] += 1
                recording = _say(text, emotion, actors[session, gender], espeak, random)
                write(folder / f"{utterance}.wav", recording)
                end = seconds + len(recording) / SAMPLE_RATE
                rating = ", ".join(f"{value:.4f}" for value in PROSODY[emotion].rating)
                lines.append(f"[{seconds:.4f} - {end:.4f}]\t{utterance}\t{emotion}\t[{rating}]\n\n")
                seconds = end + _PAUSE_SECONDS
                on_item()
            labels = root / f"Session{session}" / "dialog" / "EmoEvaluation" / f"{dialog}.txt"
            write_text(labels, "".join(lines))
    write_text(root / "speakers.csv", "\n".join(table) + "\n")


def _draw_actors(random: np.random.Generator) -> dict[tuple[int, str], Speaker]:
    """A woman and a man a session, no voice twice."""
    who = list(itertools.product(range(1, sizes.SESSIONS + 1), "FM"))
    drawn = draw_speakers([f"Ses{session:02d}{gender}" for session, gender in who], random)
    voices = {gender: list(random.permutation(names)) for gender, names in _VOICES.items()}
    actors = {}
    for (session, gender), speaker in zip(who, drawn, strict=True):
        variant = str(voices[gender].pop())
        accents = [accent for accent in ACCENTS if (accent, variant) in TASK_VOICES]
        actors[session, gender] = replace(
            speaker,
            accent=str(random.choice(accents)),
            variant=variant,
            pitch=int(random.integers(*_PITCHES[gender], endpoint=True)),
            vocal_tract=round(draw(random, *_VOCAL_TRACTS[gender]), 2),
        )
    return actors


def _draw_turns(plan: sizes.Emotions, random: np.random.Generator) -> list[tuple[str, str, str]]:
    """(actor, emotion, sentence) of every utterance of a session, in random order."""
    sentences = Sentences(random)
    turns = []
    for index in range(plan.sentences):
        text = sentences.draw()
        # SUPERB takes excitement for happiness.
        emotions = ("neu", "exc" if index % 2 else "hap", "ang", "sad")
        turns += [(gender, emotion, text) for emotion in emotions for gender in "FM"]
    turns += [("FM"[index % 2], _OTHER, sentences.draw()) for index in range(plan.others)]
    return [turns[index] for index in random.permutation(len(turns))]


def _say(
    text: str, emotion: str, actor: Speaker, espeak: Espeak, random: np.random.Generator
) -> np.ndarray:
    prosody = PROSODY[emotion]
    varied = [draw_normal(random) for _ in range(5)]
    in_emotion = replace(
        actor,
        rate=round(actor.rate * prosody.rate * (1 + _RATE_JITTER * varied[0])),
        pitch=_clip(actor.pitch + prosody.pitch + _PITCH_JITTER * varied[1]),
        pitch_range=_clip(prosody.pitch_range + _RANGE_JITTER * varied[2]),
    )
    conditions = Conditions(
        margin_seconds=_MARGIN_SECONDS,
        snr_db=_SNR_DB,
        tilt=prosody.tilt + _TILT_JITTER * varied[4],
        echo_db=_ECHO_DB,
        level_db=prosody.level_db + _LEVEL_JITTER * varied[3],
    )
    return record_with_margins(say(text, in_emotion, espeak), conditions, random)


def _clip(value: float) -> int:
    """espeak-ng's pitch and pitch range are 0 to 99."""
    return round(min(99.0, max(0.0, value)))
