"""A linear layer as integers, and its outputs from input bits: as bits again, or as floats.

Notation: T frames, N outputs, K inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from superbit.upstreams.quantization.kernels.products import multiply
from superbit.upstreams.quantization.kernels.rows import (
    arranged,
    binarize_rows,
    minus_ones,
    row_bytes,
)
from superbit.upstreams.quantization.thresholds import NEVER, float_thresholds, sum_thresholds


@dataclass(frozen=True, kw_only=True, eq=False)
class BitLinear:
    """A linear layer's integers.

    Attributes:
        algorithm: that they are laid out for.
        op: ``"xor"`` for inputs of ±1, ``"and"`` for 0 and 1.
        inputs: K.
        outputs: N, those that fill a head up to a whole number of bytes included.
        weights: as the algorithm arranges them.
        thresholds: τ of the inputs, (K,) float32; of ``None`` the bits come from elsewhere.
        scale: (N padded,) float32.
        bias: (N padded,) float32.
        reached: θ of the outputs, (N padded,) int32; None where floats are wanted.
    """

    algorithm: Any
    op: Literal["xor", "and"]
    inputs: int
    outputs: int
    weights: np.ndarray
    thresholds: np.ndarray | None
    scale: np.ndarray
    bias: np.ndarray
    reached: np.ndarray | None


def integers_of(
    layer: Any,
    algorithm: Any,
    *,
    after: Tensor | None = None,
    reached: Tensor | None = None,
    heads: int | None = None,
    heads_in: int | None = None,
    own_input: bool = True,
) -> BitLinear:
    """Return the integers of a layer.

    Args:
        layer: a `BinarizedLinear` or a pointwise `BinarizedConv1d` of one bit.
        algorithm: what counts.
        after: τ of what reads the outputs as bits, (N,); None where floats are read.
        reached: θ of the outputs, (N,) int32, where it is known.
        heads: outputs are those of so many heads, each filled up to a multiple of 32.
        heads_in: inputs are.
        own_input: the inputs come as floats.
    """
    signs, weight_scale = layer.weight_quantizer.levels(getattr(layer, "weight", None))
    bits = (signs.flatten(1) > 0).to(torch.uint8)  # (N, K), of a pointwise convolution too
    outputs, inputs = bits.shape
    weight_scale = weight_scale.reshape(-1) if weight_scale.dim() else weight_scale
    quantizer = layer.input_quantizer
    scale = (quantizer.scale_in_use() * weight_scale).expand(outputs)
    own_bias = getattr(layer, "bias", None)  # a folded layer's is in its thresholds
    bias = torch.zeros(outputs) if own_bias is None else own_bias
    if after is not None:
        reached = sum_thresholds(layer, after, levels=(signs, weight_scale))
    if heads_in is not None:
        bits = _words_of_heads(bits.T, heads_in, 0).T
    if heads is not None:
        bits, scale = _words_of_heads(bits, heads, 0), _words_of_heads(scale, heads, 0.0)
        bias = _words_of_heads(bias, heads, 0.0)
        reached = None if reached is None else _words_of_heads(reached, heads, NEVER)
    weights = arranged(bits.contiguous().numpy(), algorithm)
    total = len(weights) * algorithm.outputs
    return BitLinear(
        algorithm=algorithm,
        op="xor" if quantizer.signed else "and",
        inputs=inputs,
        outputs=len(bits),
        weights=weights,
        thresholds=float_thresholds(quantizer, inputs).numpy() if own_input else None,
        scale=filled_up(scale[None], total, 0.0)[0].numpy(),
        bias=filled_up(bias[None], total, 0.0)[0].numpy(),
        reached=None if reached is None else filled_up(reached[None], total, NEVER)[0].numpy(),
    )


def filled_up(x: Tensor, width: int, value: float) -> Tensor:
    """Return (H, E, …) as (H, width, …), with ``value`` beyond E."""
    whole = x.new_full((len(x), width, *x.shape[2:]), value)
    whole[:, : x.shape[1]] = x
    return whole


def _words_of_heads(x: Tensor, heads: int, value: float) -> Tensor:
    """Fill each head's outputs (H · E, …) up to whole words."""
    split = x.unflatten(0, (heads, -1))
    return filled_up(split, 8 * row_bytes(split.shape[1]), value).flatten(0, 1)


def binarized(layer: BitLinear, x: Tensor) -> np.ndarray:
    """Return the bits (T, bytes) of floats (T, K)."""
    out = np.empty((len(x), row_bytes(layer.inputs)), np.uint8)
    binarize_rows(x.contiguous().numpy(), layer.thresholds, out)
    return out


def _offsets(layer: BitLinear, rows: np.ndarray) -> np.ndarray:
    """Return what is added to twice a count, (T,) int32; see `kernels.blocks`."""
    if layer.op == "xor":
        return np.full(len(rows), layer.inputs, np.int32)
    out = np.empty(len(rows), np.int32)
    minus_ones(rows, out)
    return out


def bits(layer: BitLinear, rows: np.ndarray) -> np.ndarray:
    """Return a layer's outputs as bits (T, bytes) of input bits (T, bytes)."""
    assert layer.reached is not None
    columns = row_bytes(layer.outputs)
    out = np.zeros((len(rows), max(columns, len(layer.reached) // 8)), np.uint8)
    multiply(
        layer.algorithm,
        layer.op,
        "bits",
        rows=rows,
        weights=layer.weights,
        offsets=_offsets(layer, rows),
        first=layer.reached,
        out=out,
    )
    return out[:, :columns]


def floats(layer: BitLinear, rows: np.ndarray) -> Tensor:
    """Return a layer's outputs (T, N) float32 of input bits (T, bytes)."""
    out = np.empty((len(rows), len(layer.scale)), np.float32)
    multiply(
        layer.algorithm,
        layer.op,
        "floats",
        rows=rows,
        weights=layer.weights,
        offsets=_offsets(layer, rows),
        first=layer.scale,
        second=layer.bias,
        out=out,
    )
    return torch.from_numpy(out)[:, : layer.outputs]


def mapped(layer: BitLinear, x: Tensor) -> Tensor:
    """Return what a layer maps floats (T, K) to, (T, N) float32."""
    return floats(layer, binarized(layer, x))
