"""Whether checkpoints of others may run code: only where the user says that they are trusted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

TRUST = "SUPERBIT_TRUST_CHECKPOINT"
OPTION = "--trust-checkpoint"


def is_trusted() -> bool:
    """Whether the user said so; processes that this one starts inherit it."""
    return os.environ.get(TRUST, "") not in ("", "0")


@contextmanager
def trusting(trusts: bool = True) -> Iterator[None]:
    """Let checkpoints run code within the block, also in processes that start there."""
    before = os.environ.get(TRUST)
    if trusts:
        os.environ[TRUST] = "1"
    try:
        yield
    finally:
        if trusts:
            if before is None:
                del os.environ[TRUST]
            else:
                os.environ[TRUST] = before
