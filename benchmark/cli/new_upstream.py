"""``superbit new-upstream``: a package to begin with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "new-upstream", help="write a package with an upstream that passes superbit check"
    )
    verb.add_argument("name", metavar="NAME", help="of it and of its package, e.g. my_model")
    verb.add_argument(
        "--out", type=Path, metavar="DIR", help="a folder that is not there (default: NAME)"
    )
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the package, and say what to type next."""
    from superbit.benchmark.cli.scaffold import write_scaffold

    folder = arguments.out or Path(arguments.name)
    print(write_scaffold("upstream", arguments.name, folder=folder))
    return 0
