"""``superbit status``: what is done, failed and unfinished."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_results

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("status", help="what is done, failed and unfinished")
    verb.add_argument("--all", action="store_true", help="a line for each run, however many")
    add_results(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what the folder of results holds: records, and runs with a checkpoint only."""
    from superbit.benchmark.progress import Reporter
    from superbit.benchmark.records.store import ResultStore
    from superbit.benchmark.rendering import printable
    from superbit.benchmark.running.heartbeat import unfinished
    from superbit.benchmark.scoring.chance import with_chance
    from superbit.benchmark.sweeping.submissions import submitted_lines
    from superbit.benchmark.tables.status import status_lines

    results, store = arguments.results, ResultStore(arguments.results)
    store.require_folder()
    records = with_chance(store.read_all(counting=Reporter().counting), store)
    if records:
        lines = status_lines(records, every=arguments.all)
    else:
        lines = [f"{results} holds no results: superbit sweep makes them."]
    lines += submitted_lines(results, records)
    recorded = {record.key[:16] for record in records}
    for title, found in unfinished(results, recorded=recorded).items():
        if found:
            lines += [title, *(f"  {line}" for line in found)]
    print("\n".join(printable(line) for each in lines for line in each.split("\n")))
    return 0
