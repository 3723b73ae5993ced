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
    accuracy = f"masked accuracy {line['masked_accuracy']:.1%}"
    if event == "held_out":
        return (
            f"  held out: loss {line['masked_loss']:.3f} (chance {line['chance_loss']:.3f}), "
            f"{accuracy} (chance {line['chance_accuracy']:.1%})"
        )
    faults = "".join(
        f", {line[key]} {what}"
        for key, what in (("skipped_files", "files skipped"), ("nan_updates", "NaN updates"))
        if line[key]
    )
    return (
        f"update {line['update']:,} of {updates:,}: loss {line['masked_loss']:.3f}, {accuracy}, "
        f"{line['hours_an_hour']:,.0f} audio-hours an hour{faults}"
    )
