"""Which frames of a batch are audio, for layers that are handed a tensor and no mask.

A quantizer's statistics and the scale of its gradient count valid frames only, and a binarized
convolution keeps padding at 0, which binarizing would make ±1. The mask reaches them through one
`ValidFrames` a layer of the encoder: hooks fill it while a module that is given the mask runs.

Notation: B batch, T frames.
"""

from __future__ import annotations

from typing import Any

import torch.nn as nn
from torch import Tensor


class ValidFrames:
    """What the module that runs now was told of its frames; all is None outside of one.

    Attributes:
        mask: (B, T) bool; None where no frame is padding.
        total: T, padding included.
        count: valid frames of the batch, Σ T_b.
        pairs: valid (query, key) pairs of the batch as dense attention has them, Σ T_b².
    """

    def __init__(self) -> None:
        self._outer: list[tuple[Tensor | None, Any, Any, int | None]] = []
        self.mask: Tensor | None = None
        self.total: int | None = None
        self.count: int | Tensor | None = None
        self.pairs: int | Tensor | None = None

    def enter(self, x: Tensor, valid: Tensor | None) -> None:
        """Hold the frames of ``x`` (B, T, …) until `leave`."""
        self._outer.append((self.mask, self.count, self.pairs, self.total))
        self.mask, self.total = valid, x.shape[1]
        if valid is None:
            batch, frames = x.shape[:2]
            self.count, self.pairs = batch * frames, batch * frames * frames
        else:
            lengths = valid.sum(dim=1).to(x.dtype)  # (B,)
            self.count, self.pairs = lengths.sum(), lengths.square().sum()

    def leave(self, *, outermost: bool = False) -> None:
        """Return to what was held before, or to nothing if this was the ``outermost`` module."""
        if outermost:
            self._outer.clear()
            self.mask = self.count = self.pairs = self.total = None
        else:
            self.mask, self.count, self.pairs, self.total = self._outer.pop()

    def mask_along(self, axis: int, dims: int) -> Tensor | None:
        """Return the mask for a tensor of ``dims`` axes, the first B and the one given T."""
        if self.mask is None:
            return None
        shape = [1] * dims
        shape[0], shape[axis] = self.mask.shape
        return self.mask.reshape(shape)


def watch(module: nn.Module, frames: ValidFrames, *, outermost: bool) -> None:
    """Let ``frames`` hold what ``module`` is called with: (x, valid), x (B, T, …).

    Args:
        module: an encoder's layer, or a part of one that takes the mask.
        frames: shared by all quantizers of the layer.
        outermost: the layer itself, whose end (or a new start, after an error) clears the state.
    """
    module.valid_frames = frames  # type: ignore[assignment]  # neither a tensor nor a module
    module.register_forward_pre_hook(_enter_layer if outermost else _enter, with_kwargs=True)
    module.register_forward_hook(_leave_layer if outermost else _leave)


# Functions of the module, not closures, so that a deep copy's hooks fill the copy's own frames.
def _enter(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    x = args[0] if args else named["x"]
    _frames_of(module).enter(x, args[1] if len(args) > 1 else named.get("valid"))


def _enter_layer(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    _frames_of(module).leave(outermost=True)
    _enter(module, args, named)


def _leave(module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
    _frames_of(module).leave()


def _leave_layer(module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
    _frames_of(module).leave(outermost=True)


def _frames_of(module: Any) -> ValidFrames:
    return module.valid_frames
