"""Attention of 1-bit queries, keys, probabilities and values, without a matrix of floats.

A score is one of E + 1 numbers: with c the bits in which query and key differ, (E - 2 c) × scale.
So a row's softmax denominator Z is a sum of E + 1 exponentials, each as often as its c occurs, and
a probability becomes 1 where exp(score) / Z reaches the quantizer's threshold: where c is at most a
limit of the row. Keys are compared with it as bytes, 32 at a time. A key that a query may not see
has the count `HIDDEN`.

Z is summed in another order here than by softmax, and exponentials are rounded otherwise. A row in
which any probability is nearer to the threshold than that could move it (`edge`) is listed, and
its probabilities are made anew by softmax itself.

Notation: T frames, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from superbit.upstreams.quantization.kernels.machine_code import compiled, unset
from superbit.upstreams.quantization.kernels.products import product_of
from superbit.upstreams.quantization.kernels.rows import at_most

HIDDEN = 255
COUNTED_AT_ONCE = 6  # rows of queries whose counts stay in the first cache

_counts = _floats = unset
_UNIT = _OUTPUTS = 0


def edge(frames: int) -> float:
    """Return how far rounding can move a probability over so many frames, relative to it.

    A float32 sum in at least four lanes adds up to T / 4 roundings of 2⁻²⁴, 1.5e-8 each; that of
    the difference from the maximum, and the exponential's own, stay below 1e-6 where a probability
    can reach a threshold at all. With some room.
    """
    return 1e-5 + 2e-8 * frames


def _arrange(keys, values, frames, keys_out, values_out):
    """Lay the bits of some frames' keys and values out as weights.

    Args:
        keys: bits (T, bytes), uint8; a query meets each key, so keys are outputs.
        values: bits (T, bytes); a context's channel sums over frames, so channels are outputs and
            frames are K.
        frames: which, (F,) integers.
        keys_out: (⌈F / outputs⌉, bytes / unit, outputs, unit) uint8, zeros beyond F.
        values_out: (⌈channels / outputs⌉, F bytes / unit, outputs, unit) uint8.
    """
    total, depth = len(frames), keys.shape[1]
    for index in range(total):
        for k in range(depth):
            keys_out[index // _OUTPUTS, k // _UNIT, index % _OUTPUTS, k % _UNIT] = keys[
                frames[index], k
            ]
    channels = values_out.shape[0] * _OUTPUTS
    for group in range(values_out.shape[1] * _UNIT):
        some = min(8, total - 8 * group)
        for k in range(min(depth, channels // 8)):
            x = np.uint64(0)
            for index in range(some):
                byte = np.uint64(values[frames[8 * group + index], k])
                x |= byte << np.uint64(8 * index)
            # transpose 8 × 8 bits: swap ever larger halves across the diagonal
            y = (x ^ (x >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
            x = x ^ y ^ (y << np.uint64(7))
            y = (x ^ (x >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
            x = x ^ y ^ (y << np.uint64(14))
            y = (x ^ (x >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
            x = x ^ y ^ (y << np.uint64(28))
            for bit in range(8):
                e = 8 * k + bit
                value = np.uint8((x >> np.uint64(8 * bit)) & np.uint64(255))
                values_out[e // _OUTPUTS, group // _UNIT, e % _OUTPUTS, group % _UNIT] = value


def _limit(counts, exponentials, pairs, threshold, edge):
    """Return how many levels of c become 1 in a row, and whether that is too near to say.

    Args:
        counts: c of each key, (an even number,) uint8; `HIDDEN` for keys that are not there.
        exponentials: exp(score - highest score) by c, (E + 1,) float64, falling.
        pairs: sums of two of them by two bytes c, (65536,) float64, 0 for those hidden.
        threshold: the smallest probability that becomes 1.
        edge: how near is too near, relative to the threshold.
    """
    both = counts.view(np.uint16)
    z0, z1, z2, z3 = 0.0, 0.0, 0.0, 0.0
    half = both.shape[0]
    i = 0
    while i + 4 <= half:
        z0 += pairs[both[i]]
        z1 += pairs[both[i + 1]]
        z2 += pairs[both[i + 2]]
        z3 += pairs[both[i + 3]]
        i += 4
    while i < half:
        z0 += pairs[both[i]]
        i += 1
    least = threshold * ((z0 + z1) + (z2 + z3))
    low, high = 0, exponentials.shape[0]
    while low < high:
        middle = (low + high) // 2
        if exponentials[middle] >= least:
            low = middle + 1
        else:
            high = middle
    doubtful = False
    for level in range(max(0, low - 1), min(exponentials.shape[0], low + 1)):
        if abs(exponentials[level] - least) <= edge * least:
            doubtful = True
    return low, doubtful


def _probabilities(
    queries,
    shared,
    private,
    hide,
    stride,
    first_until,
    tables,
    exponentials,
    pairs,
    threshold,
    edge,
    scratch,
    out,
    rows,
    kept,
):
    """Write which probabilities are 1; return how many rows are too near to say.

    Keys come in two parts: S that all queries share, and those of a query's own block: query 0 and
    the first ``stride`` others are of block 0, the next ones of block 1, and so on. Dense attention
    has one block and no keys of its own. Both parts are padded to whole words and vectors.

    Args:
        queries: bits (T, bytes), uint8.
        shared: bits of the shared keys, arranged as weights.
        private: bits of each block's own, (blocks, …) as weights.
        hide: 0, or `HIDDEN` for a key that is not there: (blocks, shared + private) uint8.
        stride: queries of a block.
        first_until: the last query that sees the first shared key.
        tables: of the algorithm's xor.
        exponentials, pairs, threshold, edge: as for `_limit`.
        scratch: (COUNTED_AT_ONCE, shared + private) uint8.
        out: (T, (shared + private) / 8) uint8: bits over keys.
        rows: (T,) int32: the numbers of the doubtful rows.
        kept: (T, shared + private) uint8: their counts.
    """
    total, depth = queries.shape
    keys = hide.shape[1]
    beyond = shared.shape[0] * _OUTPUTS
    doubted = 0
    for block in range(hide.shape[0]):
        t = 1 + block * stride if block else 0
        stop = min(total, 1 + (block + 1) * stride)
        while t < stop:
            some = min(COUNTED_AT_ONCE, stop - t)
            source = queries.ctypes.data + t * queries.strides[0]
            _counts(
                source,
                queries.strides[0],
                some,
                shared.ctypes.data,
                depth,
                shared.shape[0],
                shared.strides[0],
                tables.ctypes.data,
                0,
                0,
                0,
                scratch.ctypes.data,
                scratch.strides[0],
            )
            if private.shape[1]:
                _counts(
                    source,
                    queries.strides[0],
                    some,
                    private.ctypes.data + block * private.strides[0],
                    depth,
                    private.shape[1],
                    private.strides[1],
                    tables.ctypes.data,
                    0,
                    0,
                    0,
                    scratch.ctypes.data + beyond,
                    scratch.strides[0],
                )
            for row in range(some):
                counts = scratch[row]
                for key in range(keys):
                    counts[key] |= hide[block, key]
                if t > first_until:
                    counts[0] = HIDDEN
                reached, doubtful = _limit(counts, exponentials, pairs, threshold, edge)
                if doubtful:
                    rows[doubted] = t
                    kept[doubted] = counts
                    doubted += 1
                place = out.ctypes.data + t * out.strides[0]
                if reached == 0:
                    out[t] = 0
                else:
                    for word in range(keys // 32):
                        at_most(counts.ctypes.data + 32 * word, reached - 1, place + 4 * word)
                t += 1
    return doubted


def _own_contexts(probabilities, values, stride, tables, minus, scale, bias, out):
    """Write each query's context over the keys of its block, (T, E padded) float32.

    Args:
        probabilities: bits over a block's keys, (T, bytes) uint8, of any stride.
        values: of each block as weights, (blocks, …) uint8.
        stride: queries of a block, as for `_probabilities`.
        tables: of the algorithm's and.
        minus: minus the number of 1s of each row, (T,) int32.
        scale, bias: (E padded,) float32.
        out: (T, E padded) float32.
    """
    total, depth = probabilities.shape
    for block in range(values.shape[0]):
        start = 1 + block * stride if block else 0
        stop = min(total, 1 + (block + 1) * stride)
        _floats(
            probabilities.ctypes.data + start * probabilities.strides[0],
            probabilities.strides[0],
            stop - start,
            values.ctypes.data + block * values.strides[0],
            depth,
            values.shape[1],
            values.strides[1],
            tables.ctypes.data,
            minus.ctypes.data + 4 * start,
            scale.ctypes.data,
            bias.ctypes.data,
            out.ctypes.data + start * out.strides[0],
            out.strides[0],
        )


@dataclass(frozen=True, kw_only=True)
class AttentionCode:
    """The compiled functions of one algorithm: `_arrange`, `_probabilities`, `_own_contexts`."""

    arrange: Callable[..., None]
    probabilities: Callable[..., int]
    own_contexts: Callable[..., None]


@cache
def attention_of(algorithm: Any) -> AttentionCode:
    """Return the functions for an algorithm."""
    name = algorithm.name
    layout = {"_UNIT": algorithm.unit, "_OUTPUTS": algorithm.outputs}
    inner = {
        "_counts": product_of(algorithm, "xor", "counts"),
        "_limit": compiled(_limit, name="of_a_row", given={}),
        "_floats": product_of(algorithm, "and", "floats"),
    }
    return AttentionCode(
        arrange=compiled(_arrange, name=name, given=layout),
        probabilities=compiled(_probabilities, name=name, given={**layout, **inner}),
        own_contexts=compiled(_own_contexts, name=name, given={**layout, **inner}),
    )
