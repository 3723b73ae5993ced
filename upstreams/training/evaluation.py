"""How well held-out units are predicted, beside the best guess that sees no audio."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from superbit.upstreams.training.data import Batches
from superbit.upstreams.training.distributed import World
from superbit.upstreams.training.objective import Counts, Objective, Sums


@torch.no_grad()
def held_out(
    objective: Objective,
    data: Batches,
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
        counts = Counts(masked=total["masked"], unmasked=total["unmasked"])
        return {
            **self._kind.means(total, counts),
            "samples": total["samples"],
            "skipped": total["skipped"],
        }

    def _zeros(self) -> Tensor:
        count = len(self._keys) + len(_COUNTED)
        return torch.zeros(count, dtype=torch.float64, device=self._world.device)
