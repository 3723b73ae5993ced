"""RTTM files, NIST's form for who talks when: the references of SD."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from superbit.upstreams.errors import InputError

_RTTM_FORM = "SPEAKER <recording> 1 <start> <duration> <NA> <NA> <speaker> <NA>"


@dataclass(frozen=True, order=True)
class Turn:
    """One speaker talking from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    speaker: str


def read_rttm(path: str | Path) -> dict[str, list[Turn]]:
    """Read an RTTM file: recording → its turns, in the file's order.

    Blank lines, ``;;`` comments and ``SPKR-INFO`` lines are passed over.

    Raises:
        InputError: the file cannot be read, holds no turn, or a line is not a ``SPEAKER`` line
            with a start of at least 0 and a duration above 0 seconds.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as an RTTM file: {error}.") from error
    turns: dict[str, list[Turn]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;") or fields[0] == "SPKR-INFO":
            continue
        if fields[0] != "SPEAKER" or len(fields) < 8:
            raise InputError(f"{path}, line {number}: {line.strip()!r} is not {_RTTM_FORM!r}.")
        turns[fields[1]].append(_turn_of(fields, f"{path}, line {number}"))
    if not turns:
        raise InputError(f"{path} holds no turn: each is a line {_RTTM_FORM!r}.")
    return dict(turns)


def _turn_of(fields: Sequence[str], where: str) -> Turn:
    try:
        start, duration = float(fields[3]), float(fields[4])
    except ValueError:
        start = duration = math.nan
    if not (0 <= start < math.inf and 0 < duration < math.inf):
        raise InputError(
            f"{where}: start {fields[3]!r} and duration {fields[4]!r} need to be seconds, "
            "the start not negative, the duration above 0."
        )
    return Turn(start=start, end=start + duration, speaker=fields[7])
