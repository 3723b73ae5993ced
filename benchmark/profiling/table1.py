"""The rows of Table 1: one a model, in the paper's accounting, the honest one, or both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

from superbit.benchmark.paper import (
    TABLE1_FIGURES,
    TABLE1_SECONDS,
    TABLE1_SPECS,
    table1_figures,
)
from superbit.benchmark.profiling.challenge import BUCKETS, challenge_macs
from superbit.benchmark.profiling.counting import (
    OperationCounts,
    count_model,
    meta_model,
    samples_of,
)
from superbit.benchmark.profiling.honest_accounting import (
    CATEGORIES,
    HonestCells,
    foreign_cells,
    honest_cells,
)
from superbit.benchmark.profiling.measuring import measure
from superbit.benchmark.profiling.paper_accounting import covers, paper_cells
from superbit.benchmark.profiling.subject import Subject, subject_of
from superbit.benchmark.progress import Reporter
from superbit.benchmark.records.naming import read_labels
from superbit.upstreams.errors import InputError, require_one_of
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.convert import binarize_
from superbit.upstreams.quantization.policy import Policy

Accounting = Literal["paper", "honest", "both"]
TableRow = dict[str, object]


def table1_rows(
    specs: Sequence[str] = (),
    *,
    accounting: str = "both",
    seconds: float = TABLE1_SECONDS,
    measure_time: bool = False,
    challenge: bool = False,
    threads: int | None = None,
    label: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> list[TableRow]:
    """Return one row a model; what cannot be known is None.

    A row has ``model`` (its label, or the paper's where the paper has this model, or the spec as
    people type it), ``spec``, ``quantized``, ``layers``, ``dim``, ``heads``, ``ffn_dim``,
    ``precision``, and

    - ``paper``: the columns of ``results/paper/table1.csv`` (`TABLE1_FIGURES`), each followed
      by the published figure under ``…_paper`` and ours over it under ``…_ratio``, both None where
      the paper has no such cell;
    - ``honest``: ``parameters``, ``quantized_parameters``; megabytes ``storage_mb`` and, of these,
      ``storage_full_precision_mb``, ``storage_signs_mb``, ``storage_scales_mb``,
      ``storage_activations_mb``; in units of 10^9 ``macs_g``, ``macs_<category>_g``,
      ``macs_low_bit_g`` (those that are no FLOP), ``flop_g``, ``bop_g``,
      ``bop_full_precision_g``, ``bop_low_bit_g``; ``storage_mb`` and ``flop_g`` are followed by
      ``_paper`` and ``_ratio``;
    - ``both``: those of ``paper``, and those of ``honest`` under the prefix ``honest_``.

    With ``challenge`` ``challenge_macs_g`` and, bucket by bucket, ``challenge_macs_<bucket>_g`` of
    `superbit.benchmark.profiling.challenge` come on top; with ``measure_time`` those of
    `superbit.benchmark.profiling.measuring`.

    Args:
        specs: upstreams; without any the paper's ten rows in its order.
        accounting: ``paper``, ``honest`` or ``both``.
        seconds: of audio at 16 kHz.
        measure_time: time a forward pass of each on this machine.
        challenge: count the SUPERB challenge's 32 utterances too, seconds for each model.
        threads: of what is timed; None for the cores of this process.
        label: what to call upstreams, each NAME=SPEC.
        reporter: shows which model it is at.

    Raises:
        InputError: an unknown accounting, upstream or policy, a label that cannot be read, no
            thread, or audio too short for a frame.
    """
    require_one_of("accounting", accounting, get_args(Accounting))
    if threads is not None and threads < 1:
        raise InputError(f"--threads is {threads}; an integer of at least 1 is needed.")
    if threads is not None and not measure_time:
        raise InputError("--threads is of what is timed: add --measure, or leave it out.")
    subjects = [subject_of(text) for text in specs or TABLE1_SPECS]
    names = read_labels(label, [str(subject.spec) for subject in subjects])
    rows = []
    for subject in reporter.each("profiling", subjects) if reporter else subjects:
        row = _row(subject, accounting, seconds)
        spec = str(subject.spec)
        if row["model"] == spec or spec in names.labels:
            row["model"] = names.of(spec)
        if challenge:
            row |= _challenge_row(subject)
        if measure_time:
            if reporter:
                reporter.line(f"measuring {spec}")
            samples = samples_of(seconds, subject.config)
            row |= measure(spec, seconds=seconds, samples=samples, threads=threads)
        rows.append(row)
    return rows


def _row(subject: Subject, accounting: str, seconds: float) -> TableRow:
    samples = samples_of(seconds, subject.config)
    row = _identity(subject)
    model = None if subject.config is None else _model(subject.config, subject.policy)
    counts = None if model is None else count_model(model, samples)
    if accounting in ("paper", "both"):
        row |= _paper_row(subject, samples, model=model, counts=counts)
    if accounting == "honest":
        row |= _honest_row(subject, samples, model=model, counts=counts)
    if accounting == "both":
        honest = _honest_row(subject, samples, model=model, counts=counts)
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


def _paper_row(
    subject: Subject, samples: int, *, model: Hubert | None, counts: OperationCounts | None
) -> TableRow:
    cells: dict[str, float | None] = dict.fromkeys(TABLE1_FIGURES)
    if model is not None and covers(model.config, subject.policy):
        found = paper_cells(model, samples, counts=counts)
        figures = (
            found.storage_mb,
            found.flop_g,
            found.bop_nonq_g,
            found.bop_bq_g,
            found.time_1e4s,
        )
        cells = dict(zip(TABLE1_FIGURES, figures, strict=True))
    return _beside_paper(subject, samples, cells)


def _honest_row(
    subject: Subject, samples: int, *, model: Hubert | None, counts: OperationCounts | None
) -> TableRow:
    if subject.expert is not None:
        cells = foreign_cells(subject.expert, samples)
    else:
        assert model is not None
        cells = honest_cells(model, samples, counts=counts)
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


def _challenge_row(subject: Subject) -> TableRow:
    model = None if subject.config is None else _model(subject.config, subject.policy)
    found = challenge_macs(subject.expert if model is None else model)
    row: TableRow = {f"challenge_macs_{name}_g": _giga(found[name]) for name in BUCKETS}
    return {"challenge_macs_g": _giga(found["all"])} | row


def _bit_operations(cells: HonestCells) -> TableRow:
    return {
        "bop_g": _giga(cells.bop),
        "bop_full_precision_g": _giga(cells.full_precision_bop),
        "bop_low_bit_g": _giga(cells.low_bit_bop),
    }


def _beside_paper(subject: Subject, samples: int, cells: dict[str, float | None]) -> TableRow:
    """Return each figure with the published one and their ratio, where there is one to compare."""
    published = table1_figures()[subject.label] if subject.in_paper else {}
    same_length = samples == samples_of(TABLE1_SECONDS)
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
