"""Which of all runs count: done, whole, the chosen of each search, folds as their mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from superbit.benchmark.folds import merge_folds
from superbit.benchmark.rate_search import Declared, Found, chosen_only
from superbit.benchmark.records import RunRecord
from superbit.benchmark.where import choose, concerns_rates


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Runs that may fill a cell.

    Attributes:
        runs: each with its number; five folds are one.
        searches: those over learning rates that have ended.
        notes: a sentence on each search and each set of folds that is left out.
    """

    runs: tuple[RunRecord, ...]
    searches: tuple[Found, ...]
    notes: tuple[str, ...]


def counted(
    records: Sequence[RunRecord], *, where: Mapping[str, Any], searches: Iterable[Declared]
) -> Counted:
    """Leave out what failed, was limited or was not chosen, and what ``where`` does not want.

    Of the candidates of a search only the chosen one counts, unless ``where`` is about rates or
    keys.

    Raises:
        InputError: a condition that cannot be met.
    """
    found: list[Found] = []
    notes: list[str] = []
    compared = records
    if not concerns_rates(where):
        compared, found, notes = chosen_only([r for r in records if not r.limited], searches)
    usable = [r for r in compared if r.status == "done" and not r.limited]
    runs, incomplete = merge_folds(choose(usable, where))
    return Counted(runs=tuple(runs), searches=tuple(found), notes=(*notes, *incomplete))
