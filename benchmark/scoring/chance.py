"""Chance: what an answer that is the same for every test item reaches, and who is no better.

`superbit.benchmark.tasks` names each task's rule with its reason. New records hold their chance
level; of older ones it is found from the references in their per-item counts. SD's needs the
recordings' lengths, which those do not hold: there it stays unknown.

This module imports neither torch nor s3prl.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from superbit.benchmark.records.canonical import canonical_json
from superbit.benchmark.records.measured import Chance
from superbit.benchmark.records.schema import RunRecord
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.scoring.slot_marks import slots_of
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import ChanceRule, Task
from superbit.upstreams.errors import InputError

Item = Mapping[str, Any]

# Stands behind a value that is not better than chance.
MARK = "≤chance"
# What the rules come to, in words.
WORDS: dict[ChanceRule, str] = {
    "label": "the most frequent label",
    "transcript": "no word, or the most frequent one",
    "slots": "the best fixed set of slots",
    "score": "one score for all trials",
    "nothing": "nothing detected",
    "activity": "nobody or everybody talks all the time",
}
# Between a level and a bound that are the same number, computed in two ways.
_ROUNDING = 1e-9


def of_items(task: Task, items: Sequence[Item]) -> Chance | None:
    """Return the chance level on these test items, in the table's unit; None if unknown.

    Args:
        items: a run's per-item counts.
    """
    if task.chance == "score":
        return Chance(value=50.0, method=WORDS["score"])
    if task.chance == "nothing":
        return Chance(value=0.0, method=WORDS["nothing"])
    find = _RULES.get(task.chance)
    if find is None or not items or not all("reference" in item for item in items):
        return None
    return find(items)


def _label(items: Sequence[Item]) -> Chance:
    label, count = _most_frequent(item["reference"] for item in items)
    return Chance(value=100.0 * count / len(items), method=f"{WORDS['label']}, always: {label}")


def _transcript(items: Sequence[Item]) -> Chance | None:
    tokens = [item["reference"].split() for item in items]
    length = sum(map(len, tokens))
    if length == 0:
        return None
    token, holding = _most_frequent(token for each in tokens for token in set(each))
    # where it occurs it is a hit and the rest are deletions, else one of these is a substitution
    inserted = sum(not each for each in tokens)
    if inserted >= holding:
        return Chance(value=100.0, method="an empty transcript")
    errors = length - holding + inserted
    return Chance(value=100.0 * errors / length, method=f"one token, always: {token}")


def _slots(items: Sequence[Item]) -> Chance:
    """Exact: for a set of n names the F1 is a sum of one term a name, so the n largest are best."""
    wanted = [set(slots_of(item["reference"])) for item in items]
    best, names = sum(not each for each in wanted) / len(wanted), ["none"]
    known = sorted(set().union(*wanted))
    for count in range(1, len(known) + 1):
        terms = {
            name: sum(2 / (len(each) + count) for each in wanted if name in each) / len(wanted)
            for name in known
        }
        chosen = sorted(known, key=lambda name: -terms[name])[:count]
        value = sum(terms[name] for name in chosen)
        if value > best + _ROUNDING:
            best, names = value, chosen
    return Chance(value=best, method=f"the same slots, always: {', '.join(names)}")


_RULES: dict[ChanceRule, Callable[[Sequence[Item]], Chance | None]] = {
    "label": _label,
    "transcript": _transcript,
    "slots": _slots,
}


def _most_frequent(values: Iterable[str]) -> tuple[str, int]:
    counts = Counter(values)
    value = min(counts, key=lambda each: (-counts[each], each))
    return value, counts[value]


def with_chance(records: Iterable[RunRecord], store: ResultStore) -> list[RunRecord]:
    """Return the records, each that is done with its chance level where that can be found.

    Records of one task, corpus, fold and config have the same test items, which are read once. A
    folder without per-item counts is no fault here.
    """
    found: dict[tuple[object, ...], Chance | None] = {}
    completed = []
    for record in records:
        if record.status == "done" and record.chance is None:
            place = _test_items(record)
            if place not in found:
                found[place] = _of_record(record, store)
            record = record.model_copy(update={"chance": found[place]})
        completed.append(record)
    return completed


def _test_items(record: RunRecord) -> tuple[object, ...]:
    identity = record.identity
    config = {k: v for k, v in identity.config.items() if k not in ("optimizer", "runner")}
    count = record.items.count if record.items else None
    return (identity.task, identity.corpus_sha256, identity.fold, count, canonical_json(config))


def _of_record(record: RunRecord, store: ResultStore) -> Chance | None:
    task = TASKS[record.identity.task]
    try:
        items = store.read_items(record) if task.chance in _RULES else []
    except InputError:
        return None
    return of_items(task, items)


def mean_chance(records: Sequence[RunRecord]) -> Chance | None:
    """Return the level of a mean over these runs, e.g. over folds; None if one is unknown."""
    levels = [record.chance for record in records if record.chance]
    if not levels or len(levels) < len(records):
        return None
    methods = list(dict.fromkeys(level.method for level in levels))
    method = methods[0] if len(methods) == 1 else methods[0].partition(":")[0]
    return Chance(value=fmean(level.value for level in levels), method=method)


def at_chance(record: RunRecord) -> bool | None:
    """Whether a run is not better than chance: its interval holds that level, or is worse.

    None where the level or the value is not known. Without an interval the value itself decides.
    """
    if record.chance is None or record.value is None:
        return None
    interval, level = record.interval, record.chance.value
    if TASKS[record.identity.task].higher_is_better:
        return (interval.low if interval else record.value) <= level + _ROUNDING
    return (interval.high if interval else record.value) >= level - _ROUNDING


def all_at_chance(runs: Sequence[RunRecord]) -> bool | None:
    """Whether none of these runs is better than chance; None where one is not known."""
    each = [at_chance(run) for run in runs]
    if not each or None in each:
        return None
    return all(each)


def levels(records: Sequence[RunRecord]) -> str:
    """Return the levels of these records in words: ``KS 8.33 (the most frequent label); …``."""
    texts = []
    for name, task in TASKS.items():
        values = sorted(r.chance.value for r in records if r.identity.task == name and r.chance)
        if values:
            each = dict.fromkeys(f"{value:.{task.decimals}f}" for value in values)
            texts.append(f"{name} {' or '.join(each)} ({WORDS[task.chance]})")
    return "; ".join(texts)
