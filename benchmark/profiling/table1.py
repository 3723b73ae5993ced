"""The rows of Table 1: one a model, in the paper's accounting, the honest one, or both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

from superbit.benchmark.profiling import paper_table
from superbit.benchmark.profiling.counting import meta_model, samples_of
from superbit.benchmark.profiling.honest_accounting import (
    CATEGORIES,
    HonestCells,
    foreign_cells,
    honest_cells,
)
from superbit.benchmark.profiling.paper_accounting import covers, paper_cells
from superbit.benchmark.profiling.subject import Subject, resolve
from superbit.benchmark.tables.formats import require_one_of
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.convert import binarize_
from superbit.upstreams.quantization.policy import Policy

Accounting = Literal["paper", "honest", "both"]
TableRow = dict[str, object]


def table1_rows(
    *, accounting: str, specs: Sequence[str] | None = None, seconds: float = paper_table.SECONDS
) -> list[TableRow]:
    """Return one row a model; what cannot be known is None.

    A row has ``model`` (the paper's label where the paper has this model, else the spec), ``spec``,
    ``quantized``, ``layers``, ``dim``, ``heads``, ``ffn_dim``, ``precision``, and

    - ``paper``: the columns of ``results/paper/table1.csv`` (`paper_table.COLUMNS`), each followed
      by the published figure under ``…_paper`` and ours over it under ``…_ratio``, both None where
      the paper has no such cell;
    - ``honest``: ``parameters``, ``quantized_parameters``; megabytes ``storage_mb`` and, of these,
      ``storage_full_precision_mb``, ``storage_signs_mb``, ``storage_scales_mb``,
      ``storage_activations_mb``; in units of 10^9 ``macs_g``, ``macs_<category>_g``,
      ``macs_low_bit_g`` (those that are no FLOP), ``flop_g``, ``bop_g``,
      ``bop_full_precision_g``, ``bop_low_bit_g``; ``storage_mb`` and ``flop_g`` are followed by
      ``_paper`` and ``_ratio``;
    - ``both``: those of ``paper``, and those of ``honest`` under the prefix ``honest_``.

    Args:
        accounting: ``paper``, ``honest`` or ``both``.
        specs: upstream specs; None or none of them for the paper's ten rows in its order.
        seconds: of audio at 16 kHz.

    Raises:
        InputError: an unknown accounting, upstream or policy, or audio too short for a frame.
    """
    return [row_of(resolve(spec), accounting, seconds) for spec in specs or paper_table.SPECS]


def row_of(subject: Subject, accounting: str, seconds: float) -> TableRow:
    """Return the row of one model, see `table1_rows`."""
    require_one_of("accounting", accounting, get_args(Accounting))
    samples = samples_of(seconds, subject.config)
    row = _identity(subject)
    if accounting in ("paper", "both"):
        row |= _paper_row(subject, samples)
    if accounting == "honest":
        row |= _honest_row(subject, samples)
    if accounting == "both":
        honest = _honest_row(subject, samples)
        row |= {f"honest_{k}": v for k, v in honest.items() if not k.endswith("_paper")}
    return row


def _identity(subject: Subject) -> TableRow:
    config = subject.config
    return {
        "model": subject.label,
        "spec": str(subject.spec),
        "quantized": "yes" if subject.policy else "no",
        "layers": config.layers if config else None,
        "dim": config.dim if config else None,
        "heads": config.heads if config else None,
        "ffn_dim": config.ffn_dim if config else None,
        "precision": subject.precision,
    }


def _paper_row(subject: Subject, samples: int) -> TableRow:
    cells: dict[str, float | None] = dict.fromkeys(paper_table.COLUMNS)
    if subject.config is not None and covers(subject.config, subject.policy):
        found = paper_cells(_model(subject.config, subject.policy), samples)
        figures = (
            found.storage_mb,
            found.flop_g,
            found.bop_nonq_g,
            found.bop_bq_g,
            found.time_1e4s,
        )
        cells = dict(zip(paper_table.COLUMNS, figures, strict=True))
    return _beside_paper(subject, samples, cells)


def _honest_row(subject: Subject, samples: int) -> TableRow:
    if subject.expert is not None:
        cells = foreign_cells(subject.expert, samples)
    else:
        assert subject.config is not None
        cells = honest_cells(_model(subject.config, subject.policy), samples)
    row: TableRow = {
        "parameters": cells.parameters,
        "quantized_parameters": cells.quantized_parameters,
    }
    row |= _beside_paper(subject, samples, {"storage_mb": cells.storage_bytes / 1e6})
    row |= {
        "storage_full_precision_mb": cells.full_precision_bytes / 1e6,
        "storage_signs_mb": cells.sign_bytes / 1e6,
        "storage_scales_mb": cells.scale_bytes / 1e6,
        "storage_activations_mb": cells.activation_bytes / 1e6,
        "macs_g": _giga(cells.total_macs),
    }
    row |= {f"macs_{category}_g": _giga(cells.macs[category]) for category in CATEGORIES}
    row["macs_low_bit_g"] = _giga(cells.low_bit_macs)
    row |= _beside_paper(subject, samples, {"flop_g": _giga(cells.flop)})
    return row | _bit_operations(cells)


def _bit_operations(cells: HonestCells) -> TableRow:
    return {
        "bop_g": _giga(cells.bop),
        "bop_full_precision_g": _giga(cells.full_precision_bop),
        "bop_low_bit_g": _giga(cells.low_bit_bop),
    }


def _beside_paper(subject: Subject, samples: int, cells: dict[str, float | None]) -> TableRow:
    """Return each figure with the published one and their ratio, where there is one to compare."""
    published = paper_table.printed()[subject.label] if subject.in_paper else {}
    same_length = samples == samples_of(paper_table.SECONDS)
    row: TableRow = {}
    for column, figure in cells.items():
        comparable = same_length or column == "storage_mb"
        paper = published.get(column) if comparable else None
        row[column] = figure
        row[f"{column}_paper"] = paper
        row[f"{column}_ratio"] = None if figure is None or paper is None else figure / paper
    return row


def _giga(count: int | None) -> float | None:
    return None if count is None else count / 1e9


@lru_cache(maxsize=16)
def _model(config: HubertConfig, policy: Policy | None) -> Hubert:
    model = meta_model(config)
    return model if policy is None else binarize_(model, policy)
