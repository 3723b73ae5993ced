"""Pieces of LLVM's vector code that the kernels are put together from.

numba gives a function of ours the LLVM builder (`intrinsic`), so a kernel says which vector
instructions it wants in place of hoping that loops become them. Written for any vector width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32 = ir.FloatType()
# Typed as what it gives: a function that numba's code calls without the context.
intrinsic: Any = _intrinsic


def vector(element: ir.Type, lanes: int) -> ir.VectorType:
    """Return the type of ``lanes`` elements."""
    return ir.VectorType(element, lanes)


def constant(value: int) -> ir.Constant:
    """Return a 64-bit integer: an offset, an index or a number of bytes."""
    return ir.Constant(I64, value)


def splat(b: Any, scalar: Any, lanes: int) -> Any:
    """Return a vector whose every lane is ``scalar``."""
    kind = vector(scalar.type, lanes)
    first = b.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
    zeros = ir.Constant(vector(I32, lanes), [0] * lanes)
    return b.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def filled(kind: ir.VectorType, value: float) -> ir.Constant:
    """Return a constant vector of one value."""
    return ir.Constant(kind, [value] * kind.count)


def load(b: Any, address: Any, kind: ir.Type, *, align: int = 1) -> Any:
    """Return what lies at an address, an integer."""
    return b.load(b.inttoptr(address, kind.as_pointer()), align=align)


def store(b: Any, value: Any, address: Any, *, align: int = 1) -> None:
    """Write a value to an address, an integer."""
    b.store(value, b.inttoptr(address, value.type.as_pointer()), align=align)


def at(b: Any, address: Any, *offsets: Any) -> Any:
    """Return the address plus bytes, each an `int` or a value of 64 bits."""
    for offset in offsets:
        if isinstance(offset, int):
            if offset == 0:
                continue
            offset = constant(offset)
        address = b.add(address, offset)
    return address


def part(b: Any, whole: Any, *, start: int, lanes: int) -> Any:
    """Return ``lanes`` neighbouring lanes of a vector, from lane ``start`` on."""
    picked = ir.Constant(vector(I32, lanes), list(range(start, start + lanes)))
    return b.shuffle_vector(whole, ir.Constant(whole.type, ir.Undefined), picked)


def joined(b: Any, vectors: Sequence[Any]) -> Any:
    """Return the lanes of equal vectors, a power of two of them, one after another."""
    while len(vectors) > 1:
        lanes = 2 * vectors[0].type.count
        order = ir.Constant(vector(I32, lanes), list(range(lanes)))
        vectors = [
            b.shuffle_vector(first, second, order)
            for first, second in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]


def as_bits(b: Any, conditions: Sequence[Any]) -> Any:
    """Return one integer whose bits are the lanes of vectors of conditions, the first lowest."""
    whole = joined(b, conditions)
    return b.bitcast(whole, ir.IntType(whole.type.count))


def variable(b: Any, kind: ir.Type) -> Any:
    """Return a variable that starts at zero at this place in the code."""
    place = cgutils.alloca_once(b, kind)
    b.store(ir.Constant(kind, None), place)
    return place


def add_to(b: Any, place: Any, value: Any) -> None:
    """Add a value to a variable."""
    b.store(b.add(b.load(place), value), place)


def multiply_add(b: Any, x: Any, y: Any, z: Any) -> Any:
    """Return x · y + z of vectors of float32, rounded once where the machine can."""
    kind = x.type
    name = f"llvm.fmuladd.v{kind.count}f32"
    return b.call(external(b, name, kind, kind, kind, kind), [x, y, z])


def external(b: Any, name: str, result: ir.Type, *arguments: ir.Type) -> Any:
    """Return one of LLVM's own functions, an instruction of the machine or of any machine."""
    return cgutils.get_or_insert_function(b.module, ir.FunctionType(result, arguments), name)


@dataclass(frozen=True, kw_only=True)
class Operands:
    """What a block counts over; of the addresses and numbers of bytes, the code that has them.

    Attributes:
        rows: of input bits; ``vectors`` of outputs.
        x: address of the first row's bits; ``x_stride`` bytes lie between rows.
        w: address of the first vector's weights; ``depth`` is K / 8 bytes.
        tables: address of the algorithm's tables of the operation.
    """

    rows: int
    vectors: int
    x: Any
    x_stride: Any
    w: Any
    depth: Any
    tables: Any

    def row(self, b: Any, row: int, offset: Any) -> Any:
        """Return the address of a byte of a row."""
        return at(b, self.x, offset, b.mul(self.x_stride, constant(row)))
