"""How well held-out units are predicted, beside the best guess that sees no audio."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from superbit.upstreams.pretraining.data import Batches
from superbit.upstreams.pretraining.distributed import World
from superbit.upstreams.pretraining.meter import Meter
from superbit.upstreams.pretraining.objectives import Objective


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
