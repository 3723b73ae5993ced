"""``superbit results``: a folder of results packed into two files a task, and unpacked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_group

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs
    from superbit.benchmark.records.packing import PackedTask
    from superbit.benchmark.records.store import ResultStore


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
    from superbit.benchmark.records.packing import pack

    return _report(pack(_store(arguments.folder)), "packed")


def run_unpack(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.records.packing import unpack

    return _report(unpack(_store(arguments.folder)), "unpacked")


def _store(folder: Path) -> ResultStore:
    from superbit.benchmark.records.store import ResultStore
    from superbit.upstreams.errors import InputError

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the one that a sweep wrote to.")
    return ResultStore(folder)


def _report(tasks: Sequence[PackedTask], done: str) -> int:
    for each in tasks:
        print(f"{each.task}: {each.records:,} records {done}, {each.items:,} with per-item counts")
    if not tasks:
        print(f"Nothing to be {done}.")
    return 0
