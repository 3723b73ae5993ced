"""``superbit list``: upstreams, tasks and policies there are."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("list", help="upstreams, tasks or binarization policies there are")
    verb.add_argument("what", choices=["upstreams", "tasks", "policies"])
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.listing import list_command

    return list_command(what=arguments.what)
