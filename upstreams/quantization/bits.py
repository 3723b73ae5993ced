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
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from superbit.upstreams.encoders.attention import SelfAttention, Shortcut
from superbit.upstreams.encoders.sparse_attention import SparseSelfAttention
from superbit.upstreams.encoders.vanilla import FeedForward
from superbit.upstreams.quantization.elastic import ElasticQuantizer, WeightBinarizer
from superbit.upstreams.quantization.kernels import choose
from superbit.upstreams.quantization.layers import BinarizedLinear, BinarizedProduct, rescaled
from superbit.upstreams.quantization.thresholds import (
    NEVER,
    float_thresholds,
    integer_thresholds,
)

HIDDEN = 255  # in place of a count, as `kernels.attention` has it
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
    """An attention's integers.

    Attributes:
        exponentials, pairs, smallest: see `kernels.attention`.
        reached: θ of the contexts, (H, E padded) int32.
        after: τ of the contexts, (H, E) float32.
        context_scale: that multiplies a context's sum, (H, E padded) float32.
        no_bias: (E padded,) of 0.
        scores: by c, (256,) float32, with the floor of hidden keys beyond E.
        probability: the quantizer of probabilities.
        stride: of sparse attention; None for dense.
    """

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
    after: np.ndarray
    context_scale: np.ndarray
    no_bias: np.ndarray
    scores: Tensor
    probability: ElasticQuantizer
    stride: int | None
    expressivity: int


def attention(module: SelfAttention, x: Tensor, valid: Tensor | None) -> Tensor | None:
    """Return what ``module`` maps (B, T, D) to, or None where that is left to the simulation."""
    leaves = _attention_leaves(module)
    if valid is not None or not _fits(module, leaves, x):
        return None
    if isinstance(module, SparseSelfAttention) and not module.gather:
        return None
    packed = _packed(module, leaves, _pack_attention)
    if packed is None:
        return None
    return _each(x, lambda one: _attend(packed, one))


def feed_forward(module: FeedForward, x: Tensor, valid: Tensor | None = None) -> Tensor | None:
    """Return what ``module`` maps (B, T, D) to, or None where that is left to the simulation."""
    leaves = (module.expand, module.contract)
    if type(module.activation) is not nn.ReLU or not _fits(module, leaves, x):
        return None
    packed = _packed(module, leaves, _pack_feed_forward)
    if packed is None:
        return None
    first, second = packed
    return _each(x, lambda one: _floats(second, _bits(first, _binarized(first, one))))


# By the class of a block, which `superbit.upstreams.quantization.convert` gives it to.
SHORTCUTS: dict[type[nn.Module], Shortcut] = {
    SelfAttention: attention,
    SparseSelfAttention: attention,
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


def _packed(module: nn.Module, leaves: Sequence[nn.Module], pack: Callable[[Any, Any], Any]) -> Any:
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
    single = np.zeros(256)  # 0 for a key that is hidden
    single[: width + 1] = exponentials
    pairs = (single[:, None] + single).reshape(-1)
    probability = contexts.left_quantizer
    smallest = float_thresholds(probability, 1)
    # a context's sum of levels lies within ± T; its limits hold for any T
    _, by = contexts.right_quantizer.levels(torch.zeros(heads, 1, width))
    _, of = probability.levels(torch.zeros(1))
    after = float_thresholds(_quantizer(module.output), channels)
    reached = integer_thresholds(lambda d: rescaled(d, of, by, None), after, largest=1 << 20)
    # scores by c, and the floor that the simulation gives hidden keys
    floored = torch.full((256,), torch.finfo(torch.float32).min)
    floored[: width + 1] = values
    return BitAttention(
        **made,
        output=_linear(module.output, algorithm, own_input=False, heads_in=heads),
        heads=heads,
        width=width,
        exponentials=exponentials,
        pairs=pairs,
        smallest=float(smallest),
        reached=_heads(reached, heads, padded, NEVER),
        after=after.reshape(heads, width).numpy(),
        context_scale=_heads((of * by).expand(channels), heads, padded, 0.0),
        no_bias=np.zeros(padded, np.float32),
        scores=floored,
        probability=probability,
        stride=module.stride if isinstance(module, SparseSelfAttention) else None,
        expressivity=module.expressivity if isinstance(module, SparseSelfAttention) else 0,
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


# --- computing


@dataclass(frozen=True, kw_only=True, eq=False)
class Pattern:
    """Which keys which queries see, for one number of frames; see `kernels.attention`.

    Attributes:
        parts: frames of the shared keys, (S,), and of each block's own, (blocks, P) or (0, P);
            a frame that is not there is 0 and hidden.
        beyond: where a block's own keys begin, S padded.
        hide: (blocks, S padded + P padded) uint8.
        stride: queries of a block.
        first_until: the last query that sees the first shared key.
        there: columns that the simulation has, in its order.
    """

    parts: tuple[np.ndarray, np.ndarray]
    beyond: int
    hide: np.ndarray
    stride: int
    first_until: int
    there: np.ndarray

    def queries(self, block: int, frames: int) -> slice:
        """Return the queries of a block."""
        start = 1 + block * self.stride if block else 0
        return slice(start, min(frames, 1 + (block + 1) * self.stride))


@lru_cache(maxsize=16)
def _pattern(algorithm: Any, frames: int, stride: int | None, expressivity: int) -> Pattern:
    """Return the pattern of dense attention, ``stride`` None, or of sparse attention."""
    step = max(32, algorithm.outputs)

    def padded(keys: int) -> int:
        return -(-keys // step) * step

    if stride is None:
        hide = np.full((1, padded(frames)), HIDDEN, np.uint8)
        hide[0, :frames] = 0
        return Pattern(
            parts=(np.arange(frames), np.zeros((0, 0), np.int64)),
            beyond=padded(frames),
            hide=hide,
            stride=frames,
            first_until=frames,
            there=np.arange(frames),
        )
    blocks = max(1, -(-(frames - 1) // stride))
    own = stride - min(expressivity + 1, stride)
    cut = 1 + np.arange(blocks * stride).reshape(blocks, stride)
    shared = np.concatenate([[0], cut[:, own:].reshape(-1)])
    private = cut[:, :own]
    beyond = padded(len(shared))
    hide = np.full((blocks, beyond + padded(own)), HIDDEN, np.uint8)
    hide[:, : len(shared)] = np.where(shared < frames, 0, HIDDEN)
    hide[:, beyond : beyond + own] = np.where(private < frames, 0, HIDDEN)
    return Pattern(
        parts=(
            np.where(shared < frames, shared, 0),
            np.where(private < frames, private, 0) if own else np.zeros((0, 0), np.int64),
        ),
        beyond=beyond,
        hide=hide,
        stride=stride,
        first_until=stride if expressivity < stride else frames,
        there=np.concatenate([np.arange(len(shared)), beyond + np.arange(own)]),
    )


def _each(x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Return (B, T, D) of a function of (T, D)."""
    return compute(x[0])[None] if len(x) == 1 else torch.stack([compute(one) for one in x])


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
    _multiply(
        layer.op, "bits", rows, layer.weights, _offsets(layer, rows), layer.reached, None, out
    )
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
    from superbit.upstreams.quantization.kernels.attention import (
        COUNTED_AT_ONCE,
        attention_of,
        edge,
    )
    from superbit.upstreams.quantization.kernels.rows import binarize_rows, minus_ones

    algorithm = choose.algorithm()
    assert algorithm is not None
    code = attention_of(algorithm)
    query, key, value = (
        _bits(layer, _binarized(layer, x)) for layer in (packed.query, packed.key, packed.value)
    )
    frames, bytes_of_head = len(x), -(-packed.width // 32) * 4
    pattern = _pattern(algorithm, frames, packed.stride, packed.expressivity)
    shared, private = pattern.parts
    blocks, keys = pattern.hide.shape
    beyond = pattern.beyond
    unit, block = algorithm.unit, algorithm.outputs
    deep, channels = bytes_of_head // unit, -(-8 * bytes_of_head // block)
    arranged_keys = np.zeros((beyond // block, deep, block, unit), np.uint8)
    own_keys = np.zeros((blocks, (keys - beyond) // block, deep, block, unit), np.uint8)
    values = np.zeros((channels, beyond // 8 // unit, block, unit), np.uint8)
    own_values = np.zeros((blocks, channels, (keys - beyond) // 8 // unit, block, unit), np.uint8)
    scratch = np.empty((COUNTED_AT_ONCE, keys), np.uint8)
    probabilities = np.empty((frames, keys // 8), np.uint8)
    rows, kept = np.empty(frames, np.int32), np.empty((frames, keys), np.uint8)
    ones = np.empty(frames, np.int32)
    contexts = np.empty((frames, packed.heads * bytes_of_head), np.uint8)
    for head in range(packed.heads):
        place = slice(head * bytes_of_head, (head + 1) * bytes_of_head)
        code.arrange_rows(key[shared, place], arranged_keys)
        code.arrange_columns(value[shared, place], values)
        for index in range(blocks if len(private) else 0):
            code.arrange_rows(key[private[index], place], own_keys[index])
            code.arrange_columns(value[private[index], place], own_values[index])
        doubted = code.probabilities(
            query[:, place],
            arranged_keys,
            own_keys,
            pattern.hide,
            pattern.stride,
            pattern.first_until,
            algorithm.table_of("xor"),
            packed.exponentials,
            packed.pairs,
            packed.smallest,
            edge(frames),
            scratch,
            probabilities,
            rows,
            kept,
        )
        if doubted:
            _decide(packed, pattern, rows[:doubted], kept[:doubted], probabilities)
        over_shared, over_private = probabilities[:, : beyond // 8], probabilities[:, beyond // 8 :]
        minus_ones(over_shared, ones)
        if not len(private):
            out = contexts[:, place]
            reached = packed.reached[head]
            _multiply("and", "bits", over_shared, values, ones, reached, None, out)
            continue
        sums = np.empty((2, frames, 8 * bytes_of_head), np.float32)
        scale, none = packed.context_scale[head], packed.no_bias
        _multiply("and", "floats", over_shared, values, ones, scale, none, sums[0])
        minus_ones(over_private, ones)
        for index in range(blocks):
            some = pattern.queries(index, frames)
            _multiply(
                "and",
                "floats",
                over_private[some],
                own_values[index],
                ones[some],
                scale,
                none,
                sums[1, some],
            )
        binarize_rows(sums[0] + sums[1], packed.after[head], contexts[:, place])
    return _floats(packed.output, contexts)


def _decide(
    packed: BitAttention,
    pattern: Pattern,
    rows: np.ndarray,
    kept: np.ndarray,
    probabilities: np.ndarray,
) -> None:
    """Make the probabilities of rows anew that lie too near a threshold, by softmax itself.

    Over the keys in the simulation's order, as the order of a sum shows in its last bit.
    """
    there = pattern.there
    counts = torch.from_numpy(kept[:, there]).long()
    found, _ = packed.probability.levels(packed.scores[counts].softmax(dim=-1))
    bits = np.zeros(kept.shape, np.uint8)
    bits[:, there] = (found.numpy() > 0) & (kept[:, there] != HIDDEN)
    probabilities[rows] = np.packbits(bits, axis=1, bitorder="little")
