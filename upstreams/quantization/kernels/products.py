"""Binary matrix products: rows of input bits times arranged weight bits, over a whole matrix.

The loops around a block. Weights are the outer loop, so that a few vectors of them stay in the
first cache while all rows pass; rows are taken a block at a time, the last one overlapping the one
before, so that no row needs other code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from superbit.upstreams.quantization.kernels.blocks import Epilogue, Op, make_block
from superbit.upstreams.quantization.kernels.machine_code import compiled, unset
from superbit.upstreams.quantization.kernels.threads import spread

WORTH_A_THREAD = 5 * 10**7  # products of bits: some tenth of a millisecond

# Set for each algorithm, operation and epilogue by `product_of`.
_ROWS = _WIDE = _OUTPUTS = _OUT_BYTES = 0
_tall_wide = _tall_narrow = _one_wide = _one_narrow = unset


def _product(
    x,
    x_stride,
    rows,
    w,
    depth,
    vectors,
    vector_bytes,
    tables,
    offset,
    first,
    second,
    out,
    out_stride,
):
    """All arguments are addresses, bytes or numbers of rows and vectors; see `make_block`."""
    v = 0
    while v < vectors:
        wide = v + _WIDE <= vectors
        weights = w + v * vector_bytes
        a = first + 4 * _OUTPUTS * v
        b = second + 4 * _OUTPUTS * v
        o = out + _OUT_BYTES * v
        t = 0
        while t < rows:
            if rows >= _ROWS:
                s = min(t, rows - _ROWS)
                xs, os, fs = x + s * x_stride, o + s * out_stride, offset + 4 * s
                if wide:
                    _tall_wide(xs, x_stride, weights, depth, tables, fs, a, b, os, out_stride)
                else:
                    _tall_narrow(xs, x_stride, weights, depth, tables, fs, a, b, os, out_stride)
                t += _ROWS
            else:
                xs, os, fs = x + t * x_stride, o + t * out_stride, offset + 4 * t
                if wide:
                    _one_wide(xs, x_stride, weights, depth, tables, fs, a, b, os, out_stride)
                else:
                    _one_narrow(xs, x_stride, weights, depth, tables, fs, a, b, os, out_stride)
                t += 1
        v += _WIDE if wide else 1


@cache
def product_of(algorithm: Any, op: Op, epilogue: Epilogue) -> Callable[..., None]:
    """Return the product for an algorithm, as a function that numba's code may call."""

    def block(rows: int, vectors: int) -> Callable[..., None]:
        return make_block(algorithm, rows=rows, vectors=vectors, op=op, epilogue=epilogue)

    outputs = algorithm.outputs
    given = {
        "_ROWS": algorithm.rows,
        "_WIDE": algorithm.wide,
        "_OUTPUTS": outputs,
        "_OUT_BYTES": {"counts": outputs, "floats": 4 * outputs, "bits": outputs // 8}[epilogue],
        "_tall_wide": block(algorithm.rows, algorithm.wide),
        "_tall_narrow": block(algorithm.rows, 1),
        "_one_wide": block(1, algorithm.wide),
        "_one_narrow": block(1, 1),
    }
    return compiled(_product, name=f"{algorithm.name}_{op}_{epilogue}", given=given)


def multiply(
    algorithm: Any,
    op: Op,
    epilogue: Epilogue,
    *,
    rows: np.ndarray,
    weights: np.ndarray,
    offsets: np.ndarray,
    first: np.ndarray,
    second: np.ndarray | None = None,
    out: np.ndarray,
) -> None:
    """Write the product of rows of bits (T, bytes) and arranged weights to ``out``.

    Args:
        offsets: what is added to a row's doubled counts, (T,) int32.
        first, second: of each output, see `blocks`; ``counts`` read neither.
        out: (T, …) of the epilogue's type, rows of any stride.
    """
    product = product_of(algorithm, op, epilogue)
    depth = rows.shape[1]

    def work(start: int, stop: int) -> None:
        product(
            rows.ctypes.data + start * rows.strides[0],
            rows.strides[0],
            stop - start,
            weights.ctypes.data,
            depth,
            len(weights),
            weights.strides[0],
            algorithm.table_of(op).ctypes.data,
            offsets.ctypes.data + start * offsets.strides[0],
            first.ctypes.data,
            0 if second is None else second.ctypes.data,
            out.ctypes.data + start * out.strides[0],
            out.strides[0],
        )

    products_of_row = 8 * depth * len(weights) * algorithm.outputs
    spread(len(rows), -(-WORTH_A_THREAD // max(1, products_of_row)), work)
