"""``superbit manifest``, ``superbit units fit|label`` and ``superbit pretrain``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from superbit.upstreams import checkpoint, files
from superbit.upstreams.counting import Counting, unseen
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert, untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.sound import SAMPLE_RATE
from superbit.upstreams.training.configuration import (
    PretrainingConfig,
    load_config,
    model_config,
    parse_changes,
)
from superbit.upstreams.training.distributed import World, joined
from superbit.upstreams.training.estimate import HARDWARE, estimate
from superbit.upstreams.training.manifest import list_audio, read_manifest
from superbit.upstreams.training.objective import HubertObjective
from superbit.upstreams.training.running import batches, describe, in_words, tensorboard
from superbit.upstreams.training.state import RunFolder
from superbit.upstreams.training.train import Outcome, Trainer

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
    from superbit.upstreams.training.labelling import LabelJob, label_manifest

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
    with joined(arguments.device) as world:
        outcome = _pretrain(arguments, config, size, world)
        if world.leads:
            print(describe(outcome))
    return 0


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
) -> Outcome:
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

    Raises:
        InputError: something is wrong with what was given.
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
    )
    return trainer.run()


def _pretrain(
    arguments: argparse.Namespace, config: PretrainingConfig, size: HubertConfig, world: World
) -> Outcome:
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
        scalars=tensorboard(Path(arguments.out)) if arguments.tensorboard else None,
    )


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


def _plan(arguments: argparse.Namespace, config: PretrainingConfig, size: HubertConfig) -> str:
    devices = arguments.devices
    found = estimate(config, size, hardware=arguments.hardware, devices=devices)
    lines = [
        f"{arguments.model}, preset {arguments.preset}, phase {config.phase}: "
        f"{found.parameters:,} parameters, {config.updates:,} updates of "
        f"{found.seconds_of_audio:,.0f} s of audio ({devices} × {config.accumulate} × "
        f"{config.batch_samples / SAMPLE_RATE:.1f} s)",
        f"{found.operations / 1e12:.3f} × 10^12 operations an update and device, by count",
        f"{devices} × {arguments.hardware}: about {in_words(found.hours)} at "
        f"{HARDWARE[arguments.hardware]:g} × 10^12 operations a second each (an assumption; "
        "communication and reading left out)",
    ]
    if arguments.hardware == "a100":
        lines.append(
            f"at the pace of the paper's cluster (8.5 hours for 100,000 updates): about "
            f"{in_words(found.hours_at_paper_pace)}"
        )
    if arguments.manifests is not None:
        audio = read_manifest(Path(arguments.manifests) / "train.tsv")
        epochs = config.updates * found.seconds_of_audio / 3600 / audio.hours
        lines.append(f"{audio.file}: {audio.hours:,.2f} hours, seen about {epochs:,.1f} times")
    return "\n".join(lines)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report_skipped(skipped: tuple[str, ...], what: str) -> None:
    if not skipped:
        return
    shown = ", ".join(skipped[:_NAMED_AT_MOST])
    more = len(skipped) - _NAMED_AT_MOST
    rest = f" and {more} more" if more > 0 else ""
    print(f"{len(skipped)} files {what}: {shown}{rest}", file=sys.stderr)
