"""The verbs that train: manifest, units fit, units label, pretrain and distil."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from superbit.upstreams.counting import Counting, unseen
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.policy import Policy, load_policy
from superbit.upstreams.sound import SAMPLE_RATE
from superbit.upstreams.stopping import Pace, deadline_after, gently
from superbit.upstreams.training.configuration import (
    DistillationConfig,
    PretrainingConfig,
    check_min_samples,
    load_config,
    load_distillation_config,
    model_config,
    parse_changes,
)
from superbit.upstreams.training.distributed import World, joined
from superbit.upstreams.training.estimate import HARDWARE, estimate
from superbit.upstreams.training.evaluation import summary
from superbit.upstreams.training.manifest import list_audio, read_manifest
from superbit.upstreams.training.runs import (
    Teacher,
    load_teacher,
    run_distillation,
    run_pretraining,
)
from superbit.upstreams.training.train import FinishedRun

_NAMED_AT_MOST = 5  # files that a report of skipped ones names


def manifest_command(arguments: argparse.Namespace, *, counting: Counting = unseen) -> int:
    """Run ``superbit manifest`` and return its exit status."""
    listing = list_audio(
        arguments.root,
        out=arguments.out,
        held_out=arguments.held_out,
        held_out_by=arguments.held_out_by,
        must_contain=arguments.must_contain,
        min_samples=arguments.min_samples,
        seed=arguments.seed,
        counting=counting,
    )
    for made in (listing.train, listing.valid):
        if made is not None:
            print(f"{made.file}: {len(made):,} files, {made.hours:.2f} hours")
    _report_skipped(listing.corrupt, "cannot be decoded as 16 kHz mono")
    _report_skipped(listing.short, f"are shorter than {arguments.min_samples} samples")
    return 0


def units_fit_command(arguments: argparse.Namespace, *, counting: Counting = unseen) -> int:
    """Run ``superbit units fit`` and return its exit status."""
    from superbit.upstreams.training.features import hidden_source, mfcc_source
    from superbit.upstreams.training.units import fit_units, save_units

    if (arguments.checkpoint is None) != (arguments.layer is None):
        raise InputError("--checkpoint and --layer go together; without them units are of MFCC.")
    manifest = read_manifest(arguments.manifest)
    source = (
        mfcc_source()
        if arguments.checkpoint is None
        else hidden_source(arguments.checkpoint, layer=arguments.layer, device=arguments.device)
    )
    units, skipped = fit_units(
        manifest,
        source,
        clusters=arguments.clusters,
        fraction=arguments.fraction,
        seed=arguments.seed,
        counting=counting,
        say=_to_stderr,
    )
    save_units(arguments.out, units)
    what = "39-d MFCC" if source.layer is None else f"layer {source.layer}"
    print(
        f"{arguments.out}: {len(units.centroids)} units of {what}, {source.rate} Hz, from "
        f"{units.info.frames:,} frames; mean squared distance "
        f"{units.info.mean_squared_distance:.4g}"
    )
    _report_skipped(skipped, "could not be read")
    return 0


def units_label_command(arguments: argparse.Namespace, *, counting: Counting = unseen) -> int:
    """Run ``superbit units label`` and return its exit status."""
    from superbit.upstreams.training.units import LabelJob, label_manifest

    complete, skipped = label_manifest(
        LabelJob(
            manifest=Path(arguments.manifest),
            units=Path(arguments.units),
            checkpoint=None if arguments.checkpoint is None else Path(arguments.checkpoint),
            out=Path(arguments.out),
            device=arguments.device,
        ),
        shard=arguments.shard,
        shards=arguments.shards,
        jobs=arguments.jobs,
        counting=counting,
        say=_to_stderr,
    )
    _report_skipped(skipped, "could not be read and were given a line of zeros")
    if complete:
        print(f"{arguments.out}: complete")
    else:
        print(f"{arguments.out}: shard {arguments.shard} of {arguments.shards} is done")
    return 0


def pretrain_command(arguments: argparse.Namespace) -> int:
    """Run ``superbit pretrain`` and return its exit status."""
    config = load_config(arguments.preset, changes=parse_changes(arguments.set))
    size = model_config(config, arguments.model, arguments.preset)
    if arguments.dry_run:
        print(_plan(arguments, config, size))
        return 0
    for option in ("manifests", "labels", "out"):
        if getattr(arguments, option) is None:
            raise InputError(f"--{option} is needed to train; only --dry-run does without.")
    with joined(arguments.device) as world, _paced(arguments) as pace:
        outcome = _pretrain(arguments, config, size, world, pace)
        if world.leads:
            print(_describe(outcome))
    return 0


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
        print(_plan_of_twins(arguments, config, teacher, policies))
        return 0
    for option in ("manifests", "out"):
        if getattr(arguments, option) is None:
            raise InputError(f"--{option} is needed to train; only --dry-run does without.")
    with joined(arguments.device) as world, _paced(arguments) as pace:
        outcomes = run_distillation(
            config,
            teacher=teacher,
            policies=policies,
            manifests=arguments.manifests,
            labels=arguments.labels,
            out=arguments.out,
            world=world,
            say=_to_stderr,
            scalars=_tensorboard if arguments.tensorboard else None,
            pace=pace,
        )
        for outcome in outcomes:
            if world.leads:
                print(_describe(outcome), flush=True)
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


@contextmanager
def _paced(arguments: argparse.Namespace) -> Iterator[Pace]:
    """Yield what the options say of when to save and to stop; signals stop as well."""
    deadline = deadline_after(arguments.max_hours, began=time.monotonic())
    with gently(_to_stderr, deadline=deadline) as stop:
        yield Pace(stop=stop, save_seconds=60 * arguments.checkpoint_minutes)


def _pretrain(
    arguments: argparse.Namespace,
    config: PretrainingConfig,
    size: HubertConfig,
    world: World,
    pace: Pace,
) -> FinishedRun:
    return run_pretraining(
        config,
        name=arguments.model,
        size=size,
        manifests=Path(arguments.manifests),
        labels=Path(arguments.labels),
        out=Path(arguments.out),
        world=world,
        init=None if arguments.init is None else Path(arguments.init),
        say=_to_stderr,
        scalars=_tensorboard(Path(arguments.out)) if arguments.tensorboard else None,
        pace=pace,
    )


def _plan(arguments: argparse.Namespace, config: PretrainingConfig, size: HubertConfig) -> str:
    devices = arguments.devices
    found = estimate(config, size, hardware=arguments.hardware, devices=devices)
    lines = [
        f"{arguments.model}, preset {arguments.preset}, phase {config.phase}: "
        f"{found.parameters:,} parameters, {config.updates:,} updates of "
        f"{found.seconds_of_audio:,.0f} s of audio ({devices} × {config.accumulate} × "
        f"{config.batch_samples / SAMPLE_RATE:.1f} s)",
        f"{found.operations / 1e12:.3f} × 10^12 operations an update and device, by count",
        f"{devices} × {arguments.hardware}: about {_in_words(found.hours)} at "
        f"{HARDWARE[arguments.hardware]:g} × 10^12 operations a second each (an assumption; "
        "communication and reading left out)",
    ]
    if arguments.hardware == "a100":
        lines.append(
            f"at the pace of the paper's cluster (8.5 hours for 100,000 updates): about "
            f"{_in_words(found.hours_at_paper_pace)}"
        )
    if arguments.manifests is not None:
        audio = read_manifest(Path(arguments.manifests) / "train.tsv")
        epochs = config.updates * found.seconds_of_audio / 3600 / audio.hours
        lines.append(f"{audio.file}: {audio.hours:,.2f} hours, seen about {epochs:,.1f} times")
    return "\n".join(lines)


def _plan_of_twins(
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
            f"{_in_words(len(policies) * found.hours)} at {HARDWARE[arguments.hardware]:g} × 10^12 "
            "operations a second each (an assumption; communication and reading left out)",
        ]
    )


def _tensorboard(out: Path) -> Callable[[int, dict[str, Any]], None] | None:
    """Return what writes scalars for TensorBoard on rank 0, None on the others.

    Raises `InputError` where its package is not installed.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        return None
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard needs the package tensorboardX: pip install it.") from None
    writer = SummaryWriter(str(out / "tensorboard"))

    def write(update: int, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, float):
                writer.add_scalar(f"{values['event']}/{key}", value, update)
        writer.flush()

    return write


def _describe(outcome: FinishedRun) -> str:
    """Return how a run went, in a sentence."""
    return (
        f"{outcome.folder / 'last'}: {outcome.update:,} updates, {outcome.audio_hours:.2f} hours "
        f"of audio in {outcome.seconds:.0f} s; {summary(outcome.held_out)}; "
        f"{outcome.skipped_files} files skipped, {outcome.nan_updates} NaN updates"
    )


def _in_words(hours: float) -> str:
    """Return a length of time for people."""
    return f"{hours * 60:.1f} minutes" if hours < 1 else f"{hours:,.1f} hours"


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report_skipped(skipped: tuple[str, ...], what: str) -> None:
    if not skipped:
        return
    shown = ", ".join(skipped[:_NAMED_AT_MOST])
    more = len(skipped) - _NAMED_AT_MOST
    rest = f" and {more} more" if more > 0 else ""
    print(f"{len(skipped)} files {what}: {shown}{rest}", file=sys.stderr)
