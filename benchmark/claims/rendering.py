"""Printing the checked claims.

- ``md``: one list a claim, which reads well in a terminal: the sentence, then what each of its
  figures comes to, by the paper's tables and by our models.
- ``csv``: one header, one row a figure; computed values to two decimals, without units.
- ``latex``: a ``table*`` for each section of the paper; ``html``: a page; sentences stand in the
  notes.
- ``json``: a list of claims, with every formula; values as numbers, null where there is none.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from itertools import groupby
from typing import Any, get_args

from superbit.benchmark.claims.check import (
    VERDICTS,
    CheckedClaim,
    CheckedFigure,
    Reading,
)
from superbit.benchmark.claims.data import Figure
from superbit.benchmark.rendering import (
    Format,
    TextTable,
    csv_text,
    json_text,
    render_text,
)
from superbit.upstreams.errors import require_one_of

TITLE = "The paper's numeric sentences, recomputed"
COLUMNS = (
    "claim",
    "place",
    "figure",
    "printed",
    "table",
    "other_table",
    "verdict",
    "superbit",
    "like_for_like",
)
_HEADER = ("claim", "figure", "verdict", "paper", "its tables", "superbit", "like for like")
_CENT = Decimal("0.01")
_WIDTH = 100
NOTES = (
    "its tables: holds where the paper's own tables give the printed figure to its digits; rounds "
    "differently where they are less than one unit of its last digit away; tables disagree where "
    "one gives it and another does not.",
    "like for like: superbit's models at the same precision, feed-forward of 4 × dim for every "
    "encoder, attention really sparse; the same size is within one percentage point. not "
    "measured: needs models trained at the benchmark's scale.",
)


def render_claims(
    claims: Sequence[CheckedClaim], format: Format = "md", *, machine: str = ""
) -> str:
    """Return the claims as text that ends with a newline.

    ``machine`` says where the measured figures come from, where there are some.

    Raises:
        InputError: an unknown format.
    """
    require_one_of("format", format, get_args(Format))
    if format in ("csv", "json"):
        return _csv(claims) if format == "csv" else _json(claims)
    pages = {"md": _markdown, "latex": _latex, "html": _html}
    return pages[format](claims, (*NOTES, machine) if machine else NOTES)


def verdict_counts(claims: Sequence[CheckedClaim]) -> str:
    """Return how many figures have which verdict, in one line."""
    verdicts = Counter(figure.verdict for claim in claims for figure in claim.figures)
    counts = [f"{verdict} {verdicts[verdict]}" for verdict in VERDICTS if verdicts[verdict]]
    return f"{verdicts.total()} figures in {len(claims)} sentences: {', '.join(counts)}."


def _digits(figure: Figure, value: Decimal | None) -> str:
    """A value as the paper prints the figure, and to two decimals where it prints fewer."""
    if value is None:
        return "unknown"
    exact = f"{value.quantize(_CENT, ROUND_HALF_UP)}{figure.unit}"
    if figure.relation != "equal":
        whole = not figure.unit and value == value.to_integral_value()
        return f"{value:.0f}" if whole else exact
    short = f"{figure.rounded(value)}{figure.unit}"
    whole = not figure.unit and figure.rounded(value) == value.quantize(_CENT, ROUND_HALF_UP)
    same = figure.decimals >= 2 or whole
    return short if same else f"{short} ({exact})"


def _markdown(claims: Sequence[CheckedClaim], notes: Sequence[str]) -> str:
    lines = [f"**{TITLE}**", ""]
    for place, group in groupby(claims, key=lambda each: each.claim.place):
        lines += [f"### {place}", ""]
        for checked in group:
            lines += [*_wrap(f"**{checked.claim.id}** {checked.claim.says}"), ""]
            for figure in checked.figures:
                lines += _markdown_figure(figure)
            if checked.claim.note:
                lines += ["", *_wrap(checked.claim.note)]
            lines.append("")
    for note in (verdict_counts(claims), *notes):
        lines += _wrap(note, "- ")
    return "\n".join(lines) + "\n"


def _markdown_figure(checked: CheckedFigure) -> Iterator[str]:
    figure = checked.figure
    ours = "; superbit: not measured" if checked.like_for_like == "not measured" else ""
    yield from _wrap(
        f"{figure.what}: {_printed_in_words(figure)}: **{checked.verdict}**{ours}", "- "
    )
    if figure.because:
        yield from _wrap(figure.because, "  - ")
    else:
        tables = [f"{each.label}: {_digits(figure, each.value)}" for each in checked.tables]
        yield from _wrap("; ".join(tables), "  - ")
    for reading in checked.explained:
        text = f"{reading.label}: {_digits(figure, reading.value)}{_explains(figure, reading)}"
        yield from _wrap(text, "  - ")
    for place, reading in enumerate(checked.ours):
        text = f"superbit, {reading.label}: {_digits(figure, reading.value)}"
        likeness = (
            f": **{checked.like_for_like}**" if place == 0 and reading.value is not None else ""
        )
        yield from _wrap(text + likeness, "  - ")
    for reading in checked.measured:
        if reading.value is not None:
            text = f"this machine, {reading.label}: {_digits(figure, reading.value)}"
            yield from _wrap(text, "  - ")


def _printed_in_words(figure: Figure) -> str:
    """What the paper prints; words with the number that they are taken for."""
    if any(character.isdigit() for character in figure.printed):
        return f"paper {figure.printed}"
    relation = "" if figure.relation == "equal" else f"{figure.relation} "
    return f'paper "{figure.printed}" ({relation}{figure.value}{figure.unit})'


def _explains(figure: Figure, reading: Reading) -> str:
    return ", the printed figure" if reading.agrees and figure.relation == "equal" else ""


def _wrap(text: str, bullet: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        width=_WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _csv(claims: Sequence[CheckedClaim]) -> str:
    lines = []
    for checked in claims:
        for each in checked.figures:
            tables = [_plain(reading) for reading in each.tables]
            lines.append(
                [
                    checked.claim.id,
                    checked.claim.place,
                    each.figure.what,
                    each.figure.printed,
                    *[*tables, "", ""][:2],
                    each.verdict,
                    _plain(each.ours[0]) if each.ours else "",
                    each.like_for_like,
                ]
            )
    return csv_text(COLUMNS, lines)


def _plain(reading: Reading) -> str:
    if reading.value is None:
        return ""
    return str(reading.value.quantize(_CENT, ROUND_HALF_UP))


def _json(claims: Sequence[CheckedClaim]) -> str:
    found = [
        {
            "claim": checked.claim.id,
            "place": checked.claim.place,
            "says": checked.claim.says,
            "note": checked.claim.note,
            "figures": [_json_figure(each) for each in checked.figures],
        }
        for checked in claims
    ]
    return json_text(found)


def _json_figure(checked: CheckedFigure) -> dict[str, Any]:
    figure = checked.figure
    return {
        "figure": figure.what,
        "printed": figure.printed,
        "value": None if figure.value is None else float(figure.value),
        "unit": figure.unit,
        "relation": figure.relation,
        "tables": _json_readings(figure, checked.tables),
        "verdict": checked.verdict,
        "because": figure.because,
        "explained": _json_readings(figure, checked.explained),
        "superbit": _json_readings(figure, checked.ours),
        "measured": _json_readings(figure, checked.measured),
        "like_for_like": checked.like_for_like,
    }


def _json_readings(figure: Figure, readings: Iterable[Reading]) -> list[dict[str, Any]]:
    return [
        {
            "reading": reading.label,
            "formula": " ".join(reading.formula.split()),
            "value": None if reading.value is None else float(reading.value),
            "as_printed": _digits(figure, reading.value),
            "agrees": reading.agrees,
        }
        for reading in readings
    ]


def _lines(checked: CheckedClaim) -> list[list[str]]:
    return [
        [
            checked.claim.id,
            each.figure.what,
            each.verdict,
            each.figure.printed,
            "; ".join(_digits(each.figure, reading.value) for reading in each.tables),
            _digits(each.figure, each.ours[0].value) if each.ours else "",
            each.like_for_like,
        ]
        for each in checked.figures
    ]


def _notes(claims: Iterable[CheckedClaim]) -> Iterator[str]:
    """The sentence of each claim, and the readings that its lines have no column for."""
    for checked in claims:
        claim = checked.claim
        parts = [f"{claim.id}, {claim.place}: {claim.says}"]
        for each in checked.figures:
            readings = [
                *(("", reading) for reading in each.explained),
                *(("superbit, ", reading) for reading in each.ours[1:]),
                *(("this machine, ", reading) for reading in each.measured if reading.value),
            ]
            for kind, reading in readings:
                value = f"{_digits(each.figure, reading.value)}{_explains(each.figure, reading)}"
                what = each.figure.what[0].upper() + each.figure.what[1:]
                parts.append(f"{what}, {kind}{reading.label}: {value}.")
        yield " ".join([*parts, *([claim.note] if claim.note else [])])


def _latex(claims: Sequence[CheckedClaim], notes: Sequence[str]) -> str:
    sections = [(name, list(group)) for name, group in groupby(claims, key=_section)]
    tables = []
    for place, (section, group) in enumerate(sections, start=1):
        own = [
            *_notes(group),
            *((verdict_counts(claims), *notes) if place == len(sections) else ()),
        ]
        tables.append(render_text(_as_text(f"{TITLE}: {section}", group, own), "latex"))
    return "\n".join(tables)


def _section(checked: CheckedClaim) -> str:
    return checked.claim.place.partition(",")[0]


def _html(claims: Sequence[CheckedClaim], notes: Sequence[str]) -> str:
    own = [verdict_counts(claims), *notes, *_notes(claims)]
    return render_text(_as_text(TITLE, claims, own), "html")


def _as_text(title: str, claims: Sequence[CheckedClaim], notes: Sequence[str]) -> TextTable:
    """A line a figure, a group a claim."""
    groups = [_lines(checked) for checked in claims]
    return TextTable(title=title, header=_HEADER, groups=groups, notes=notes, text_columns=3)
