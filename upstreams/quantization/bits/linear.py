"""A linear layer as integers, and its outputs from input bits: as bits again, or as floats.

Notation: T frames, N outputs, K inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from superbit.upstreams.quantization.kernels import choose
from superbit.upstreams.quantization.kernels.products import product_of
from superbit.upstreams.quantization.kernels.rows import binarize_rows, minus_ones, row_bytes
from superbit.upstreams.quantization.layers import rescaled
from superbit.upstreams.quantization.thresholds import NEVER, float_thresholds, integer_thresholds


@dataclass(frozen=True, kw_only=True, eq=False)
class BitLinear:
    """A linear layer's integers, for one algorithm.

    Attributes:
        op: ``"xor"`` for inputs of ±1, ``"and"`` for 0 and 1.
        inputs: K.
        outputs: N, those that fill a head up to a whole number of bytes included.
        weights: as the algorithm arranges them.
        thresholds: τ of the inputs, (K,) float32; of ``None`` the bits come from elsewhere.
        scale: (N padded,) float32.
        bias: (N padded,) float32.
        reached: θ of the outputs, (N padded,) int32; None where floats are wanted.
    """

    op: str
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
    signs = signs.flatten(1)  # (N, K), of a pointwise convolution too
    outputs, inputs = signs.shape
    weight_scale = weight_scale.reshape(-1) if weight_scale.dim() else weight_scale
    quantizer = layer.input_quantizer
    input_scale = quantizer.scale_in_use()
    bits = (signs > 0).to(torch.uint8)
    scale = (input_scale * weight_scale).expand(outputs)
    own_bias = getattr(layer, "bias", None)  # a folded layer's is in its thresholds
    bias = torch.zeros(outputs) if own_bias is None else own_bias
    if after is not None:
        reached = integer_thresholds(
            lambda d: rescaled(d, input_scale, weight_scale, own_bias),
            after,
            largest=inputs,
        )
    if heads_in is not None:
        bits = _filled_up(bits.T, heads_in, 0).T
    if heads is not None:
        bits, scale = _filled_up(bits, heads, 0), _filled_up(scale, heads, 0.0)
        bias = _filled_up(bias, heads, 0.0)
        reached = None if reached is None else _filled_up(reached, heads, NEVER)
    weights = algorithm.arrange(bits.contiguous().numpy())
    total = len(weights) * algorithm.outputs
    return BitLinear(
        op="xor" if quantizer.signed else "and",
        inputs=inputs,
        outputs=len(bits),
        weights=weights,
        thresholds=float_thresholds(quantizer, inputs).numpy() if own_input else None,
        scale=_to(scale, total, 0.0),
        bias=_to(bias, total, 0.0),
        reached=None if reached is None else _to(reached, total, NEVER),
    )


def _heads(x: Tensor, heads: int, padded: int, value: float) -> np.ndarray:
    """Return (H · E,) as (H, E padded), filled up."""
    whole = x.new_full((heads, padded), value)
    whole[:, : len(x) // heads] = x.reshape(heads, -1)
    return whole.numpy()


def _filled_up(x: Tensor, heads: int, value: float) -> Tensor:
    """Fill each head's outputs (H · E, …) up to a multiple of 32."""
    split = x.unflatten(0, (heads, -1))
    width = split.shape[1]
    whole = split.new_full((heads, -(-width // 32) * 32, *split.shape[2:]), value)
    whole[:, :width] = split
    return whole.flatten(0, 1)


def _to(x: Tensor, total: int, value: float) -> np.ndarray:
    """Return (N,) filled up to ``total`` elements."""
    whole = x.new_full((total,), value)
    whole[: len(x)] = x
    return whole.numpy()


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
    offsets = _offsets(layer, rows)
    multiply(layer.op, "bits", rows, layer.weights, offsets, layer.reached, None, out)
    return out[:, :columns]


def floats(layer: BitLinear, rows: np.ndarray) -> Tensor:
    """Return a layer's outputs (T, N) float32 of input bits (T, bytes)."""
    out = np.empty((len(rows), len(layer.scale)), np.float32)
    offsets = _offsets(layer, rows)
    multiply(layer.op, "floats", rows, layer.weights, offsets, layer.scale, layer.bias, out)
    return torch.from_numpy(out)[:, : layer.outputs]


def multiply(
    op: str,
    epilogue: str,
    rows: np.ndarray,
    weights: np.ndarray,
    offsets: np.ndarray,
    first: Any,
    second: Any,
    out: np.ndarray,
) -> None:
    algorithm = choose.algorithm()
    assert algorithm is not None
    product_of(algorithm, op, epilogue)(
        rows.ctypes.data,
        rows.strides[0],
        len(rows),
        weights.ctypes.data,
        rows.shape[1],
        len(weights),
        weights.strides[0],
        algorithm.table_of(op).ctypes.data,
        offsets.ctypes.data,
        first.ctypes.data,
        0 if second is None else second.ctypes.data,
        out.ctypes.data,
        out.strides[0],
    )
