"""``superbit compare``: two upstreams, beside the spread over seeds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_format, add_label, add_results, add_where

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("compare", help="two upstreams, beside the spread over seeds")
    verb.add_argument("first", metavar="SPEC")
    verb.add_argument("second", metavar="SPEC")
    add_where(verb)
    add_label(verb)
    add_format(verb)
    add_results(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.tables.compare import compare_command

    return compare_command(
        first=arguments.first,
        second=arguments.second,
        results=arguments.results,
        where=arguments.where,
        format=arguments.format,
        label=arguments.label,
    )
