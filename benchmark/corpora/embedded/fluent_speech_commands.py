"""Synthesizes a corpus in Fluent Speech Commands' layout: commands to a house, by unseen speakers.

Slots and their values are a part of the real corpus's; each intent has several phrasings, so that
no single word stands for it.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np

from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.embedded.acoustics import Conditions, record_with_margins, say
from superbit.benchmark.corpora.embedded.espeak import Espeak
from superbit.benchmark.corpora.embedded.exact import write
from superbit.benchmark.corpora.embedded.voices import TABLE_COLUMNS, draw_speakers
from superbit.benchmark.corpora.fluent_speech_commands import COLUMNS
from superbit.upstreams.files import write_text

# (action, object, location) → what is said.
PHRASINGS: dict[tuple[str, str, str], tuple[str, ...]] = {
    ("activate", "lights", "none"): ("turn on the lights", "lights on please", "switch on lights"),
    ("activate", "lights", "kitchen"): ("kitchen lights on", "turn the kitchen lights on"),
    ("activate", "lights", "bedroom"): ("bedroom lights on", "turn on the lights in the bedroom"),
    ("activate", "music", "none"): ("play some music", "start the music", "music on"),
    ("deactivate", "lights", "none"): ("turn off the lights", "lights off please"),
    ("deactivate", "lights", "kitchen"): ("kitchen lights off", "turn the kitchen lights off"),
    ("deactivate", "music", "none"): ("stop the music", "turn the music off", "pause the song"),
    ("increase", "volume", "none"): ("louder please", "make it louder"),
    ("increase", "heat", "bedroom"): ("warm the bedroom up", "make my bedroom hotter"),
    ("decrease", "volume", "none"): ("make it quieter", "not so loud"),
    ("decrease", "heat", "bedroom"): ("cool the bedroom", "less heat in the bedroom"),
    ("change language", "German", "none"): ("switch to German", "speak German", "use German"),
    ("change language", "Chinese", "none"): ("switch to Chinese", "speak Chinese", "use Chinese"),
    ("bring", "newspaper", "none"): ("bring me the newspaper", "fetch the newspaper"),
    ("bring", "juice", "none"): ("get me some juice", "bring the juice here"),
}
_NAME_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_CONDITIONS = Conditions(
    margin_seconds=(0.05, 0.2),
    snr_db=(20, 38),
    tilt=(-0.3, 0.4),
    level_db=(-32, -16),
    echo_db=(12, 26),
)


def make(out: Path, *, size: str, seed: int, on_item: Callable[[], None]) -> None:
    """Write ``fluent_speech_commands/`` under ``out``.

    Every random choice follows from ``seed``; ``on_item`` is called after each utterance.
    """
    root = out / "fluent_speech_commands"
    random = np.random.default_rng(seed)
    espeak = Espeak(seed)
    splits = [
        split for split, count in sizes.FLUENT_SPEECH_COMMANDS[size].items() for _ in range(count)
    ]
    speakers = draw_speakers([_name(random) for _ in splits], random)
    table = [",".join(TABLE_COLUMNS)]
    rows: dict[str, list[tuple[str, ...]]] = {split: [] for split in splits}
    for turn, (split, speaker) in enumerate(zip(splits, speakers, strict=True)):
        table.append(speaker.row(split))
        folder = root / "wavs" / "speakers" / speaker.name
        folder.mkdir(parents=True)
        for index, (intent, phrasings) in enumerate(PHRASINGS.items()):
            # In turn, so that every phrasing is heard in training.
            text = phrasings[(turn + index) % len(phrasings)]
            recording = record_with_margins(say(text, speaker, espeak), _CONDITIONS, random)
            path = folder / f"{uuid.UUID(bytes=random.bytes(16), version=4)}.wav"
            write(path, recording)
            key = path.relative_to(root).as_posix()
            rows[split].append((key, speaker.name, text.capitalize(), *intent))
            on_item()
    for split, of_split in rows.items():
        write_text(root / "data" / f"{split}_data.csv", _csv(of_split, random))
    write_text(root / "speakers.csv", "\n".join(table) + "\n")


def _name(random: np.random.Generator) -> str:
    return "".join(_NAME_LETTERS[i] for i in random.integers(len(_NAME_LETTERS), size=16))


def _csv(rows: list[tuple[str, ...]], random: np.random.Generator) -> str:
    """The rows in random order, as a table with an unnamed first column of row numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("", *COLUMNS))
    writer.writerows((n, *rows[i]) for n, i in enumerate(random.permutation(len(rows))))
    return text.getvalue()
