"""``superbit cache``: stored features, listed and deleted."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_cache_folder, add_group, add_results

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    cache_verbs = add_group(verbs, "cache", help="stored features: list them, delete them")
    verb = cache_verbs.add_parser("ls", help="what is stored, by upstream")
    add_cache_folder(verb)
    add_results(verb)
    verb.set_defaults(verb=run_ls)
    verb = cache_verbs.add_parser("prune", help="delete features, the oldest first")
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument("--all", action="store_true", help="every upstream's")
    what.add_argument("--upstream", metavar="SPEC", help="one upstream's")
    what.add_argument("--to", metavar="SIZE", help="until no more than this is left, e.g. 50GB")
    add_cache_folder(verb)
    add_results(verb)
    verb.set_defaults(verb=run_prune)


def run_ls(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.features.commands import list_command

    return list_command(arguments)


def run_prune(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.features.commands import prune_command

    return prune_command(arguments)
