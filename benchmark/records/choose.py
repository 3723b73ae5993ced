"""Choosing among runs: ``--where FIELD=VALUE``, and what tells two runs apart.

A field is any field of a run's identity (``learning_rate``, ``seed``, ``corpus_sha256``, …), a
value inside its config by its path (``config.limit``), or ``key``, ``scale`` or ``corpus``. Hashes
are given by their first digits. ``corpus`` is any of a corpus' names: its own in the paths file,
its kind (``real``, ``synthesized``), its version, its key in a paths file, its hash. ``FIELD=A,B``
keeps runs with either value, ``FIELD!=VALUE`` leaves those runs out, and ``TASK.FIELD=VALUE`` is
about that task's runs and keeps all others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from superbit.benchmark.records.rate_search import DeclaredSearch, SearchOutcome, chosen_only
from superbit.benchmark.records.schema import (
    FURTHER_FIELDS,
    Corpus,
    Interval,
    Items,
    RunIdentity,
    RunRecord,
)
from superbit.benchmark.scoring.chance import mean_chance
from superbit.benchmark.scoring.closed_forms import wilson_interval
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.spec import UpstreamSpec, typed

_HASHES = ("key", "weights_sha256", "upstream_revision", "corpus_sha256", *FURTHER_FIELDS)
_NOT_IDENTITY = ("key", "scale", "corpus")
_SHA256_DIGITS = 64
KEY_DIGITS = 12
# Fewer could be a name as well as a hash.
_CORPUS_DIGITS = 6


def parse_where(conditions: Sequence[str]) -> dict[str, str]:
    """Return ``["seed=0", "key!=1a2b"]`` as ``{"seed": "0", "key!": "1a2b"}``, for `choose`.

    Raises:
        InputError: a condition without ``=``, or two for one field.
    """
    where: dict[str, str] = {}
    for condition in conditions:
        field, equals, value = (part.strip() for part in condition.partition("="))
        if not equals or not field:
            raise InputError(f"--where {condition!r}: write FIELD=VALUE, e.g. learning_rate=0.001.")
        if field in where:
            raise InputError(f"--where {field} is given twice: give one value for each field.")
        where[field] = value
    return where


def choose(records: Sequence[RunRecord], where: Mapping[str, Any]) -> list[RunRecord]:
    """Return the records that fulfil every condition of ``where``, in their order.

    Raises:
        InputError: a field that no run has, or a value that none of them has.
    """
    chosen = list(records)
    for condition, wanted in where.items():
        task, field = _task_and_field(condition.removesuffix("!"))
        concerned = [r for r in records if task in (None, r.identity.task)]
        _require_known(condition.removesuffix("!"), field, concerned)
        values = {r.key: fields_of(r).get(field) for r in concerned}
        alternatives = [text.strip() for text in str(wanted).split(",")]
        if field == "corpus" and any(_equals(field, v, str(wanted)) for v in values.values()):
            # a version may hold commas itself
            alternatives = [str(wanted)]
        kept = {
            key
            for key, value in values.items()
            if any(_equals(field, value, each) for each in alternatives) != condition.endswith("!")
        }
        if records and not kept:
            seen = ", ".join(sorted({_display(field, value) for value in values.values()}))
            raise InputError(
                f"--where {condition}={wanted} leaves no run: "
                f"the runs have {field} {seen or '(there are none of that task)'}."
            )
        chosen = [r for r in chosen if r.key not in values or r.key in kept]
    if records and not chosen:
        together = ", ".join(f"{condition}={wanted}" for condition, wanted in where.items())
        raise InputError(f"--where {together}: no run fulfils all of these together.")
    return chosen


def concerns_rates(where: Mapping[str, Any]) -> bool:
    """Whether a condition picks single runs or learning rates, so that no search does."""
    named = {_task_and_field(condition.removesuffix("!"))[1] for condition in where}
    return not named.isdisjoint(("key", "learning_rate", "config.optimizer.lr"))


def fields_of(record: RunRecord) -> dict[str, Any]:
    """Return everything of a record that ``where`` may name, the config by dotted paths."""
    identity = dict.fromkeys(FURTHER_FIELDS) | record.identity.model_dump()
    config = _flatten("config", identity.pop("config"))
    own = {"key": record.key, "scale": record.scale, "corpus": record.corpus}
    return own | identity | config


def differing_fields(records: Sequence[RunRecord]) -> list[str]:
    """Return the identity's fields in which the records are not all alike."""
    described = [fields_of(record) for record in records]
    names = dict.fromkeys(name for each in described for name in each)
    return [
        name
        for name in names
        if name not in _NOT_IDENTITY and len({json.dumps(each.get(name)) for each in described}) > 1
    ]


def name_runs(records: Sequence[RunRecord], apart: Sequence[str]) -> str:
    """Return the runs for a message: each by its key and by its values of the fields ``apart``."""
    named = []
    for record in records:
        found = fields_of(record)
        values = ", ".join(f"{field} {_display(field, found.get(field))}" for field in apart)
        named.append(f"{record.key[:KEY_DIGITS]} ({values})")
    return "; ".join(named)


def condition_for(record: RunRecord, field: str) -> str:
    """Return the condition ``FIELD=VALUE`` that holds for this record."""
    return f"{field}={_display(field, fields_of(record).get(field))}"


def describe_corpus(corpus: Corpus) -> str:
    """Return a corpus in words, e.g. ``asterisk-en (speech_commands, 5e0c1f01ab23)``."""
    name = corpus.label or corpus.version
    inside = f"{corpus.name}, {corpus.sha256[:KEY_DIGITS]}" if name else corpus.sha256[:KEY_DIGITS]
    return f"{name or corpus.name} ({inside})"


def setting_of(identity: RunIdentity) -> dict[str, Any]:
    """Return what two upstreams' runs of one task must share to be compared, by field.

    That is corpus, fold, revision and config, which holds scale and limit; but for the learning
    rate, which is each upstream's own.
    """
    config = _flatten("config", identity.config)
    config.pop("config.optimizer.lr", None)
    shared = ("task", "task_revision", "corpus_sha256", "fold")
    return {field: getattr(identity, field) for field in shared} | config


def _task_and_field(condition: str) -> tuple[str | None, str]:
    head, dot, tail = condition.partition(".")
    task = next((name for name in TASKS if name.lower() == head.lower()), None)
    return (task, tail) if dot and task else (None, condition)


def _require_known(condition: str, field: str, records: Sequence[RunRecord]) -> None:
    known = {*_NOT_IDENTITY, *RunIdentity.model_fields} - {"config"}
    known |= {name for record in records for name in fields_of(record)}
    if field not in known and not (field.startswith("config.") and not records):
        own = ", ".join(sorted(name for name in known if not name.startswith("config.")))
        hint = did_you_mean(field, known)
        raise InputError(
            f"--where {condition}: no run has the field {field!r}; "
            f"the fields are {own} and config.PATH.{hint}"
        )


def _flatten(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flatten(f"{prefix}.{name}", inner)
    return flat


def _equals(field: str, value: Any, wanted: str) -> bool:
    if isinstance(value, Corpus):
        names = (value.label, value.kind, value.version, value.name)
        is_digits = len(wanted) >= _CORPUS_DIGITS and value.sha256.startswith(wanted.lower())
        return is_digits or wanted.lower() in [name.lower() for name in names if name]
    if _is_hash(field, value):
        return bool(wanted) and value.startswith(wanted.lower())
    if field == "upstream":
        return value == str(UpstreamSpec.parse(wanted))
    if field == "task":
        return value.lower() == wanted.lower()
    if value is None:
        return wanted.lower() in ("", "none", "null")
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(wanted) == value
        except ValueError:
            return False
    return wanted.lower() == _display(field, value).lower()


def _is_hash(field: str, value: Any) -> bool:
    # an upstream's revision is a hash for a plug-in by path, and a plain number otherwise
    return field in _HASHES and isinstance(value, str) and len(value) == _SHA256_DIGITS


def _display(field: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Corpus):
        return describe_corpus(value)
    if _is_hash(field, value):
        return value[:KEY_DIGITS]
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True, kw_only=True)
class UsableRuns:
    """Runs that may fill a cell.

    Attributes:
        runs: each with its number; five folds are one.
        searches: those over learning rates that have ended.
        notes: a sentence on each search and each set of folds that is left out.
    """

    runs: tuple[RunRecord, ...]
    searches: tuple[SearchOutcome, ...]
    notes: tuple[str, ...]


def usable_runs(
    records: Sequence[RunRecord], *, where: Mapping[str, Any], searches: Iterable[DeclaredSearch]
) -> UsableRuns:
    """Leave out what failed, was limited or was not chosen, and what ``where`` does not want.

    Of the candidates of a search only the chosen one counts, unless ``where`` is about rates or
    keys.

    Raises:
        InputError: a condition that cannot be met.
    """
    found: list[SearchOutcome] = []
    notes: list[str] = []
    compared = records
    if not concerns_rates(where):
        compared, found, notes = chosen_only([r for r in records if not r.limited], searches)
    usable = [r for r in compared if r.status == "done" and not r.limited]
    runs, incomplete = merge_folds(choose(usable, where))
    return UsableRuns(runs=tuple(runs), searches=tuple(found), notes=(*notes, *incomplete))


# Two-sided 95 % quantile of Student's t with 4 degrees of freedom.
T_QUANTILE_5_FOLDS = 2.7764451


def mean_of_folds(values: Sequence[float]) -> tuple[float, Interval]:
    """Return the mean of five folds and a 95 % t interval over them, in the values' unit.

    Raises:
        ValueError: not five values.
    """
    if len(values) != 5:
        raise ValueError(f"the mean wants 5 folds, not {len(values)}")
    mean = fmean(values)
    half = T_QUANTILE_5_FOLDS * stdev(values) / 5**0.5
    return mean, Interval(low=mean - half, high=mean + half, level=0.95, method="t over 5 folds")


def merge_folds(records: Iterable[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """Put one record with the mean in the place of the folds of one run.

    Returns:
        The records, those of incomplete sets of folds left out, and a sentence for each such set.
    """
    whole: list[RunRecord] = []
    sets: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.identity.fold is None:
            whole.append(record)
        else:
            unfolded = record.identity.model_copy(update={"fold": None})
            sets.setdefault(unfolded.key, []).append(record)
    notes = []
    for folds in sets.values():
        task = TASKS[folds[0].identity.task]
        if len(folds) == task.folds:
            whole.append(_mean_record(folds))
        else:
            notes.append(
                f"Left out: {task.name} of {typed(folds[0].identity.upstream)}, of which "
                f"{len(folds)} of {task.folds} folds are done."
            )
    return whole, notes


def _mean_record(folds: Sequence[RunRecord]) -> RunRecord:
    first = folds[0]
    value, over_folds = mean_of_folds([fold.value or 0.0 for fold in folds])
    interval = _of_items(folds) if over_folds.low == over_folds.high else over_folds
    identity = first.identity.model_copy(update={"fold": None})
    counts = [fold.items.count for fold in folds if fold.items]
    items = first.items and Items(
        file=first.items.file, sha256=first.items.sha256, count=sum(counts), expected=None
    )
    selection = first.selection and first.selection.model_copy(
        update={"rule": f"mean of {len(folds)} folds, each best on dev", "step": None}
    )
    return first.model_copy(
        update={
            "key": identity.key,
            "identity": identity,
            "value": value,
            "interval": interval,
            "chance": mean_chance(folds),
            "items": items,
            "selection": selection,
        }
    )


def _of_items(folds: Sequence[RunRecord]) -> Interval | None:
    """The interval of the folds' test items together, for folds that are all alike."""
    counts = [fold.items.count for fold in folds if fold.items]
    if len(counts) < len(folds) or TASKS[folds[0].identity.task].unit != "%":
        return None
    correct = sum(c * (fold.value or 0.0) / 100 for c, fold in zip(counts, folds, strict=True))
    return wilson_interval(round(correct), sum(counts))


@dataclass(frozen=True, kw_only=True)
class SeedRuns:
    """Runs that differ in their seed, by rising seed; at least two."""

    runs: tuple[RunRecord, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(run.identity.seed for run in self.runs)

    @property
    def values(self) -> tuple[float, ...]:
        """Each seed's value, in the table's unit."""
        return tuple(run.value or 0.0 for run in self.runs)

    @property
    def deviation(self) -> float:
        """Sample standard deviation of the values."""
        return stdev(self.values)


def merge_seeds(records: Iterable[RunRecord]) -> tuple[list[RunRecord], dict[str, SeedRuns]]:
    """Put one record with the mean in the place of runs that differ in the seed.

    Runs of one seed and several learning rates are left as they are: which of them counts is not
    for a mean to say.

    Returns:
        The records, and by the keys of those that are means, what they are the mean of.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        shared = record.identity.without_rate.model_copy(update={"seed": 0})
        groups.setdefault(shared.key, []).append(record)
    merged: list[RunRecord] = []
    seeds: dict[str, SeedRuns] = {}
    for group in groups.values():
        if len(group) == 1 or len({run.identity.seed for run in group}) < len(group):
            merged += group
            continue
        each = SeedRuns(runs=tuple(sorted(group, key=lambda run: run.identity.seed)))
        first = each.runs[0]
        merged.append(first.model_copy(update={"value": fmean(each.values), "interval": None}))
        seeds[first.key] = each
    return merged, seeds
