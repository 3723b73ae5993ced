"""Counting by an instruction that counts the bits of a vector's 32-bit words.

AVX-512 VPOPCNTDQ has one; elsewhere LLVM puts it together from what there is, which is slow and
right, so this is also the algorithm of every machine that has no better one.

Weights are arranged by words of four bytes (`rows.arranged`): of each L outputs, for a vector of L
words, 32 input bits of all of them together, so that no sum runs across a vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import cgutils

from superbit.upstreams.quantization.kernels import vector_code as code
from superbit.upstreams.quantization.kernels.vector_code import I8, I32, Operands


class WordCounts:
    """The algorithm for vectors of ``width`` bytes: 32 or 64."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.outputs = width // 4  # of one vector
        self.name = f"words{8 * width}"
        self.unit = 4  # bytes of one output's bits that lie together
        self.rows, self.wide = 6, 4  # rows and vectors of a block: what the registers take

    def table_of(self, op: str) -> np.ndarray:
        """Return an empty array: the instruction needs no tables."""
        return np.zeros(0, np.uint8)

    def count(self, b: Any, operands: Operands, *, op: str, narrow: bool) -> list[list[list[Any]]]:
        """Emit code that counts; return for each row and vector its counts in order.

        Arguments as for `NibbleTables.count`; ``op`` is ``"xor"`` or ``"and"``.
        """
        rows, vectors, depth = operands.rows, operands.vectors, operands.depth
        kind = code.vector(I32, self.outputs)
        ones = code.external(b, f"llvm.ctpop.v{self.outputs}i32", kind, kind)
        sums = [[code.variable(b, kind) for _ in range(vectors)] for _ in range(rows)]
        combine = b.xor if op == "xor" else b.and_
        with cgutils.for_range(b, b.udiv(depth, code.constant(self.unit))) as loop:
            across = b.mul(loop.index, code.constant(self.width))
            weights = []
            for index in range(vectors):
                block = b.mul(depth, code.constant(index * self.outputs))
                place = code.at(b, operands.w, block, across)
                weights.append(code.load(b, place, kind, align=16))
            word = b.mul(loop.index, code.constant(self.unit))
            for row in range(rows):
                same = code.splat(b, code.load(b, operands.row(b, row, word), I32), self.outputs)
                for index in range(vectors):
                    code.add_to(b, sums[row][index], b.call(ones, [combine(same, weights[index])]))
        small = code.vector(I8, self.outputs)
        return [
            [[b.trunc(b.load(p), small) if narrow else b.load(p)] for p in places]
            for places in sums
        ]
