"""``superbit curves RUN …``: the logs of trainings as one figure.

A column for each kind of run (the name of its folder: ``phase1``, ``phase2``, ``w1a1``), above the
masked loss in nats, below the masked accuracy; thin lines are the training's own, rings the
held-out speech's. Dashed lines are chance: always saying the distribution of the units. Dotted, in
a twin's column, the held-out accuracy of what teaches it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.upstreams import files
from superbit.upstreams.errors import InputError
from superbit.upstreams.figures import require_matplotlib
from superbit.upstreams.training.state import LOG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = {"masked_loss": "masked loss", "masked_accuracy": "masked accuracy"}
CHANCE = {"masked_loss": "chance_loss", "masked_accuracy": "chance_accuracy"}
TEACHER = {"masked_accuracy": "teacher_masked_accuracy"}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The log of one run.

    Attributes:
        kind: name of its folder.
        name: what tells it from other runs of its kind.
        training: lines of the training, by rising update.
        held_out: lines of held-out speech, likewise.
    """

    kind: str
    name: str
    training: tuple[Mapping[str, Any], ...]
    held_out: tuple[Mapping[str, Any], ...]


def curves_command(arguments: argparse.Namespace) -> int:
    """Write the figure, print where it lies, and return 0.

    Reads of ``arguments``: ``runs`` (folders), ``out`` (a PNG file).

    Raises:
        InputError: a folder without a log, a log that is damaged or has no masked loss, matplotlib
            that is not installed, or a file that cannot be written.
    """
    require_matplotlib("superbit curves")
    curves = read_curves(arguments.runs)
    with files.said_of(arguments.out):
        draw(curves, arguments.out)
    print(f"{len(curves)} runs: {arguments.out}")
    return 0


def read_curves(runs: Sequence[Path]) -> list[Curve]:
    """Read the logs of runs, in the order given.

    A training that was stopped and went on has some updates twice; the later line counts.

    Raises:
        InputError: a folder without a log, or a log that is damaged or has no masked loss.
    """
    return [
        Curve(kind=run.name, name=_name(run), training=lines["update"], held_out=lines["held_out"])
        for run, lines in ((run.absolute(), _lines(run / LOG)) for run in runs)
    ]


def draw(curves: Sequence[Curve], out: Path) -> None:
    """Draw runs into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(curve.kind for curve in curves))
    names = list(dict.fromkeys(curve.name for curve in curves))
    figure = Figure(figsize=(4.2 * len(kinds) + 0.6, 6.6))
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(kinds), squeeze=False, sharex="col")
    for column, kind in enumerate(kinds):
        of_kind = [curve for curve in curves if curve.kind == kind]
        for row, key in enumerate(ROWS):
            axes = panels[row][column]
            for curve in of_kind:
                _draw(axes, curve, key=key, colour=f"C{names.index(curve.name)}")
            axes.set_ylabel(ROWS[key])
            axes.grid(alpha=0.3)
        panels[0][column].set_title(kind)
        panels[-1][column].set_xlabel("update")
    handles = {
        curve.name: panels[0][kinds.index(curve.kind)].plot(
            [], [], color=f"C{names.index(curve.name)}"
        )[0]
        for curve in curves
    }
    figure.legend(
        handles.values(), handles.keys(), loc="lower center", ncols=min(5, len(names)), fontsize=9
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(out, format="png", dpi=110)


def _draw(axes: Axes, curve: Curve, *, key: str, colour: str) -> None:
    _plot(axes, curve.training, key, color=colour, linewidth=1)
    _plot(axes, curve.held_out, key, color=colour, marker="o", fillstyle="none", linestyle="none")
    _plot(axes, curve.held_out, CHANCE[key], level=True, color=colour, linestyle="--")
    if key in TEACHER:
        _plot(axes, curve.held_out, TEACHER[key], level=True, color=colour, linestyle=":")


def _plot(
    axes: Axes, lines: Sequence[Mapping[str, Any]], key: str, *, level: bool = False, **style: Any
) -> None:
    """Draw what the lines say of one key; a level over the whole width."""
    points = [(line["update"], line[key]) for line in lines if line.get(key) is not None]
    if level and points:
        axes.axhline(points[-1][1], linewidth=0.8, alpha=0.7, **style)
    elif points:
        axes.plot(*zip(*points, strict=True), **style)


def _lines(log: Path) -> dict[str, tuple[Mapping[str, Any], ...]]:
    try:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8-sig").splitlines()]
    except OSError:
        raise InputError(
            f"{log} is not there; give the folders of trainings, e.g. RUN or RUN/w1a1."
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(f"{log} is damaged: {error}.") from None
    kept: dict[str, dict[int, Mapping[str, Any]]] = {"update": {}, "held_out": {}}
    for line in lines:
        if line.get("event") in kept and "masked_loss" in line:
            kept[line["event"]][line["update"]] = line
    if not kept["update"] and not kept["held_out"]:
        raise InputError(
            f"{log} holds no masked loss: it is no log of a training, or has not begun."
        )
    return {event: tuple(by[update] for update in sorted(by)) for event, by in kept.items()}


def _name(run: Path) -> str:
    """Return the nearest folder above that does not say a kind of run."""
    return next((p.name for p in run.parents if p.name not in ("twin", "")), run.name)
