"""Charts as PDF and PNG for a paper, by matplotlib."""

from __future__ import annotations

import io
from typing import Any, Literal

from superbit.benchmark.report.charts import (
    Arrow,
    Bar,
    CellMark,
    Chart,
    Colour,
    Dot,
    Key,
    LineMark,
    Mark,
    Panel,
    RuleMark,
    Text,
)
from superbit.benchmark.report.svg import NAMED, PALETTE

_PIXELS = 96.0  # an inch
_POINTS = 72.0 / _PIXELS
_MARKERS = {"filled": "o", "hollow": "o", "square": "s", "cross": "x"}


def picture(chart: Chart, format: Literal["pdf", "png"]) -> bytes:
    """Return a chart as a file's bytes; the same chart gives the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(chart.columns, len(chart.panels))
    rows = -(-len(chart.panels) // columns)
    width = max(p.width for p in chart.panels) * columns / _PIXELS
    height = max(p.height for p in chart.panels) * rows / _PIXELS + 0.7
    # letters as letters, so that a PDF can be searched
    with matplotlib.rc_context({"font.size": 8, "pdf.fonttype": 42, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(chart.panels) :]:
            axes.set_axis_off()
        for axes, panel in zip(grid, chart.panels, strict=False):
            _draw(axes, panel)
        figure.suptitle(chart.title, fontsize=10, x=0.01, ha="left")
        if chart.keys:
            handles = [_handle(key) for key in chart.keys]
            figure.legend(
                handles=handles, loc="outside lower left", ncols=min(4, 1 + int(width // 2.2)),
                frameon=False,
            )  # fmt: skip
        out = io.BytesIO()
        stamp: dict[str, Any] = {"Software": None} if format == "png" else {"CreationDate": None}
        figure.savefig(out, format=format, dpi=200, metadata=stamp)
    return out.getvalue()


def _draw(axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=8.5, loc="left")
    for which, axis in (("x", panel.x), ("y", panel.y)):
        if axis.log:
            getattr(axes, f"set_{which}scale")("log")
        ends = (axis.high, axis.low) if axis.flipped else (axis.low, axis.high)
        getattr(axes, f"set_{which}lim")(*ends)
        getattr(axes, f"set_{which}label")(axis.label)
        ticks = axis.marks()
        getattr(axes, f"{which}axis").minorticks_off()
        getattr(axes, f"set_{which}ticks")([v for v, _ in ticks], [text for _, text in ticks])
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=2, width=0.6, color="#888")
    if panel.grid != "none":
        axes.grid(axis=panel.grid, color=NAMED["grid"][0], linewidth=0.6)
    axes.set_axisbelow(True)
    for mark in panel.marks:
        _mark(axes, mark)


def _mark(axes: Any, mark: Mark) -> None:
    match mark:
        case RuleMark():
            line = axes.axhline if mark.across else axes.axvline
            line(mark.at, color=NAMED["muted"][0], linewidth=0.7, linestyle=":")
            if mark.text and mark.across:
                at, side = (0.01, "left") if mark.left else (1.0, "right")
                axes.annotate(
                    mark.text, (at, mark.at), xycoords=("axes fraction", "data"),
                    ha=side, va="bottom", color=NAMED["muted"][0], fontsize=7,
                )  # fmt: skip
        case LineMark():
            x, y = zip(*mark.points, strict=True)
            style = "--" if mark.dashed else "-"
            axes.plot(x, y, style, color=_paint(mark.colour), linewidth=1.8 if mark.thick else 1.1)
        case Dot():
            face = _paint(mark.colour) if mark.shape != "hollow" else "white"
            axes.plot(
                [mark.x], [mark.y], _MARKERS[mark.shape], color=_paint(mark.colour),
                markerfacecolor=face, markersize=5, markeredgewidth=1.3,
            )  # fmt: skip
        case Arrow():
            axes.annotate(
                "", mark.end, mark.start,
                arrowprops={"arrowstyle": "->", "color": _paint(mark.colour), "shrinkA": 4,
                            "shrinkB": 4, "alpha": 0.65},
            )  # fmt: skip
        case Bar():
            ends = ((mark.low, mark.high), (mark.at, mark.at))
            axes.plot(
                *(ends if mark.across else ends[::-1]), color=_paint(mark.colour), linewidth=1.4
            )
        case CellMark():
            from matplotlib.patches import Rectangle

            square = Rectangle((mark.x - 0.48, mark.y - 0.48), 0.96, 0.96, color=NAMED["heat"][0])
            square.set_alpha(0.06 + 0.94 * mark.share)
            axes.add_patch(square)
            ink = "white" if mark.share > 0.55 else NAMED["ink"][0]
            axes.annotate(mark.text, (mark.x, mark.y), ha="center", va="center", color=ink, size=7)
        case Text():
            from matplotlib.patheffects import withStroke

            axes.annotate(
                mark.text, (mark.x, mark.y), (mark.moved[0] * _POINTS, -mark.moved[1] * _POINTS),
                textcoords="offset points", color=_paint(mark.colour), fontsize=7,
                ha={"start": "left", "middle": "center", "end": "right"}[mark.anchor],
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )  # fmt: skip


def _handle(key: Key) -> Any:
    """A legend entry."""
    from matplotlib.lines import Line2D

    paint = _paint(key.colour)
    if key.shape in ("line", "dashed"):
        style: Any = "--" if key.shape == "dashed" else "-"
        return Line2D([], [], color=paint, linestyle=style, label=key.text)
    face = paint if key.shape != "hollow" else "white"
    return Line2D(
        [], [], color=paint, marker=_MARKERS[key.shape], markerfacecolor=face, linestyle="none",
        label=key.text,
    )  # fmt: skip


def _paint(colour: Colour) -> str:
    if isinstance(colour, int):
        return PALETTE[colour % len(PALETTE)][0]
    return NAMED[colour][0]
