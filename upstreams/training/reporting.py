"""Lines of a run's log, for programs and for people."""

from __future__ import annotations

import math
from typing import Any


def finite(line: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON can hold: null for a number that is not finite."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in line.items()
    }


def sentence(event: str, line: dict[str, Any], updates: int) -> str:
    """Return a line of the log for people."""
    if event == "held_out":
        return f"  held out: {_measured(line)}"
    faults = "".join(
        f", {line[key]} {what}"
        for key, what in (("skipped_files", "files skipped"), ("nan_updates", "NaN updates"))
        if line[key]
    )
    return (
        f"update {line['update']:,} of {updates:,}: {_measured(line)}, "
        f"{line['hours_an_hour']:,.0f} audio-hours an hour{faults}"
    )


def summary(line: dict[str, Any]) -> str:
    """Return what a run's held-out values say."""
    return f"held-out {_measured(line)}"


def _measured(line: dict[str, Any]) -> str:
    parts = []
    if "hidden_loss" in line:
        parts.append(
            f"loss of hidden states {line['hidden_loss']:.4f}, of units {line['unit_loss']:.4f}, "
            f"last layer's error {line['last_layer_error']:.1%}"
        )
    elif "masked_loss" in line:
        parts.append(f"loss {line['masked_loss']:.3f}{_chance(line, 'chance_loss', '.3f')}")
    if "masked_accuracy" in line:
        accuracy = f"masked accuracy {line['masked_accuracy']:.1%}"
        if "teacher_masked_accuracy" in line:
            accuracy += f" (teacher {line['teacher_masked_accuracy']:.1%})"
        parts.append(accuracy + _chance(line, "chance_accuracy", ".1%"))
    return ", ".join(parts)


def _chance(line: dict[str, Any], key: str, form: str) -> str:
    return f" (chance {line[key]:{form}})" if key in line else ""
