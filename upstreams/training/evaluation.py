"""How well units are predicted: measured over micro-batches, and in words for a run's log."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from superbit.upstreams.training.data import CropBatches
from superbit.upstreams.training.distributed import World
from superbit.upstreams.training.objective import FrameCounts, Objective, Sums


@torch.no_grad()
def held_out(
    objective: Objective,
    data: CropBatches,
    world: World,
    autocast: Callable[[], AbstractContextManager[None]],
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Return what the objective measures over the held-out set, the same at every call.

    With labels, ``chance_accuracy`` and ``chance_loss`` are those of the best constant guess over
    the masked frames: the most frequent unit, and the entropy of the units' frequencies. Every rank
    must call it. Files that cannot be read are left out, said, and counted as ``left_out_files``.
    """
    module = objective.module
    was_training = module.training
    module.eval()
    meter = Meter(world, objective.sums)
    counts = torch.zeros(objective.units or 1, device=world.device)
    for number in range(world.rank, data.per_epoch, world.size):
        batch = data[number]
        for reason in batch.skipped:
            say(f"left out of the held-out files: {reason}")
        masked, unmasked = batch.frames
        on_device = batch.to(world.device)
        with autocast():
            sums = module(on_device.samples, on_device.units, on_device.mask)
        meter.add(
            sums,
            masked=masked,
            unmasked=unmasked,
            samples=batch.samples.numel(),
            skipped=len(batch.skipped),
        )
        counts += torch.bincount(on_device.units[on_device.mask], minlength=len(counts))
    module.train(was_training)
    values = meter.read()
    left_out = values.pop("skipped")
    del values["samples"]
    if left_out:
        values["left_out_files"] = int(left_out)
    return values if objective.units is None else {**values, **chance(world.total(counts))}


def chance(counts: Tensor) -> dict[str, float]:
    """Return accuracy and loss of the best constant guess for units that occur so often, (K,)."""
    share = counts.double() / counts.sum().clamp(min=1)
    present = share[share > 0]
    return {
        "chance_accuracy": float(share.max()),
        "chance_loss": float(-(present * present.log()).sum()),
    }


_COUNTED = ("masked", "unmasked", "samples", "skipped")


class Meter:
    """Adds up what micro-batches gave, and tells means over all ranks.

    Args:
        world: this rank.
        kind: of what is added, a dataclass of scalars with `means`.
    """

    def __init__(self, world: World, kind: type[Any] = Sums) -> None:
        self._world, self._kind = world, kind
        self._keys = tuple(field.name for field in fields(kind))
        self._sums = self._zeros()

    def add(self, sums: Any, *, masked: int, unmasked: int, samples: int, skipped: int) -> None:
        """Count one micro-batch of this rank."""
        counted = torch.tensor([masked, unmasked, samples, skipped], dtype=torch.float64)
        measured = torch.stack([getattr(sums, key) for key in self._keys])
        self._sums[: len(self._keys)] += measured.detach().double()
        self._sums[len(self._keys) :] += counted.to(self._sums.device, non_blocking=True)

    def read(self) -> dict[str, float]:
        """Return means and counts over all ranks since the last call; every rank must call it.

        What is meaned is what the kind of sums says; ``samples`` and ``skipped`` are counts.
        """
        values = self._world.total(self._sums).tolist()
        total = dict(zip((*self._keys, *_COUNTED), values, strict=True))
        self._sums = self._zeros()
        counts = FrameCounts(masked=total["masked"], unmasked=total["unmasked"])
        return {
            **self._kind.means(total, counts),
            "samples": total["samples"],
            "skipped": total["skipped"],
        }

    def _zeros(self) -> Tensor:
        count = len(self._keys) + len(_COUNTED)
        return torch.zeros(count, dtype=torch.float64, device=self._world.device)


def finite(line: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON can hold: null for a number that is not finite."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in line.items()
    }


def sentence(event: str, line: dict[str, Any], updates: int) -> str:
    """Return a line of the log for people."""
    if event == "held_out":
        return f"  held out: {_measured(line)}"
    faults = "".join(
        f", {line[key]} {what}"
        for key, what in (("skipped_files", "files skipped"), ("nan_updates", "NaN updates"))
        if line[key]
    )
    return (
        f"update {line['update']:,} of {updates:,}: {_measured(line)}, "
        f"{line['hours_an_hour']:,.0f} audio-hours an hour{faults}"
    )


def summary(line: dict[str, Any]) -> str:
    """Return what a run's held-out values say."""
    return f"held-out {_measured(line)}"


def _measured(line: dict[str, Any]) -> str:
    parts = []
    if "hidden_loss" in line:
        parts.append(
            f"loss of hidden states {line['hidden_loss']:.4f}, of units {line['unit_loss']:.4f}, "
            f"last layer's error {line['last_layer_error']:.1%}"
        )
    elif "masked_loss" in line:
        parts.append(f"loss {line['masked_loss']:.3f}{_chance(line, 'chance_loss', '.3f')}")
    if "masked_accuracy" in line:
        accuracy = f"masked accuracy {line['masked_accuracy']:.1%}"
        if "teacher_masked_accuracy" in line:
            accuracy += f" (teacher {line['teacher_masked_accuracy']:.1%})"
        parts.append(accuracy + _chance(line, "chance_accuracy", ".1%"))
    return ", ".join(parts)


def _chance(line: dict[str, Any], key: str, form: str) -> str:
    return f" (chance {line[key]:{form}})" if key in line else ""
