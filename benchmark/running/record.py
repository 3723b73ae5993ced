"""What a run is given, and what it leaves: a record a learning rate, done or failed."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.benchmark.corpora.manifest import CorpusManifest
from superbit.benchmark.records import provenance, rate_search
from superbit.benchmark.records.schema import Corpus, RateSearch, RunIdentity, RunRecord
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.running.candidate import Candidate
from superbit.benchmark.scoring import chance
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import Tested, TestedByName
from superbit.upstreams.errors import InputError, one_line
from superbit.upstreams.spec import UpstreamSpec

if TYPE_CHECKING:
    from superbit.benchmark.corpora.paths import CorpusPaths
    from superbit.benchmark.features.supply import FeatureUse


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, with what a process of its own needs to carry it out.

    Attributes:
        identities: what is to be done: of one identity, or that differ in the learning rate only.
        searched: every candidate of their search, those that are done included; empty without one.
        seen: of a run that another sweep held, when the files of its records had been written then,
            by key; what that sweep writes counts, failed or done.
        label: what messages call it.
    """

    identities: tuple[RunIdentity, ...]
    manifest: CorpusManifest
    searched: tuple[RunIdentity, ...] = ()
    seen: Mapping[str, int | None] | None = None
    label: str = ""

    @property
    def first(self) -> RunIdentity:
        """Stands for all in what they share."""
        return self.identities[0]

    @property
    def key(self) -> str:
        """Of the run's folder and checkpoint: the same however many candidates are left."""
        return key_of(self.searched or self.identities[:1])


def key_of(identities: Sequence[RunIdentity]) -> str:
    """Return the key of one run, or of candidates side by side."""
    if len(identities) == 1:
        return identities[0].key
    keys = ",".join(sorted(identity.key for identity in identities))
    return hashlib.sha256(keys.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What every run of a sweep shares.

    Attributes:
        store: where records go.
        paths: where the corpora lie.
        device: ``"cpu"`` or ``"cuda"``.
        stop: asked often; true makes a run save its checkpoint and raise ``InterruptedRun``.
        save_seconds: after so long a run is saved, beside every ``save_step`` of its config.
        run_timeout: seconds after which whoever watches over a run ends it; None: never.
        features: which (upstream, task) may read stored features.
    """

    store: ResultStore
    paths: CorpusPaths
    device: str = "cpu"
    stop: Callable[[], bool] = lambda: False
    save_seconds: float = 900.0
    run_timeout: float | None = None
    features: Mapping[tuple[str, str], FeatureUse] = field(default_factory=dict)

    @property
    def work_dir(self) -> Path:
        """Where derived files, logs and checkpoints of unfinished runs lie."""
        return self.store.root / "work"


def store(
    job: Job,
    candidates: Sequence[Candidate],
    tested: TestedByName,
    *,
    context: RunContext,
    started: datetime,
    features: dict[str, Any] | None,
) -> None:
    """Store a record of each of the job's runs, done or failed, with what is known of their search.

    Args:
        candidates: in the order of the job's identities.
        tested: by the candidates' names; one that was given up is absent.
        features: what was read from a store, for the provenance.
    """
    made = _provenance(started, context.device, features)
    ended = [
        (
            identity,
            candidate,
            _done(identity, tested[candidate.name], job, made, candidate.training.diverged)
            if candidate.name in tested
            else None,
        )
        for identity, candidate in zip(job.identities, candidates, strict=True)
    ]
    search = _search(job, ended, context)
    for identity, candidate, record in ended:
        if context.store.find(identity) is not None:
            continue
        if record is None:
            error = candidate.error or InputError(str(candidate.training.failure))
            _failed(
                identity,
                error,
                job=job,
                context=context,
                started=started,
                diverged=candidate.training.diverged,
                search=search,
            )
            continue
        found = tested[candidate.name]
        context.store.write(
            record.model_copy(update={"search": search}),
            found.items,
            expected_items=_expected_items(identity, job.manifest, found),
        )


def fail(
    job: Job, error: BaseException, *, context: RunContext, started: datetime
) -> list[RunRecord]:
    """Store and return the records of a run that failed with ``error``.

    Where another process has done a run meanwhile, its record is returned instead. A record that
    cannot be stored (a full disk) is returned all the same, and says so: the sweep goes on.
    """
    return [
        _found(identity, context)
        or _failed(identity, error, job=job, context=context, started=started, must_store=False)
        for identity in job.identities
    ]


def _found(identity: RunIdentity, context: RunContext) -> RunRecord | None:
    try:
        return context.store.find(identity)
    except (InputError, OSError):  # what is in its place; writing says so
        return None


def _failed(
    identity: RunIdentity,
    error: BaseException,
    *,
    job: Job,
    context: RunContext,
    started: datetime,
    diverged: int | None = None,
    search: RateSearch | None = None,
    must_store: bool = True,
) -> RunRecord:
    record = RunRecord(
        **_common(identity, job.manifest),
        status="failed",
        diverged=diverged,
        search=search,
        reason=one_line(error),
        traceback=_trace(error),
        provenance=_provenance(started, context.device),
    )
    try:
        return context.store.write(record)
    except (InputError, OSError) as trouble:
        if must_store:
            raise
        reason = f"{record.reason} (and no record of it could be stored: {one_line(trouble)})"
        return record.model_copy(update={"reason": reason})


def _trace(error: BaseException) -> str | None:
    """Where it failed; of a sentence, where what it speaks of failed, if anywhere."""
    cause = error.__cause__ if isinstance(error, InputError) else error
    if cause is None or isinstance(cause, InputError):
        return None
    return "".join(traceback.format_exception(cause))


def _done(
    identity: RunIdentity,
    tested: Tested,
    job: Job,
    made: provenance.Provenance,
    diverged: int | None,
) -> RunRecord:
    return RunRecord(
        **_common(identity, job.manifest),
        status="done",
        value=tested.value,
        metrics=tested.metrics,
        interval=tested.interval,
        chance=tested.chance or chance.of_items(TASKS[identity.task], tested.items),
        selection=tested.selection,
        curve=list(tested.curve),
        layer_weights=None if tested.layer_weights is None else list(tested.layer_weights),
        diverged=diverged,
        provenance=made,
    )


def _search(
    job: Job, ended: Sequence[tuple[RunIdentity, Candidate, RunRecord | None]], context: RunContext
) -> RateSearch | None:
    """What the records say of their search; of ER's folds none alone decides."""
    if not job.searched:
        return None
    now = {identity.key: (candidate, record) for identity, candidate, record in ended}
    every = []
    for identity in job.searched:
        candidate, record = now.get(identity.key, (None, context.store.ended(identity)))
        each = rate_search.tried(identity.learning_rate or 0.0, [record] if record else [])
        if candidate is not None:
            each = each.model_copy(update={"diverged": candidate.training.diverged})
        every.append(each)
    search = rate_search.search_among(job.first.task, every)
    return search.model_copy(update={"chosen": None}) if job.first.fold is not None else search


def _common(identity: RunIdentity, manifest: CorpusManifest) -> dict[str, Any]:
    return {
        "key": identity.key,
        "identity": identity,
        "scale": identity.config["scale"],
        "limited": identity.config.get("limit") is not None,
        "untrained": UpstreamSpec.parse(identity.upstream).untrained,
        "corpus": _corpus(manifest),
    }


def _expected_items(identity: RunIdentity, manifest: CorpusManifest, tested: Tested) -> int | None:
    """How many items the test split holds; ``None`` where a limited run cannot know."""
    split = TASKS[identity.task].binding.test_files
    if split is not None:
        return manifest.splits[split]
    return None if identity.config.get("limit") else len(tested.items)


def _corpus(manifest: CorpusManifest) -> Corpus:
    return Corpus(
        name=manifest.corpus,
        kind="synthesized" if manifest.kind == "synthesized" else "real",
        version=manifest.recipe,
        sha256=manifest.sha256,
        label=manifest.label,
    )


def _provenance(
    started: datetime, device: str, features: dict[str, Any] | None = None
) -> provenance.Provenance:
    import torch

    return provenance.collect(
        started=started,
        seconds=(datetime.now(UTC) - started).total_seconds(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if device.startswith("cuda") else None,
        features=features,
    )
