"""``superbit cancel``: end what was submitted to a queue and is not done."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_results

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("cancel", help="end what was submitted to a queue")
    verb.add_argument("--upstream", metavar="SPEC", help="only this upstream's tasks")
    verb.add_argument("--task", metavar="TASK", help="only the runs of this task")
    add_results(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Cancel the jobs of a folder of results, and say how many; what they saved stays."""
    from superbit.benchmark.records.store import ResultStore
    from superbit.benchmark.sweeping.cancelling import cancel

    ResultStore(arguments.results).require_folder()
    ended = cancel(arguments.results, upstream=arguments.upstream, task=arguments.task)
    print(
        f"{ended:,} job{'' if ended == 1 else 's'} cancelled; what was saved stays, and the same "
        "sweep goes on from there."
    )
    return 0
