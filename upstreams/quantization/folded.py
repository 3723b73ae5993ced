"""The first half of a packed feed-forward: a linear layer and what reads it, as one threshold.

A ReLU and a quantizer to 0 and 1 are all that reads the first linear layer of a twin's block. Its
bias, that quantizer's shift and scale then say no more than one integer a channel does
(`superbit.upstreams.quantization.thresholds`), and that is what a packed file holds. For inference.

Notation: B batch, T frames, K inputs, F outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.functional import linear

from superbit.upstreams.encoders.vanilla import FeedForward
from superbit.upstreams.quantization.elastic import (
    SMALLEST_SCALE,
    ElasticQuantizer,
    PackedSigns,
    WeightBinarizer,
)
from superbit.upstreams.quantization.layers import BinarizedLinear
from superbit.upstreams.quantization.thresholds import (
    ALWAYS,
    NEVER,
    float_thresholds,
    sum_thresholds,
)


class FoldedLinear(nn.Module):
    """Signs, the quantizer of the inputs, and the integer that each output's sum has to reach."""

    reached: Tensor

    def __init__(
        self, weight_quantizer: PackedSigns, input_quantizer: ElasticQuantizer, reached: Tensor
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight_quantizer.shape
        self.weight_quantizer = weight_quantizer
        self.input_quantizer = input_quantizer
        self.register_buffer("reached", reached)
        self.quantized = True

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, T, K) to levels 0 and 1, (B, T, F)."""
        levels, _ = self.input_quantizer.levels(input)
        signs, _ = self.weight_quantizer.levels()
        return (linear(levels, signs) >= self.reached).to(input.dtype)


class GivenLevels(nn.Module):
    """In place of the quantizer of the second linear layer's inputs, which are levels already."""

    bits, signed = 1, False
    ready, calibrating = True, False
    shift = None
    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def scale_in_use(self) -> Tensor:
        """Return what multiplies the levels, as `ElasticQuantizer` has it."""
        return self.scale.clamp(min=SMALLEST_SCALE)

    def levels(self, x: Tensor, **_: object) -> tuple[Tensor, Tensor]:
        """Return levels and scale."""
        return x, self.scale_in_use()


def can_be_folded(block: nn.Module) -> bool:
    """Whether a block is a feed-forward of 1-bit layers around a ReLU."""
    if type(block) is not FeedForward or type(block.activation) is not nn.ReLU:
        return False
    halves = (block.expand, block.contract)
    return all(
        isinstance(half, BinarizedLinear)
        and type(half.weight_quantizer) in (WeightBinarizer, PackedSigns)
        and half.input_quantizer is not None
        and half.input_quantizer.bits == 1
        for half in halves
    )


def thresholds_behind_relu(block: FeedForward) -> Tensor:
    """Return τ of the second layer's inputs for what is in front of the ReLU, (F,) float32."""
    quantizer = block.contract.input_quantizer
    assert isinstance(quantizer, ElasticQuantizer)
    after = float_thresholds(quantizer, block.contract.in_features)
    # max(y, 0) reaches a threshold of at most 0 whatever y is
    return torch.where(after <= 0, -torch.inf, after)


def limits_of(block: FeedForward) -> Tensor:
    """Return the integer that each sum has to reach, (F,) int16, or int32 where K needs it.

    What is always or never reached is one beyond what a sum can be.
    """
    expand: Any = block.expand
    largest = expand.in_features
    levels = expand.weight_quantizer.levels(expand.weight)
    found = sum_thresholds(expand, thresholds_behind_relu(block), levels=levels)
    found = torch.where(found == ALWAYS, -largest - 1, found)
    found = torch.where(found == NEVER, largest + 1, found)
    return found.to(torch.int16 if largest < torch.iinfo(torch.int16).max else torch.int32)
