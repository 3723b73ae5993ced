"""Fluent Speech Commands, for IC: ``root/data/{train,valid,test}_data.csv`` and ``root/wavs``.

A row names a wav file, relative to the root, and its intent: an action, an object and a location.
Splits and counts: SUPERB (Yang et al., Interspeech 2021), task IC; corpus: Lugosch et al.,
arXiv:1904.03670.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from superbit.benchmark.corpora.layout import (
    CorpusFile,
    CorpusFiles,
    CorpusLayout,
    Inspection,
    refuse,
    seconds_of,
)
from superbit.benchmark.corpora.paths import FluentSpeechCommandsPaths
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import existing_folder, read_text

# Utterances in SUPERB's splits, by the name of the table.
SPLITS = {"train": 23_132, "valid": 3_118, "test": 3_793}
SPEAKERS, INTENTS = 97, 31
SLOTS = ("action", "object", "location")
COLUMNS = ("path", "speakerId", "transcription", *SLOTS)
PUBLISHED = (
    (
        "root",
        "https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-"
        "understanding-research/",
    ),
)
# What pandas, by which s3prl reads the tables, takes for a missing value.
_NO_VALUE = {
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SpokenCommand:
    """A row of a table.

    Attributes:
        path: of the wav file, relative to the root.
        intent: the values of ``SLOTS``.
    """

    path: str
    speaker: str
    intent: tuple[str, str, str]


def utterances(section: FluentSpeechCommandsPaths, split: str) -> tuple[SpokenCommand, ...]:
    """The rows of a split's table, in its order.

    Raises:
        InputError: the split is unknown; its table is missing, lacks a column or is empty; a row
            lacks a value.
    """
    return _read(section, split, refuse)


def files(section: FluentSpeechCommandsPaths) -> CorpusFiles:
    """Audio by split and the three tables.

    Raises:
        InputError: as :func:`utterances`; a row names a file that is not there, or a value of valid
            or test does not occur in train.
    """
    rows = {split: utterances(section, split) for split in SPLITS}
    _check_values(section, rows, refuse)
    return CorpusFiles(
        audio={split: _audio(section, split, rows[split], refuse) for split in SPLITS},
        text=tuple(
            sorted(
                (
                    CorpusFile(key=f"data/{split}_data.csv", path=_table(section, split))
                    for split in SPLITS
                ),
                key=lambda file: file.key,
            )
        ),
    )


def _look(section: FluentSpeechCommandsPaths, found: Inspection) -> Iterable[str]:
    add = found.problems.add
    rows: dict[str, tuple[SpokenCommand, ...]] = {}
    for split, of_split in found.each_split(lambda split: _read(section, split, add)):
        rows[split] = of_split
        samples = found.problems.samples(
            file.path for file in _audio(section, split, of_split, add)
        )
        found.add_split(
            split,
            utterances=len(of_split),
            speakers=len({row.speaker for row in of_split}),
            seconds=seconds_of(samples),
        )
    if "train" in rows:
        _check_values(section, rows, add)
        found.require_batch(str(_table(section, "train")), len(rows["train"]), "utterances")
    every = [row for of_split in rows.values() for row in of_split]
    return (
        f"{len({row.speaker for row in every})} speakers (SUPERB: {SPEAKERS})",
        f"{len({row.intent for row in every})} intents (SUPERB: {INTENTS})",
    )


def _table(section: FluentSpeechCommandsPaths, split: str) -> Path:
    return section.root / "data" / f"{split}_data.csv"


def _read(
    section: FluentSpeechCommandsPaths, split: str, report: Callable[[str, str], None]
) -> tuple[SpokenCommand, ...]:
    if split not in SPLITS:
        raise InputError(
            f"Fluent Speech Commands has no split {split!r}: it has {', '.join(SPLITS)}."
        )
    existing_folder(section.root / "data", "the folder of the tables <split>_data.csv")
    table = _table(section, split)
    lines = csv.DictReader(io.StringIO(read_text(table)))
    for column in COLUMNS:
        if column not in (lines.fieldnames or ()):
            raise InputError(
                f"{table} has no column {column!r}; it should have {', '.join(COLUMNS)}."
            )
    found = []
    for row in lines:
        empty = [name for name in ("path", *SLOTS) if (row[name] or "") in _NO_VALUE]
        if empty:
            report(
                "no value",
                f"{table}, line {lines.line_num}, has no value in the column {empty[0]!r}; every "
                "utterance should have one, 'none' where a slot does not apply.",
            )
            continue
        intent = (row["action"], row["object"], row["location"])
        found.append(SpokenCommand(path=row["path"], speaker=row["speakerId"] or "", intent=intent))
    if not found:
        report(f"empty {split}", f"{table} has no utterance: it should have a row for each.")
    return tuple(found)


def _audio(
    section: FluentSpeechCommandsPaths,
    split: str,
    rows: tuple[SpokenCommand, ...],
    report: Callable[[str, str], None],
) -> tuple[CorpusFile, ...]:
    found = {}
    for row in rows:
        path = section.root / row.path
        if path.is_file():
            found[row.path] = CorpusFile(key=row.path, path=path)
        else:
            report(
                "absent utterance",
                f"{_table(section, split)} names {row.path}, which is not in {section.root}.",
            )
    return tuple(found[key] for key in sorted(found))


def _check_values(
    section: FluentSpeechCommandsPaths,
    rows: Mapping[str, tuple[SpokenCommand, ...]],
    report: Callable[[str, str], None],
) -> None:
    """Each slot has an output for every value in train, and for no other."""
    for index, slot in enumerate(SLOTS):
        known = {row.intent[index] for row in rows["train"]}
        for split in ("valid", "test"):
            values = {row.intent[index] for row in rows.get(split, ())}
            for value in sorted(values - known):
                report(
                    "unseen value",
                    f"{_table(section, split)} has the {slot} {value!r}, which does not occur in "
                    f"{_table(section, 'train').name}; every value should.",
                )


CORPUS = CorpusLayout(
    name="fluent_speech_commands",
    title="Fluent Speech Commands (IC)",
    expected=SPLITS,
    files=files,
    look=_look,
    published=PUBLISHED,
)
