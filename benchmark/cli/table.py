"""``superbit table``: a table of the paper beside ours."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.benchmark.cli import profile
from superbit.benchmark.cli.options import add_group, add_table_options

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
    verb.add_argument("--show-lr", action="store_true", help="print each run's learning rate")
    verb.add_argument(
        "--mean-over-seeds",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="of runs that differ in the seed, the mean and the standard deviation (default: yes)",
    )
    verb.add_argument(
        "--paired",
        action="store_true",
        help="each twin's difference from its FP32 parent, on the same test items, and chance",
    )
    add_table_options(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Print Table 2 with the runs of the folder of results."""
    from superbit.benchmark.progress import Reporter
    from superbit.benchmark.records.store import without_garbage_collection
    from superbit.benchmark.tables.runs import Runs, read_runs
    from superbit.benchmark.tables.table2 import table2_of_runs
    from superbit.benchmark.tables.table2_rendering import render_table2
    from superbit.upstreams.errors import InputError

    asked, of_paper = arguments, arguments.source == "paper"
    if of_paper and (asked.where or asked.show_lr or asked.paired):
        raise InputError(
            "--source paper prints no runs: leave out --where, --show-lr and --paired."
        )
    with without_garbage_collection():
        runs = Runs() if of_paper else read_runs(asked.results, counting=Reporter().counting)
        table = table2_of_runs(
            runs,
            source=asked.source,
            where=asked.where,
            upstreams=_upstreams(asked.upstreams),
            label=asked.label,
            show_lr=asked.show_lr,
            mean_over_seeds=asked.mean_over_seeds,
            paired=asked.paired,
        )
        print(render_table2(table, asked.format), end="")
    return 0


def _upstreams(text: str | None) -> list[str] | None:
    from superbit.upstreams.errors import InputError

    if text is None:
        return None
    upstreams = [each.strip() for each in text.split(",") if each.strip()]
    if not upstreams:
        raise InputError("--upstreams: name at least one.")
    return upstreams
