"""Slots that a transcript marks inline. Needs neither numpy nor torch, as tables do not."""

from __future__ import annotations

import re
from collections import defaultdict

_SLOT = re.compile(r"B-(\S+) (.+?) E-\1")
_OPENING = re.compile(r"B-\S+ ")
_CLOSING = re.compile(r" E-\S+")


def slots_of(transcript: str, *, nested_marks: bool = True) -> dict[str, list[str]]:
    """Return slot name → its values, in the transcript's order.

    A slot ends at the first end mark that begins with its name. One that opens inside another is
    part of that one's value.

    Args:
        transcript: words and slot marks, separated by spaces.
        nested_marks: keep marks inside a value. s3prl keeps those of a reference and takes out
            those of a hypothesis.
    """
    slots: dict[str, list[str]] = defaultdict(list)
    for name, value in _SLOT.findall(re.sub(" +", " ", transcript)):
        slots[name].append(value if nested_marks else _CLOSING.sub("", _OPENING.sub("", value)))
    return dict(slots)
