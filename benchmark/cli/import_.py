"""``superbit import``: weights of others as a checkpoint of superbit's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("import", help="make HuBERT base weights of others an upstream")
    verb.add_argument(
        "--from",
        dest="source",
        choices=["hf", "torchaudio", "fairseq"],
        required=True,
        help="who wrote them",
    )
    verb.add_argument("path", type=Path, metavar="PATH", help="a folder (hf) or a file")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR")
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.importing.command import import_command

    return import_command(arguments, counting=Reporter().counting)
