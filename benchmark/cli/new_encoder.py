"""``superbit new-encoder``: a package to begin with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "new-encoder", help="write a package with a kind of encoder and its 1-bit twins"
    )
    verb.add_argument("name", metavar="NAME", help="of it and of its package, e.g. my_kind")
    verb.add_argument(
        "--out", type=Path, metavar="DIR", help="a folder that is not there (default: NAME)"
    )
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the package, and say what to type next."""
    from superbit.benchmark.cli.scaffold import write_scaffold

    folder = arguments.out or Path(arguments.name)
    print(write_scaffold("encoder", arguments.name, folder=folder))
    return 0
