"""The paper's Table 1 as printed, and which of superbit's names each of its rows is."""

from __future__ import annotations

import csv
import io
from functools import lru_cache
from importlib import resources

# One place for the labels of the paper, superbit's names, and the keys of table1_configs.json.
ENCODERS = (
    ("Vanilla Trans", "vanilla", "vanilla"),
    ("Conformer-S", "conformer_s", "conformer"),
    ("Squeeze-XS", "squeeze_xs", "squeeze"),
    ("Sparseformer-DN-S", "sparseformer_dn_s", "sparse_dn"),
    ("Sparseformer-SW-S", "sparseformer_sw_s", "sparse_sw"),
)
SPECS = (*(name for _, name, _ in ENCODERS), *(f"bq_{name}" for _, name, _ in ENCODERS))
COLUMNS = ("storage_mb", "flop_g", "bop_nonq_g", "bop_bq_g", "nvda_est_time_1e-4s")
SECONDS = 10.0  # of audio, behind every figure but storage

_LABELS = {name: label for label, name, _ in ENCODERS}


def label_of(name: str, *, twin: bool) -> str | None:
    """Return the paper's label of one of superbit's names, None if the paper has no such row."""
    label = _LABELS.get(name)
    return f"BQ-{label}" if label and twin else label


@lru_cache(maxsize=1)
def printed() -> dict[str, dict[str, float]]:
    """Return the figures of each row by its label, only those that the paper prints."""
    text = (resources.files("superbit.results") / "paper" / "table1.csv").read_text("utf-8")
    return {
        line["model"]: {column: float(line[column]) for column in COLUMNS if line[column]}
        for line in csv.DictReader(io.StringIO(text))
    }
