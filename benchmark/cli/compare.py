"""``superbit compare``: what two upstreams differ by, and whether that is more than luck."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_table_options

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "compare", help="two upstreams on the same test items: better, worse or not told apart"
    )
    verb.add_argument("first", metavar="SPEC")
    verb.add_argument("second", metavar="SPEC")
    verb.add_argument(
        "--against", metavar="SPEC,…", help="further upstreams to compare the first with"
    )
    add_table_options(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.progress import Reporter
    from superbit.benchmark.records.store import without_garbage_collection
    from superbit.benchmark.tables.compare import compare_runs
    from superbit.benchmark.tables.compare_rendering import render_comparisons
    from superbit.benchmark.tables.runs import read_runs

    with without_garbage_collection():
        comparisons = compare_runs(
            read_runs(arguments.results, counting=Reporter().counting),
            arguments.first,
            arguments.second,
            *(each.strip() for each in (arguments.against or "").split(",") if each.strip()),
            where=arguments.where,
            label=arguments.label,
        )
        print(render_comparisons(comparisons, arguments.format), end="")
    return 0
