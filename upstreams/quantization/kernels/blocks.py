"""Blocks of a binary matrix product: count bits for some rows and outputs, then write what follows.

A block is the innermost code of every kernel. It counts, for a few rows of input bits and a few
vectors of outputs, the bits in which input and weight differ (xor) or that both have (and), turns
counts into the exact integer sum of the products of levels, and writes one of:

- ``counts``: the counts themselves, as bytes (K ≤ 248);
- ``floats``: sum × scale + bias, float32, each operation rounded by itself, as the simulation does;
- ``bits``: whether the sum reaches the output's integer threshold: the next layer's input.

With c the count and levels ±1, the sum is K - 2 c (xor). With input levels 0 and 1 it is
2 c - p (and), where p is how many of the row's input bits are 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from numba.core import types

from superbit.upstreams.quantization.kernels import vector_code as code
from superbit.upstreams.quantization.kernels.vector_code import F32, I32, intrinsic

Op = Literal["xor", "and"]
Epilogue = Literal["counts", "floats", "bits"]


def make_block(
    algorithm: Any, *, rows: int, vectors: int, op: Op, epilogue: Epilogue
) -> Callable[..., None]:
    """Return the block as a function for numba's code, with the arguments of `emit_block`."""

    @intrinsic
    def block(context, x, x_stride, w, depth, tables, offset, first, second, out, out_stride):
        def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
            emit_block(
                b, algorithm, arguments, rows=rows, vectors=vectors, op=op, epilogue=epilogue
            )
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), generate

    return block


def emit_block(
    b: Any,
    algorithm: Any,
    arguments: Sequence[Any],
    *,
    rows: int,
    vectors: int,
    op: Op,
    epilogue: Epilogue,
) -> None:
    """Emit the code of a block at the builder's place.

    The arguments are ten integers of 64 bits, addresses and numbers of bytes unless said otherwise:

    ``x, x_stride``: input bits of the first row, and bytes from row to row
    ``w, depth``: weights of the first vector as the algorithm arranges them, K / 8
    ``tables``: of the algorithm and the operation
    ``offset``: one int32 a row: K (xor), or minus p (and); not read for ``counts``
    ``first, second``: one an output: of ``floats`` scale and bias, of ``bits`` an int32 threshold
    ``out, out_stride``: where the first row's first output goes, and bytes from row to row
    """
    x, x_stride, w, depth, tables, offset, first, second, out, out_stride = arguments
    operands = code.Operands(
        rows=rows, vectors=vectors, x=x, x_stride=x_stride, w=w, depth=depth, tables=tables
    )
    counts = algorithm.count(b, operands, op=op, narrow=epilogue == "counts")
    for row, places in enumerate(counts):
        base = code.at(b, out, b.mul(out_stride, code.constant(row)))
        parts = [each for place in places for each in place]
        if epilogue == "counts":
            for index, each in enumerate(parts):
                code.store(b, each, code.at(b, base, index * each.type.count))
            continue
        kind, lanes = parts[0].type, parts[0].type.count
        add = code.splat(b, code.load(b, code.at(b, offset, 4 * row), I32), lanes)
        factor = code.filled(kind, -2 if op == "xor" else 2)
        sums = [b.add(add, b.mul(each, factor)) for each in parts]
        if epilogue == "bits":
            reached = [
                b.icmp_signed(">=", each, code.load(b, code.at(b, first, 4 * lanes * index), kind))
                for index, each in enumerate(sums)
            ]
            # 8 to 64 outputs at a time: what one register takes
            group = max(len(places[0]), 8 // lanes)
            for start in range(0, len(reached), group):
                bits = code.as_bits(b, reached[start : start + group])
                code.store(b, bits, code.at(b, base, start * lanes // 8))
            continue
        floats = code.vector(F32, lanes)
        for index, each in enumerate(sums):
            shift = 4 * lanes * index
            scale = code.load(b, code.at(b, first, shift), floats)
            bias = code.load(b, code.at(b, second, shift), floats)
            value = b.fadd(b.fmul(b.sitofp(each, floats), scale), bias)
            code.store(b, value, code.at(b, base, shift))
