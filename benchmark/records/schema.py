"""What one run is and what came out: the schema of the result files.

A run is known by its key, a hash over its identity: everything that can change the number.
Time, host and versions are provenance and leave the key alone. ``results/README.md`` explains
every key to those who read the files.

This module imports neither torch nor s3prl, so that results are readable without either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from superbit.benchmark.records.canonical import canonical_json, copied
from superbit.benchmark.records.measured import Chance, Frozen, Interval, Point, Selection
from superbit.benchmark.records.provenance import Provenance
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import UpstreamSpec

SCHEMA_VERSION: Literal[1] = 1
# In place of hashes that nobody knows, as the upstream could not be built.
UNKNOWN = "unknown"
# of an identity, left out where they are None, so that records from before keep their keys
FURTHER_FIELDS = ("upstream_files_sha256", "upstream_config_sha256", "upstream_fingerprint")


class RunIdentity(Frozen):
    """Everything that can change a run's number. One field differs: another run."""

    # canonical upstream spec, e.g. "vanilla_nano+untrained"
    upstream: str
    # hash over the upstream's whole state (tensor names, types, shapes, bytes); of a failed run
    # UNKNOWN where the upstream could not be built, and so is its revision
    weights_sha256: str
    # the upstream's own revision; for a plug-in by path the hash of its source
    upstream_revision: str
    # SUPERB's short name, e.g. "KS"
    task: str
    # raised whenever superbit arrives at this task's number in another way
    task_revision: int
    # the resolved config; holds `scale`, and `limit` where the run was cut short
    config: dict[str, Any]
    # hash of the corpus' manifest, over the contents of its files
    corpus_sha256: str
    # learning rate of the head; None for a task without training
    learning_rate: float | None
    # seed of the run
    seed: int
    # fold of a cross-validated task (ER: 1 to 5), else None
    fold: int | None
    # hash over the files that somebody else's upstream is made of: its checkpoint, its source, what
    # it opened; the next three are None, and then no part of the key, where the fields above say
    # it already, and in records from before there were any
    upstream_files_sha256: str | None = None
    # hash over the sizes and the policy of a checkpoint of superbit's own
    upstream_config_sha256: str | None = None
    # hash over the hidden states of a fixed signal, rounded
    upstream_fingerprint: str | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_said_already(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        return {
            name: value
            for name, value in serialize(self).items()
            if value is not None or name not in FURTHER_FIELDS
        }

    @field_validator("upstream")
    @classmethod
    def _canonical(cls, upstream: str) -> str:
        # two spellings of one upstream would be two keys
        try:
            canonical = str(UpstreamSpec.parse(upstream))
        except InputError as error:
            raise ValueError(str(error)) from error
        if canonical != upstream:
            raise ValueError(f"{upstream!r} has the canonical spelling {canonical!r}")
        return upstream

    @field_validator("task")
    @classmethod
    def _known_task(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"{task!r} is not one of {', '.join(TASKS)}")
        return task

    @field_validator("config")
    @classmethod
    def _own_copy(cls, config: dict[str, Any]) -> dict[str, Any]:
        # tuples become the lists they are on disk; later changes outside do not reach in here
        return copied(config)

    @property
    def key(self) -> str:
        """SHA-256 over the canonical JSON of all that is written, 64 hexadecimal digits."""
        return self._hash

    @property
    def without_rate(self) -> RunIdentity:
        """What every candidate of a search over learning rates has in common: no rate, no fold."""
        return self._shared

    @property
    def key_without_rate(self) -> str:
        """The key of `without_rate`, for which none is made."""
        return self._hash_without_rate

    # Cached behind properties, which cannot be assigned to.
    @cached_property
    def _hash(self) -> str:
        return _sha256_of(self.__dict__)

    @cached_property
    def _hash_without_rate(self) -> str:
        return _sha256_of(self.__dict__ | self._rateless)

    @cached_property
    def _shared(self) -> RunIdentity:
        return self.model_copy(update=self._rateless)

    @property
    def _rateless(self) -> dict[str, Any]:
        config = dict(self.config)
        if "optimizer" in config:
            config["optimizer"] = {k: v for k, v in config["optimizer"].items() if k != "lr"}
        return {"config": config, "learning_rate": None, "fold": None}

    # What is cached above is of these very fields. Copies start without it: model_copy makes one
    # of these, then changes fields of it.
    def __copy__(self) -> Self:
        return super().__copy__()._without_cached()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return super().__deepcopy__(memo)._without_cached()

    def _without_cached(self) -> Self:
        for name in self.__dict__.keys() - RunIdentity.model_fields.keys():
            del self.__dict__[name]
        return self

    @property
    def unbuilt(self) -> tuple[RunIdentity, ...]:
        """What this run may have failed as while its upstream could not be built.

        Nothing of the upstream was known then but how it was named: with ``+untrained`` or not.
        """
        spec = UpstreamSpec.parse(self.upstream)
        names = dict.fromkeys([str(spec), str(replace(spec, untrained=False))])
        return tuple(
            RunIdentity(
                upstream=name,
                weights_sha256=UNKNOWN,
                upstream_revision=UNKNOWN,
                task=self.task,
                task_revision=self.task_revision,
                config=self.config,
                corpus_sha256=self.corpus_sha256,
                learning_rate=self.learning_rate,
                seed=self.seed,
                fold=self.fold,
            )
            for name in names
        )


_IDENTITY_FIELDS = tuple(RunIdentity.model_fields)


def _sha256_of(values: Mapping[str, Any]) -> str:
    """The hash of an identity of these values: over what `RunIdentity.model_dump` writes of it."""
    # field by field, as pydantic's own way takes twice as long
    held = {
        name: values[name]
        for name in _IDENTITY_FIELDS
        if values[name] is not None or name not in FURTHER_FIELDS
    }
    return hashlib.sha256(canonical_json(held).encode()).hexdigest()


class Tried(Frozen):
    """One learning rate of a search."""

    learning_rate: float
    # what the rates are compared by; None where there is none
    score: float | None = None
    # the step since which every loss or gradient was NaN or infinite; then never chosen
    diverged: int | None = None


class RateSearch(Frozen):
    """The learning rates that were tried, and which of them counts."""

    # in words, what the rates are compared by
    rule: str
    # the split that decides
    selected_on: Literal["dev", "test"]
    # every rate, ascending
    tried: list[Tried]
    # None where no rate can be chosen, or not from what one record knows (ER: five folds decide)
    chosen: float | None = None


class Items(Frozen):
    """The per-item sidecar: one JSON line a test item, gzip-compressed."""

    # file name, beside the record
    file: str
    # hash of that file's bytes
    sha256: str
    # items scored
    count: int
    # items the test split holds; None where the corpus does not say
    expected: int | None = None


class Corpus(Frozen):
    """What the run was trained and tested on."""

    # key of the corpus in a paths file, e.g. "librispeech"
    name: str
    # recorded from people, or spoken by a synthesizer
    kind: Literal["real", "synthesized"]
    # release of a real corpus, recipe of a synthesized one
    version: str | None = None
    # hash of the manifest, as in the identity
    sha256: str
    # what its owner calls it, from the paths file
    label: str | None = None


class RunRecord(Frozen):
    """One run, as its JSON file holds it."""

    # version of this layout
    schema_version: Literal[1] = SCHEMA_VERSION
    # identity.key: what the run is found by
    key: str
    # "done" has a value, "failed" a reason
    status: Literal["done", "failed"]
    # everything that can change the number
    identity: RunIdentity
    # "superb": the benchmark's protocol; "embedded": few steps on small data
    scale: Literal["superb", "embedded"]
    # cut short by --limit: never enters a table
    limited: bool
    # the upstream's weights are random
    untrained: bool
    # the task's metric on the test set, in the table's unit (KS: accuracy in %)
    value: float | None = None
    # all numbers as s3prl gives them, e.g. {"test-acc": 0.931}
    metrics: dict[str, float] = Field(default_factory=dict)
    # confidence interval of `value`
    interval: Interval | None = None
    # what an answer without listening reaches on these test items; None: not written, see chance.py
    chance: Chance | None = None
    # where the per-item counts are
    items: Items | None = None
    # which model was tested, and how it was chosen
    selection: Selection | None = None
    # the metric that selects, at each evaluation on dev
    curve: list[Point] = Field(default_factory=list)
    # what the head takes of each hidden state, in sum 1; None: not kept, or there is one state
    layer_weights: list[float] | None = None
    # the step since which every loss or gradient was NaN or infinite; None: it did not diverge
    diverged: int | None = None
    # the learning rates that were tried side by side with this run's; None for a run alone
    search: RateSearch | None = None
    # why a failed run failed, in one sentence
    reason: str | None = None
    # where it failed, in Python's words
    traceback: str | None = None
    # what it was trained and tested on; None where a run failed before it was known
    corpus: Corpus | None = None
    # commit, versions, machine, time: changes no key
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _consistent(self) -> RunRecord:
        for wrong, problem in self._problems():
            if wrong:
                raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[tuple[bool, str]]:
        identity, done = self.identity, self.status == "done"
        yield self.key != identity.key, "key is not the hash of identity, so one was changed"
        yield (
            identity.config.get("scale") != self.scale,
            f"scale {self.scale!r} is not identity.config.scale {identity.config.get('scale')!r}",
        )
        yield (
            self.limited != (identity.config.get("limit") is not None),
            f"limited is {self.limited}, but identity.config.limit says otherwise",
        )
        yield (
            self.untrained != UpstreamSpec.parse(identity.upstream).untrained,
            f"untrained is {self.untrained}, but the upstream is {identity.upstream!r}",
        )
        yield done and self.value is None, "a done run needs a value"
        yield done and self.reason is not None, "a done run has no reason to have failed"
        yield done and self.corpus is None, "a done run needs its corpus"
        yield not done and not (self.reason or "").strip(), "a failed run needs a reason"
        yield "\n" in (self.reason or ""), "reason is one sentence on one line"
        yield not done and self.value is not None, "a failed run has no value"
        yield not done and self.items is not None, "a failed run has no items"
        yield (
            self.corpus is not None and self.corpus.sha256 != identity.corpus_sha256,
            "corpus.sha256 is not identity.corpus_sha256",
        )
