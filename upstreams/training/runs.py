"""A run of training: HuBERT's pre-training, or a teacher's twins one policy after the other.

What is to be trained is put together with its data and trained by
`superbit.upstreams.training.train`; a run that was stopped goes on. Distillation has a run for each
policy:

    OUT/w1a2/last      starts from the teacher, learns from the teacher
    OUT/w1a1/last      starts from w1a2, learns from w1a2

With the loss ``hubert`` nothing is taught: each twin starts from the model before it and predicts
the units of labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from superbit.upstreams import checkpoint, files
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert, untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.policy import Policy
from superbit.upstreams.stopping import Pace
from superbit.upstreams.training.configuration import (
    DistillationConfig,
    PretrainingConfig,
    TrainingConfig,
)
from superbit.upstreams.training.data import CropBatches
from superbit.upstreams.training.distil_objective import DistillationObjective, student_of
from superbit.upstreams.training.distributed import World
from superbit.upstreams.training.labels import Labels
from superbit.upstreams.training.manifest import read_manifest
from superbit.upstreams.training.objective import UNIT_EMBEDDINGS, HubertObjective, Objective
from superbit.upstreams.training.state import LAST, STATE_FILE, RunFolder, read_state
from superbit.upstreams.training.train import FinishedRun, Trainer

QUANTIZATION_AWARE = "quantization-aware pre-training"


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """What a list of twins begins with.

    Attributes:
        path: its checkpoint.
        model: in full precision.
        training: how its weights came about.
        unit_embeddings: (K, E) of the units that it was trained on; None where its checkpoint has
            none, as an imported or a packaged one.
    """

    path: Path
    model: Hubert
    training: dict[str, Any]
    unit_embeddings: Tensor | None


def run_pretraining(
    config: PretrainingConfig,
    *,
    name: str,
    size: HubertConfig,
    manifests: Path,
    labels: Path,
    out: Path,
    world: World,
    init: Path | None = None,
    say: Callable[[str], None] = print,
    scalars: Callable[[int, dict[str, Any]], None] | None = None,
    pace: Pace | None = None,
) -> FinishedRun:
    """Train one model, or go on with a run that is in ``out``.

    Args:
        config: the run's settings.
        name: of the model's size, for the checkpoint's record.
        size: the model's sizes.
        manifests: folder of ``train.tsv`` and ``valid.tsv``.
        labels: folder of ``train.km`` and ``valid.km``.
        out: the run's folder.
        world: this rank.
        init: a checkpoint to start from, of the same sizes.
        say: called with a line of progress.
        scalars: called with (update, values) whenever a line is logged.
        pace: when it is saved beside ``save_every``, and when it stops.

    Raises:
        InputError: something is wrong with what was given.
        Stopped: it was asked to stop; the next call goes on.
    """
    data = batches(
        config,
        size,
        manifests=manifests,
        labels=labels,
        units=config.units,
        rate=config.label_rate,
        say=say if world.leads else lambda line: None,
    )
    objective = HubertObjective(
        config,
        _start(config, name, size, init),
        units=config.units,
        phase=config.phase,
        layer_drop=config.layer_drop_of(size),
        record={"units": config.units, "label_rate": config.label_rate},
    )
    trainer = Trainer(
        config=config,
        objective=objective,
        train=data["train"],
        valid=data["valid"],
        folder=RunFolder(out),
        world=world,
        facts={
            "model": size.to_dict(),
            "train.tsv": files.sha256(manifests / "train.tsv"),
            "train.km": files.sha256(labels / "train.km"),
            "init": "" if init is None else files.sha256(init / checkpoint.WEIGHTS_FILE),
        },
        training={"objective": "hubert", "name": name, "ranks": world.size},
        say=say,
        scalars=scalars,
        pace=pace,
    )
    return trainer.run()


def _start(config: PretrainingConfig, name: str, size: HubertConfig, init: Path | None) -> Hubert:
    """Return the model to begin with: random from the seed, or a checkpoint's weights.

    Raises `InputError` for a checkpoint of another encoder, size or later phase.
    """
    model = untrained_model(size, seed=config.seed)
    if init is None:
        return model
    loaded = checkpoint.load(init, name=name)
    if loaded.model.policy is not None:
        raise InputError(
            f"--init {init} holds a twin of policy {loaded.model.policy.name!r}; pre-training "
            "begins with an FP32 model."
        )
    phase = loaded.training.get("phase", 0)
    if isinstance(phase, int) and phase > config.phase:
        raise InputError(
            f"--init {init} is of phase {phase}, and phase {config.phase} comes first."
        )
    ours, theirs = size.to_dict(), loaded.model.config.to_dict()
    different = [key for key in ours if ours[key] != theirs[key] and "dropout" not in key]
    if different:
        key = different[0]
        raise InputError(f"--init {init} has {key} {theirs[key]}, and {name} has {ours[key]}.")
    model.load_state_dict(loaded.model.state_dict())
    return model


def load_teacher(path: Path) -> Teacher:
    """Return the FP32 model of a checkpoint, and its units where it is one of a run of ours.

    Raises `InputError` for what is no checkpoint, and for a twin.
    """
    loaded = checkpoint.load(path)
    if loaded.model.policy is not None:
        raise InputError(
            f"--teacher {path} holds a twin of policy {loaded.model.policy.name!r}; an FP32 model "
            "is needed, and --policy lists the steps from it."
        )
    embeddings = None
    if (path / STATE_FILE).is_file():
        embeddings = read_state(path).get(UNIT_EMBEDDINGS)
    return Teacher(
        path=path, model=loaded.model, training=loaded.training, unit_embeddings=embeddings
    )


def run_distillation(
    config: DistillationConfig,
    *,
    teacher: Teacher,
    policies: Sequence[Policy],
    manifests: Path,
    labels: Path | None,
    out: Path,
    world: World,
    say: Callable[[str], None] = print,
    scalars: Callable[[Path], Callable[[int, dict[str, Any]], None] | None] | None = None,
    pace: Pace | None = None,
) -> Iterator[FinishedRun]:
    """Train a twin of each policy, or go on with what is in ``out``, and yield how each went.

    Args:
        config: the settings of each.
        teacher: the FP32 model.
        policies: in the order of the steps.
        manifests: folder of ``train.tsv`` and ``valid.tsv``.
        labels: folder of ``train.km`` and ``valid.km``; None for none.
        out: a folder, in which each policy has one.
        world: this rank.
        say: called with a line of progress.
        scalars: gives for a folder what is called with (update, values) when a line is logged.
        pace: when a run is saved beside ``save_every``, and when all stops.

    Raises:
        InputError: something is wrong with what was given.
        Stopped: it was asked to stop; the next call goes on.
    """
    units, rate = _units(config, teacher, labels)
    size = teacher.model.config
    data = batches(
        config,
        size,
        manifests=manifests,
        labels=labels,
        units=units,
        rate=rate,
        say=say if world.leads else lambda line: None,
    )
    if config.loss == "kd" and teacher.unit_embeddings is None and world.leads:
        say(f"{teacher.path} has no {STATE_FILE} with units: hidden states alone are distilled")
    before, embeddings, path = teacher.model, teacher.unit_embeddings, teacher.path
    for policy in policies:
        folder = out / policy.name
        facts = {
            "model": size.to_dict(),
            "train.tsv": files.sha256(manifests / "train.tsv"),
            "train.km": "" if labels is None else files.sha256(labels / "train.km"),
            # of this kind of encoder: rules for others may change
            "policy": policy.resolved(before, encoder=size.encoder).to_dict(),
            "teacher": files.sha256(path / checkpoint.WEIGHTS_FILE),
        }
        trainer = Trainer(
            config=config,
            objective=_objective(config, before, policy, embeddings, units=units, rate=rate),
            train=data["train"],
            valid=data["valid"],
            folder=RunFolder(folder),
            world=world,
            facts=facts,
            training=_training(config, teacher, policies, policy, world),
            say=say,
            scalars=None if scalars is None else scalars(folder),
            pace=pace,
        )
        yield trainer.run()
        world.wait()  # rank 0 writes what all of them read now
        path = folder / LAST
        before = checkpoint.load(path).model
        embeddings = read_state(path).get(UNIT_EMBEDDINGS)


def _units(
    config: DistillationConfig, teacher: Teacher, labels: Path | None
) -> tuple[int | None, int | None]:
    """Return K and rate of the labels, which are those that the teacher was trained on.

    Raises `InputError` where they are needed and unknown, or do not fit the teacher's units.
    """
    if labels is None:
        if config.loss == "hubert":
            raise InputError("--labels is needed for --loss hubert, whose targets they are.")
        return None, None
    found = {
        "units": config.units or teacher.training.get("units"),
        "label_rate": config.label_rate or teacher.training.get("label_rate"),
    }
    for key, value in found.items():
        if not isinstance(value, int):
            raise InputError(
                f"{teacher.path} does not say on what labels it was trained: give {key} of "
                f"{labels} with --set {key}=…"
            )
    embeddings = teacher.unit_embeddings
    if embeddings is not None and len(embeddings) != found["units"]:
        raise InputError(
            f"units is {found['units']}, and {teacher.path} was trained on {len(embeddings)} units."
        )
    return found["units"], found["label_rate"]


def _objective(
    config: DistillationConfig,
    before: Hubert,
    policy: Policy,
    embeddings: Tensor | None,
    *,
    units: int | None,
    rate: int | None,
) -> Objective:
    """Return what trains a twin that starts from the model ``before``."""
    student = student_of(before, policy)
    record = {} if units is None else {"units": units, "label_rate": rate}
    if config.loss == "kd":
        return DistillationObjective(
            config, student, before, unit_embeddings=embeddings, units=units, record=record
        )
    assert units is not None
    return HubertObjective(
        config,
        student.train(),
        units=units,
        phase=QUANTIZATION_AWARE,
        layer_drop=0.0,
        record=record,
        unit_embeddings=embeddings,
        scale_rate=config.scale_learning_rate / config.learning_rate,
    )


def _training(
    config: DistillationConfig,
    teacher: Teacher,
    policies: Sequence[Policy],
    policy: Policy,
    world: World,
) -> dict[str, Any]:
    """Return what a twin's checkpoint says of where it comes from."""
    names = [each.name for each in policies]
    kept = ("name", "objective", "phase", "units", "update", "audio_hours", "held_out")
    return {
        "objective": "distillation" if config.loss == "kd" else "hubert",
        "name": teacher.training.get("name"),
        "steps": names[: names.index(policy.name) + 1],
        "teacher": {key: teacher.training[key] for key in kept if key in teacher.training},
        "ranks": world.size,
    }


def batches(
    config: TrainingConfig,
    size: HubertConfig,
    *,
    manifests: Path,
    labels: Path | None,
    units: int | None,
    rate: int | None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, CropBatches]:
    """Return those of ``train``, in random order and crops, and of ``valid``, always the same.

    Args:
        config: lengths, masks and seed.
        size: of the model.
        manifests: folder of ``SPLIT.tsv``.
        labels: folder of ``SPLIT.km``; None for audio alone.
        units: K of the labels.
        rate: of the labels, Hz.
        say: called with what is odd about the labels.

    Raises:
        InputError: the manifest or the labels are wrong, all labels are one unit, or no utterance
            is long enough.
    """
    found = {}
    for split in ("train", "valid"):
        utterances = read_manifest(manifests / f"{split}.tsv")
        known = None
        if labels is not None:
            assert units is not None
            assert rate is not None
            known = Labels(labels / f"{split}.km", utterances, rate=rate, units=units)
        found[split] = CropBatches(
            utterances,
            known,
            config,
            frames=size.convolution_frames,
            crop_at_random=split == "train",
        )
        if known is not None and (few := known.check_variety()) is not None:
            say(few)
    return found
