"""``superbit table``: a table of the paper beside ours."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.benchmark.cli import profile
from superbit.benchmark.cli.options import add_format, add_group, add_label, add_results, add_where

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    numbers = add_group(
        verbs, "table", help="print a table of the paper beside ours", metavar="NUMBER"
    )
    verb = numbers.add_parser("1", help="what encoders cost: the same as profile")
    profile.add_options(verb)
    verb = numbers.add_parser("2", help="the ten tasks")
    verb.add_argument("--source", choices=["paper", "runs", "both"], default="both")
    verb.add_argument(
        "--upstreams", metavar="SPEC,…", help="only these, in this order (default: as swept)"
    )
    add_where(verb)
    add_label(verb)
    verb.add_argument("--show-lr", action="store_true", help="print each run's learning rate")
    verb.add_argument(
        "--mean-over-seeds",
        action="store_true",
        help="of runs that differ in the seed, print the mean and the standard deviation",
    )
    add_format(verb)
    add_results(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.tables.table2 import table2_command

    return table2_command(
        results=arguments.results,
        source=arguments.source,
        where=arguments.where,
        format=arguments.format,
        show_lr=arguments.show_lr,
        mean_over_seeds=arguments.mean_over_seeds,
        upstreams=arguments.upstreams,
        label=arguments.label,
    )
