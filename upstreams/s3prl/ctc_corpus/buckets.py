"""Utterances by the number of their tokens, and neighbours among them as batches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from superbit.upstreams.errors import InputError

Item = tuple[Path, list[int]]


def in_order(items: Iterable[Item], *, size: int, source: str, ascending: bool) -> list[Item]:
    """Sort pairs of audio file and tokens by the number of tokens.

    Args:
        items: the utterances.
        size: of a bucket.
        source: where the utterances come from, for an error.
        ascending: fewest tokens first.

    Raises:
        InputError: fewer utterances than a bucket.
    """
    found = sorted(items, key=lambda item: len(item[1]), reverse=not ascending)
    if len(found) < size:
        raise InputError(f"{source} holds {len(found)} utterances; a batch wants at least {size}.")
    return found


def bucket(items: list[Item], index: int, *, size: int) -> Item | list[Item]:
    """Return the ``size`` neighbours from ``index`` on, moved back at the end; 1 gives one item."""
    if size == 1:
        return items[index]
    start = min(len(items) - size, index)
    return items[start : start + size]
