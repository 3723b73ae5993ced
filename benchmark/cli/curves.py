"""``superbit curves``: the logs of trainings as one figure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("curves", help="the logs of trainings as one figure")
    verb.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a training")
    verb.add_argument("--out", type=Path, default=Path("curves.png"), metavar="FILE")
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.upstreams.training.curves import curves_command

    return curves_command(arguments)
