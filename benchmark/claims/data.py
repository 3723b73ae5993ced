"""The claims as data: the schema of ``results/paper/claims.yaml``, and its reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from superbit.benchmark.claims.formula import models_of
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_yaml

Relation = Literal["equal", "more than", "less than", "whole"]

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Figure(BaseModel):
    """One figure of a sentence.

    Attributes:
        what: the quantity.
        printed: the figure, or the words that stand for one, as the paper prints it.
        value: the number that ``printed`` means; read from ``printed`` where it is not given.
        unit: ``"%"`` or nothing; read from ``printed`` as well.
        relation: what the sentence says of the quantity and the number.
        tables: formulas over the paper's own figures, by where they come from.
        explained: other readings of the paper's figures, by what they assume.
        ours: formulas over our models' figures, the like-for-like one first; or why there is none.
        measured: formulas over what this machine is measured at, where that was asked for.
        because: why nothing can be computed; only without ``tables``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    what: str
    printed: str
    value: Decimal | None = None
    unit: Literal["", "%"] = ""
    relation: Relation = "equal"
    tables: dict[str, str] = Field(default={}, max_length=2)
    explained: dict[str, str] = {}
    ours: dict[str, str] | Literal["not measured", "no counterpart"] = "no counterpart"
    measured: dict[str, str] = {}
    because: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read_printed(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("printed"), str | int | float):
            data = dict(data)
            printed = str(data["printed"])
            number = _NUMBER.search(printed)
            data.setdefault("value", number[0] if number else None)
            data.setdefault("unit", "%" if "%" in printed else "")
        return data

    @model_validator(mode="after")
    def _complete(self) -> Figure:
        if bool(self.tables) == bool(self.because):
            raise ValueError("either tables or because is needed, and not both")
        if self.tables and self.value is None and self.relation != "whole":
            raise ValueError("printed holds no number; give one under value")
        return self

    @property
    def decimals(self) -> int:
        """Digits that the paper prints after the point."""
        exponent = self.value.as_tuple().exponent if self.value is not None else 0
        return max(0, -int(exponent))

    def rounded(self, value: Decimal) -> Decimal:
        """``value`` to the printed digits, half up."""
        return value.quantize(Decimal(1).scaleb(-self.decimals), ROUND_HALF_UP)


class Claim(BaseModel):
    """One sentence of the paper.

    Attributes:
        id: its name here.
        place: section, then paragraph, table or caption.
        says: what it says, in our words but for its numbers.
        note: what a reader should know beside the figures.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    place: str
    says: str
    note: str = ""
    figures: tuple[Figure, ...] = Field(min_length=1)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    claims: tuple[Claim, ...] = Field(min_length=1)


def read_claims(file: Traversable | None = None) -> tuple[Claim, ...]:
    """Return the claims of a file, by default the package's ``paper/claims.yaml``.

    Raises:
        InputError: a file that cannot be read; a key unknown, missing or of the wrong kind; two
            claims of one id.
    """
    file = file or resources.files("superbit.results") / "paper" / "claims.yaml"
    try:
        claims = _File.model_validate(read_yaml(file, "a YAML file of claims")).claims
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{file}: {where}: {first['msg']}.") from None
    ids = [claim.id for claim in claims]
    for name in ids:
        if ids.count(name) > 1:
            raise InputError(f"{file}: two claims have the id {name!r}.")
    return claims


def our_models(claims: tuple[Claim, ...], table: str = "ours") -> tuple[str, ...]:
    """Return the models of ours that the claims' formulas refer to, each once.

    ``table`` is ``"ours"``, or ``"measured"`` for those that are to be timed.
    """
    formulas = (
        formula for claim in claims for figure in claim.figures for formula in _all_formulas(figure)
    )
    names = (name for formula in formulas for name in models_of(formula, table))
    return tuple(dict.fromkeys(names))


def _all_formulas(figure: Figure) -> Iterator[str]:
    yield from figure.tables.values()
    yield from figure.explained.values()
    yield from figure.ours.values() if isinstance(figure.ours, dict) else ()
    yield from figure.measured.values()
