"""The language of a claim's formulas: arithmetic over named figures, and nothing else.

- numbers, ``+ - * /``, parentheses;
- ``TABLE.MODEL.COLUMN``, e.g. ``paper.vanilla.storage_mb``;
- ``reduction(new, old)`` = 100 (1 - new / old), in percent; ``min(…)`` and ``max(…)``;
- ``wins(TABLE.MODEL, TABLE.MODEL)``: tasks in which the first is strictly better, each task in
  its own direction.

Decimal arithmetic: the paper's digits are taken as they are printed, so a verdict on a last digit
does not hang on binary fractions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from decimal import Decimal, DivisionByZero, InvalidOperation
from typing import TypeVar

from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.errors import InputError, did_you_mean

_T = TypeVar("_T")

# A row's cells by column; None where there is no figure.
Cells = Mapping[str, Decimal | None]
# By table, then by model. A table that is None as a whole was not asked for.
Figures = Mapping[str, Mapping[str, Cells] | None]

FUNCTIONS = ("reduction", "min", "max", "wins")
_GRAMMAR = f"a formula has numbers, + - * /, TABLE.MODEL.COLUMN and {', '.join(FUNCTIONS)}"


class _NoFigureError(Exception):
    """A cell that the formula needs is empty."""


def evaluate_formula(formula: str, figures: Figures) -> Decimal | None:
    """Return the formula's value; None if a figure that it needs is not known.

    Raises:
        InputError: not of the language; an unknown table, model or column; a division by zero.
    """
    try:
        return _value(_parse(formula), formula, figures)
    except _NoFigureError:
        return None
    except (DivisionByZero, InvalidOperation):
        raise InputError(f"formula {formula!r} divides by zero.") from None


def models_of(formula: str, table: str) -> Iterator[str]:
    """Yield the models of one table that the formula refers to, in their order there."""
    for node in ast.walk(_parse(formula)):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == table
        ):
            yield node.attr


def _parse(formula: str) -> ast.expr:
    try:
        return ast.parse(formula.strip(), mode="eval").body
    except SyntaxError:
        raise InputError(f"formula {formula!r} cannot be read: {_GRAMMAR}.") from None


def _value(node: ast.expr, formula: str, figures: Figures) -> Decimal:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        # the digits as written: 0.1 is not the nearest binary fraction
        return Decimal(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, formula, figures)
    if isinstance(node, ast.BinOp):
        left = _value(node.left, formula, figures)
        right = _value(node.right, formula, figures)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div():
                return left / right
    if isinstance(node, ast.Attribute):
        return _cell(_names(node, formula), formula, figures)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _call(node.func.id, node.args, formula, figures)
    raise _foreign(node, formula)


def _call(name: str, arguments: list[ast.expr], formula: str, figures: Figures) -> Decimal:
    if name not in FUNCTIONS:
        hint = did_you_mean(name, FUNCTIONS)
        raise InputError(f"formula {formula!r}: unknown function {name!r}.{hint}")
    needed = 2 if name in ("reduction", "wins") else max(len(arguments), 1)
    if len(arguments) != needed:
        raise InputError(f"formula {formula!r}: {name} takes {needed} values.")
    if name == "wins":
        ours, theirs = (_row(_names(each, formula), formula, figures) for each in arguments)
        return _wins(ours, theirs)
    values = [_value(each, formula, figures) for each in arguments]
    if name == "reduction":
        return 100 * (1 - values[0] / values[1])
    return min(values) if name == "min" else max(values)


def _wins(ours: Cells, theirs: Cells) -> Decimal:
    won = 0
    for task in TASKS.values():
        mine, other = ours.get(task.column), theirs.get(task.column)
        if mine is None or other is None:
            raise _NoFigureError
        won += mine > other if task.higher_is_better else mine < other
    return Decimal(won)


def _names(node: ast.expr, formula: str) -> list[str]:
    """``a.b.c`` as its three names."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [*_names(node.value, formula), node.attr]
    raise _foreign(node, formula)


def _cell(names: list[str], formula: str, figures: Figures) -> Decimal:
    if len(names) != 3:
        raise InputError(
            f"formula {formula!r}: {'.'.join(names)!r} is no figure; write TABLE.MODEL.COLUMN."
        )
    value = _look_up(names[2], _row(names[:2], formula, figures), "column", formula)
    if value is None:
        raise _NoFigureError
    return value


def _row(names: list[str], formula: str, figures: Figures) -> Cells:
    if len(names) != 2:
        raise InputError(f"formula {formula!r}: {'.'.join(names)!r} is no row; write TABLE.MODEL.")
    table = _look_up(names[0], figures, "table", formula)
    if table is None:
        raise _NoFigureError
    return _look_up(names[1], table, f"model of {names[0]!r}", formula)


def _look_up(name: str, known: Mapping[str, _T], kind: str, formula: str) -> _T:
    if name not in known:
        hint = did_you_mean(name, list(known))
        raise InputError(f"formula {formula!r}: unknown {kind} {name!r}.{hint}")
    return known[name]


def _foreign(node: ast.expr, formula: str) -> InputError:
    return InputError(f"formula {formula!r}: {ast.unparse(node)!r} is not allowed; {_GRAMMAR}.")
