"""Synthesizes a corpus in LibriSpeech's layout: read sentences, many speakers, light noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.embedded.acoustics import Conditions, record_with_margins, say
from superbit.benchmark.corpora.embedded.espeak import Espeak
from superbit.benchmark.corpora.embedded.exact import draw, write
from superbit.benchmark.corpora.embedded.lexicon import lexicon_text, make_lexicon
from superbit.benchmark.corpora.embedded.texts import READ, Sentences
from superbit.benchmark.corpora.embedded.voices import TABLE_COLUMNS, draw_speakers

# Names of speakers begin here; real LibriSpeech's are of the same form.
_FIRST_SPEAKER = {"train-clean-100": 1001, "dev-clean": 2001, "test-clean": 3001}
_TILT = (-0.3, 0.4)  # one microphone a speaker
_CONDITIONS = Conditions(
    margin_seconds=(0.08, 0.25),
    snr_db=(15, 35),
    tilt=_TILT,
    level_db=(-32, -16),
    echo_db=(12, 26),
)


def make(out: Path, *, size: str, seed: int, on_item: Callable[[], None]) -> None:
    """Write ``LibriSpeech/`` and ``librispeech-lexicon.txt`` under ``out``.

    Every random choice follows from ``seed``; ``on_item`` is called after each utterance.
    """
    random = np.random.default_rng(seed)
    espeak = Espeak(seed)
    lexicon = make_lexicon(READ.vocabulary, espeak)
    (out / "librispeech-lexicon.txt").write_text(lexicon_text(lexicon), encoding="utf-8")
    names = {
        split: [str(_FIRST_SPEAKER[split] + index) for index in range(plan.speakers)]
        for split, plan in sizes.LIBRISPEECH[size].items()
    }
    speakers = iter(draw_speakers([name for of in names.values() for name in of], random))
    table = [",".join(TABLE_COLUMNS)]
    for split, plan in sizes.LIBRISPEECH[size].items():
        # Each split has decks of its own, so that none lacks a word.
        sentences = Sentences(random, READ)
        for name in names[split]:
            speaker = next(speakers)
            table.append(speaker.row(split))
            chapter = f"{name}-1"
            folder = out / "LibriSpeech" / split / name / "1"
            folder.mkdir(parents=True, exist_ok=True)
            conditions = replace(_CONDITIONS, tilt=draw(random, *_TILT))
            lines = []
            for index in range(plan.utterances):
                text = sentences.draw()
                recording = record_with_margins(say(text, speaker, espeak), conditions, random)
                utterance = f"{chapter}-{index:04d}"
                write(folder / f"{utterance}.flac", recording)
                lines.append(f"{utterance} {text.upper()}\n")
                on_item()
            (folder / f"{chapter}.trans.txt").write_text("".join(lines), encoding="utf-8")
    (out / "LibriSpeech" / "speakers.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
