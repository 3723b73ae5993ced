"""The paper's two tables as printed, digit by digit, and which of superbit's names each row is.

The one reader of ``results/paper/table1.csv`` and ``table2.csv``. Neither torch nor pandas is
imported: figures stay the texts that they are in print, 65.00 and not 65.0.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal

from superbit.upstreams.errors import InputError

# The paper's labels, superbit's names, and the keys of upstreams/table1_configs.json.
ENCODERS = (
    ("Vanilla Trans", "vanilla", "vanilla"),
    ("Conformer-S", "conformer_s", "conformer"),
    ("Squeeze-XS", "squeeze_xs", "squeeze"),
    ("Sparseformer-DN-S", "sparseformer_dn_s", "sparse_dn"),
    ("Sparseformer-SW-S", "sparseformer_sw_s", "sparse_sw"),
)
# superbit's specs of Table 1's ten rows, in its order.
TABLE1_SPECS = (*(name for _, name, _ in ENCODERS), *(f"bq_{name}" for _, name, _ in ENCODERS))
# Table 1's figures of what an encoder costs; all but storage are for so many seconds of audio.
TABLE1_FIGURES = ("storage_mb", "flop_g", "bop_nonq_g", "bop_bq_g", "nvda_est_time_1e-4s")
TABLE1_SECONDS = 10.0
# Columns of both tables that hold no figure.
TEXT_COLUMNS = ("model", "source", "quantized", "precision")

_LABELS = {name: label for label, name, _ in ENCODERS}
_NAMES = {label: name for name, label in _LABELS.items()}
_TWIN = "BQ-"  # before the label of a twin


def label_of(name: str, *, twin: bool) -> str | None:
    """Return the paper's label of one of superbit's names, None if the paper has no such row."""
    label = _LABELS.get(name)
    return f"{_TWIN}{label}" if label and twin else label


def name_of(label: str) -> str:
    """Return superbit's name of a row: ``bq_squeeze_xs`` of "BQ-Squeeze-XS".

    Raises:
        InputError: the paper has no such row.
    """
    name = _NAMES.get(label.removeprefix(_TWIN))
    if name is None:
        raise InputError(
            f"{label!r} is no model of the paper's tables; those are {', '.join(_NAMES)}, and "
            f"each with {_TWIN} before it."
        )
    return f"bq_{name}" if label.startswith(_TWIN) else name


def printed_rows(
    table: Literal[1, 2], *, folder: Traversable | None = None
) -> list[Mapping[str, str]]:
    """Return a table's rows in order, each by the CSV's columns; empty where nothing is printed.

    Args:
        table: its number.
        folder: where ``table1.csv`` and ``table2.csv`` lie; the package's own without one.

    Raises:
        InputError: the file cannot be read.
    """
    file = (folder or resources.files("superbit.results") / "paper") / f"table{table}.csv"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
    return list(csv.DictReader(lines))


@lru_cache(maxsize=1)
def table1_figures() -> dict[str, dict[str, float]]:
    """Return `TABLE1_FIGURES` of each row by its label, only those that the paper prints."""
    return {
        row["model"]: {column: float(row[column]) for column in TABLE1_FIGURES if row[column]}
        for row in printed_rows(1)
    }
