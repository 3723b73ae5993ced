"""Charts as SVG: in the page, whose style sheet colours them, and as files that bring theirs."""

from __future__ import annotations

from html import escape
from typing import Literal

from superbit.benchmark.report.charts import (
    Arrow,
    Axis,
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

# Okabe and Ito's colours, told apart with any kind of colour blindness; darker where they stand on
# white, lighter on black. Light, dark.
PALETTE = (
    ("#0072b2", "#56b4e9"),
    ("#c65102", "#f0914a"),
    ("#00795a", "#35c79a"),
    ("#a8478a", "#e393c4"),
    ("#8a6d00", "#e8c547"),
    ("#4b3fa8", "#a79df5"),
    ("#5d6470", "#a9b1bd"),
    ("#7a3b1d", "#d69b7b"),
)
NAMED = {
    "ink": ("#1c2128", "#e6e9ee"),
    "muted": ("#59616d", "#9aa4b2"),
    "good": ("#00795a", "#35c79a"),
    "bad": ("#b3371a", "#f08a6e"),
    "grid": ("#e3e6ea", "#2c333d"),
    "paper": ("#ffffff", "#14181e"),
    "heat": ("#0072b2", "#56b4e9"),
}


def variables(dark: bool) -> str:
    """Return the palette as CSS variables."""
    shade = int(dark)
    named = [f"--{name}:{pair[shade]}" for name, pair in NAMED.items()]
    return ";".join([*named, *(f"--c{i}:{pair[shade]}" for i, pair in enumerate(PALETTE))])


def panel_svg(panel: Panel, *, inside: str = "") -> str:
    """Return a panel as one ``<svg>``, which fills the width it is given.

    Args:
        panel: what to draw.
        inside: attributes of the element, e.g. where it stands in another.
    """
    size = f'viewBox="0 0 {panel.width} {panel.height}"'
    label = escape(panel.title or panel.y.label or "chart", quote=True)
    parts = [f'<svg {inside or "class=chart"} {size} role="img" aria-label="{label}">']
    if panel.title:
        parts.append(f'<text class="pt" x="0" y="14">{escape(panel.title)}</text>')
    parts += _axes(panel)
    parts += [_mark(panel, mark) for mark in panel.marks]
    return "".join([*parts, "</svg>"])


def legend_svg(keys: tuple[Key, ...], *, width: int) -> tuple[str, int]:
    """Return a legend's elements for a file, and how high it is."""
    parts, x, y = [], 8.0, 14.0
    for key in keys:
        length = 26 + 6.6 * len(key.text)
        if x + length > width and x > 8:
            x, y = 8.0, y + 20
        parts.append(f'<g transform="translate({x:g},{y:g})">{key_mark(key)}')
        parts.append(f'<text class="k" x="22" y="4">{escape(key.text)}</text></g>')
        x += length
    return "".join(parts), int(y + 14) if keys else 0


def key_mark(key: Key) -> str:
    """Return a legend entry's mark, around (9, 0)."""
    paint = _paint(key.colour)
    if key.shape in ("line", "dashed"):
        dashed = ' stroke-dasharray="5 3"' if key.shape == "dashed" else ""
        return f'<line x1="0" x2="18" style="stroke:{paint}" class="l"{dashed}/>'
    return _shape(9, 0, key.shape, paint)


Theme = Literal["auto", "light", "dark"]


def chart_svg(chart: Chart, *, theme: Theme = "auto") -> str:
    """Return a chart as a file of its own.

    Args:
        chart: what to draw.
        theme: its colours; ``"auto"`` is as its viewer is.
    """
    colours = f"svg{{{variables(theme == 'dark')}}}"
    if theme == "auto":
        colours += f"@media(prefers-color-scheme:dark){{svg{{{variables(True)}}}}}"
    columns = min(chart.columns, len(chart.panels))
    width = max(p.width for p in chart.panels)
    height = max(p.height for p in chart.panels)
    total = width * columns
    keys, below = legend_svg(chart.keys, width=total)
    rows = -(-len(chart.panels) // columns)
    high = 30 + below + rows * height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {high}" width="{total}" '
        f'height="{high}" role="img" aria-label="{escape(chart.title, quote=True)}">',
        f"<style>{colours}{STYLE}.bg{{fill:var(--paper)}}</style>",
        f'<rect class="bg" width="{total}" height="{high}"/>',
        f'<text class="h" x="8" y="20">{escape(chart.title)}</text>',
        f'<g transform="translate(0,30)">{keys}</g>',
    ]
    for number, panel in enumerate(chart.panels):
        x, y = number % columns * width, 30 + below + number // columns * height
        at = f'x="{x}" y="{y}" width="{panel.width}" height="{panel.height}"'
        parts.append(panel_svg(panel, inside=at))
    return "\n".join([*parts, "</svg>\n"])


# What classes look like; the page has it too.
STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;"
    "font-size:11px;fill:var(--muted)}.pt{font-size:13px;font-weight:600;fill:var(--ink)}"
    ".h{font-size:15px;font-weight:600;fill:var(--ink)}.k{font-size:12px;fill:var(--ink)}"
    ".n{font-size:11.5px;font-weight:500}.g{stroke:var(--grid);stroke-width:1}"
    ".r{stroke:var(--muted);stroke-width:1}.l{fill:none;stroke-width:1.6;stroke-linejoin:round}"
    ".b{stroke-width:2;stroke-linecap:butt}.t{font-variant-numeric:tabular-nums}"
    ".halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}"
)


def _axes(panel: Panel) -> list[str]:
    left, top, right, bottom = panel.box
    parts = []
    for value, text in _spread(panel.x, right - left):
        x = panel.place(value, panel.y.low)[0]
        if panel.grid in ("x", "both"):
            parts.append(f'<path class="g" d="M{x:.1f} {top:g}V{bottom:g}"/>')
        parts.append(
            f'<text class="t" x="{x:.1f}" y="{bottom + 14:g}" text-anchor="middle">'
            f"{_number(text)}</text>"
        )
    for value, text in panel.y.marks(max(3, round((bottom - top) / 30))):
        y = panel.place(panel.x.low, value)[1]
        if panel.grid in ("y", "both"):
            parts.append(f'<path class="g" d="M{left:g} {y:.1f}H{right:g}"/>')
        parts.append(
            f'<text class="t" x="{left - 6:g}" y="{y + 4:.1f}" text-anchor="end">'
            f"{_number(text)}</text>"
        )
    if panel.x.label:
        middle = (left + right) / 2
        parts.append(
            f'<text x="{middle:g}" y="{panel.height - 6}" text-anchor="middle">'
            f"{escape(panel.x.label)}</text>"
        )
    if panel.y.label:
        middle = (top + bottom) / 2
        parts.append(
            f'<text transform="translate(11 {middle:g}) rotate(-90)" text-anchor="middle">'
            f"{escape(panel.y.label)}</text>"
        )
    return parts


def _number(text: str) -> str:
    """A tick's text, with a minus that is as wide as a plus."""
    return escape(f"−{text[1:]}" if text[:1] == "-" and text[1:2].isdigit() else text)


def _spread(axis: Axis, length: float) -> list[tuple[float, str]]:
    """Ticks with texts that do not touch."""
    found, past = [], -1e9
    for value, text in sorted(
        axis.marks(max(4, round(length / 45))), key=lambda t: axis.share(t[0])
    ):
        at, half = axis.share(value) * length, 3.2 * len(text)
        if at - half > past:
            found.append((value, text))
            past = at + half + 3
    return found


def _paint(colour: Colour) -> str:
    return f"var(--c{colour % len(PALETTE)})" if isinstance(colour, int) else f"var(--{colour})"


def _mark(panel: Panel, mark: Mark) -> str:
    match mark:
        case RuleMark():
            return _rule(panel, mark)
        case LineMark():
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (panel.place(*p) for p in mark.points))
            dashed = ' stroke-dasharray="5 3"' if mark.dashed else ""
            thick = ";stroke-width:2.4" if mark.thick else ""
            style = f'style="stroke:{_paint(mark.colour)}{thick}"'
            line = f'<polyline class="l" points="{points}" {style}{dashed}>'
            return f"{line}{_title(mark.title)}</polyline>"
        case Dot():
            x, y = panel.place(mark.x, mark.y)
            return _shape(x, y, mark.shape, _paint(mark.colour), title=mark.title)
        case Arrow():
            return _arrow(panel, mark)
        case Bar():
            return _bar(panel, mark)
        case CellMark():
            return _cell(panel, mark)
        case Text():
            x, y = panel.place(mark.x, mark.y)
            return (
                f'<text class="n halo" x="{x + mark.moved[0]:.1f}" y="{y + mark.moved[1]:.1f}" '
                f'text-anchor="{mark.anchor}" style="fill:{_paint(mark.colour)}">'
                f"{escape(mark.text)}</text>"
            )


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _shape(x: float, y: float, shape: str, paint: str, *, title: str = "") -> str:
    if shape == "square":
        body = f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" style="fill:{paint}">'
        return f"{body}{_title(title)}</rect>"
    if shape == "cross":
        d = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
        return f'<path d="{d}" style="stroke:{paint}" class="b">{_title(title)}</path>'
    fill = paint if shape == "filled" else "var(--paper)"
    style = f"fill:{fill};stroke:{paint};stroke-width:2"
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" style="{style}">{_title(title)}</circle>'


def _rule(panel: Panel, mark: RuleMark) -> str:
    left, top, right, bottom = panel.box
    dashed = ' stroke-dasharray="2 3"' if mark.dashed else ""
    if mark.across:
        y = panel.place(panel.x.low, mark.at)[1]
        line = f'<path class="r" d="M{left:g} {y:.1f}H{right:g}"{dashed}/>'
        at, anchor = (left + 3, "start") if mark.left else (right, "end")
        words = f'<text class="halo" x="{at:g}" y="{y - 4:.1f}" text-anchor="{anchor}">'
    else:
        x = panel.place(mark.at, panel.y.low)[0]
        line = f'<path class="r" d="M{x:.1f} {top:g}V{bottom:g}"{dashed}/>'
        words = f'<text class="halo" x="{x + 4:.1f}" y="{top + 8:g}">'
    return line + (f"{words}{escape(mark.text)}</text>" if mark.text else "")


def _arrow(panel: Panel, mark: Arrow) -> str:
    (x0, y0), (x1, y1) = panel.place(*mark.start), panel.place(*mark.end)
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    if length < 12:
        return ""
    # between the two points' rims
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    x0, y0, x1, y1 = x0 + 6 * ux, y0 + 6 * uy, x1 - 7 * ux, y1 - 7 * uy
    head = (
        f"M{x1 - 6 * ux - 3 * uy:.1f} {y1 - 6 * uy + 3 * ux:.1f}L{x1:.1f} {y1:.1f}"
        f"L{x1 - 6 * ux + 3 * uy:.1f} {y1 - 6 * uy - 3 * ux:.1f}"
    )
    style = f'style="stroke:{_paint(mark.colour)};stroke-opacity:.65"'
    return f'<path class="l" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}{head}" {style}/>'


def _bar(panel: Panel, mark: Bar) -> str:
    if mark.across:
        (x0, y), (x1, _) = panel.place(mark.low, mark.at), panel.place(mark.high, mark.at)
        d = f"M{x0:.1f} {y:.1f}H{x1:.1f}"
    else:
        (x, y0), (_, y1) = panel.place(mark.at, mark.low), panel.place(mark.at, mark.high)
        d = f"M{x:.1f} {y0:.1f}V{y1:.1f}"
    style = f'style="stroke:{_paint(mark.colour)}"'
    return f'<path class="b" d="{d}" {style}>{_title(mark.title)}</path>'


def _cell(panel: Panel, mark: CellMark) -> str:
    (x0, y0), (x1, y1) = (
        panel.place(mark.x - 0.5, mark.y + 0.5),
        panel.place(mark.x + 0.5, mark.y - 0.5),
    )
    left, top, width, height = min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)
    style = f"fill:var(--heat);fill-opacity:{0.06 + 0.94 * mark.share:.2f}"
    body = (
        f'<rect x="{left + 1:.1f}" y="{top + 1:.1f}" width="{width - 2:.1f}" '
        f'height="{height - 2:.1f}" style="{style}">{_title(mark.title)}</rect>'
    )
    if not mark.text:
        return body
    paint = "var(--paper)" if mark.share > 0.55 else "var(--ink)"
    x, y = left + width / 2, top + height / 2 + 4
    words = f'<text class="t" x="{x:.1f}" y="{y:.1f}" text-anchor="middle" style="fill:{paint}">'
    return f"{body}{words}{escape(mark.text)}</text>"
