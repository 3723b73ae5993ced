"""``superbit distil``: from an FP32 checkpoint to its twin, one policy after the other.

    OUT/w1a2/last      starts from the teacher, learns from the teacher
    OUT/w1a1/last      starts from w1a2, learns from w1a2

Each policy's folder is a run of its own, which goes on where it was stopped. With ``--loss hubert``
nothing is taught: each twin starts from the model before it and predicts the units of labels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from superbit.upstreams import checkpoint, files
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.quantization.policy import Policy, load_policy
from superbit.upstreams.training.configuration import (
    DistillationConfig,
    check_min_samples,
    load_distillation_config,
    parse_changes,
)
from superbit.upstreams.training.distil_objective import DistillationObjective
from superbit.upstreams.training.distil_training import student_of
from superbit.upstreams.training.distributed import World, joined
from superbit.upstreams.training.estimate import HARDWARE, estimate
from superbit.upstreams.training.objective import UNIT_EMBEDDINGS, HubertObjective, Objective
from superbit.upstreams.training.running import batches, describe, in_words, tensorboard
from superbit.upstreams.training.state import LAST, STATE_FILE, RunFolder, read_state
from superbit.upstreams.training.train import Outcome, Trainer

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


def distil_command(arguments: argparse.Namespace) -> int:
    """Run ``superbit distil`` and return its exit status."""
    changes = parse_changes(arguments.set)
    if arguments.loss is not None:
        changes["loss"] = arguments.loss
    config = load_distillation_config(arguments.preset, changes=changes)
    policies = parse_policies(arguments.policy)
    teacher = load_teacher(arguments.teacher)
    check_min_samples(config, teacher.model.config, arguments.preset)
    if arguments.dry_run:
        print(_plan(arguments, config, teacher, policies))
        return 0
    for option in ("manifests", "out"):
        if getattr(arguments, option) is None:
            raise InputError(f"--{option} is needed to train; only --dry-run does without.")
    with joined(arguments.device) as world:
        outcomes = run_distillation(
            config,
            teacher=teacher,
            policies=policies,
            manifests=arguments.manifests,
            labels=arguments.labels,
            out=arguments.out,
            world=world,
            say=lambda line: print(line, file=sys.stderr, flush=True),
            scalars=tensorboard if arguments.tensorboard else None,
        )
        for outcome in outcomes:
            if world.leads:
                print(describe(outcome), flush=True)
    return 0


def parse_policies(words: str) -> list[Policy]:
    """Return the policies of a comma-separated list of names and of paths of files.

    Raises `InputError` for an empty list, an unknown name or file, or one that occurs twice.
    """
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise InputError("--policy is empty: a list such as w1a2,w1a1 is needed.")
    policies = [load_policy(name) for name in names]
    called = [policy.name for policy in policies]  # which is that of the step's folder
    twice = {name for name in called if called.count(name) > 1}
    if twice:
        raise InputError(f"--policy {words} has {min(twice)} twice; each is one step.")
    return policies


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
) -> Iterator[Outcome]:
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

    Raises:
        InputError: something is wrong with what was given.
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


def _plan(
    arguments: argparse.Namespace,
    config: DistillationConfig,
    teacher: Teacher,
    policies: Sequence[Policy],
) -> str:
    found = estimate(
        config,
        teacher.model.config,
        hardware=arguments.hardware,
        devices=arguments.devices,
        taught=config.loss == "kd",
    )
    steps = " → ".join(policy.name for policy in policies)
    return "\n".join(
        [
            f"{teacher.path} → {steps}, preset {arguments.preset}, loss {config.loss}: "
            f"{found.parameters:,} parameters, {config.updates:,} updates a policy of "
            f"{found.seconds_of_audio:,.0f} s of audio",
            f"{found.operations / 1e12:.3f} × 10^12 operations an update and device, by count",
            f"{arguments.devices} × {arguments.hardware}: about "
            f"{in_words(len(policies) * found.hours)} at {HARDWARE[arguments.hardware]:g} × 10^12 "
            "operations a second each (an assumption; communication and reading left out)",
        ]
    )
