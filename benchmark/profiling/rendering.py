"""Rows of Table 1 in the formats a table is printed in.

``json``: the rows as they are, null where unknown. ``csv``: one header and one row a model, the
same keys, empty where unknown. ``md``, ``latex``, ``html``: one table an accounting, each with its
legend, a dash where unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from superbit.benchmark.paper import TABLE1_FIGURES
from superbit.benchmark.profiling.challenge import BUCKETS, HUBERT_BASE_GMAC
from superbit.benchmark.profiling.honest_accounting import CATEGORIES
from superbit.benchmark.profiling.measuring import FOOTPRINTS, VARIANTS
from superbit.benchmark.profiling.paper_accounting import RULES
from superbit.benchmark.profiling.table1 import TableRow
from superbit.benchmark.rendering import (
    Format,
    TextTable,
    csv_text,
    json_text,
    render_text,
)
from superbit.upstreams.errors import require_one_of

_UNKNOWN = "—"
_TEXT_COLUMNS = ("model", "precision")
_PAPER_HEADS = dict(
    zip(
        TABLE1_FIGURES,
        ("storage MB", "GFLOP", "BOP_NonQ G", "BOP_BQ G", "time 1e-4 s"),
        strict=True,
    )
)
_HONEST_HEADS = {
    "parameters": ("parameters", 0),
    "quantized_parameters": ("of them 1-bit", 0),
    "storage_mb": ("storage MB", 2),
    **{f"macs_{category}_g": (f"{category.replace('_', ' ')} GMAC", 3) for category in CATEGORIES},
    "macs_g": ("all GMAC", 3),
    "flop_g": ("GFLOP", 2),
    "bop_full_precision_g": ("32-bit GBOP", 1),
    "bop_low_bit_g": ("1-bit GBOP", 2),
}
_HONEST_NOTES = (
    "storage: 10^6 bytes; 4 a parameter; 1-bit weights packed, with one 4-byte scale a tensor; a "
    "twin's binarized inputs add a scale, and a shift a channel, of 4 bytes each.",
    "GMAC: 10^9 multiply-accumulates on the frames that run, products of sparse attention only "
    "where a query sees the key, layers at half rate at half the frames. 'linear' holds the "
    "projection of the front end's output too.",
    "GFLOP: 2 × MAC + element-wise operations: 5 an element of a norm (2 for batch norm), 1 of an "
    "activation, 1 a score of a softmax; biases, residual sums and masks are not counted. MACs of "
    "two binarized operands are no FLOP but GBOP, and what binarizing costs is not counted.",
    "GBOP: 10^9 bit operations, MAC × bits of one operand × bits of the other, FP32 = 32.",
)
_WIDTHS = (
    "Conformer-S and Squeeze-XS have a feed-forward of 3072 at dimension 144, as their storage in "
    "the paper says; conformer_s_fair and squeeze_xs_fair have 4 × the dimension, like the others. "
    "The paper prints dimension 786 for vanilla; its storage is that of 768."
)


def render_table1(
    rows: Sequence[TableRow], *, accounting: str, seconds: float, format: Format = "md"
) -> str:
    """Return the rows as text that ends with a newline.

    Raises:
        InputError: an unknown format.
    """
    require_one_of("format", format, get_args(Format))
    if format == "json":
        return json_text(list(rows))
    if format == "csv":
        header = list(dict.fromkeys(key for row in rows for key in row))
        return csv_text(header, [[row.get(key) for key in header] for row in rows])
    sections = _sections(rows, accounting=accounting, seconds=seconds)
    if format == "md":
        return "\n".join(render_text(section, format) for section in sections)
    return "".join(render_text(_by_precision(rows, section), format) for section in sections)


def _sections(rows: Sequence[TableRow], *, accounting: str, seconds: float) -> list[TextTable]:
    sections: list[TextTable] = []
    if accounting in ("paper", "both"):
        sections.append(_paper_section(rows, seconds))
    if accounting in ("honest", "both"):
        sections.append(_honest_section(rows, seconds, "honest_" if accounting == "both" else ""))
    if rows and "challenge_macs_g" in rows[0]:
        sections.append(_challenge_section(rows))
    if rows and "threads" in rows[0]:
        sections += [_measured_section(rows, seconds), _footprint_section(rows, seconds)]
    return sections


def _paper_section(rows: Sequence[TableRow], seconds: float) -> TextTable:
    header, columns = list(_TEXT_COLUMNS), [_texts(rows, name) for name in _TEXT_COLUMNS]
    for key, head in _PAPER_HEADS.items():
        if any(row[f"{key}_paper"] is not None for row in rows):
            header += [f"{head}: paper", "superbit", "ratio"]
            columns += [_figures(rows, f"{key}_paper", 2), _figures(rows, key, 2)]
            columns.append(_figures(rows, f"{key}_ratio", 4))
        else:
            header.append(head)
            columns.append(_figures(rows, key, 2))
    notes = [f"[{sure}] {what}: {rule}." for what, sure, rule in RULES]
    notes += [
        "pinned: several cells leave no freedom; inferred: one rule explains several cells; "
        "fitted: found after the fact, no derivation. G is 2^30 for BOP, 10^9 for FLOP."
    ]
    notes.append(_WIDTHS)
    if _has_unknown(columns):
        notes.append(
            f"{_UNKNOWN}: no such cell, or a model that the paper's rules do not cover: another "
            "kind of encoder, relative positions, or a twin that is not all of 1 bit."
        )
    title = f"Table 1. The paper's accounting, {seconds:g} s of audio"
    return _section(title, header, columns, notes)


def _honest_section(rows: Sequence[TableRow], seconds: float, prefix: str) -> TextTable:
    header, columns = list(_TEXT_COLUMNS), [_texts(rows, name) for name in _TEXT_COLUMNS]
    for key, (head, decimals) in _HONEST_HEADS.items():
        if key == "macs_other_g" and not any(row.get(prefix + key) for row in rows):
            continue
        header.append(head)
        columns.append(_figures(rows, prefix + key, decimals))
    notes = [*_HONEST_NOTES, _WIDTHS]
    if _has_unknown(columns):
        notes.append(f"{_UNKNOWN}: cannot be known from the modules and operations that ran.")
    title = f"Table 1. The honest accounting, {seconds:g} s of audio"
    return _section(title, header, columns, notes)


def _challenge_section(rows: Sequence[TableRow]) -> TextTable:
    header, columns = list(_TEXT_COLUMNS), [_texts(rows, name) for name in _TEXT_COLUMNS]
    for head in (*BUCKETS, "all"):
        header.append(f"{head} GMAC")
        key = "challenge_macs_g" if head == "all" else f"challenge_macs_{head}_g"
        columns.append(_figures(rows, key, 2))
    notes = [
        "GMAC of 32 utterances of LibriSpeech test-clean, one at a time, eight in each bucket, as "
        "the SUPERB challenge counts them; by our counter, the honest accounting's. HuBERT Base "
        f"has {HUBERT_BASE_GMAC:,.0f} on the leaderboard."
    ]
    if _has_unknown(columns):
        notes.append(f"{_UNKNOWN}: cannot be known from the modules and operations that ran.")
    return _section("Table 1. MACs of the SUPERB challenge", header, columns, notes)


def _measured_section(rows: Sequence[TableRow], seconds: float) -> TextTable:
    header, columns = list(_TEXT_COLUMNS), [_texts(rows, name) for name in _TEXT_COLUMNS]
    for key, variant in VARIANTS.items():
        header += [f"{variant.label} ms", "real-time factor"]
        columns += [_latencies(rows, key), _figures(rows, f"real_time_factor_{key}", 4)]
        if key != "fp32":
            header.append("speed-up")
            columns.append(_figures(rows, f"speed_up_{key}", 2))
    threads = rows[0]["threads"]
    notes = [
        f"{rows[0]['machine']}; {threads} thread{'s' if threads != 1 else ''}; torch "
        f"{rows[0]['torch']}. Milliseconds for one utterance: median [quartiles] over rounds in "
        "which every column takes its turn; real-time factor: median over the audio's length; "
        "speed-up: against the column FP32.",
        *(_variant_note(rows, key) for key in VARIANTS),
    ]
    if random := [str(row["model"]) for row in rows if row.get("untrained")]:
        notes.append(
            f"Timed with random weights: {', '.join(random)}; the others with the weights that the "
            "spec names, or those that superbit brings."
        )
    if _has_unknown(columns):
        notes.append(
            f"{_UNKNOWN}: does not run yet, does not apply, or gives another result than FP32."
        )
    return _section(f"Table 1. Measured, {seconds:g} s of audio", header, columns, notes)


def _footprint_section(rows: Sequence[TableRow], seconds: float) -> TextTable:
    header, columns = list(_TEXT_COLUMNS), [_texts(rows, name) for name in _TEXT_COLUMNS]
    for head, name, decimals in (("file MB", "file_mb", 2), ("peak MB", "peak_memory_mb", 1)):
        for key in FOOTPRINTS:
            header.append(f"{VARIANTS[key].label} {head}")
            columns.append(_figures(rows, f"{name}_{key}", decimals))
    notes = [
        "file MB: 10^6 bytes as torch saves the state; of bits, the file of superbit pack, its "
        "rest in FP32.",
        "peak MB: 10^6 bytes by which the resident memory of a fresh process grows, from before "
        "the model is built to its highest in the pass over one utterance. Of bits, the file is "
        "loaded.",
    ]
    return _section(f"Table 1. Files and memory, {seconds:g} s of audio", header, columns, notes)


def _has_unknown(columns: Sequence[Sequence[str]]) -> bool:
    return any(text.strip() == _UNKNOWN for column in columns for text in column)


def _variant_note(rows: Sequence[TableRow], key: str) -> str:
    """What the column is, and how far its outputs are from FP32's."""
    differences = [
        value for row in rows if isinstance(value := row.get(f"difference_{key}"), float)
    ]
    far = f"; outputs within {max(differences):.1g} of FP32's norm" if differences else ""
    return f"{VARIANTS[key].label}: {VARIANTS[key].meaning}{far}."


def _section(
    title: str, header: list[str], columns: Sequence[Sequence[str]], notes: list[str]
) -> TextTable:
    lines = [list(line) for line in zip(*columns, strict=True)]
    return TextTable(
        title=title,
        header=header,
        groups=[lines],
        notes=notes,
        text_columns=len(_TEXT_COLUMNS),
    )


def _by_precision(rows: Sequence[TableRow], section: TextTable) -> TextTable:
    """Full-precision rows, then twins, with a rule between."""
    (lines,) = section.groups
    groups = [
        [line for row, line in zip(rows, lines, strict=True) if row["quantized"] == kind]
        for kind in ("no", "yes")
    ]
    return replace(section, groups=groups)


def _texts(rows: Sequence[TableRow], key: str) -> list[str]:
    return [str(row[key]) for row in rows]


def _figures(rows: Sequence[TableRow], key: str, decimals: int) -> list[str]:
    return _right([_figure(row.get(key), decimals) for row in rows])


def _figure(value: object, decimals: int) -> str:
    return _UNKNOWN if value is None else f"{value:,.{decimals}f}"


def _latencies(rows: Sequence[TableRow], key: str) -> list[str]:
    texts = []
    for row in rows:
        figures = [row.get(f"latency_ms_{key}{end}") for end in ("", "_q1", "_q3")]
        median, low, high = (_figure(value, 1) for value in figures)
        texts.append(_UNKNOWN if median == _UNKNOWN else f"{median} [{low}, {high}]")
    return _right(texts)


def _right(texts: list[str]) -> list[str]:
    width = max(map(len, texts), default=0)
    return [text.rjust(width) for text in texts]
