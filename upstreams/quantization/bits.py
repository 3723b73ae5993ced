"""A twin's blocks computed by bits: attention and feed-forward, from floats to floats.

What is computed is what the simulation in floats computes, to the bit, and in eval mode without
gradients only. Between the linear layers of a block no float is written: what one layer gives
becomes the next one's bits by one integer comparison (`thresholds`), and sums of levels are
integers either way. A block that does not fit (training, other bits, another device, hooks on its
layers, a mask) is left to the simulation: the functions here then return None.

Notation: B batch, T frames, D width, H heads, E width of a head, N outputs, K inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from superbit.upstreams.encoders.attention import SelfAttention, Shortcut
from superbit.upstreams.encoders.vanilla import FeedForward
from superbit.upstreams.quantization.elastic import ElasticQuantizer, WeightBinarizer
from superbit.upstreams.quantization.kernels import choose
from superbit.upstreams.quantization.layers import BinarizedLinear, BinarizedProduct, rescaled
from superbit.upstreams.quantization.thresholds import (
    NEVER,
    float_thresholds,
    integer_thresholds,
)

_WIDEST_HEAD = 128  # channels whose count fits a byte, with room for two in a table


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


@dataclass(frozen=True, kw_only=True, eq=False)
class BitAttention:
    """An attention's integers. ``reached`` is θ of the contexts, (H, E padded) int32."""

    query: BitLinear
    key: BitLinear
    value: BitLinear
    output: BitLinear
    heads: int
    width: int
    exponentials: np.ndarray
    pairs: np.ndarray
    smallest: float
    reached: np.ndarray
    scores: Tensor
    probability: ElasticQuantizer


def attention(module: SelfAttention, x: Tensor, valid: Tensor | None) -> Tensor | None:
    """Return what ``module`` maps (B, T, D) to, or None where that is left to the simulation."""
    leaves = _attention_leaves(module)
    if valid is not None or type(module) is not SelfAttention or not _fits(module, leaves, x):
        return None
    packed = _packed(module, leaves, _pack_attention)
    if packed is None:
        return None
    return torch.stack([_attend(packed, each) for each in x])


def feed_forward(module: FeedForward, x: Tensor, valid: Tensor | None = None) -> Tensor | None:
    """Return what ``module`` maps (B, T, D) to, or None where that is left to the simulation."""
    leaves = (module.expand, module.contract)
    if type(module.activation) is not nn.ReLU or not _fits(module, leaves, x):
        return None
    packed = _packed(module, leaves, _pack_feed_forward)
    if packed is None:
        return None
    first, second = packed
    return torch.stack([_floats(second, _bits(first, _binarized(first, each))) for each in x])


# By the class of a block, which `superbit.upstreams.quantization.convert` gives it to.
SHORTCUTS: dict[type[nn.Module], Shortcut] = {
    SelfAttention: attention,
    FeedForward: feed_forward,
}


# --- whether a block fits


def _attention_leaves(module: SelfAttention) -> tuple[nn.Module, ...]:
    return (
        module.query,
        module.key,
        module.value,
        module.score_product,
        module.context_product,
        module.output,
    )


def _fits(module: nn.Module, leaves: Sequence[nn.Module], x: Tensor) -> bool:
    return (
        not module.training
        and not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.dim() == 3
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and choose.chosen() is not None
        and all(_is_one_bit(leaf) for leaf in leaves)
    )


def _is_one_bit(leaf: nn.Module) -> bool:
    """Whether both operands of a layer have one bit now, and nobody watches it."""
    if leaf._forward_hooks or leaf._forward_pre_hooks:
        return False
    if type(leaf) is BinarizedLinear:
        quantizers: tuple[Any, Any] = (leaf.weight_quantizer, leaf.input_quantizer)
        if type(leaf.weight_quantizer) is not WeightBinarizer:
            return False
    elif type(leaf) is BinarizedProduct:
        quantizers = (leaf.left_quantizer, leaf.right_quantizer)
    else:
        return False
    return leaf.quantized and all(
        quantizer is not None
        and quantizer.bits == 1
        and not getattr(quantizer, "calibrating", False)
        and getattr(quantizer, "ready", True)
        for quantizer in quantizers
    )


# --- from a module to integers, once for weights that do not change

_known: WeakKeyDictionary[nn.Module, tuple[Any, Any]] = WeakKeyDictionary()


def _packed(
    module: nn.Module, leaves: Sequence[nn.Module], pack: Callable[[Any, Any], Any]
) -> Any:
    """Return what ``pack`` makes of the module, kept until one of its tensors changes."""
    algorithm = choose.algorithm()
    tensors = [tensor for leaf in leaves for tensor in leaf.parameters()]
    if any(tensor.is_inference() for tensor in tensors):
        return None  # torch does not say when it changes
    state = algorithm, tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
    known = _known.get(module)
    if known is None or known[0] != state:
        with torch.no_grad():
            known = state, pack(module, algorithm)
        _known[module] = known
    return known[1]


def _pack_feed_forward(module: FeedForward, algorithm: Any) -> tuple[BitLinear, BitLinear]:
    expand, contract = module.expand, module.contract
    assert isinstance(expand, BinarizedLinear)
    assert isinstance(contract, BinarizedLinear)
    after = float_thresholds(_quantizer(contract), contract.in_features)
    # behind a ReLU: a threshold of at most 0 is always reached
    after = torch.where(after <= 0, -torch.inf, after)
    return _linear(expand, algorithm, after=after), _linear(contract, algorithm, own_input=False)


def _pack_attention(module: SelfAttention, algorithm: Any) -> BitAttention | None:
    heads = module.heads
    width = module.query.out_features // heads
    scores, contexts = module.score_product, module.context_product
    assert isinstance(scores, BinarizedProduct)
    assert isinstance(contexts, BinarizedProduct)
    if width > _WIDEST_HEAD:
        return None
    padded = -(-width // 32) * 32
    channels = heads * width
    made = {
        name: _linear(
            layer,
            algorithm,
            after=float_thresholds(quantizer, channels),
            heads=heads,
        )
        for name, layer, quantizer in (
            ("query", module.query, scores.left_quantizer),
            ("key", module.key, scores.right_quantizer),
            ("value", module.value, contexts.right_quantizer),
        )
    }
    # scores of c = 0 … E differing bits, by the simulation's own expressions
    sums = torch.arange(width, -width - 1, -2, dtype=torch.float32)
    _, left = scores.left_quantizer.levels(torch.zeros(heads, 1, width))
    _, right = scores.right_quantizer.levels(torch.zeros(heads, width, 1))
    values = rescaled(sums, left, right, None) * module.scale
    exponentials = (values.double() - values[0].double()).exp().numpy()
    pairs = np.zeros(256 * (width + 1))
    for second in range(width + 1):
        pairs[256 * second : 256 * second + width + 1] = exponentials + exponentials[second]
    probability = contexts.left_quantizer
    smallest = float_thresholds(probability, 1)
    # a context's sum of levels lies within ± T; its limits hold for any T
    _, by = contexts.right_quantizer.levels(torch.zeros(heads, 1, width))
    _, of = probability.levels(torch.zeros(1))
    after = float_thresholds(_quantizer(module.output), channels)
    reached = integer_thresholds(
        lambda d: rescaled(d, of, by, None), after, largest=1 << 20
    ).reshape(heads, width)
    whole = torch.full((heads, padded), NEVER, dtype=torch.int32)
    whole[:, :width] = reached
    return BitAttention(
        **made,
        output=_linear(module.output, algorithm, own_input=False, heads_in=heads),
        heads=heads,
        width=width,
        exponentials=exponentials,
        pairs=pairs,
        smallest=float(smallest),
        reached=whole.numpy(),
        scores=values,
        probability=probability,
    )


def _quantizer(layer: Any) -> ElasticQuantizer:
    return layer.input_quantizer


def _linear(
    layer: Any,
    algorithm: Any,
    *,
    after: Tensor | None = None,
    heads: int | None = None,
    heads_in: int | None = None,
    own_input: bool = True,
) -> BitLinear:
    """Return the integers of a layer.

    Args:
        layer: a `BinarizedLinear` of one bit.
        algorithm: what counts.
        after: τ of what reads the outputs as bits, (N,); None where floats are read.
        heads: outputs are those of so many heads, each filled up to a multiple of 32.
        heads_in: inputs are.
        own_input: the inputs come as floats.
    """
    signs, weight_scale = layer.weight_quantizer.levels(layer.weight)
    weight_scale = weight_scale[:, 0] if weight_scale.dim() else weight_scale
    quantizer = _quantizer(layer)
    _, input_scale = quantizer.levels(torch.zeros(layer.in_features))
    outputs = layer.out_features
    bits = (signs > 0).to(torch.uint8)  # (N, K)
    scale = (input_scale * weight_scale).expand(outputs)
    bias = torch.zeros(outputs) if layer.bias is None else layer.bias
    reached = None
    if after is not None:
        reached = integer_thresholds(
            lambda d: rescaled(d, input_scale, weight_scale, layer.bias),
            after,
            largest=layer.in_features,
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
        inputs=layer.in_features,
        outputs=len(bits),
        weights=weights,
        thresholds=float_thresholds(quantizer, layer.in_features).numpy() if own_input else None,
        scale=_to(scale, total, 0.0),
        bias=_to(bias, total, 0.0),
        reached=None if reached is None else _to(reached, total, NEVER),
    )


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


# --- computing


def _binarized(layer: BitLinear, x: Tensor) -> np.ndarray:
    """Return the bits (T, bytes) of floats (T, K)."""
    from superbit.upstreams.quantization.kernels.rows import binarize_rows, row_bytes

    out = np.empty((len(x), row_bytes(layer.inputs)), np.uint8)
    binarize_rows(x.contiguous().numpy(), layer.thresholds, out)
    return out


def _offsets(layer: BitLinear, rows: np.ndarray) -> np.ndarray:
    """Return what is added to twice a count, (T,) int32; see `kernels.blocks`."""
    from superbit.upstreams.quantization.kernels.rows import minus_ones

    if layer.op == "xor":
        return np.full(len(rows), layer.inputs, np.int32)
    out = np.empty(len(rows), np.int32)
    minus_ones(rows, out)
    return out


def _bits(layer: BitLinear, rows: np.ndarray) -> np.ndarray:
    """Return a layer's outputs as bits (T, N / 8) of input bits (T, bytes)."""
    out = np.empty((len(rows), len(layer.reached) // 8), np.uint8)  # type: ignore[arg-type]
    _multiply(layer.op, "bits", rows, layer.weights, _offsets(layer, rows), layer.reached, None, out)
    return out[:, : -(-layer.outputs // 32) * 4]


def _floats(layer: BitLinear, rows: np.ndarray) -> Tensor:
    """Return a layer's outputs (T, N) float32 of input bits (T, bytes)."""
    out = np.empty((len(rows), len(layer.scale)), np.float32)
    offsets = _offsets(layer, rows)
    _multiply(layer.op, "floats", rows, layer.weights, offsets, layer.scale, layer.bias, out)
    return torch.from_numpy(out)[:, : layer.outputs]


def _multiply(
    op: str,
    epilogue: str,
    rows: np.ndarray,
    weights: np.ndarray,
    offsets: np.ndarray,
    first: Any,
    second: Any,
    out: np.ndarray,
) -> None:
    from superbit.upstreams.quantization.kernels.products import product_of

    algorithm = choose.algorithm()
    product_of(algorithm, op, epilogue)(  # type: ignore[arg-type]
        rows.ctypes.data,
        rows.strides[0],
        len(rows),
        weights.ctypes.data,
        rows.shape[1],
        len(weights),
        weights.strides[0],
        algorithm.table_of(op).ctypes.data,  # type: ignore[union-attr]
        offsets.ctypes.data,
        first.ctypes.data,
        0 if second is None else second.ctypes.data,
        out.ctypes.data,
        out.strides[0],
    )


def _attend(packed: BitAttention, x: Tensor) -> Tensor:
    """Return what attention maps (T, D) to."""
    from superbit.upstreams.quantization.kernels.attention import COUNTED_AT_ONCE, attention_of
    from superbit.upstreams.quantization.kernels.rows import minus_ones, row_bytes

    algorithm = choose.algorithm()
    assert algorithm is not None
    code = attention_of(algorithm)
    query, key, value = (
        _bits(layer, _binarized(layer, x)) for layer in (packed.query, packed.key, packed.value)
    )
    frames, bytes_of_head = len(x), -(-packed.width // 32) * 4
    unit, block = algorithm.unit, algorithm.outputs
    over_frames = row_bytes(frames)
    keys = np.zeros((-(-frames // block), bytes_of_head // unit, block, unit), np.uint8)
    values = np.zeros((-(-8 * bytes_of_head // block), over_frames // unit, block, unit), np.uint8)
    # rows of counts end where both a vector of keys and a word of bits do
    counts = np.zeros(
        (COUNTED_AT_ONCE, max(len(keys) * block, 8 * over_frames)), np.uint8
    )
    probabilities = np.empty((frames, over_frames), np.uint8)
    near = np.empty(frames, np.uint8)
    offsets = np.empty(frames, np.int32)
    contexts = np.empty((frames, packed.heads * bytes_of_head), np.uint8)
    for head in range(packed.heads):
        place = slice(head * bytes_of_head, (head + 1) * bytes_of_head)
        code.arrange_rows(key[:, place], keys)
        code.arrange_columns(value[:, place], values)
        code.probabilities(
            query[:, place],
            keys,
            algorithm.table_of("xor"),
            packed.exponentials,
            packed.pairs,
            packed.smallest,
            counts,
            offsets,
            probabilities,
            near,
        )
        if near.any():
            _decide(packed, query[:, place], key[:, place], near, probabilities)
        minus_ones(probabilities, offsets)
        out = contexts[:, place]
        _multiply("and", "bits", probabilities, values, offsets, packed.reached[head], None, out)
    return _floats(packed.output, contexts)


def _decide(
    packed: BitAttention,
    query: np.ndarray,
    key: np.ndarray,
    near: np.ndarray,
    probabilities: np.ndarray,
) -> None:
    """Make the probabilities of rows anew that lie too near a threshold, by softmax itself."""
    from superbit.upstreams.quantization.kernels.rows import unpacked

    rows = np.flatnonzero(near)
    levels = [torch.from_numpy(unpacked(b, packed.width)).float() * 2 - 1 for b in (query[rows], key)]
    differing = (packed.width - levels[0] @ levels[1].T) / 2  # (rows, T), exact
    weights = packed.scores[differing.long()].softmax(dim=-1)
    found, _ = packed.probability.levels(weights)
    bits = np.packbits(found.numpy() > 0, axis=1, bitorder="little")
    probabilities[rows] = 0
    probabilities[rows, : bits.shape[1]] = bits
