"""Sums over updates, kept on the device and read only when somebody looks."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from superbit.upstreams.pretraining.distributed import World
from superbit.upstreams.pretraining.objective import Counts, Sums

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
