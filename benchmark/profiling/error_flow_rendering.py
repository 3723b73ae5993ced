"""The flow of error as CSV, as Markdown and as a figure, each with the caption it needs."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from superbit.benchmark.rendering import TextTable, csv_text, render_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from superbit.upstreams.quantization.error_flow import BlockFlow

# each of (a) and (b) at the block's output, then at the encoder's
COLUMNS = {
    "alone": "alone",
    "alone_encoder": "alone, at the encoder's output",
    "up_to": "up to it",
    "up_to_encoder": "up to it, at the encoder's output",
}
COLOURS = {
    "attention": "#0072b2",
    "feed-forward": "#e69f00",
    "convolution": "#009e73",
    "other": "#7f7f7f",
}
_GREY = "#bbbbbb"


def caption(rows: Sequence[BlockFlow], *, weights: str, audio: str, trained: bool) -> list[str]:
    """Return what the figures are of, what they show and what not.

    Args:
        rows: in the order of running.
        weights: what the weights of the two models are, a sentence.
        audio: what the input is.
        trained: the twin is a trained one, and not made from the FP32 weights.
    """
    between = (
        " What stands between blocks, norms and the like, is trained as well: up to a block it is "
        "the twin's, alone it is the FP32 model's."
    )
    return [
        "Relative error: ‖twin − FP32‖ / ‖FP32‖ of a block's own output, before the residual sum, "
        "or of the encoder's; sign agreement: share of elements with one sign, 0 counting as +. "
        "Alone: only that block is binarized; up to it: it and all that ran before it.",
        f"{weights} Input: {audio}.{between if trained else ''}",
        *_by_kind(rows),
        "It shows which blocks lose most when they are binarized, how much of the error at a "
        "block's output the blocks before it handed on, and how much each adds at the end.",
        f"It does not show {'' if trained else 'what is left after training, nor '}what a task "
        "loses; kinds also differ in "
        "width, depth and place, and neighbouring blocks are of different kinds in every encoder "
        "here, so one model alone cannot tell that mixing kinds is what propagates error: compare "
        "encoders of like size with and without convolution.",
    ]


def _by_kind(rows: Sequence[BlockFlow]) -> list[str]:
    """Return the figures of each kind as sentences."""
    ends = [row.up_to_encoder.relative_error for row in rows]
    rises = [end - before for end, before in zip(ends, [0.0, *ends], strict=False)]
    notes = []
    for kind in COLOURS:
        group = [(row, rise) for row, rise in zip(rows, rises, strict=True) if row.kind == kind]
        if group:
            alone = median(row.alone.relative_error for row, _ in group)
            growth = median(row.growth for row, _ in group)
            notes.append(
                f"{len(group)} × {kind}: relative error alone {alone:.2f}, up to it {growth:.2f} "
                f"times that (medians); in all they raise the encoder's by "
                f"{sum(rise for _, rise in group):.3f} of {ends[-1]:.3f}."
            )
    return notes


def as_csv(rows: Sequence[BlockFlow]) -> str:
    """Return one header and one row a block."""
    names = [f"{key}_{what}" for key in COLUMNS for what in ("relative_error", "sign_agreement")]
    lines = []
    for row in rows:
        deviations = [getattr(row, key) for key in COLUMNS]
        figures = [x for d in deviations for x in (d.relative_error, d.sign_agreement)]
        lines.append([row.name, row.kind, *(f"{x:.6g}" for x in figures)])
    return csv_text(["module", "kind", *names], lines)


def as_markdown(rows: Sequence[BlockFlow], title: str, notes: Sequence[str]) -> str:
    """Return a table in the order of running, with its caption below."""
    header = ["module", "kind"]
    for label in COLUMNS.values():
        header += [f"error {label}", "signs"]
    lines = []
    for row in rows:
        line = [row.name, row.kind]
        for key in COLUMNS:
            deviation = getattr(row, key)
            line += [f"{deviation.relative_error:.3f}", f"{deviation.sign_agreement:.3f}"]
        lines.append(line)
    table = TextTable(title=f"Error flow of {title}", header=header, groups=[lines], notes=notes)
    return render_text(table, "md")


def as_png(rows: Sequence[BlockFlow], *, title: str, notes: Sequence[str]) -> bytes:
    """Return a PNG: error and sign agreement over the blocks, coloured by kind, and the caption."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = max(9.0, 0.28 * len(rows) + 3.0)  # inches, as all here
    text = "\n".join(textwrap.fill(note, width=int(16.5 * width)) for note in notes)
    caption_height = 0.16 * (text.count("\n") + 2)
    height = 6.5 + caption_height
    drawn = Figure(figsize=(width, height))
    FigureCanvasAgg(drawn)
    panels = drawn.subplots(2, 2, sharex=True, squeeze=False)
    for line, what in enumerate(("relative_error", "sign_agreement")):
        for column, end in enumerate(("", "_encoder")):
            _draw(panels[line][column], rows, what=what, end=end)
    drawn.suptitle(f"Error flow of {title}", fontsize=11, y=1 - 0.12 / height)
    drawn.legend(
        handles=_legend(rows),
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - 0.32 / height),
        ncols=len(COLOURS) + 2,
        fontsize=8,
        frameon=False,
    )
    drawn.text(0.15 / width, 0.08 / height, text, fontsize=7.5, va="bottom", linespacing=1.35)
    drawn.tight_layout(rect=(0, caption_height / height, 1, 1 - 0.45 / height))
    content = io.BytesIO()
    drawn.savefig(content, format="png", dpi=130)
    return content.getvalue()


def _draw(axes: Axes, rows: Sequence[BlockFlow], *, what: str, end: str) -> None:
    """Draw (a) as rings and (b) as dots, at the block's output or at the encoder's."""
    colours = [COLOURS[row.kind] for row in rows]
    for key, style, size, filled in (
        (f"alone{end}", "--", 60, False),
        (f"up_to{end}", "-", 16, True),
    ):
        values = [getattr(getattr(row, key), what) for row in rows]
        axes.plot(values, style, color=_GREY, zorder=1)
        faces = colours if filled else "none"
        axes.scatter(
            range(len(rows)), values, s=size, edgecolors=colours, facecolors=faces, zorder=2
        )
    if what == "relative_error":
        axes.set_ylim(bottom=0)
        axes.set_title(f"at the {'encoder' if end else 'block'}'s output", fontsize=9)
    axes.set_ylabel(what.replace("_", " "), fontsize=8)
    axes.grid(axis="y", color="#eeeeee", zorder=0)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xticks(range(len(rows)), [_short(row.name) for row in rows])
    axes.tick_params(axis="x", rotation=90, labelsize=7)


def _legend(rows: Sequence[BlockFlow]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    kinds = [kind for kind in COLOURS if any(row.kind == kind for row in rows)]
    dots = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS[kind], label=kind) for kind in kinds
    ]
    ring = Line2D([], [], marker="o", ms=8, ls="--", color=_GREY, mfc="none", label="alone")
    dot = Line2D([], [], marker="o", ms=4, ls="-", color=_GREY, label="up to it")
    return [*dots, ring, dot]


def _short(name: str) -> str:
    """Return ``0 attention`` for ``encoder.layers.0.attention``."""
    return " ".join(name.split(".")[2:]).replace("_", "-") or name
