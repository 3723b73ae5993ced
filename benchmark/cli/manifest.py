"""``superbit manifest``: a folder's audio, listed as fairseq does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("manifest", help="list a folder's audio as fairseq does")
    verb.add_argument("root", type=Path, metavar="ROOT")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR")
    verb.add_argument("--held-out", type=float, default=0.01, metavar="SHARE", help="for valid.tsv")
    verb.add_argument("--held-out-by", choices=["file", "folder"], default="file")
    verb.add_argument("--must-contain", default="", metavar="TEXT", help="in a file's path")
    verb.add_argument("--min-samples", type=int, default=400, metavar="N")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.training.command import manifest_command

    return manifest_command(arguments, counting=Reporter().counting)
