"""The random generators that tasks and upstreams draw from: Python's, numpy's and torch's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, as s3prl's command line and its evaluations do."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def rng_state() -> dict[str, Any]:
    """Return the state of every generator, as what ``torch.load(weights_only=True)`` reads."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put every generator back to what :func:`rng_state` returned."""
    name, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


class Draws:
    """The generators' state at one moment, to be gone back to; made for many times a second."""

    def __init__(self) -> None:
        cuda = torch.cuda.is_available()
        self._python, self._torch = random.getstate(), torch.get_rng_state()
        self._numpy: tuple[Any, ...] = tuple(np.random.get_state(legacy=True))
        self._cuda = torch.cuda.get_rng_state_all() if cuda else []

    def differ(self, other: Draws) -> bool:
        """Whether anything was drawn between the two moments."""
        return (
            not torch.equal(self._torch, other._torch)
            or self._python != other._python
            or self._numpy[2:] != other._numpy[2:]
            or not np.array_equal(self._numpy[1], other._numpy[1])
            or any(not torch.equal(*each) for each in zip(self._cuda, other._cuda, strict=True))
        )

    def restore(self) -> None:
        """Go back to this moment."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


@contextmanager
def undrawn() -> Iterator[None]:
    """Within it draws do not count: afterwards all generators are where they were before."""
    before = Draws()
    try:
        yield
    finally:
        before.restore()
