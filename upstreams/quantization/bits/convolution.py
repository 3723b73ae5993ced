"""Conformer's convolution module by bits: two pointwise products and a depthwise convolution.

The gate, the batch norm and the activation between them stay floats, by the module's own parts, in
the layout that the simulation gives them: torch computes the ends of a row by other instructions
than its middle.

Notation: T frames, D width, C channels of the depthwise convolution, K taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from superbit.upstreams.quantization.bits import linear
from superbit.upstreams.quantization.bits.linear import BitLinear
from superbit.upstreams.quantization.kernels.depthwise import WIDEST, depthwise
from superbit.upstreams.quantization.layers import rescaled
from superbit.upstreams.quantization.thresholds import float_thresholds


@dataclass(frozen=True, kw_only=True, eq=False)
class BitConvolution:
    """A convolution module's integers.

    Attributes:
        thresholds: τ of the depthwise input, (C,) float32.
        weights: one word a channel, (C,) uint64, see `kernels.depthwise`.
        taps: K.
        input_scale: of the depthwise convolution, a scalar.
        weight_scale: its own, a scalar or (C, 1).
        bias: (C, 1), or None.
    """

    pointwise_in: BitLinear
    pointwise_out: BitLinear
    thresholds: np.ndarray
    weights: np.ndarray
    taps: int
    input_scale: Tensor
    weight_scale: Tensor
    bias: Tensor | None


def integers_of(module: Any, algorithm: Any) -> BitConvolution | None:
    """Return the integers of a `ConvolutionModule`; None for a kernel that is too wide."""
    layer = module.depthwise
    channels, (taps,) = layer.out_channels, layer.kernel_size
    same = (layer.stride, layer.padding, layer.dilation) == ((1,), (taps // 2,), (1,))
    if taps > WIDEST or taps % 2 == 0 or layer.groups != channels or not same:
        return None
    signs, scale = layer.weight_quantizer.levels(layer.weight)
    bits = (signs[:, 0] > 0).numpy().astype(np.uint64)  # (C, K)
    return BitConvolution(
        pointwise_in=linear.integers_of(module.pointwise_in, algorithm),
        pointwise_out=linear.integers_of(module.pointwise_out, algorithm),
        thresholds=float_thresholds(layer.input_quantizer, channels).numpy(),
        weights=(bits << np.arange(taps, dtype=np.uint64)).sum(axis=1, dtype=np.uint64),
        taps=taps,
        input_scale=layer.input_quantizer.scale_in_use(),
        weight_scale=scale[:, 0] if scale.dim() else scale,
        bias=None if layer.bias is None else layer.bias[:, None],
    )


def convolved(packed: BitConvolution, x: Tensor, *, module: Any) -> Tensor:
    """Return what the module maps (T, D) to."""
    y = linear.mapped(packed.pointwise_in, x)
    gated = module.gate(y.T.contiguous()[None])[0]  # (C, T)
    sums = torch.empty_like(gated)
    depthwise(gated.numpy(), packed.thresholds, packed.weights, packed.taps, sums.numpy())
    y = rescaled(sums, packed.input_scale, packed.weight_scale, packed.bias)
    y = module.activation(module.norm(y[None], None))[0]
    return linear.mapped(packed.pointwise_out, y.T)
