"""Counting by tables of nibbles: for machines that count the bits of no vector themselves.

Four input bits of a row, a nibble, select a table of 16 bytes: how many bits each nibble of weights
shares with them (and) or differs in (xor). One shuffle instruction looks up as many outputs as a
vector has bytes, one addition adds them: 2 instructions for 4 × 32 products of one bit with AVX2,
where the general way (xor, split, look up twice, add, widen) takes 9 for 8 × 32.

The idea of a table per group of activations, looked up by the weights' bits, is T-MAC's (Wei et
al., 2024, https://arxiv.org/abs/2407.00088), which has weights of few bits and larger activations.

Weights are arranged by single bytes (`rows.arranged`): of each B outputs, for a vector of B bytes,
8 input bits of all of them together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from superbit.upstreams.quantization.kernels import vector_code as code
from superbit.upstreams.quantization.kernels.vector_code import I8, I32, I64, Operands

# Bytes whose 2 × 4 bits cannot overflow a byte: 31 × 8 = 248.
_BYTES_AT_ONCE = 31
_SHUFFLES = {
    16: "llvm.x86.ssse3.pshuf.b.128",
    32: "llvm.x86.avx2.pshuf.b",
    64: "llvm.x86.avx512.pshuf.b.512",
}


class NibbleTables:
    """The algorithm for vectors of ``width`` bytes: 16 (SSSE3), 32 (AVX2) or 64 (AVX-512 BW)."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.outputs = width  # of one vector
        self.name = f"nibbles{8 * width}"
        self.unit = 1  # bytes of one output's bits that lie together
        self.rows, self.wide = 3, 2  # rows and vectors of a block: what the registers take
        self.by_bytes = width <= 32
        self._tables = np.ascontiguousarray(self.tables())

    def tables(self) -> np.ndarray:
        """Return the tables of both operations, xor and then and, (2, 256, 2 · B) bytes.

        For each byte of input the table of its low and that of its high nibble: 16 KiB with AVX2,
        half of a first cache, for two instructions less a byte than 16 tables take. With AVX-512
        it would be all of it: there 16 tables, (2, 16, B) bytes.
        """
        nibbles = np.arange(16, dtype=np.uint8)
        ones = np.array([bin(value).count("1") for value in range(16)], np.uint8)
        single = np.stack([ones[nibbles[:, None] ^ nibbles], ones[nibbles[:, None] & nibbles]])
        single = np.tile(single, (1, 1, self.width // 16))  # (2, 16, B)
        if not self.by_bytes:
            return single
        byte = np.arange(256)
        return np.concatenate([single[:, byte % 16], single[:, byte // 16]], axis=2)

    def table_of(self, op: str) -> np.ndarray:
        """Return the tables of one operation, see `tables`."""
        return self._tables[0 if op == "xor" else 1]

    def count(self, b: Any, operands: Operands, *, op: str, narrow: bool) -> list[list[list[Any]]]:
        """Emit code that counts; return for each row and vector its counts in order.

        Args:
            b: LLVM's builder.
            operands: of the block.
            op: ``"xor"`` or ``"and"``; here the tables say it.
            narrow: K ≤ 248 and bytes will do: one vector of B bytes in place of four of 32 bits.
        """
        rows, vectors, depth = operands.rows, operands.vectors, operands.depth
        lanes = self.width // 4
        if narrow:
            sums = self._sum(b, operands, start=code.constant(0), length=depth)
            return [[[b.load(place)] for place in row] for row in sums]
        wide = [
            [[code.variable(b, code.vector(I32, lanes)) for _ in range(4)] for _ in range(vectors)]
            for _ in range(rows)
        ]
        step = code.constant(_BYTES_AT_ONCE)
        with cgutils.for_range_slice(b, code.constant(0), depth, step, I64) as (start, _):
            left = b.sub(depth, start)
            length = b.select(b.icmp_signed("<", left, step), left, step)
            sums = self._sum(b, operands, start=start, length=length)
            for row, places in enumerate(sums):
                for index, place in enumerate(places):
                    total = b.load(place)
                    for quarter, into in enumerate(wide[row][index]):
                        few = code.part(b, total, start=quarter * lanes, lanes=lanes)
                        code.add_to(b, into, b.zext(few, code.vector(I32, lanes)))
        return [[[b.load(place) for place in places] for places in row] for row in wide]

    def _sum(self, b: Any, operands: Operands, *, start: Any, length: Any) -> list[list[Any]]:
        """Emit the loop over some bytes of K; return variables of byte sums."""
        rows, vectors = operands.rows, operands.vectors
        kind = code.vector(I8, self.width)
        shuffle = code.external(b, _SHUFFLES[self.width], kind, kind, kind)
        sums = [[code.variable(b, kind) for _ in range(vectors)] for _ in range(rows)]
        low = code.filled(kind, 15)
        four = code.filled(kind, 4)
        with cgutils.for_range(b, length) as loop:
            k = b.add(start, loop.index)
            chosen = [
                [
                    code.load(b, code.at(b, operands.tables, offset), kind, align=16)
                    for offset in self._table_offsets(b, code.load(b, operands.row(b, row, k), I8))
                ]
                for row in range(rows)
            ]
            for index in range(vectors):
                block = b.mul(operands.depth, code.constant(index * self.width))
                place = code.at(b, operands.w, block, b.mul(k, code.constant(self.width)))
                weights = code.load(b, place, kind, align=16)
                halves = [b.and_(weights, low), b.lshr(weights, four)]
                for row in range(rows):
                    for table, half in zip(chosen[row], halves, strict=True):
                        code.add_to(b, sums[row][index], b.call(shuffle, [table, half]))
        return sums

    def _table_offsets(self, b: Any, byte: Any) -> list[Any]:
        """Return where the tables of a byte's low and of its high nibble lie."""
        if self.by_bytes:
            offset = b.mul(b.zext(byte, I64), code.constant(2 * self.width))
            return [offset, b.add(offset, code.constant(self.width))]
        halves = [b.and_(byte, ir.Constant(I8, 15)), b.lshr(byte, ir.Constant(I8, 4))]
        return [b.mul(b.zext(half, I64), code.constant(self.width)) for half in halves]
