"""Kaldi data folders: text tables that say where recordings lie and who speaks in them when.

``wav.scp`` (recording, wav file), ``segments`` (utterance, recording, start, end), ``utt2spk``,
``spk2utt``, ``reco2dur`` (recording, seconds), and the reference ``rttm``. Times are in seconds. A
relative path in ``wav.scp`` is relative to the folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_text

WAVS, RTTM = "wav.scp", "rttm"
FILES = (WAVS, "segments", "utt2spk", "spk2utt", "reco2dur", RTTM)


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """An utterance in a recording, seconds."""

    recording: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class KaldiFolder:
    """The tables of one folder.

    Attributes:
        wavs: recording → its file, absolute.
        segments: utterance → where it is.
        speakers: utterance → who speaks.
        seconds: recording → its length.
    """

    wavs: Mapping[str, Path]
    segments: Mapping[str, Segment]
    speakers: Mapping[str, str]
    seconds: Mapping[str, float]


def read_folder(folder: Path) -> KaldiFolder:
    """Read a folder's tables.

    Raises:
        InputError: a file of the folder is missing, or a line is not of its form; ``wav.scp``
            names a command instead of a file.
    """
    for name in FILES:
        _present(folder / name)
    wavs = {name: _wav_path(folder, path) for name, path in wav_files(folder)}
    segments = {
        name: Segment(recording=recording, start=float(start), end=float(end))
        for name, recording, start, end in _rows(
            folder / "segments", "UTTERANCE RECORDING START END", _is_segment
        )
    }
    return KaldiFolder(
        wavs=wavs,
        segments=segments,
        speakers=dict(_table(folder / "utt2spk", "UTTERANCE SPEAKER")),
        seconds={
            name: float(seconds)
            for name, seconds in _rows(
                folder / "reco2dur", "RECORDING SECONDS", lambda row: _is_time(row[1])
            )
        },
    )


def wav_files(folder: Path) -> list[tuple[str, str]]:
    """(recording, file as it is written) of every line of ``wav.scp``.

    Raises:
        InputError: the table is missing or a line is not of its form.
    """
    return _table(folder / WAVS, "RECORDING FILE")


def _present(path: Path) -> Path:
    if not path.is_file():
        raise InputError(
            f"{path} is not there: a Kaldi data folder should have {', '.join(FILES)}."
        )
    return path


def _wav_path(folder: Path, written: str) -> Path:
    if written.endswith("|"):
        raise InputError(
            f"{folder / WAVS} names the command {written!r}: it should name a wav file."
        )
    return Path(os.path.normpath(folder.absolute() / written))


def _table(path: Path, form: str) -> list[tuple[str, str]]:
    """The lines of a table of two columns, of which the second may hold spaces."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, *rest = line.strip().split(None, 1) or [""]
        if not rest:
            raise InputError(f"{path}, line {number}: {line!r} should be '{form}'.")
        rows.append((name, rest[0]))
    return rows


def _rows(path: Path, form: str, holds: Callable[[list[str]], bool]) -> list[list[str]]:
    """The lines of a table of as many words as ``form``, each of which ``holds``."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        row = line.split()
        if len(row) != len(form.split()) or not holds(row):
            raise InputError(
                f"{path}, line {number}: {line!r} should be '{form}', times in seconds."
            )
        rows.append(row)
    return rows


def _is_time(word: str) -> bool:
    try:
        return 0 <= float(word) < math.inf
    except ValueError:
        return False


def _is_segment(row: list[str]) -> bool:
    return _is_time(row[2]) and _is_time(row[3]) and float(row[2]) < float(row[3])
