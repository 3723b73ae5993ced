"""The rules that give each figure of a claim its verdict.

Verdict on the paper's own tables (`VERDICTS`):

- ``holds``: every table that has it gives the printed figure, rounded half up to its digits; or
  fulfils the printed relation (more than, less than, a whole number).
- ``rounds differently``: none gives it, but one is less than one unit of the last printed digit
  away.
- ``tables disagree``: one table gives it, another does not.
- ``table says otherwise``: none gives it.
- ``cannot be checked``: nothing to compute it from.

Like for like (`LIKENESS`), by our models at the same precision, with the same feed-forward rule
and attention that is really sparse; the first of a figure's formulas over our models:

- ``same direction and size``: a percentage of the same sign, within one percentage point;
- ``same direction, larger`` / ``smaller``; ``opposite direction``;
- ``same figure`` / ``another figure``: what is not in percent, by its printed digits;
- ``holds`` / ``does not hold``: a relation;
- ``not measured``: needs models trained at the benchmark's scale;
- ``unknown``: our models' figures were not asked for, or the profiler does not know them;
- ``no counterpart``: a statement on the paper's tables alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources.abc import Traversable

from superbit.benchmark.claims.data import Claim, Figure, read_claims
from superbit.benchmark.claims.figures import as_figures, paper_figures
from superbit.benchmark.claims.formula import Figures, evaluate_formula

VERDICTS = (
    "holds",
    "rounds differently",
    "tables disagree",
    "table says otherwise",
    "cannot be checked",
)
LIKENESS = (
    "same direction and size",
    "same direction, larger",
    "same direction, smaller",
    "opposite direction",
    "same figure",
    "another figure",
    "holds",
    "does not hold",
    "not measured",
    "unknown",
    "no counterpart",
)
# Percentage points by which a figure of ours may differ and still be of the same size.
SAME_SIZE_POINTS = Decimal(1)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One formula's value: by which reading, and whether it agrees with what is printed.

    ``value`` and ``agrees`` are None where a figure that the formula needs is not known.
    """

    label: str
    formula: str
    value: Decimal | None
    agrees: bool | None


@dataclass(frozen=True, kw_only=True)
class CheckedFigure:
    """A figure with everything computed for it; ``verdict`` and ``like_for_like`` as above."""

    figure: Figure
    tables: tuple[Reading, ...]
    explained: tuple[Reading, ...]
    ours: tuple[Reading, ...]
    measured: tuple[Reading, ...]
    verdict: str
    like_for_like: str


@dataclass(frozen=True, kw_only=True)
class CheckedClaim:
    """A claim with its figures checked."""

    claim: Claim
    figures: tuple[CheckedFigure, ...]


def check_claims(
    claims: tuple[Claim, ...] | None = None,
    *,
    tables: Traversable | None = None,
    ours: Mapping[str, Mapping[str, object]] | None = None,
    measured: Mapping[str, Mapping[str, object]] | None = None,
) -> tuple[CheckedClaim, ...]:
    """Compute every figure of every claim.

    Args:
        claims: those of the package by default.
        tables: folder of ``table1.csv`` and ``table2.csv``; the package's by default.
        ours: our models' figures by model and key; without them they are unknown.
        measured: what this machine was measured at, likewise.

    Raises:
        InputError: a formula that is not of the language or refers to what there is not.
    """
    claims = read_claims() if claims is None else claims
    figures: Figures = {
        **paper_figures(tables),
        "ours": None if ours is None else as_figures(ours),
        "measured": None if measured is None else as_figures(measured),
    }
    return tuple(
        CheckedClaim(claim=claim, figures=tuple(_check(each, figures) for each in claim.figures))
        for claim in claims
    )


def _check(figure: Figure, figures: Figures) -> CheckedFigure:
    tables = _readings(figure, figure.tables, figures)
    of_ours = figure.ours if isinstance(figure.ours, dict) else {}
    ours = _readings(figure, of_ours, figures)
    return CheckedFigure(
        figure=figure,
        tables=tables,
        explained=_readings(figure, figure.explained, figures),
        ours=ours,
        measured=_readings(figure, figure.measured, figures),
        verdict=_verdict(figure, tables),
        like_for_like=_likeness(figure, ours[0]) if ours else str(figure.ours),
    )


def _readings(figure: Figure, formulas: Mapping[str, str], figures: Figures) -> tuple[Reading, ...]:
    readings = []
    for label, formula in formulas.items():
        value = evaluate_formula(formula, figures)
        agrees = None if value is None else _agrees(figure, value)
        readings.append(Reading(label=label, formula=formula, value=value, agrees=agrees))
    return tuple(readings)


def _agrees(figure: Figure, value: Decimal) -> bool:
    if figure.relation == "whole":
        return value == value.to_integral_value()
    assert figure.value is not None  # required of every other relation
    if figure.relation == "more than":
        return value > figure.value
    if figure.relation == "less than":
        return value < figure.value
    return figure.rounded(value) == figure.value


def _verdict(figure: Figure, readings: tuple[Reading, ...]) -> str:
    known = [reading for reading in readings if reading.value is not None]
    if not known:
        return "cannot be checked"
    agreeing = sum(reading.agrees is True for reading in known)
    if agreeing == len(known):
        return "holds"
    if agreeing:
        return "tables disagree"
    if figure.relation == "equal" and any(_within_one_unit(figure, r.value) for r in known):
        return "rounds differently"
    return "table says otherwise"


def _within_one_unit(figure: Figure, value: Decimal | None) -> bool:
    if value is None or figure.value is None:
        return False
    return abs(value - figure.value) < Decimal(1).scaleb(-figure.decimals)


def _likeness(figure: Figure, reading: Reading) -> str:
    if reading.value is None:
        return "unknown"
    if figure.relation != "equal":
        return "holds" if reading.agrees else "does not hold"
    assert figure.value is not None  # required of this relation
    if figure.unit != "%":
        return "same figure" if reading.agrees else "another figure"
    if reading.value * figure.value <= 0:
        return "opposite direction"
    if abs(reading.value - figure.value) <= SAME_SIZE_POINTS:
        return "same direction and size"
    larger = abs(reading.value) > abs(figure.value)
    return f"same direction, {'larger' if larger else 'smaller'}"
