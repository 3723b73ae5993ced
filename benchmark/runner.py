"""One run: an upstream, a task, a learning rate → a record.

A run continues from its last checkpoint where there is one, selects weights on the dev split,
evaluates them on test, and checks superbit's figure against the expert's own before it is stored.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from superbit.benchmark import provenance, stats
from superbit.benchmark.bindings import BINDINGS, Binding, Items, errors
from superbit.benchmark.corpora.manifest import Manifest
from superbit.benchmark.corpora.paths import CorpusPaths
from superbit.benchmark.experiment import Experiment
from superbit.benchmark.results import (
    Corpus,
    Interval,
    ResultStore,
    RunIdentity,
    RunRecord,
    Selection,
)
from superbit.benchmark.rng import seed_everything
from superbit.benchmark.tasks import find_task
from superbit.benchmark.training_state import Evaluation, InterruptedRun
from superbit.upstreams.errors import InputError
from superbit.upstreams.registry import LoadedUpstream

OnStep = Callable[[int, str], None]
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What every run of a sweep shares.

    Attributes:
        store: where records go.
        paths: where the corpora lie.
        device: ``"cpu"`` or ``"cuda"``.
        stop: asked often; true makes a run save its checkpoint and raise ``InterruptedRun``.
    """

    store: ResultStore
    paths: CorpusPaths
    device: str = "cpu"
    stop: Callable[[], bool] = lambda: False

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
    run_dir = context.work_dir / "runs" / identity.key[:16]
    run_dir.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
        "key": identity.key,
        "identity": identity,
        "scale": identity.config["scale"],
        "limited": identity.config.get("limit") is not None,
        "untrained": upstream.spec.untrained,
        "corpus": _corpus(manifest),
    }
    try:
        with _output_to(run_dir / "log.txt"):
            fields, items = _train_and_test(
                identity, upstream=upstream, context=context, run_dir=run_dir, on_step=on_step
            )
        record = RunRecord(
            **common, status="done", **fields, provenance=_provenance(started, context.device)
        )
        expected = manifest.splits[BINDINGS[identity.task].test_files]
        stored = context.store.write(record, items, expected_items=expected)
        shutil.rmtree(run_dir, ignore_errors=True)
        return stored
    except InterruptedRun:
        raise
    except Exception as error:
        # One failing run must not end the sweep: it becomes a record that says why.
        record = RunRecord(
            **common,
            status="failed",
            reason=_one_line(error),
            traceback=None if isinstance(error, InputError) else traceback.format_exc(),
            provenance=_provenance(started, context.device),
        )
        return context.store.write(record)


def _train_and_test(
    identity: RunIdentity,
    *,
    upstream: LoadedUpstream,
    context: RunContext,
    run_dir: Path,
    on_step: OnStep,
) -> tuple[dict[str, Any], Items]:
    binding = BINDINGS[identity.task]
    config = dict(identity.config)
    config["downstream_expert"] = binding.bind(
        config["downstream_expert"], context.paths, context.work_dir
    )
    seed_everything(identity.seed)
    experiment = Experiment(
        upstream=upstream.expert,
        downstream=str(find_task(identity.task).downstream),
        config=config,
        seed=identity.seed,
        expdir=run_dir,
        device=context.device,
        stop=context.stop,
    )
    checkpoint = run_dir / CHECKPOINT
    if checkpoint.exists():
        _load_checkpoint(checkpoint, experiment, key=identity.key)
    experiment.train(
        on_step=lambda step, loss: on_step(step, f"loss {loss:.3f}"),
        on_evaluation=lambda evaluation: on_step(evaluation.step, f"{evaluation.split} done"),
        on_save=lambda: _save_checkpoint(checkpoint, experiment, key=identity.key),
    )
    selection = _select(experiment, binding)
    on_step(experiment.progress.step, f"{binding.test} evaluation")
    evaluation = experiment.evaluate(binding.test)
    items = binding.items(evaluation.records)
    fields = {
        "value": _checked_value(binding, items, evaluation),
        "metrics": _metrics(experiment, evaluation),
        "interval": _interval(items),
        "selection": selection,
    }
    return fields, items


def _select(experiment: Experiment, binding: Binding) -> Selection:
    """Load the best weights on dev, or keep the last ones where the expert never called any best.

    Experts ask for a best checkpoint only above a score of 0 (KS) or below a WER of 100 (ASR).
    """
    progress = experiment.progress
    if progress.best is None:
        return Selection(
            rule="last step, as none was best on dev", selected_on=None, step=progress.step,
            score=None, checkpoint="last",
        )  # fmt: skip
    experiment.load_weights(progress.best)
    score = next(
        point[binding.metric]
        for point in progress.history
        if point["split"] == binding.dev and point["step"] == progress.best_step
    )
    return Selection(
        rule="best on dev", selected_on="dev", step=progress.best_step,
        score=score * binding.metric_scale, checkpoint="best",
    )  # fmt: skip


def _checked_value(binding: Binding, items: Items, evaluation: Evaluation) -> float:
    """Return the task's value from the items, after comparing it with the expert's own figure."""
    value = binding.score(items)
    experts = evaluation.metrics[binding.metric] * binding.metric_scale
    if abs(value - experts) > 1e-4 * max(1.0, abs(experts)):
        raise RuntimeError(
            f"superbit's {binding.metric} is {value:.6f} and s3prl's own is {experts:.6f}: "
            "they must be equal."
        )
    return value


def _metrics(experiment: Experiment, evaluation: Evaluation) -> dict[str, float]:
    metrics = {f"{evaluation.split}-{name}": v for name, v in evaluation.metrics.items()}
    metrics["skipped_steps"] = float(experiment.progress.skipped_steps)
    return metrics


def _interval(items: Items) -> Interval | None:
    if "correct" in items[0]:
        return stats.accuracy_interval([item["correct"] for item in items])
    return stats.error_rate_interval(
        [errors(item) for item in items], [item["reference_length"] for item in items]
    )


def _save_checkpoint(path: Path, experiment: Experiment, *, key: str) -> None:
    """Write everything a run needs to continue; the file appears whole or not at all."""
    import torch

    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    torch.save({"key": key, **experiment.state()}, partial)
    os.replace(partial, path)


def _load_checkpoint(path: Path, experiment: Experiment, *, key: str) -> None:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.pop("key") != key:
            raise InputError(f"{path} belongs to another run: delete it to start this one anew.")
        experiment.load_state(state)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): "
            "delete it to start the run anew."
        ) from error


def _corpus(manifest: Manifest) -> Corpus:
    return Corpus(
        name=manifest.corpus,
        kind="synthesized" if manifest.kind == "synthesized" else "real",
        version=manifest.recipe,
        sha256=manifest.sha256,
    )


def _provenance(started: datetime, device: str) -> provenance.Provenance:
    import torch

    return provenance.collect(
        started=started,
        seconds=(datetime.now(UTC) - started).total_seconds(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if device.startswith("cuda") else None,
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[TextIO]:
    """Send what s3prl prints, its progress bars included, to a file beside the run."""
    with (
        path.open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield log
