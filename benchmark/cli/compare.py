"""``superbit compare``: two upstreams, beside the spread over seeds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_table_options

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("compare", help="two upstreams, beside the spread over seeds")
    verb.add_argument("first", metavar="SPEC")
    verb.add_argument("second", metavar="SPEC")
    add_table_options(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.progress import Reporter
    from superbit.benchmark.tables.compare import compare_runs, render_comparison
    from superbit.benchmark.tables.runs import read_runs

    comparison = compare_runs(
        read_runs(arguments.results, counting=Reporter().counting),
        arguments.first,
        arguments.second,
        where=arguments.where,
        label=arguments.label,
    )
    print(render_comparison(comparison, arguments.format), end="")
    return 0
