"""Which learning rate counts: candidates of one search, compared by their task's protocol.

A search is known by what its candidates share, which is everything but the rate and the fold, and
by the rates. What is chosen is a pure function of the records. Needs neither numpy nor torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from superbit.benchmark.records.canonical import canonical_json
from superbit.benchmark.records.schema import RateSearch, RunIdentity, RunRecord, Tried
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import RateRule
from superbit.upstreams.spec import typed


@dataclass(frozen=True, kw_only=True)
class DeclaredSearch:
    """A search that was asked for.

    Attributes:
        identity: what its candidates share, see `RunIdentity.without_rate`.
        rates: all of them.
    """

    identity: RunIdentity
    rates: frozenset[float]

    @property
    def key(self) -> str:
        """SHA-256 over identity and rates."""
        held = {"identity": self.identity.model_dump(), "rates": sorted(self.rates)}
        return hashlib.sha256(canonical_json(held).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """What a search has come to.

    Attributes:
        identity: what the candidates share.
        search: rates, scores and the chosen one.
        missing: rates that have not ended: no run, fewer folds than the task has, or a failure
            that is not a divergence.
    """

    identity: RunIdentity
    search: RateSearch
    missing: tuple[float, ...]


def declared_by(identities: Iterable[RunIdentity]) -> DeclaredSearch:
    """Return the search that has these runs as its candidates."""
    runs = list(identities)
    rates = frozenset(r.learning_rate for r in runs if r.learning_rate is not None)
    return DeclaredSearch(identity=runs[0].without_rate, rates=rates)


def _rule(task: str) -> RateRule:
    rule = TASKS[task].rates
    if rule is None:
        raise ValueError(f"{task} trains nothing: it has no learning rates to compare")
    return rule


def score_of(record: RunRecord) -> float | None:
    """What a record's rate is compared by: the score on dev of the weights that were tested."""
    if record.status != "done" or record.diverged is not None:
        return None
    if _rule(record.identity.task).split == "test":
        return record.value
    selection = record.selection
    step = selection.step if selection and selection.checkpoint == "best" else None
    reached = [point.score for point in record.curve if step in (None, point.step)]
    if reached:
        return reached[-1]
    return selection.score if selection and selection.selected_on == "dev" else None


def search_among(task: str, candidates: Sequence[Tried]) -> RateSearch:
    """Choose among rates by their scores; of equal ones the lowest rate.

    A rate that diverged, or has no score, is never chosen.
    """
    spec = TASKS[task]
    rule = _rule(task)
    higher = spec.higher_is_better if rule.higher_is_better is None else rule.higher_is_better
    sign = -1.0 if higher else 1.0
    ranked = sorted(
        (sign * each.score, each.learning_rate)
        for each in candidates
        if each.score is not None and each.diverged is None
    )
    return RateSearch(
        rule=rule.description,
        selected_on=rule.split,
        tried=sorted(candidates, key=lambda each: each.learning_rate),
        chosen=ranked[0][1] if ranked else None,
    )


def outcome_of(declared: DeclaredSearch, records: Iterable[RunRecord]) -> SearchOutcome:
    """Compare what a search's candidates have come to."""
    task = TASKS[declared.identity.task]
    key = declared.identity.key
    of_rate: dict[float, list[RunRecord]] = {rate: [] for rate in sorted(declared.rates)}
    for record in records:
        rate = record.identity.learning_rate
        if rate in of_rate and record.identity.key_without_rate == key:
            of_rate[rate].append(record)
    every, missing = [], []
    for rate, runs in of_rate.items():
        ended = [run for run in runs if run.status == "done" or run.diverged is not None]
        if len(ended) < max(1, task.folds):
            missing.append(rate)
        every.append(tried(rate, ended))
    search = search_among(task.name, every)
    return SearchOutcome(identity=declared.identity, search=search, missing=tuple(missing))


def chosen_only(
    records: Sequence[RunRecord], searches: Iterable[DeclaredSearch]
) -> tuple[list[RunRecord], list[SearchOutcome], list[str]]:
    """Leave out the candidates of searches that were not chosen.

    Args:
        records: done and failed ones.
        searches: those that were asked for; the records' own notes name more.

    Returns:
        The records that are left, what each search came to, and a sentence for each search that
        has not ended or has nothing to choose.
    """
    rates: dict[str, set[float]] = {}
    shared: dict[str, RunIdentity] = {}
    by_search: dict[str, list[RunRecord]] = {}
    # Several searches of one upstream and task are one search over all their rates.
    for declared in searches:
        shared[declared.identity.key] = declared.identity
        rates.setdefault(declared.identity.key, set()).update(declared.rates)
    for record in records:
        key = record.identity.key_without_rate
        by_search.setdefault(key, []).append(record)
        if record.search is not None:
            if key not in shared:
                shared[key] = record.identity.without_rate
            rates.setdefault(key, set()).update(t.learning_rate for t in record.search.tried)
    dropped: set[str] = set()
    ended, notes = [], []
    for key in sorted(shared, key=lambda key: _order(shared[key], rates[key])):
        identity = shared[key]
        candidates = by_search.get(key, [])
        found = outcome_of(
            DeclaredSearch(identity=identity, rates=frozenset(rates[key])), candidates
        )
        whole = not found.missing and found.search.chosen is not None
        dropped |= {
            record.key
            for record in candidates
            if record.identity.learning_rate in rates[key]
            and not (whole and record.identity.learning_rate == found.search.chosen)
        }
        if whole:
            ended.append(found)
        elif candidates:
            notes.append(
                f"Left out: {identity.task} of {typed(identity.upstream)}, {_why_left_out(found)}."
            )
    return [record for record in records if record.key not in dropped], ended, notes


def _order(identity: RunIdentity, rates: set[float]) -> tuple[str, str]:
    """The order that searches are told of, the same whichever file names them."""
    return identity.task, DeclaredSearch(identity=identity, rates=frozenset(rates)).key


def describe_search(search: RateSearch) -> str:
    """E.g. ``0.01 of 0.1 (diverged), 0.01 (93.1), 0.001 (80.2): best on dev``."""
    every = ", ".join(
        f"{each.learning_rate:g} ({_result_in_words(each)})" for each in reversed(search.tried)
    )
    chosen = "none" if search.chosen is None else f"{search.chosen:g}"
    return f"{chosen} of {every}: {search.rule}"


def _result_in_words(each: Tried) -> str:
    if each.diverged is not None:
        return f"diverged at step {each.diverged:,}"
    return "no score" if each.score is None else f"{each.score:.4g}"


def _why_left_out(found: SearchOutcome) -> str:
    if found.missing:
        count = len(found.search.tried)
        return f"of whose search {count - len(found.missing)} of {count} learning rates are done"
    return "none of whose learning rates can be chosen"


def tried(rate: float, runs: Sequence[RunRecord]) -> Tried:
    """One rate's score: the mean over folds where there are several."""
    scores = [score_of(run) for run in runs]
    known = [score for score in scores if score is not None]
    diverged = [run.diverged for run in runs if run.diverged is not None]
    return Tried(
        learning_rate=rate,
        score=fmean(known) if known and len(known) == len(scores) else None,
        diverged=min(diverged, default=None),
    )
