"""Attention of 1-bit queries, keys, probabilities and values, without a matrix of floats.

A score is one of E + 1 numbers: with c the bits in which query and key differ, (E - 2 c) × scale.
So a row's softmax denominator Z is a sum of E + 1 exponentials, each as often as its c occurs, and
a probability becomes 1 where exp(score) / Z reaches the quantizer's threshold: where c is at most a
limit of the row. Keys are compared with it as bytes, 32 at a time.

Z is summed in another order here than by softmax, and exponentials are rounded otherwise. A row in
which any probability is nearer to the threshold than that could move it is listed, and its
probabilities are made anew by softmax itself.

Notation: T frames, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from superbit.upstreams.quantization.kernels.machine_code import compiled
from superbit.upstreams.quantization.kernels.products import product_of
from superbit.upstreams.quantization.kernels.rows import at_most

# A probability that is nearer to its threshold, relative to it, is softmax's to decide: well above
# the rounding of a sum of some thousand float32 numbers, and rare.
EDGE = 1e-4
COUNTED_AT_ONCE = 8  # rows of queries whose counts stay in the first cache

_counts: Callable[..., None]
_UNIT = _OUTPUTS = 0


def _arrange_rows(rows, out):  # type: ignore[no-untyped-def]
    """Lay rows of bits (T, bytes) out as weights: ``out`` (⌈T / N⌉, bytes / unit, N, unit)."""
    total, depth = rows.shape
    for t in range(total):
        for k in range(depth):
            out[t // _OUTPUTS, k // _UNIT, t % _OUTPUTS, k % _UNIT] = rows[t, k]


def _arrange_columns(rows, out):  # type: ignore[no-untyped-def]
    """Lay columns of bits (T, bytes) out as weights over T: (⌈E / N⌉, T bytes / unit, N, unit)."""
    total, depth = rows.shape
    channels = out.shape[0] * _OUTPUTS
    for group in range(out.shape[1] * _UNIT):
        frames = min(8, total - 8 * group)
        for k in range(min(depth, channels // 8)):
            x = np.uint64(0)
            for frame in range(frames):
                x |= np.uint64(rows[8 * group + frame, k]) << np.uint64(8 * frame)
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
                out[e // _OUTPUTS, group // _UNIT, e % _OUTPUTS, group % _UNIT] = value


def _probabilities(  # type: ignore[no-untyped-def]
    queries, keys, tables, exponentials, pairs, threshold, counts, offset, out, near
):
    """Write which probabilities are 1, and which rows are too near to say.

    Args:
        queries: bits (T, bytes), uint8.
        keys: bits of the T keys, arranged as weights.
        tables: of the algorithm's xor.
        exponentials: exp(score - highest score) by c, (E + 1,) float64, falling.
        pairs: sums of two of them by two bytes c, (256 · (E + 1),) float64.
        threshold: the smallest probability that becomes 1.
        counts: scratch, (COUNTED_AT_ONCE, keys padded) uint8.
        offset: not used by counts.
        out: (T, bytes) uint8: bits over keys, those beyond T are 0.
        near: (T,) uint8: 1 for a row that softmax has to decide.
    """
    total = queries.shape[0]
    words = out.shape[1] // 4
    levels = exponentials.shape[0]
    for start in range(0, total, COUNTED_AT_ONCE):
        some = min(COUNTED_AT_ONCE, total - start)
        _counts(
            queries.ctypes.data + start * queries.strides[0],
            queries.strides[0],
            some,
            keys.ctypes.data,
            queries.shape[1],
            keys.shape[0],
            keys.strides[0],
            tables.ctypes.data,
            offset.ctypes.data,
            0,
            0,
            counts.ctypes.data,
            counts.strides[0],
        )
        for row in range(some):
            t = start + row
            both = counts[row].view(np.uint16)
            z0, z1 = 0.0, 0.0
            half = total // 2
            i = 0
            while i + 2 <= half:
                z0 += pairs[both[i]]
                z1 += pairs[both[i + 1]]
                i += 2
            if i < half:
                z0 += pairs[both[i]]
            z = z0 + z1
            if total % 2:
                z += exponentials[counts[row, total - 1]]
            least = threshold * z
            low, high = 0, levels  # the first level below the threshold
            while low < high:
                middle = (low + high) // 2
                if exponentials[middle] >= least:
                    low = middle + 1
                else:
                    high = middle
            doubtful = False
            for level in range(max(0, low - 1), min(levels, low + 1)):
                if abs(exponentials[level] - least) <= EDGE * least:
                    doubtful = True
            near[t] = doubtful
            place = out.ctypes.data + t * out.strides[0]
            if low == 0:
                out[t] = 0
                continue
            for word in range(words):
                at_most(counts.ctypes.data + row * counts.strides[0] + 32 * word, low - 1,
                        place + 4 * word)
            for byte in range(total // 8, out.shape[1]):
                left = max(0, total - 8 * byte)
                if left < 8:
                    out[t, byte] &= (1 << left) - 1


@dataclass(frozen=True)
class AttentionCode:
    """The compiled functions of one algorithm: see `_arrange_rows` and the two after it."""

    arrange_rows: Callable[..., None]
    arrange_columns: Callable[..., None]
    probabilities: Callable[..., None]


@cache
def attention_of(algorithm: Any) -> AttentionCode:
    """Return the functions for an algorithm."""
    given = {"_UNIT": algorithm.unit, "_OUTPUTS": algorithm.outputs}
    return AttentionCode(
        compiled(_arrange_rows, name=algorithm.name, given=given),
        compiled(_arrange_columns, name=algorithm.name, given=given),
        compiled(
            _probabilities,
            name=algorithm.name,
            given={"_counts": product_of(algorithm, "xor", "counts")},
        ),
    )
