"""Which algorithm this machine computes with, and why.

``SUPERBIT_KERNELS`` chooses by hand: ``off``, ``auto`` (as if it were not set), ``popcount``,
``nibbles`` or ``generic``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from superbit.upstreams.errors import InputError, did_you_mean

VARIABLE = "SUPERBIT_KERNELS"
OFF, AUTO = "off", "auto"


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One way to count, as it is listed.

    Attributes:
        name: what ``SUPERBIT_KERNELS`` calls it.
        summary: how it counts.
        needs: for each width of a vector in bytes, widest first, the features of the processor
            without which it is no gain there, by LLVM's names; empty for any machine.
    """

    name: str
    summary: str
    needs: dict[int, tuple[str, ...]]

    def width(self) -> int | None:
        """Return the widest vector that this machine has for it; None where it has none."""
        have = features()
        for width, needed in self.needs.items():
            if all(feature in have for feature in needed):
                return width
        return None


# In the order of preference.
KERNELS = (
    Kernel(
        name="popcount",
        summary="an instruction counts the bits of a vector's words",
        needs={64: ("avx512vpopcntdq", "avx512bw", "avx512vl")},
    ),
    Kernel(
        name="nibbles",
        summary="a shuffle looks counts up in tables, four input bits at a time",
        needs={64: ("avx512bw",), 32: ("avx2",), 16: ("ssse3",)},
    ),
    Kernel(
        name="generic",
        summary="what LLVM makes of counting bits, on any machine",
        needs={32: ()},
    ),
)


@cache
def features() -> frozenset[str]:
    """Return what this processor can do, by LLVM's names; empty without numba."""
    try:
        from llvmlite import binding
    except ImportError:
        return frozenset()
    return frozenset(name for name, there in binding.get_host_cpu_features().items() if there)


@cache
def available() -> bool:
    """Return whether numba, which compiles the kernels, is installed."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


@lru_cache(maxsize=8)
def _named(name: str) -> Kernel | None:
    if name == OFF or not available():
        return None
    if name == AUTO:
        return next(kernel for kernel in KERNELS if kernel.width() is not None)
    names = (OFF, AUTO, *(kernel.name for kernel in KERNELS))
    if name not in names:
        raise InputError(
            f"{VARIABLE} is {name!r}; it is one of {', '.join(names)}.{did_you_mean(name, names)}"
        )
    kernel = next(kernel for kernel in KERNELS if kernel.name == name)
    if kernel.width() is None:
        raise InputError(
            f"{VARIABLE} is {name!r}, which this processor cannot compute; leave it out, and the "
            "best that it can is taken."
        )
    return kernel


_asked: ContextVar[str | None] = ContextVar("asked", default=None)


@contextmanager
def using(name: str) -> Iterator[None]:
    """Within it a kernel is chosen by name, as ``SUPERBIT_KERNELS`` does for the whole process."""
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def asked() -> str | None:
    """Return which kernel was asked for, by `using` or by the environment; None for neither."""
    return _asked.get() or os.environ.get(VARIABLE) or None


def _name() -> str:
    return asked() or AUTO


def chosen() -> Kernel | None:
    """Return the kernel that twins compute with here; None for simulation in floats.

    Raises:
        InputError: ``SUPERBIT_KERNELS`` names none, or one that this processor cannot compute.
    """
    return _named(_name())


def algorithm() -> Any | None:
    """Return the algorithm of `chosen`, whose arrays and code belong together."""
    return _algorithm_of(_name())


@lru_cache(maxsize=8)
def _algorithm_of(name: str) -> Any | None:
    kernel = _named(name)
    if kernel is None:
        return None
    width = kernel.width()
    assert width is not None
    return made(kernel.name, width)


@cache
def made(name: str, width: int) -> Any:
    """Return the one algorithm of a kernel for vectors of so many bytes."""
    if name == "nibbles":
        from superbit.upstreams.quantization.kernels.nibble_tables import NibbleTables

        return NibbleTables(width)
    from superbit.upstreams.quantization.kernels.word_counts import WordCounts

    return WordCounts(width)
