"""Layers with quantized operands: linear, one-dimensional convolution, matrix product.

Each multiplies levels first: ±1 and 0/1 in float32, so every sum is an exact integer, in any order
(with few bits, as long as sums stay below 2²⁴). Then it scales, by one expression that a popcount
kernel can repeat to the bit, each operation rounded on its own:

    y = (levels · levels) × (scale of the one operand × scale of the other) + bias

Reference: BiT, Liu et al., 2022, https://arxiv.org/abs/2205.13016. Convolutions, which it has none
of, are treated alike: levels before zero padding, and what is padded stays 0.

A layer keeps the weight and bias of the FP32 layer whose place it takes, the same parameters under
the same names. With ``quantized = False`` it computes what that layer computed.

Notation: B batch, T frames, C channels, H heads, E width of a head, D = H · E.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from superbit.upstreams.encoders.attention import MatrixProduct, Shortcut
from superbit.upstreams.errors import InputError
from superbit.upstreams.quantization.elastic import ElasticQuantizer, WeightBinarizer
from superbit.upstreams.quantization.policy import FULL_BITS, Binarization
from superbit.upstreams.quantization.valid_frames import ValidFrames

# Levels and the scale that multiplies them, None for a tensor that is not quantized.
Levels = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class QuantizedBits:
    """Bits of the two operands that a module multiplies; 32 is full precision.

    first: a weight, or a product's left operand
    second: a layer's input, or a product's right operand
    """

    first: int = FULL_BITS
    second: int = FULL_BITS


class BinarizedLinear(nn.Linear):
    """A linear layer over (B, T, features)."""

    shortcut: Shortcut | None = None

    def __init__(
        self,
        linear: nn.Linear,
        *,
        weight: Binarization | None,
        input: Binarization | None,
        frames: ValidFrames | None = None,
    ) -> None:
        has_bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, bias=has_bias, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.weight_quantizer = _weight_quantizer(weight, like=linear.weight)
        self.input_quantizer = _input_quantizer(input, (linear.in_features,), like=linear.weight)
        self.held_weight: Levels | None = None
        self.holds_weight = False  # what `weights_held` sets
        self.valid_frames = frames
        self.quantized = True

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, T, in) to (B, T, out)."""
        if not self.quantized:
            _require_weight(self)
            return super().forward(input)
        if self.shortcut is not None and (y := self.shortcut(self, input, None)) is not None:
            return y
        x, x_scale = _input_levels(self.input_quantizer, input, self.valid_frames, time_axis=1)
        weight, weight_scale = _weight_levels(self)
        if weight_scale is not None and weight_scale.dim():  # (out, 1), one for each channel
            weight_scale = weight_scale[:, 0]
        return rescaled(F.linear(x, weight), x_scale, weight_scale, self.bias)


class BinarizedConv1d(nn.Conv1d):
    """A convolution over (B, C, T), pointwise or depthwise, with zeros beyond the valid frames."""

    def __init__(
        self,
        conv: nn.Conv1d,
        *,
        weight: Binarization | None,
        input: Binarization | None,
        frames: ValidFrames | None = None,
    ) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]  # a tuple of one, as torch stores it
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.weight_quantizer = _weight_quantizer(weight, like=conv.weight)
        self.input_quantizer = _input_quantizer(input, (conv.in_channels, 1), like=conv.weight)
        self.held_weight: Levels | None = None
        self.holds_weight = False  # what `weights_held` sets
        self.valid_frames = frames
        self.quantized = True

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C in, T) to (B, C out, T)."""
        if not self.quantized:
            _require_weight(self)
            return super().forward(input)
        x, x_scale = _input_levels(self.input_quantizer, input, self.valid_frames, time_axis=2)
        mask = None if self.valid_frames is None else self.valid_frames.mask_along(2, 3)
        if mask is not None:  # a shift and sign(0) = +1 would let padding in
            x = x.masked_fill(~mask, 0.0)
        weight, weight_scale = _weight_levels(self)
        if weight_scale is not None and weight_scale.dim():  # (out, 1, 1)
            weight_scale = weight_scale[:, 0]
        y = F.conv1d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)
        return rescaled(y, x_scale, weight_scale, None if self.bias is None else self.bias[:, None])


class BinarizedProduct(MatrixProduct):
    """One of attention's two products, in any of the parts that sparse attention takes it in.

    Its counts are those of dense attention, however few of its pairs sparse attention computes:
    frames × D for queries, keys and values, frames² × H for probabilities.

    Args:
        left: how queries (of scores) or probabilities (of contexts) are quantized.
        right: how keys, transposed, or values are.
        of: ``"scores"`` or ``"contexts"``.
        heads: H.
        width: E.
        frames: of the layer.
        like: a parameter that tells the device and the precision.
    """

    def __init__(
        self,
        *,
        left: Binarization,
        right: Binarization,
        of: str,
        heads: int,
        width: int,
        frames: ValidFrames,
        like: Tensor,
    ) -> None:
        super().__init__()
        self.of = of
        self.heads = heads
        self.width = width
        if of == "scores":
            left_shift, right_shift = (heads, 1, width), (heads, width, 1)
        else:
            left_shift, right_shift = (heads, 1, 1), (heads, 1, width)
        self.left_quantizer = _elastic(left, left_shift, like=like, from_zero=True)
        self.right_quantizer = _elastic(right, right_shift, like=like, from_zero=True)
        self.valid_frames = frames
        self.quantized = True

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Map (B, H, …, M, K) and (B, H, …, K, N) to (B, H, …, M, N)."""
        if not self.quantized:
            return super().forward(left, right)
        frames, dim = self.valid_frames, self.heads * self.width
        by_frame = None if frames.count is None else frames.count * dim
        by_pair = None if frames.pairs is None else frames.pairs * self.heads
        scores = self.of == "scores"
        x, x_scale = self._operand(
            self.left_quantizer, left, count=by_frame if scores else by_pair, time_axis=2
        )
        y, y_scale = self._operand(
            self.right_quantizer, right, count=by_frame, time_axis=3 if scores else 2
        )
        return rescaled(x @ y, x_scale, y_scale, None)

    def _operand(
        self,
        quantizer: ElasticQuantizer,
        x: Tensor,
        *,
        count: int | Tensor | None,
        time_axis: int,
    ) -> tuple[Tensor, Tensor | None]:
        # statistics are taken in dense arithmetic, the only one whose operands are (B, H, T, …)
        mask = self.valid_frames.mask_along(time_axis, 4) if quantizer.calibrating else None
        return quantizer.levels(x, count=count, mask=mask)


@contextmanager
def weights_held(model: nn.Module) -> Iterator[None]:
    """Quantize each weight of ``model`` at most once, for passes between which none changes."""
    layers = [m for m in model.modules() if isinstance(m, BinarizedLinear | BinarizedConv1d)]
    try:
        for layer in layers:
            layer.holds_weight = True
        yield
    finally:
        for layer in layers:
            layer.held_weight, layer.holds_weight = None, False


def quantized_bits(module: nn.Module) -> QuantizedBits:
    """Return the bits of what ``module`` multiplies, as its quantizers have them now."""
    if isinstance(module, BinarizedLinear | BinarizedConv1d):
        return QuantizedBits(_bits(module.weight_quantizer), _bits(module.input_quantizer))
    if isinstance(module, BinarizedProduct):
        return QuantizedBits(_bits(module.left_quantizer), _bits(module.right_quantizer))
    return QuantizedBits()


def _elastic(
    how: Binarization,
    shift_shape: Sequence[int] | None,
    *,
    like: Tensor,
    from_zero: bool = False,
) -> ElasticQuantizer:
    quantizer = ElasticQuantizer(
        bits=how.bits,
        signed=how.set == "signed",
        shift_shape=shift_shape if how.shift else None,
        from_zero=from_zero,
    )
    return quantizer.to(device=like.device, dtype=like.dtype)


def _input_quantizer(
    how: Binarization | None, shift_shape: Sequence[int], *, like: Tensor
) -> ElasticQuantizer | None:
    return None if how is None else _elastic(how, shift_shape, like=like)


def _weight_quantizer(
    how: Binarization | None, *, like: Tensor
) -> WeightBinarizer | ElasticQuantizer | None:
    if how is None:
        return None
    if how.bits == 1:
        return WeightBinarizer(per_channel=how.per_channel)
    return _elastic(how, None, like=like)


def _input_levels(
    quantizer: ElasticQuantizer | None, x: Tensor, frames: ValidFrames | None, *, time_axis: int
) -> tuple[Tensor, Tensor | None]:
    if quantizer is None:
        return x, None
    if frames is None or frames.count is None:
        return quantizer.levels(x)
    if x.dim() != 3 or x.shape[time_axis] != frames.total:
        raise InputError(
            f"a binarized layer was called with {tuple(x.shape)} where its encoder's layer runs "
            f"over {frames.total} frames: only what sees all of them in one call can be binarized, "
            "so leave it out of the policy and of the encoder's roles, or let the part that "
            "changes the frames take (x, valid)."
        )
    channels = x.shape[3 - time_axis]
    mask = frames.mask_along(time_axis, 3)
    return quantizer.levels(x, count=frames.count * channels, mask=mask)


def _require_weight(layer: BinarizedLinear | BinarizedConv1d) -> None:
    if layer.weight is None:
        raise InputError(
            "a packed twin has signs in place of its weights, so it cannot compute without "
            "quantizers; take the checkpoint that it was packed from."
        )


def _weight_levels(layer: BinarizedLinear | BinarizedConv1d) -> Levels:
    if layer.held_weight is not None:
        return layer.held_weight
    quantizer = layer.weight_quantizer
    levels = (layer.weight, None) if quantizer is None else quantizer.levels(layer.weight)
    if layer.holds_weight:
        layer.held_weight = levels
    return levels


def rescaled(y: Tensor, first: Tensor | None, second: Tensor | None, bias: Tensor | None) -> Tensor:
    if first is None or second is None:
        scale = second if first is None else first
    else:
        scale = first * second
    if scale is not None:
        y = y * scale
    return y if bias is None else y + bias


def _bits(quantizer: WeightBinarizer | ElasticQuantizer | None) -> int:
    return FULL_BITS if quantizer is None else quantizer.bits
