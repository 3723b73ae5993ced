"""SF's two numbers: slot-type F1 and slot-value character error rate.

A transcript marks its slots inline, ``play B-artist the beatles E-artist now``: the value of the
slot ``artist`` is "the beatles". Both are s3prl's definitions (``downstream/ctc/metric.py``):

- slot-type F1: of the sets of slot names in reference and hypothesis, an utterance at a time, 1
  where both are empty; the mean over utterances.
- slot-value CER: each value of the reference against the nearest value that the hypothesis gives
  to a slot of that name, or against nothing; all edits over all reference characters. Values that
  the hypothesis has beyond these cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from superbit.benchmark.records.measured import Interval
from superbit.benchmark.scoring.slot_marks import slots_of
from superbit.benchmark.scoring.statistics import LEVEL, error_rate_interval, mean_interval

Item = Mapping[str, Any]

# s3prl's search for the nearest value begins at an error rate of 100 and passes over worse ones
_WORST_ERROR_RATE = 100


def slot_items(
    names: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one sidecar item an utterance.

    ``slot_type_f1`` is a fraction; ``value_errors`` and ``value_reference_length`` are characters.
    """
    items = []
    for name, reference, hypothesis in zip(names, references, hypotheses, strict=True):
        wanted = slots_of(reference)
        found = slots_of(hypothesis, nested_marks=False)
        values = [(slot, value) for slot, values in wanted.items() for value in values]
        items.append(
            {
                "id": name,
                "reference": reference,
                "hypothesis": hypothesis,
                "slot_type_f1": _f1(set(wanted), set(found)),
                "value_errors": sum(
                    _value_errors(value, found.get(slot, [])) for slot, value in values
                ),
                "value_reference_length": sum(len(value) for _, value in values),
            }
        )
    return items


def slot_type_f1(items: Sequence[Item]) -> float:
    """Return the mean slot-type F1, a fraction."""
    return sum(item["slot_type_f1"] for item in items) / len(items)


def slot_value_cer(items: Sequence[Item]) -> float:
    """Return the slot-value character error rate, percent.

    Raises:
        ValueError: no reference has a slot.
    """
    length = sum(item["value_reference_length"] for item in items)
    if length == 0:
        raise ValueError("no reference has a slot, so there is no slot-value CER")
    return 100.0 * sum(item["value_errors"] for item in items) / length


def slot_type_f1_interval(items: Sequence[Item], *, level: float = LEVEL) -> Interval | None:
    """Return the bootstrap interval of the slot-type F1 over utterances, a fraction."""
    return mean_interval([item["slot_type_f1"] for item in items], level=level)


def slot_value_cer_interval(items: Sequence[Item], *, level: float = LEVEL) -> Interval | None:
    """Return the bootstrap interval of the slot-value CER over utterances, percent."""
    return error_rate_interval(
        [item["value_errors"] for item in items],
        [item["value_reference_length"] for item in items],
        level=level,
    )


def _f1(wanted: set[str], found: set[str]) -> float:
    if not wanted and not found:
        return 1.0
    # 2PR / (P + R) = 2 · both / (wanted + found)
    return 2 * len(wanted & found) / (len(wanted) + len(found))


def _value_errors(wanted: str, found: Sequence[str]) -> int:
    """Edits from the nearest value to the one that is wanted; all of it where none is near."""
    import jiwer

    if not found:
        return len(wanted)
    characters = jiwer.ReduceToListOfListOfChars()
    nearest = min(
        counts.substitutions + counts.deletions + counts.insertions
        for counts in (
            jiwer.process_characters(
                wanted, value, reference_transform=characters, hypothesis_transform=characters
            )
            for value in found
        )
    )
    return nearest if nearest < _WORST_ERROR_RATE * len(wanted) else len(wanted)
