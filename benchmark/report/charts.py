"""A chart as data: what is where. `svg` and `pictures` draw it, and its numbers are a CSV.

The page's charts are SVG of our own, for three reasons. It must be read without JavaScript, where
Altair and Vega draw nothing, and they are two megabytes on top. Its colours must follow light and
dark by CSS variables, and its marks must have titles for screen readers: matplotlib's SVG, which
has letters as outlines, gives neither. And the report must be made in a base install. matplotlib
draws the same data where a paper wants PDF or PNG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

# Indexes into the palette; the rest are named.
Colour = int | Literal["ink", "muted", "good", "bad"]
Anchor = Literal["start", "middle", "end"]
Shape = Literal["filled", "hollow", "square", "cross"]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis.

    Attributes:
        low: where it begins, in data.
        high: where it ends.
        label: with the unit.
        log: logarithmic; both ends above 0.
        ticks: values and what stands there; by default round ones.
        flipped: rising to the left or downwards, so that better is where readers look for it.
    """

    low: float
    high: float
    label: str = ""
    log: bool = False
    ticks: tuple[tuple[float, str], ...] | None = None
    flipped: bool = False

    def share(self, value: float) -> float:
        """Where a value is: 0 at the axis' beginning, 1 at its end."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        share = (at - low) / (high - low)
        return 1 - share if self.flipped else share

    def marks(self, count: int = 5) -> list[tuple[float, str]]:
        """Return where ticks are, and their texts."""
        if self.ticks is not None:
            return [tick for tick in self.ticks if self.low <= tick[0] <= self.high]
        if self.log:
            found = _decades(self.low, self.high)
            if len(found) > 1:
                return [(value, f"{value:g}") for value in found]
        step = nice_step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        values = [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(value, f"{value + 0.0:,.{digits}f}") for value in values]


def nice_step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least ``rough``."""
    power = 10 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 6, 8)):
        found = [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]
        if len(found) >= 3:
            break
    return found


def around(
    values: Sequence[float], *, room: float = 0.08, least: float = 0.0
) -> tuple[float, float]:
    """Return the range of values with some room at both ends.

    Args:
        values: at least one.
        room: as a share of the range.
        least: the range is at least so wide.
    """
    low, high = min(values), max(values)
    width = max(high - low, least, abs(high) * 1e-3, 1e-9)
    middle = (low + high) / 2
    return middle - width * (0.5 + room), middle + width * (0.5 + room)


def around_log(values: Sequence[float], *, room: float = 0.12) -> tuple[float, float]:
    """As `around`, of values above 0 on a logarithmic axis."""
    low, high = around([math.log10(v) for v in values], room=room, least=0.15)
    return 10**low, 10**high


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point; ``title`` is read out and shown when pointed at."""

    x: float
    y: float
    colour: Colour
    shape: Shape = "filled"
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class LineMark:
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    colour: Colour
    dashed: bool = False
    thick: bool = False
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """From one point to another."""

    start: tuple[float, float]
    end: tuple[float, float]
    colour: Colour


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A whisker from ``low`` to ``high``, across at ``y`` or up at ``x``."""

    low: float
    high: float
    at: float
    colour: Colour
    across: bool = True
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class RuleMark:
    """A line over the whole panel at one value; its words at the right end, or the left."""

    at: float
    across: bool
    text: str = ""
    dashed: bool = True
    left: bool = False


@dataclass(frozen=True, kw_only=True)
class Text:
    """Words beside a point, moved by so many pixels."""

    x: float
    y: float
    text: str
    colour: Colour = "ink"
    moved: tuple[float, float] = (0.0, 0.0)
    anchor: Anchor = "start"


@dataclass(frozen=True, kw_only=True)
class CellMark:
    """A square of a heat map: centre, and a share from 0 to 1 that says how dark."""

    x: float
    y: float
    share: float
    text: str = ""
    title: str = ""


Mark = Dot | LineMark | Arrow | Bar | RuleMark | Text | CellMark


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes with what is on it.

    Attributes:
        title: above it.
        marks: from the back to the front.
        width: of the whole panel, in pixels.
        height: likewise.
        left: room for the vertical axis' texts.
        grid: which axes have lines across the panel.
    """

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    width: int = 250
    height: int = 190
    left: int = 44
    grid: Literal["x", "y", "both", "none"] = "y"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the area inside the axes, in pixels."""
        top = 24 if self.title else 10
        bottom = self.height - (40 if self.x.label else 24)
        return float(self.left + (14 if self.y.label else 0)), top, self.width - 12.0, bottom

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the data is, in pixels from the left and from the top."""
        left, top, right, bottom = self.box
        return left + self.x.share(x) * (right - left), bottom - self.y.share(y) * (bottom - top)


@dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of a legend."""

    text: str
    colour: Colour
    shape: Shape | Literal["line", "dashed"] = "filled"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Panels side by side, with one legend.

    Attributes:
        name: of files.
        title: what it shows.
        panels: in rows of ``columns``.
        keys: the legend.
        notes: sentences below.
        header: of the numbers behind it.
        rows: those numbers.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    columns: int = 4
    keys: tuple[Key, ...] = ()
    notes: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = field(default=(), repr=False)
