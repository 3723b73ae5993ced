"""Rows of bits: from float activations to bits, and from bits to the layouts of weights.

A row of K bits is ⌈K / 32⌉ · 4 bytes, the first channel the lowest bit of the first byte; the bits
beyond K are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from superbit.upstreams.quantization.kernels import vector_code as code
from superbit.upstreams.quantization.kernels.machine_code import jitted
from superbit.upstreams.quantization.kernels.vector_code import F32, I8, I32, I64, intrinsic

_AT_ONCE = 32  # channels: one word


def row_bytes(channels: int) -> int:
    """Return the bytes of a row of so many bits."""
    return -(-channels // 32) * 4


def whole(count: int, algorithm: Any) -> int:
    """Return how many outputs or keys are whole words and whole vectors of an algorithm."""
    step = max(32, algorithm.outputs)
    return -(-count // step) * step


def arranged(bits: np.ndarray, algorithm: Any) -> np.ndarray:
    """Lay weight bits (N, K) of 0 and 1 out as an algorithm counts them.

    Returns:
        (⌈N / outputs⌉, K / 8 / unit, outputs · unit) bytes: for each vector of outputs, units of
        their bits that lie together, zeros beyond N and K.
    """
    outputs, depth = bits.shape
    per_vector, unit, columns = algorithm.outputs, algorithm.unit, row_bytes(depth)
    filled = np.zeros((-(-outputs // per_vector) * per_vector, 8 * columns), np.uint8)
    filled[:outputs, :depth] = bits
    packed = np.packbits(filled, axis=1, bitorder="little")
    units = packed.reshape(-1, per_vector, columns // unit, unit).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(units).reshape(len(units), columns // unit, per_vector * unit)


@intrinsic
def _reached(context, x, thresholds, out):
    """Write one word: which of 32 floats reach their thresholds. Addresses."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, thresholds, out = arguments
        kind = code.vector(F32, 8)
        parts = [
            b.fcmp_ordered(
                ">=",
                code.load(b, code.at(b, x, 32 * index), kind),
                code.load(b, code.at(b, thresholds, 32 * index), kind),
            )
            for index in range(_AT_ONCE // 8)
        ]
        code.store(b, code.as_bits(b, parts), out)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def at_most(context, counts, limit, out):
    """Write one word: which of 32 bytes at ``counts`` are at most ``limit``, a uint8."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        counts, limit, out = arguments
        kind = code.vector(I8, _AT_ONCE)
        found = b.icmp_unsigned("<=", code.load(b, counts, kind), code.splat(b, limit, _AT_ONCE))
        code.store(b, code.as_bits(b, [found]), out)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint8, types.int64), generate


@intrinsic
def ones_of(context, place):
    """Return how many bits of the eight bytes at an address are 1."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        count = code.external(b, "llvm.ctpop.i64", I64, I64)
        return b.call(count, [code.load(b, arguments[0], I64)])

    return types.int64(types.int64), generate


@intrinsic
def word_at(context, place):
    """Return the 32-bit word at an address, zero-extended to 64 bits."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.zext(code.load(b, arguments[0], I32), I64)

    return types.int64(types.int64), generate


@jitted
def binarize_rows(x, thresholds, out):
    """Write to ``out`` (T, bytes) which of ``x`` (T, K) reach ``thresholds`` (K,), float32."""
    rows, channels = x.shape
    words = channels // 32
    for t in range(rows):
        source = x.ctypes.data + 4 * t * channels
        target = out.ctypes.data + t * out.strides[0]
        for k in range(words):
            _reached(source + 128 * k, thresholds.ctypes.data + 128 * k, target + 4 * k)
        for byte in range(4 * words, out.shape[1]):
            value = 0
            for bit in range(8):
                k = 8 * byte + bit
                if k < channels and x[t, k] >= thresholds[k]:
                    value |= 1 << bit
            out[t, byte] = value


@jitted
def minus_ones(rows, out):
    """Write to ``out`` (T,) int32 minus the number of 1s of each row (T, bytes)."""
    depth = rows.shape[1]
    for t in range(rows.shape[0]):
        place = rows.ctypes.data + t * rows.strides[0]
        total = 0
        for k in range(depth // 8):
            total += ones_of(place + 8 * k)
        if depth % 8:
            word: int = word_at(place + depth - 4)
            while word:
                word &= word - 1
                total += 1
        out[t] = -total


def unpacked(rows: np.ndarray, channels: int) -> np.ndarray:
    """Return rows of bits (T, bytes) as (T, channels) of 0 and 1."""
    return np.unpackbits(rows, axis=1, count=channels, bitorder="little")
