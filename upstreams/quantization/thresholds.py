"""From shifts, scales and roundings to one comparison: when does a value become 1?

A quantizer of one bit is a step: with x the value that reaches it, b its channel's shift and α its
scale,

- signed: +1 where x + b ≥ 0, else -1;
- unsigned: 1 where round((x + b) / α) ≥ 1, else 0.

Each operation is rounded to float32, and each is monotone in x, rounding included. So for every
channel there is one smallest float32 τ that becomes 1, and the quantizer is x ≥ τ: no shift and no
division remain. `float_thresholds` finds τ by bisection over the floats themselves, which are in
order when read as integers, by asking the very expression that the simulation computes.

What a layer gives is y = d · s + b', monotone in the exact integer d where s > 0. So where a
quantizer, behind a ReLU or not, is all that reads y, τ becomes an integer threshold θ: y ≥ τ is
d ≥ θ. `integer_thresholds` finds it by bisection over integers, by the same expression.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from superbit.upstreams.quantization.elastic import ElasticQuantizer
from superbit.upstreams.quantization.layers import rescaled

# Sums of levels lie far within; always and never become 1.
ALWAYS, NEVER = -(2**30), 2**30


def _ordered(x: Tensor) -> Tensor:
    """Return float32 numbers as int64 that are in the same order."""
    bits = x.contiguous().view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _floats(order: Tensor) -> Tensor:
    """Return the float32 numbers of `_ordered`."""
    magnitude = order.abs()
    bits = torch.where(order < 0, magnitude - 2**31, magnitude)
    return bits.to(torch.int32).view(torch.float32)


def _first(reached: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Return for each element the smallest integer in (low, high] that is reached, else high + 1.

    ``reached`` is monotone; ``low`` is known not to be asked for.
    """
    low, high = low.clone(), high.clone() + 1
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        yes = reached(middle)
        high = torch.where(yes, middle, high)
        low = torch.where(yes, low, middle)
    return high


def becomes_one(quantizer: ElasticQuantizer, x: Tensor) -> Tensor:
    """Return where ``x``, broadcast against the shift, has the upper of two levels."""
    levels, _ = quantizer.levels(x)
    return levels > 0


def float_thresholds(quantizer: ElasticQuantizer, channels: int) -> Tensor:
    """Return τ of each channel, (channels,) float32: `becomes_one` of x is x ≥ τ.

    Args:
        quantizer: of one bit, in float32, whose shift has so many elements, or none.
        channels: of what it reads, in the shift's order.
    """
    shift = quantizer.shift
    zero = torch.zeros(channels)
    shape = zero.shape if shift is None else shift.shape

    def reached(order: Tensor) -> Tensor:
        return becomes_one(quantizer, _floats(order).reshape(shape)).reshape(-1)

    infinity = torch.full((channels,), float("inf"))
    low, high = _ordered(-infinity) - 1, _ordered(infinity)
    with torch.no_grad():
        return _floats(_first(reached, low, high).clamp(max=int(high[0])))


def integer_thresholds(
    output: Callable[[Tensor], Tensor], thresholds: Tensor, *, largest: int
) -> Tensor:
    """Return θ of each channel, (channels,) int32: output(d) ≥ τ is d ≥ θ.

    Args:
        output: what the layer gives for one integer sum a channel, (channels,) float32, monotone.
        thresholds: τ, (channels,).
        largest: |d| is at most that.

    `ALWAYS` and `NEVER` stand where no d within reach decides.
    """
    low = torch.full(thresholds.shape, -largest - 1, dtype=torch.int64)
    high = torch.full(thresholds.shape, largest, dtype=torch.int64)
    with torch.no_grad():
        first = _first(lambda d: output(d.float()) >= thresholds, low, high)
    first = torch.where(first > largest, NEVER, first)
    return torch.where(first <= -largest, ALWAYS, first).to(torch.int32)


def sum_thresholds(layer: Any, thresholds: Tensor, *, levels: tuple[Tensor, Tensor]) -> Tensor:
    """Return θ of a layer's sums, (N,) int32, for what reads its outputs at τ, (N,).

    Args:
        layer: a `BinarizedLinear` or a pointwise `BinarizedConv1d` of one bit, with its bias.
        thresholds: τ.
        levels: signs (N, …) and scale of its weight.
    """
    signs, weight_scale = levels
    scale = layer.input_quantizer.scale_in_use()
    by_output = weight_scale.reshape(-1) if weight_scale.dim() else weight_scale
    return integer_thresholds(
        lambda d: rescaled(d, scale, by_output, layer.bias),
        thresholds,
        largest=signs[0].numel(),
    )
