"""``superbit nano``: the nano encoders and their twins, from speech to what is shipped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_stopping

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "nano", help="train the nano encoders and their twins; continues what is in --work"
    )
    verb.add_argument(
        "--speech", type=Path, required=True, metavar="DIR", help="of 'superbit corpus speech'"
    )
    verb.add_argument("--work", type=Path, required=True, metavar="DIR")
    verb.add_argument("--out", type=Path, metavar="DIR", help="default: the package's own folders")
    verb.add_argument("--encoders", metavar="NAME,…", help="default: all")
    verb.add_argument("--jobs", type=int, metavar="N", help="encoders at a time (default: cores)")
    verb.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    add_stopping(verb)
    verb.add_argument("--dry-run", action="store_true", help="print the plan and its time")
    recipe = verb.add_argument_group("recipe", "Each is as of the shipped ones by default.")
    recipe.add_argument("--seed", type=int, metavar="N", help="of the first encoder")
    recipe.add_argument("--clusters", type=int, metavar="K", help="of the MFCC units of phase 1")
    recipe.add_argument("--layer", type=int, metavar="N", help="whose units phase 2 predicts")
    recipe.add_argument("--layer-clusters", type=int, metavar="K", help="of those")
    recipe.add_argument("--start", choices=["fresh", "phase1"], help="weights of phase 2")
    recipe.add_argument("--updates-1", type=int, metavar="N", help="of phase 1")
    recipe.add_argument("--updates-2", type=int, metavar="N", help="of phase 2")
    recipe.add_argument("--updates-twin", type=int, metavar="N", help="of the twin")
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.upstreams.training.nano import nano_command

    return nano_command(arguments)
