"""What every verb that trains shares: its data, its scalars for TensorBoard, its last words."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.training.configuration import TrainingConfig
from superbit.upstreams.training.data import Batches
from superbit.upstreams.training.labels import Labels
from superbit.upstreams.training.manifest import read_manifest
from superbit.upstreams.training.reporting import summary
from superbit.upstreams.training.train import Outcome


def batches(
    config: TrainingConfig,
    size: HubertConfig,
    *,
    manifests: Path,
    labels: Path | None,
    units: int | None,
    rate: int | None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Batches]:
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
        found[split] = Batches(
            utterances,
            known,
            config,
            frames=size.convolution_frames,
            crop_at_random=split == "train",
        )
        if known is not None and (few := known.check_variety()) is not None:
            say(few)
    return found


def tensorboard(out: Path) -> Callable[[int, dict[str, Any]], None] | None:
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


def describe(outcome: Outcome) -> str:
    """Return how a run went, in a sentence."""
    return (
        f"{outcome.folder / 'last'}: {outcome.update:,} updates, {outcome.audio_hours:.2f} hours "
        f"of audio in {outcome.seconds:.0f} s; {summary(outcome.held_out)}; "
        f"{outcome.skipped_files} files skipped, {outcome.nan_updates} NaN updates"
    )


def in_words(hours: float) -> str:
    """Return a length of time for people."""
    return f"{hours * 60:.1f} minutes" if hours < 1 else f"{hours:,.1f} hours"
