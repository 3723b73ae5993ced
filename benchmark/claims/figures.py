"""What a claim's formula can refer to: the cells of the paper's tables, and our models' figures.

- ``paper.MODEL.COLUMN``: Table 1; ``paper2.MODEL.COLUMN``: Table 2, where ``MODEL_reported`` is
  the row that the paper takes from its reference [14]. ``MODEL`` is superbit's name (``vanilla``,
  ``bq_sparseformer_dn_s``), ``COLUMN`` the CSV's, with ``_`` for ``-``.
- ``paper2.tasks.columns``: the tasks that Table 2 has.
- ``measured.MODEL.KEY``: a row of ``superbit profile --measure``, of this machine.
- ``ours.MODEL.KEY``: a row of the honest accounting of ``superbit profile``, and
  ``positional_parameters``, those of the model's positional convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from importlib import util
from importlib.resources.abc import Traversable
from typing import Literal

from superbit.benchmark.claims.formula import Cells
from superbit.benchmark.paper import TEXT_COLUMNS, name_of, printed_rows
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.errors import InputError


def paper_figures(folder: Traversable | None = None) -> dict[str, dict[str, Cells]]:
    """Return ``paper`` and ``paper2``.

    Args:
        folder: where ``table1.csv`` and ``table2.csv`` lie; the package's own without one.

    Raises:
        InputError: a cell that is no number; a folder without the files.
    """
    tables = {"paper": _cells(1, folder), "paper2": _cells(2, folder)}
    row = next(iter(tables["paper2"].values()))
    measured = sum(task.column in row for task in TASKS.values())
    tables["paper2"]["tasks"] = {"columns": Decimal(measured)}
    return tables


def _cells(table: Literal[1, 2], folder: Traversable | None) -> dict[str, Cells]:
    return {
        _model(row): {
            column.replace("-", "_"): _number(text, f"table{table}.csv: {column} of {row['model']}")
            for column, text in row.items()
            if column not in TEXT_COLUMNS
        }
        for row in printed_rows(table, folder=folder)
    }


def _model(row: Mapping[str, str]) -> str:
    """What formulas call a row."""
    name = name_of(row["model"])
    return f"{name}_reported" if row.get("source") == "reported" else name


def _number(text: str | None, where: str) -> Decimal | None:
    if not text:
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        raise InputError(f"{where} is {text!r}; a number is needed.") from None


def as_figures(rows: Mapping[str, Mapping[str, object]]) -> dict[str, Cells]:
    """Return rows of plain numbers, by model, as figures; what is no number is left out."""
    return {
        model: {
            column: None if value is None else Decimal(str(value))
            for column, value in row.items()
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        }
        for model, row in rows.items()
    }


def models_can_be_built() -> bool:
    """Whether what our models need is installed."""
    return util.find_spec("torch") is not None


def our_figures(
    models: Iterable[str], *, each: Callable[[Sequence[str]], Iterable[str]] = iter
) -> dict[str, dict[str, object]]:
    """Return the honest accounting's row of each model, by its name; takes seconds.

    ``each`` gives the models one by one, and may show how far it is.
    """
    from superbit.benchmark.profiling.table1 import table1_rows

    names = list(models)
    return {
        name: {
            **table1_rows(accounting="honest", specs=[name])[0],
            "positional_parameters": positional_parameters(name),
        }
        for name in each(names)
    }


def measured_figures(
    models: Iterable[str], *, each: Callable[[Sequence[str]], Iterable[str]] = iter
) -> dict[str, dict[str, object]]:
    """Time each model on one thread, ten seconds of audio; return its row by its name.

    Takes half a minute a model. ``each`` as for `our_figures`.
    """
    from superbit.benchmark.profiling.table1 import table1_rows

    def row(name: str) -> dict[str, object]:
        return table1_rows(accounting="honest", specs=[name], measure_time=True, threads=1)[0]

    return {name: row(name) for name in each(list(models))}


def machine_of(measured: Mapping[str, Mapping[str, object]] | None) -> str:
    """Return one sentence on what was timed and where; nothing where nothing was."""
    if not measured:
        return ""
    from superbit.upstreams.machine import multiplies_bfloat16

    row = next(iter(measured.values()))
    native = "with" if multiplies_bfloat16() else "without"
    return (
        f"this machine: {row['machine']}, {row['threads']} thread, torch {row['torch']}, ten "
        f"seconds of audio, medians; {native} instructions that multiply bfloat16."
    )


def positional_parameters(spec: str) -> int:
    """Return how many parameters the positional convolution of one of our encoders has."""
    from superbit.benchmark.profiling.counting import meta_model
    from superbit.upstreams.spec import UpstreamSpec
    from superbit.upstreams.variant import size_of

    position = meta_model(size_of(UpstreamSpec.parse(spec).name)).position
    return sum(parameter.numel() for parameter in position.parameters())
