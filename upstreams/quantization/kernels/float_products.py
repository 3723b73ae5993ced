"""Products of floats whose left rows are windows of one array, with GELU of the sums.

A convolution over (T, C) with kernel k and stride s is a product of its windows, k · C neighbouring
floats, each s · C after the last, and a matrix: nothing is copied together first. A block keeps the
sums of a few rows and vectors in registers. Each sum runs over its inputs in one order, so it does
not depend on which rows are computed together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from superbit.upstreams.quantization.kernels import choose
from superbit.upstreams.quantization.kernels import vector_code as code
from superbit.upstreams.quantization.kernels.machine_code import compiled, unset
from superbit.upstreams.quantization.kernels.vector_code import F32, intrinsic

# What becomes of a sum: nothing; GELU; or GELU of sum × scale + shift, one of each an output.
Then = Literal["plain", "gelu", "scaled"]

_PART = 64  # inputs summed by themselves before they are added to others: a smaller error
_AT_ONCE = 4  # inputs of a turn of the innermost loop
_SATURATED = 6.0  # |x| from which on the error function of x / √2 is 1 in float32
_DEGREE = 18  # of the polynomial below
_SLOPE = math.sqrt(2 / math.pi)  # of erf(z / √2) at 0


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What a block keeps in registers: ``rows`` × ``vectors`` sums of ``lanes`` floats."""

    rows: int
    vectors: int
    lanes: int

    @property
    def outputs(self) -> int:
        """Outputs of a block."""
        return self.vectors * self.lanes


@cache
def tile() -> Tile:
    """Return what fits this processor's registers."""
    have = choose.features()
    if "avx512f" in have:
        return Tile(rows=12, vectors=2, lanes=16)
    if "avx2" in have:
        return Tile(rows=6, vectors=2, lanes=8)
    if "neon" in have:
        return Tile(rows=6, vectors=4, lanes=4)
    return Tile(rows=6, vectors=2, lanes=4)


def arranged(weight: np.ndarray, of: Tile) -> np.ndarray:
    """Lay a matrix (N, K) out as blocks read it: (⌈N / outputs⌉, K, outputs), zeros beyond N."""
    outputs, depth = weight.shape
    filled = np.zeros((-(-outputs // of.outputs) * of.outputs, depth), np.float32)
    filled[:outputs] = weight
    return np.ascontiguousarray(filled.reshape(-1, of.outputs, depth).transpose(0, 2, 1))


@cache
def _error_function() -> list[float]:
    """Coefficients of (erf(z / √2) / z - √(2 / π)) / z², the lowest power first.

    Of u = 2 z² / `_SATURATED`² - 1, in which they are small. Rounding u would spoil small z, were
    the first term not apart.
    """

    def rest(u: np.ndarray) -> np.ndarray:
        z = _SATURATED * np.sqrt((u + 1) / 2)
        ratio = np.array([math.erf(each / math.sqrt(2)) / each for each in z])
        return np.asarray((ratio - _SLOPE) / z**2)

    chebyshev: Any = np.polynomial.chebyshev  # whose types expect a function of arrays of arrays
    series = chebyshev.chebinterpolate(rest, _DEGREE)
    return [float(each) for each in chebyshev.cheb2poly(series)]


def _gelu(b: Any, vectors: Sequence[Any]) -> list[Any]:
    """Emit GELU of vectors, step by step for all of them, so that none waits for itself."""
    kind = vectors[0].type

    def of(value: float) -> Any:
        return code.filled(kind, value)

    coefficients = [of(each) for each in _error_function()]
    bounded = [b.select(b.fcmp_ordered("<", x, of(_SATURATED)), x, of(_SATURATED)) for x in vectors]
    bounded = [
        b.select(b.fcmp_ordered(">", z, of(-_SATURATED)), z, of(-_SATURATED)) for z in bounded
    ]
    squares = [b.fmul(z, z) for z in bounded]
    factor = of(2 / _SATURATED**2)
    arguments = [code.multiply_add(b, each, factor, of(-1.0)) for each in squares]
    values = [coefficients[-1]] * len(vectors)
    for coefficient in coefficients[-2::-1]:
        values = [
            code.multiply_add(b, value, u, coefficient)
            for value, u in zip(values, arguments, strict=True)
        ]
    values = [
        code.multiply_add(b, value, each, of(_SLOPE))
        for value, each in zip(values, squares, strict=True)
    ]
    halves = [b.fmul(x, of(0.5)) for x in vectors]
    return [
        code.multiply_add(b, b.fmul(h, z), value, h)
        for h, z, value in zip(halves, bounded, values, strict=True)
    ]


def make_float_block(of: Tile, *, rows: int, then: Then) -> Callable[..., None]:
    """Return a block of ``rows`` as a function for numba's code, with eight 64-bit arguments.

    ``x, x_stride``: the first row, and bytes from row to row
    ``w, depth``: weights of the block's outputs as `arranged` lays them out, K, at least 1
    ``scale, shift``: one float an output, read by ``scaled`` alone
    ``out, out_stride``: where the first row's first output goes, and bytes from row to row
    """

    @intrinsic
    def block(context, x, x_stride, w, depth, scale, shift, out, out_stride):
        def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
            _emit_block(b, of, arguments, rows=rows, then=then)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return block


def _emit_block(b: Any, of: Tile, arguments: Sequence[Any], *, rows: int, then: Then) -> None:
    x, x_stride, w, depth, scale, shift, out, out_stride = arguments
    kind, width = code.vector(F32, of.lanes), 4 * of.lanes
    grid = [(row, v) for row in range(rows) for v in range(of.vectors)]
    totals = {each: code.variable(b, kind) for each in grid}
    partial = {each: cgutils.alloca_once(b, kind) for each in grid}
    starts = [code.at(b, x, b.mul(x_stride, code.constant(row))) for row in range(rows)]
    part = code.constant(_PART)
    parts = b.sdiv(b.add(depth, code.constant(_PART - 1)), part)
    with cgutils.for_range(b, parts) as outer:
        first = b.mul(outer.index, part)
        left = b.sub(depth, first)
        count = b.select(b.icmp_signed("<", left, part), left, part)
        for place in partial.values():
            b.store(ir.Constant(kind, None), place)

        def multiply(index: Any, inputs: int) -> None:
            """Add the products of ``inputs`` neighbouring inputs, from ``index`` on."""
            column = b.mul(index, code.constant(4))
            line = code.at(b, w, b.mul(index, code.constant(width * of.vectors)))
            here = [code.at(b, start, column) for start in starts]
            for i in range(inputs):
                weights = [
                    code.load(b, code.at(b, line, width * (i * of.vectors + v)), kind)
                    for v in range(of.vectors)
                ]
                for row, place in enumerate(here):
                    value = code.splat(b, code.load(b, code.at(b, place, 4 * i), F32), of.lanes)
                    for v, weight in enumerate(weights):
                        so_far = b.load(partial[row, v])
                        b.store(code.multiply_add(b, value, weight, so_far), partial[row, v])

        whole = b.sdiv(count, code.constant(_AT_ONCE))
        with cgutils.for_range(b, whole) as loop:
            multiply(b.add(first, b.mul(loop.index, code.constant(_AT_ONCE))), _AT_ONCE)
        rest = b.srem(count, code.constant(_AT_ONCE))
        with cgutils.for_range(b, rest) as loop:
            multiply(b.add(b.add(first, b.sub(count, rest)), loop.index), 1)
        for each, place in totals.items():
            b.store(b.fadd(b.load(place), b.load(partial[each])), place)
    for row in range(rows):
        base = code.at(b, out, b.mul(out_stride, code.constant(row)))
        sums = [b.load(totals[row, v]) for v in range(of.vectors)]
        if then == "scaled":
            scales = [code.load(b, code.at(b, scale, width * v), kind) for v in range(of.vectors)]
            shifts = [code.load(b, code.at(b, shift, width * v), kind) for v in range(of.vectors)]
            sums = [
                code.multiply_add(b, each, *pair)
                for each, *pair in zip(sums, scales, shifts, strict=True)
            ]
        for v, each in enumerate(sums if then == "plain" else _gelu(b, sums)):
            code.store(b, each, code.at(b, base, width * v))


# Set for each tile and continuation by `product_of`.
_ROWS = _OUTPUTS = 0
_tall = _one = unset


def _float_product(x, x_stride, rows, w, depth, panels, scale, shift, out, out_stride):
    """All arguments are addresses, bytes or numbers of rows and panels; see `make_float_block`.

    Weights are the outer loop, so that those of a panel stay in a cache while all rows pass; the
    last rows overlap those before.
    """
    for p in range(panels):
        weights = w + 4 * _OUTPUTS * depth * p
        a = scale + 4 * _OUTPUTS * p
        b = shift + 4 * _OUTPUTS * p
        o = out + 4 * _OUTPUTS * p
        t = 0
        while t < rows:
            if rows >= _ROWS:
                s = min(t, rows - _ROWS)
                _tall(
                    x + s * x_stride, x_stride, weights, depth, a, b, o + s * out_stride, out_stride
                )
                t += _ROWS
            else:
                _one(
                    x + t * x_stride, x_stride, weights, depth, a, b, o + t * out_stride, out_stride
                )
                t += 1


@cache
def product_of(of: Tile, then: Then) -> Callable[..., None]:
    """Return the product of a tile, as a function that numba's code may call."""
    given = {
        "_ROWS": of.rows,
        "_OUTPUTS": of.outputs,
        "_tall": make_float_block(of, rows=of.rows, then=then),
        "_one": make_float_block(of, rows=1, then=then),
    }
    name = f"{of.rows}x{of.vectors}x{of.lanes}_{then}"
    return compiled(_float_product, name=name, given=given)
