"""``superbit profile [SPECS…]``, which ``superbit table 1`` is too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args

from superbit.benchmark.profiling.counting import samples_of
from superbit.benchmark.profiling.measuring import measure
from superbit.benchmark.profiling.paper_table import SPECS
from superbit.benchmark.profiling.rendering import render
from superbit.benchmark.profiling.subject import resolve
from superbit.benchmark.profiling.table1 import Accounting, TableRow, row_of
from superbit.benchmark.progress import Reporter
from superbit.benchmark.tables.formats import Format, require_one_of
from superbit.benchmark.tables.naming import read_labels
from superbit.upstreams.errors import InputError


def profile_command(arguments: argparse.Namespace) -> int:
    """Print Table 1 and return 0.

    Reads of ``arguments``: ``specs`` (a list, each may hold several behind commas; none for the
    paper's ten rows), ``seconds``, ``accounting``, ``measure``, ``threads`` (None for the cores of
    this process), ``format``, ``label`` (what to call upstreams, each NAME=SPEC).

    Raises:
        InputError: an unknown spec, accounting or format, or audio too short for a frame.
    """
    accounting, fmt, seconds = arguments.accounting, arguments.format, arguments.seconds
    require_one_of("accounting", accounting, get_args(Accounting))
    require_one_of("format", fmt, get_args(Format))
    texts = [text for given in arguments.specs or () for text in given.split(",") if text]
    reporter = Reporter()
    with reporter.quiet() as out:
        rows = profiled(
            texts,
            seconds=seconds,
            accounting=accounting,
            measure_time=arguments.measure,
            threads=arguments.threads,
            label=arguments.label,
            reporter=reporter,
        )
    print(render(rows, accounting=accounting, fmt=fmt, seconds=seconds), end="", file=out)
    return 0


def profiled(
    specs: Sequence[str],
    *,
    seconds: float,
    accounting: str,
    measure_time: bool = False,
    threads: int | None = None,
    label: Sequence[str] = (),
    reporter: Reporter,
) -> list[TableRow]:
    """Return the rows of Table 1 of ``specs``, without any the paper's ten.

    Args:
        seconds: of audio at 16 kHz.
        accounting: one of `Accounting`.
        measure_time: time a forward pass of each on this machine.
        threads: of what is timed; None for the cores of this process.
        label: what to call upstreams, each NAME=SPEC.
        reporter: of progress.

    Raises:
        InputError: an unknown spec or accounting, no thread, or audio too short for a frame.
    """
    require_one_of("accounting", accounting, get_args(Accounting))
    if threads is not None and threads < 1:
        raise InputError(f"--threads is {threads}; an integer of at least 1 is needed.")
    if threads is not None and not measure_time:
        raise InputError("--threads is of what is timed: add --measure, or leave it out.")
    rows = []
    subjects = [resolve(text) for text in specs or SPECS]
    names = read_labels(label, [str(subject.spec) for subject in subjects])
    for subject in reporter.each("profiling", subjects):
        row = row_of(subject, accounting, seconds)
        if row["model"] == str(subject.spec) or str(subject.spec) in names.labels:
            row["model"] = names.of(str(subject.spec))
        if measure_time:
            reporter.line(f"measuring {subject.spec}")
            row |= measure(
                str(subject.spec),
                seconds=seconds,
                samples=samples_of(seconds, subject.config),
                threads=threads,
            )
        rows.append(row)
    return rows
