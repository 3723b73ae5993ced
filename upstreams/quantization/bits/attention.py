"""Attention as integers: from floats (T, D) to floats, by bits in between.

Notation: T frames, D width, H heads, E width of a head; c, τ and θ as in `kernels.attention` and
`superbit.upstreams.quantization.thresholds`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from superbit.upstreams.encoders.sparse_attention import SparseSelfAttention
from superbit.upstreams.quantization.bits import linear
from superbit.upstreams.quantization.bits.linear import BitLinear
from superbit.upstreams.quantization.bits.pattern import Pattern, pattern_of
from superbit.upstreams.quantization.elastic import ElasticQuantizer
from superbit.upstreams.quantization.kernels.attention import (
    COUNTED_AT_ONCE,
    HIDDEN,
    attention_of,
    edge,
)
from superbit.upstreams.quantization.kernels.products import WORTH_A_THREAD, multiply
from superbit.upstreams.quantization.kernels.rows import (
    binarize_rows,
    minus_ones,
    row_bytes,
    whole,
)
from superbit.upstreams.quantization.kernels.threads import spread
from superbit.upstreams.quantization.layers import BinarizedProduct, rescaled
from superbit.upstreams.quantization.thresholds import NEVER, float_thresholds, integer_thresholds

WIDEST_HEAD = 128  # channels whose count fits a byte, with room for `HIDDEN`
_MOST_FRAMES = 1 << 20  # of a sum over keys: six hours


@dataclass(frozen=True, kw_only=True, eq=False)
class BitAttention:
    """An attention's integers, for the algorithm of its linear layers.

    Attributes:
        exponentials, smallest: see `kernels.attention`.
        by_count: an exponential by c, (256,) float64, 0 for a key that is hidden.
        reached: θ of the contexts, (H, E padded) int32.
        after: τ of the contexts, (H, E) float32.
        context_scale: that multiplies a context's sum, (H, E padded) float32.
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
    by_count: np.ndarray
    smallest: float
    reached: np.ndarray
    after: np.ndarray
    context_scale: np.ndarray
    scores: Tensor
    probability: ElasticQuantizer
    stride: int | None
    expressivity: int


def integers_of(module: Any, algorithm: Any) -> BitAttention | None:
    """Return an attention's integers for an algorithm; None where its heads are too wide."""
    heads = module.heads
    width = module.query.out_features // heads
    scores, contexts = module.score_product, module.context_product
    assert isinstance(scores, BinarizedProduct)
    assert isinstance(contexts, BinarizedProduct)
    if width > WIDEST_HEAD:
        return None
    padded = whole(width, algorithm)
    channels = heads * width
    made = {
        name: linear.integers_of(
            layer, algorithm, after=float_thresholds(quantizer, channels), heads=heads
        )
        for name, layer, quantizer in (
            ("query", module.query, scores.left_quantizer),
            ("key", module.key, scores.right_quantizer),
            ("value", module.value, contexts.right_quantizer),
        )
    }
    # scores of c = 0 … E differing bits, by the simulation's own expressions
    sums = torch.arange(width, -width - 1, -2, dtype=torch.float32)
    left, right = scores.left_quantizer.scale_in_use(), scores.right_quantizer.scale_in_use()
    values = rescaled(sums, left, right, None) * module.scale
    floored = torch.full((256,), torch.finfo(torch.float32).min)
    floored[: width + 1] = values
    exponentials = (values.double() - values[0].double()).exp().numpy()
    single = np.zeros(256)  # 0 for a key that is hidden
    single[: width + 1] = exponentials
    of, by = contexts.left_quantizer.scale_in_use(), contexts.right_quantizer.scale_in_use()
    after = float_thresholds(module.output.input_quantizer, channels)
    reached = integer_thresholds(lambda d: rescaled(d, of, by, None), after, largest=_MOST_FRAMES)
    sparse = isinstance(module, SparseSelfAttention)
    return BitAttention(
        **made,
        output=linear.integers_of(module.output, algorithm, own_input=False, heads_in=heads),
        heads=heads,
        width=width,
        exponentials=exponentials,
        by_count=single,
        smallest=float(float_thresholds(contexts.left_quantizer, 1)),
        reached=linear.filled_up(reached.reshape(heads, -1), padded, NEVER).numpy(),
        after=after.reshape(heads, width).numpy(),
        context_scale=linear.filled_up((of * by).expand(heads, width), padded, 0.0).numpy(),
        scores=floored,
        probability=contexts.left_quantizer,
        stride=module.stride if sparse else None,
        expressivity=module.expressivity if sparse else 0,
    )


def attend(packed: BitAttention, x: Tensor) -> Tensor:
    """Return what attention maps (T, D) to."""
    algorithm = packed.query.algorithm
    code = attention_of(algorithm)
    query, key, value = (
        linear.bits(layer, linear.binarized(layer, x))
        for layer in (packed.query, packed.key, packed.value)
    )
    frames, bytes_of_head = len(x), row_bytes(packed.width)
    # half a megabyte, so made anew: a layer's weights may take less
    pairs = (packed.by_count[:, None] + packed.by_count).reshape(-1)
    pattern = pattern_of(algorithm, frames, packed.stride, packed.expressivity)
    shared, own = pattern.shared, pattern.own
    blocks, keys = pattern.hide.shape
    beyond = pattern.beyond
    unit, outputs = algorithm.unit, algorithm.outputs
    deep, channels = bytes_of_head // unit, -(-8 * bytes_of_head // outputs)
    contexts = np.empty((frames, packed.heads * bytes_of_head), np.uint8)

    def work(first: int, last: int) -> None:
        """Write the contexts of some heads."""
        shared_keys = np.zeros((beyond // outputs, deep, outputs, unit), np.uint8)
        own_keys = np.zeros((blocks, (keys - beyond) // outputs, deep, outputs, unit), np.uint8)
        shared_values = np.zeros((channels, beyond // 8 // unit, outputs, unit), np.uint8)
        own_values = np.zeros(
            (blocks, channels, (keys - beyond) // 8 // unit, outputs, unit), np.uint8
        )
        scratch = np.empty((COUNTED_AT_ONCE, keys), np.uint8)
        probabilities = np.empty((frames, keys // 8), np.uint8)
        rows, kept = np.empty(frames, np.int32), np.empty((frames, keys), np.uint8)
        minus = np.empty(frames, np.int32)
        sums = np.empty((2, frames, channels * outputs), np.float32)
        # a vector of outputs may be more than a head is wide
        bits = np.empty((frames, channels * outputs // 8), np.uint8)
        for head in range(first, last):
            place = slice(head * bytes_of_head, (head + 1) * bytes_of_head)
            code.arrange(key[:, place], value[:, place], shared, shared_keys, shared_values)
            for block in range(len(own)):
                code.arrange(
                    key[:, place], value[:, place], own[block], own_keys[block], own_values[block]
                )
            doubted = code.probabilities(
                query[:, place],
                shared_keys,
                own_keys,
                pattern.hide,
                pattern.stride,
                pattern.first_until,
                algorithm.table_of("xor"),
                packed.exponentials,
                pairs,
                packed.smallest,
                edge(frames),
                scratch,
                probabilities,
                rows,
                kept,
            )
            if doubted:
                _decide(packed, pattern, rows[:doubted], kept[:doubted], probabilities)
            over_shared = probabilities[:, : beyond // 8]
            minus_ones(over_shared, minus)
            if not len(own):
                multiply(
                    algorithm,
                    "and",
                    "bits",
                    rows=over_shared,
                    weights=shared_values,
                    offsets=minus,
                    first=packed.reached[head],
                    out=bits,
                )
                contexts[:, place] = bits[:, :bytes_of_head]
                continue
            scale = packed.context_scale[head]
            zeros = np.zeros_like(scale)
            multiply(
                algorithm,
                "and",
                "floats",
                rows=over_shared,
                weights=shared_values,
                offsets=minus,
                first=scale,
                second=zeros,
                out=sums[0],
            )
            minus_ones(probabilities[:, beyond // 8 :], minus)
            code.own_contexts(
                probabilities[:, beyond // 8 :],
                own_values,
                pattern.stride,
                algorithm.table_of("and"),
                minus,
                scale,
                zeros,
                sums[1],
            )
            # two sums that are scaled apart, as the simulation has them
            both = sums[0, :, : packed.width] + sums[1, :, : packed.width]
            binarize_rows(both, packed.after[head], contexts[:, place])

    products_of_head = 2 * frames * keys * 8 * bytes_of_head
    spread(packed.heads, -(-WORTH_A_THREAD // products_of_head), work)
    return linear.floats(packed.output, contexts)


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
