"""``superbit table``: a table of the paper beside ours."""

from __future__ import annotations

import argparse
import shlex
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
        action="store_true",
        help="of runs that differ in the seed, print the mean and the standard deviation",
    )
    add_table_options(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Print Table 2 with the runs of the folder of results."""
    from superbit.benchmark.progress import Reporter
    from superbit.benchmark.records.store import without_garbage_collection
    from superbit.benchmark.tables.runs import Runs, read_runs
    from superbit.benchmark.tables.table2 import SeveralSeeds, table2_of_runs
    from superbit.benchmark.tables.table2_rendering import render_table2
    from superbit.upstreams.errors import InputError

    asked, of_paper = arguments, arguments.source == "paper"
    if of_paper and (asked.where or asked.show_lr or asked.mean_over_seeds):
        raise InputError(
            "--source paper prints no runs: leave out --where, --show-lr and --mean-over-seeds."
        )
    with without_garbage_collection():
        runs = Runs() if of_paper else read_runs(asked.results, counting=Reporter().counting)
        try:
            table = table2_of_runs(
                runs,
                source=asked.source,
                where=asked.where,
                upstreams=_upstreams(asked.upstreams),
                label=asked.label,
                show_lr=asked.show_lr,
                mean_over_seeds=asked.mean_over_seeds,
            )
        except SeveralSeeds as error:
            line = _with_mean_over_seeds(asked)
            raise InputError(f"{error} For the mean over seeds: {line}") from error
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


def _with_mean_over_seeds(asked: argparse.Namespace) -> str:
    """The command line that was given, with ``--mean-over-seeds``."""
    words = ["superbit", "table", "2", "--results", str(asked.results), "--mean-over-seeds"]
    words += [word for text in asked.where for word in ("--where", text)]
    words += [word for text in asked.label for word in ("--label", text)]
    words += ["--upstreams", asked.upstreams] if asked.upstreams else []
    words += ["--show-lr"] if asked.show_lr else []
    words += ["--format", asked.format] if asked.format != "md" else []
    return shlex.join(words)
