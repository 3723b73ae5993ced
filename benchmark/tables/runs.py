"""What tables are made of: the runs in a folder of results, and the searches asked for there.

This module imports neither torch nor s3prl.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from superbit.benchmark.records.rate_search import DeclaredSearch
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.scoring.chance import with_chance
from superbit.upstreams.counting import Counting, unseen


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs, done and failed.

    Attributes:
        records: each with its chance level where that is known.
        searches: over learning rates, of which tables take the chosen run.
    """

    records: tuple[RunRecord, ...] = ()
    searches: tuple[DeclaredSearch, ...] = ()


def read_runs(folder: Path, *, counting: Counting = unseen) -> Runs:
    """Return all runs in a folder, by task in the paper's order.

    Args:
        folder: one that is not there has none, if it is where sweeps write by default.
        counting: shows how many are read.

    Raises:
        InputError: there is no such folder, or a file in it is no record; the message names it.
    """
    store = ResultStore(folder)
    store.require_folder()
    records = with_chance(store.read_all(counting=counting), store)
    return Runs(records=tuple(records), searches=tuple(store.read_searches()))
