"""What tables are made of: the runs in a folder of results, and the searches asked for there.

This module imports neither torch nor s3prl.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.benchmark.records.rate_search import DeclaredSearch
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.scoring.chance import with_chance
from superbit.benchmark.scoring.points import with_intervals
from superbit.upstreams.counting import Counting, unseen

if TYPE_CHECKING:
    from superbit.benchmark.pairing.items import ItemsOfRuns


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs, done and failed.

    Attributes:
        records: each with its chance level where that is known.
        searches: over learning rates, of which tables take the chosen run.
        read_items: a record's per-item counts; None where nobody knows where they are.
    """

    records: tuple[RunRecord, ...] = ()
    searches: tuple[DeclaredSearch, ...] = ()
    read_items: Callable[[RunRecord], Sequence[dict[str, Any]]] | None = field(
        default=None, repr=False
    )

    def items(self) -> ItemsOfRuns | None:
        """Return the runs' test items, each read when it is asked for."""
        from superbit.benchmark.pairing.items import ItemsOfRuns

        return None if self.read_items is None else ItemsOfRuns(self.records, self.read_items)


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
    records = with_intervals(with_chance(store.read_all(counting=counting), store))
    return Runs(
        records=tuple(records),
        searches=tuple(store.read_searches()),
        read_items=store.read_items,
    )
