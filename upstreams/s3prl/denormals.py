"""Numbers below 1e-38 taken as zero, by every thread that computes.

A BLSTM's gradients decay into denormals, with which CPUs compute many times slower. How a thread
treats them is its own affair, and torch tells only the thread that asks: those of OpenMP that are
there already go on as they began. So they are ended; the next ones begin as their parent is.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

_HARD = 2  # omp_pause_hard of OpenMP 5: threads and their memory are given back


@contextlib.contextmanager
def as_zero() -> Iterator[None]:
    """Within it denormals are zero."""
    flush(True)
    try:
        yield
    finally:
        flush(False)


def flush(on: bool) -> None:
    """Let every thread of this process take denormals as zero from now on, or as they are."""
    import torch

    torch.set_flush_denormal(on)
    try:
        end_threads = ctypes.CDLL(None).omp_pause_resource_all
    except (OSError, TypeError, AttributeError):  # no OpenMP, one before 5, or Windows
        return
    end_threads(_HARD)
