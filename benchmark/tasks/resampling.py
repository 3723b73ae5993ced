"""What of a run's items a resample needs: the counts, whose voice each is, and what they sum to.

A task names its `Resampling`, so that two models can be compared on the items that both were
scored on. Whose voice an item is stands in its id in most corpora; the rules are below, one a
corpus. Where an id does not tell (Fluent Speech Commands names files by UUIDs, QUESST by numbers),
items are resampled one by one, as if each had a speaker of its own.

Nothing here imports torch, s3prl or numpy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Item = Mapping[str, Any]
# Of an item: none where its id does not tell, two where two people talk.
Speakers = Callable[[Item], tuple[str, ...]]


def nobody(_item: Item) -> tuple[str, ...]:
    """The id does not tell the speaker."""
    return ()


def in_librispeech(item: Item) -> tuple[str, ...]:
    """``3008-1-0005``: speaker, chapter, utterance."""
    return (str(item["id"]).partition("-")[0],)


def in_voxceleb1(item: Item) -> tuple[str, ...]:
    """``id10001-fdgmy85Xh60-00001``: speaker, video, utterance."""
    return (str(item["id"]).partition("-")[0],)


def in_voxceleb1_trials(item: Item) -> tuple[str, ...]:
    """The speakers of a trial's two utterances: one and the same, or two."""
    return tuple(str(item[side]).partition("-")[0] for side in ("enrolment", "test"))


def in_speech_commands(item: Item) -> tuple[str, ...]:
    """``left-006b4dd0_nohash_0.wav``: the digits are the speaker's; silence has none."""
    found = re.search(r"(?:^|[-/])([0-9a-f]{8})_nohash_", str(item["id"]))
    return (found[1],) if found else ()


def in_audio_snips(item: Item) -> tuple[str, ...]:
    """``Brian-snips-test-22``: the voice comes first."""
    return (str(item["id"]).partition("-")[0],)


def in_libri2mix(item: Item) -> tuple[str, ...]:
    """``4446-2271-0000_1188-133604-0018``: two LibriSpeech utterances; others do not tell."""
    found = re.fullmatch(r"(\d+)-\d+-\d+_(\d+)-\d+-\d+", str(item["id"]))
    return (found[1], found[2]) if found else ()


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that can be computed anew from any choice of test items.

    ``"ratio"`` is ``scale`` × sum(top) / sum(bottom), with one number each an item. ``"eer"`` is
    the equal error rate of trials in percent: ``top`` is the score, ``bottom`` 1 for one speaker.

    Attributes:
        name: behind the task's name; empty for the number of Table 2.
        top: of an item.
        bottom: of an item.
        scale: 100 for percent; also the width of what the number can reasonably be.
        lowest: what a number below it counts as.
        right_or_wrong: ``top`` is 1 or 0 and ``bottom`` always 1, so that McNemar's test applies.
        higher_is_better: of the number; None where it is the task's own.
        decimals: as printed; None where they are the task's own.
    """

    name: str = ""
    kind: Literal["ratio", "eer"] = "ratio"
    top: Callable[[Item], float]
    bottom: Callable[[Item], float]
    scale: float = 100.0
    lowest: float = -math.inf
    right_or_wrong: bool = False
    higher_is_better: bool | None = None
    decimals: int | None = None


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How a task's items are told apart, whose voices they are, and what they sum to.

    Of a task with folds whole folds are drawn, whoever speaks in them: the number is their mean.

    Attributes:
        item: what one is called, in the plural.
        identify: an item's name, the same for all models.
        speakers: of an item.
        measures: the first is the number of Table 2.
        note: what a reader of its intervals has to know.
    """

    item: str = "utterances"
    identify: Callable[[Item], str] = field(default=lambda item: str(item["id"]))
    speakers: Speakers = nobody
    measures: tuple[Measure, ...]
    note: str = ""


def one(_item: Item) -> float:
    """The denominator of a mean over items."""
    return 1.0


ACCURACY = Measure(top=lambda item: float(item["correct"]), bottom=one, right_or_wrong=True)
EDIT_ERRORS = Measure(
    top=lambda item: float(item["substitutions"] + item["deletions"] + item["insertions"]),
    bottom=lambda item: float(item["reference_length"]),
)
