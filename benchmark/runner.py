"""One run: an upstream, a task, a learning rate → a record.

A run continues from its last checkpoint where there is one, selects weights on the dev split,
evaluates them on test, and checks superbit's figure against the expert's own before it is stored.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from superbit.benchmark import provenance
from superbit.benchmark.bindings import BINDINGS, Places
from superbit.benchmark.checkpoints import LABEL, run_folder
from superbit.benchmark.corpora.manifest import Manifest
from superbit.benchmark.corpora.paths import CorpusPaths
from superbit.benchmark.experiment import Experiment
from superbit.benchmark.features.preparing import FeatureUse
from superbit.benchmark.procedures import PROCEDURES, Session, Tested
from superbit.benchmark.results import (
    Corpus,
    ResultStore,
    RunIdentity,
    RunRecord,
)
from superbit.benchmark.rng import seed_everything
from superbit.benchmark.tasks import find_task
from superbit.benchmark.training_state import InterruptedRun
from superbit.upstreams.errors import InputError
from superbit.upstreams.registry import LoadedUpstream
from superbit.upstreams.spec import UpstreamSpec

OnStep = Callable[[int, str], None]


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What every run of a sweep shares.

    Attributes:
        store: where records go.
        paths: where the corpora lie.
        device: ``"cpu"`` or ``"cuda"``.
        stop: asked often; true makes a run save its checkpoint and raise ``InterruptedRun``.
        features: which (upstream, task) may read stored features.
    """

    store: ResultStore
    paths: CorpusPaths
    device: str = "cpu"
    stop: Callable[[], bool] = lambda: False
    features: Mapping[tuple[str, str], FeatureUse] = field(default_factory=dict)

    @property
    def work_dir(self) -> Path:
        """Where derived files, logs and checkpoints of unfinished runs lie."""
        return self.store.root / "work"


def run(
    identity: RunIdentity,
    *,
    upstream: LoadedUpstream,
    manifest: Manifest,
    context: RunContext,
    on_step: OnStep = lambda step, what: None,
) -> RunRecord:
    """Run what ``identity`` says and store the record, done or failed.

    Args:
        on_step: called with the number of optimizer steps done and a word for what goes on.

    Raises:
        InterruptedRun: the context's ``stop`` said so; the next call continues.
    """
    started = datetime.now(UTC)
    run_dir = run_folder(context.store.root, identity.key)
    try:
        with _claimed(run_dir, context):
            done = context.store.find(identity)
            if done is not None:  # by another sweep over the same folder
                return done
            return _run_claimed(
                identity,
                upstream=upstream,
                manifest=manifest,
                context=context,
                run_dir=run_dir,
                on_step=on_step,
                started=started,
            )
    except InterruptedRun:
        raise
    except Exception as error:
        # One failing run must not end the sweep: it becomes a record that says why.
        return fail(identity, error, manifest=manifest, context=context, started=started)


def fail(
    identity: RunIdentity,
    error: Exception,
    *,
    manifest: Manifest,
    context: RunContext,
    started: datetime,
) -> RunRecord:
    """Store and return the record of a run that failed with ``error``.

    Where another process has done the run meanwhile, its record is returned instead.
    """
    done = context.store.find(identity)
    if done is not None:
        return done
    trace = "".join(traceback.format_exception(error))
    record = RunRecord(
        **_common(identity, manifest),
        status="failed",
        reason=_one_line(error),
        traceback=None if isinstance(error, InputError) else trace,
        provenance=_provenance(started, context.device),
    )
    return context.store.write(record)


def _run_claimed(
    identity: RunIdentity,
    *,
    upstream: LoadedUpstream,
    manifest: Manifest,
    context: RunContext,
    run_dir: Path,
    on_step: OnStep,
    started: datetime,
) -> RunRecord:
    if upstream.weights_sha256 != identity.weights_sha256:
        raise InputError(
            f"upstream {identity.upstream!r} has other weights now than when the sweep was "
            "planned: run the sweep again."
        )
    (run_dir / LABEL).write_text(f"{identity.task} × {identity.upstream}\n", encoding="utf-8")
    with _output_to(run_dir / "log.txt"), _denormals_as_zero():
        tested, features = _train_and_test(
            identity, upstream=upstream, context=context, run_dir=run_dir, on_step=on_step
        )
    record = RunRecord(
        **_common(identity, manifest),
        status="done",
        value=tested.value,
        metrics=tested.metrics,
        interval=tested.interval,
        selection=tested.selection,
        provenance=_provenance(started, context.device, features),
    )
    expected = _expected_items(identity, manifest, tested)
    stored = context.store.write(record, tested.items, expected_items=expected)
    shutil.rmtree(run_dir, ignore_errors=True)
    return stored


def _common(identity: RunIdentity, manifest: Manifest) -> dict[str, Any]:
    return {
        "key": identity.key,
        "identity": identity,
        "scale": identity.config["scale"],
        "limited": identity.config.get("limit") is not None,
        "untrained": UpstreamSpec.parse(identity.upstream).untrained,
        "corpus": _corpus(manifest),
    }


@contextlib.contextmanager
def _claimed(run_dir: Path, context: RunContext) -> Iterator[None]:
    """Keep the run's folder to one process; wait while another one works on the same run."""
    try:
        import fcntl
    except ImportError:  # Windows
        run_dir.mkdir(parents=True, exist_ok=True)
        yield
        return
    locks = context.work_dir / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / run_dir.name).open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if context.stop():
                    raise InterruptedRun from None
                time.sleep(0.5)
        run_dir.mkdir(parents=True, exist_ok=True)
        yield


def _train_and_test(
    identity: RunIdentity,
    *,
    upstream: LoadedUpstream,
    context: RunContext,
    run_dir: Path,
    on_step: OnStep,
) -> tuple[Tested, dict[str, Any] | None]:
    task, binding = find_task(identity.task), BINDINGS[identity.task]
    places = Places(paths=context.paths, work_dir=context.work_dir, fold=identity.fold)
    config = copy.deepcopy(identity.config)
    binding.bind(config["downstream_expert"], places)
    use = context.features.get((identity.upstream, identity.task))
    open_source = None
    if use is not None:
        open_source = use.open(identity, upstream, work_dir=context.work_dir, device=context.device)
    seed_everything(identity.seed)
    experiment = Experiment(
        upstream=upstream.expert,
        downstream=str(task.downstream),
        config=config,
        seed=identity.seed,
        expdir=run_dir,
        device=context.device,
        stop=context.stop,
        reinitialize_head=binding.reinitialize_head,
        feature_source=open_source,
    )
    tested = PROCEDURES[task.protocol](
        Session(
            experiment=experiment,
            binding=binding,
            places=places,
            run_dir=run_dir,
            key=identity.key,
            on_step=on_step,
        )
    )
    if use is None or experiment.source is None:
        return tested, None
    return tested, use.describe(identity, experiment.source)


def _expected_items(identity: RunIdentity, manifest: Manifest, tested: Tested) -> int | None:
    """How many items the test split holds; ``None`` where a limited run cannot know."""
    split = BINDINGS[identity.task].test_files
    if split is not None:
        return manifest.splits[split]
    return None if identity.config.get("limit") else len(tested.items)


def _corpus(manifest: Manifest) -> Corpus:
    return Corpus(
        name=manifest.corpus,
        kind="synthesized" if manifest.kind == "synthesized" else "real",
        version=manifest.recipe,
        sha256=manifest.sha256,
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


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def _denormals_as_zero() -> Iterator[None]:
    """A BLSTM's gradients decay below 1e-38, where CPUs compute many times slower: taken as 0."""
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[TextIO]:
    """Send what s3prl prints, its progress bars included, to a file beside the run."""
    with (
        path.open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield log
