"""A feed-forward block as integers: between its two linear layers there are bits alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from superbit.upstreams.quantization.bits import linear
from superbit.upstreams.quantization.bits.linear import BitLinear
from superbit.upstreams.quantization.thresholds import float_thresholds


def integers_of(module: Any, algorithm: Any) -> tuple[BitLinear, BitLinear]:
    """Return both layers of a `FeedForward` whose activation is a ReLU."""
    after = float_thresholds(module.contract.input_quantizer, module.contract.in_features)
    # max(y, 0) reaches a threshold of at most 0 whatever y is
    after = torch.where(after <= 0, -torch.inf, after)
    return (
        linear.integers_of(module.expand, algorithm, after=after),
        linear.integers_of(module.contract, algorithm, own_input=False),
    )


def contracted(layers: tuple[BitLinear, BitLinear], x: Tensor) -> Tensor:
    """Return what the block maps (T, D) to."""
    expand, contract = layers
    return linear.floats(contract, linear.bits(expand, linear.binarized(expand, x)))
