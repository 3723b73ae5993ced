"""``superbit results``: a folder of results packed, unpacked, and held against its own items."""

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
    results_verbs = add_group(
        verbs, "results", help="pack a folder of results, unpack it, verify it"
    )
    for name, text, run in (
        ("pack", "two files a task in place of two a run; every verb reads both", run_pack),
        ("unpack", "two files a run again, each as it was", run_unpack),
        ("verify", "is each value what its per-item counts give", run_verify),
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


def run_verify(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.progress import Reporter
    from superbit.benchmark.scoring.recompute import disagreements

    store = _store(arguments.folder)
    found = list(disagreements(store, counting=Reporter().counting))
    for line in found:
        print(line)
    if found:
        plural = "s are" if len(found) > 1 else " is"
        print(f"{len(found)} record{plural} not what the run wrote: restore or delete them.")
        return 1
    print(f"Every value in {arguments.folder} is what its per-item counts give.")
    return 0


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
