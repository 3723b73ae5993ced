"""Sums over updates, kept on the device and read only when somebody looks."""

from __future__ import annotations

import torch
from torch import Tensor

from superbit.upstreams.pretraining.distributed import World
from superbit.upstreams.pretraining.objective import Sums

_KEYS = (
    *("masked_loss", "unmasked_loss", "masked_correct", "unmasked_correct", "penalty"),
    *("masked", "unmasked", "samples", "skipped"),
)


class Meter:
    """Adds up what micro-batches gave, and tells means over all ranks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sums = self._zeros()

    def add(self, sums: Sums, *, masked: int, unmasked: int, samples: int, skipped: int) -> None:
        """Count one micro-batch of this rank."""
        counted = torch.tensor([masked, unmasked, samples, skipped], dtype=torch.float64)
        measured = torch.stack(
            [
                *(sums.masked_loss, sums.unmasked_loss),
                *(sums.masked_correct, sums.unmasked_correct, sums.penalty),
            ]
        )
        self._sums[:5] += measured.detach().double()
        self._sums[5:] += counted.to(self._sums.device, non_blocking=True)

    def read(self) -> dict[str, float]:
        """Return means and counts over all ranks since the last call; every rank must call it.

        Losses are in nats, accuracies in 0 … 1; ``samples`` and ``skipped`` are counts.
        """
        total = dict(zip(_KEYS, self._world.total(self._sums).tolist(), strict=True))
        self._sums = self._zeros()
        masked, unmasked = max(total["masked"], 1.0), max(total["unmasked"], 1.0)
        return {
            "masked_loss": total["masked_loss"] / masked,
            "masked_accuracy": total["masked_correct"] / masked,
            "unmasked_loss": total["unmasked_loss"] / unmasked,
            "unmasked_accuracy": total["unmasked_correct"] / unmasked,
            "feature_penalty": total["penalty"] / max(total["masked"] + total["unmasked"], 1.0),
            "samples": total["samples"],
            "skipped": total["skipped"],
        }

    def _zeros(self) -> Tensor:
        return torch.zeros(len(_KEYS), dtype=torch.float64, device=self._world.device)
