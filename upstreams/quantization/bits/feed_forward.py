"""A feed-forward block as integers: between its two linear layers there are bits alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from superbit.upstreams.quantization.bits import linear
from superbit.upstreams.quantization.bits.linear import BitLinear
from superbit.upstreams.quantization.folded import FoldedLinear, thresholds_behind_relu


def integers_of(module: Any, algorithm: Any) -> tuple[BitLinear, BitLinear]:
    """Return both layers of a `FeedForward` whose activation is a ReLU, folded or not."""
    expand = module.expand
    contract = linear.integers_of(module.contract, algorithm, own_input=False)
    if isinstance(expand, FoldedLinear):
        reached = expand.reached.to(torch.int32)
        return linear.integers_of(expand, algorithm, reached=reached), contract
    after = thresholds_behind_relu(module)
    return linear.integers_of(expand, algorithm, after=after), contract


def contracted(layers: tuple[BitLinear, BitLinear], x: Tensor) -> Tensor:
    """Return what the block maps (T, D) to."""
    expand, contract = layers
    return linear.floats(contract, linear.bits(expand, linear.binarized(expand, x)))
