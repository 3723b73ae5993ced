"""``superbit profile``, which ``superbit table 1`` is too: what encoders cost."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_format, add_label, add_trust

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    add_options(verbs.add_parser("profile", help="Table 1: storage, FLOP, BOP, time of upstreams"))


def add_options(verb: argparse.ArgumentParser) -> None:
    add_trust(verb)
    verb.add_argument("specs", nargs="*", metavar="SPEC", help="none: the paper's ten rows")
    verb.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="of audio (default: 10)"
    )
    verb.add_argument("--accounting", choices=["paper", "honest", "both"], default="both")
    verb.add_argument(
        "--challenge", action="store_true", help="count the SUPERB challenge's utterances as well"
    )
    verb.add_argument("--measure", action="store_true", help="time the models on this machine")
    verb.add_argument(
        "--threads", type=int, metavar="N", help="of what is timed (default: the cores)"
    )
    add_label(verb)
    add_format(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Print Table 1; each of the specs may hold several behind commas."""
    from superbit.benchmark.profiling.rendering import render_table1
    from superbit.benchmark.profiling.table1 import table1_rows
    from superbit.benchmark.progress import Reporter

    accounting, seconds = arguments.accounting, arguments.seconds
    reporter = Reporter()
    with reporter.quiet() as out:
        rows = table1_rows(
            [text for given in arguments.specs for text in given.split(",") if text],
            accounting=accounting,
            seconds=seconds,
            measure_time=arguments.measure,
            challenge=arguments.challenge,
            threads=arguments.threads,
            label=arguments.label,
            reporter=reporter,
        )
    text = render_table1(rows, accounting=accounting, seconds=seconds, format=arguments.format)
    print(text, end="", file=out)
    return 0
