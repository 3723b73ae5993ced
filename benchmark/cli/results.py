"""``superbit results``: a folder of results packed into two files a task, and unpacked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_group

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    results_verbs = add_group(verbs, "results", help="pack a folder of results, unpack it")
    for name, text, run in (
        ("pack", "two files a task in place of two a run; every verb reads both", run_pack),
        ("unpack", "two files a run again, each as it was", run_unpack),
    ):
        verb = results_verbs.add_parser(name, help=text)
        verb.add_argument("folder", type=Path, metavar="DIR")
        verb.set_defaults(verb=run)


def run_pack(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.records.packing import pack_command

    return pack_command(arguments.folder)


def run_unpack(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.records.packing import unpack_command

    return unpack_command(arguments.folder)
