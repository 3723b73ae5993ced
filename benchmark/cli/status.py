"""``superbit status``: what is done, failed and unfinished."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_results

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("status", help="what is done, failed and unfinished")
    verb.add_argument("--all", action="store_true", help="a line for each run, however many")
    add_results(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.listing import status_command

    return status_command(results=arguments.results, all=arguments.all)
