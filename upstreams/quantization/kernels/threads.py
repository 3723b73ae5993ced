"""Work of kernels that run without Python's lock, spread over as many threads as torch has."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import torch


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="superbit-kernels")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def spread(count: int, step: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(start, stop)`` for parts of ``range(count)``, at most one a thread of torch's.

    Args:
        count: of items.
        step: parts are whole numbers of so many items, but for the last.
        work: may run in another thread; this one takes the first part.
    """
    steps = -(-count // step)
    threads = min(torch.get_num_threads(), steps)
    if threads < 2:
        work(0, count)
        return
    ends = [min(count, step * (steps * part // threads)) for part in range(threads + 1)]
    further = [
        _pool(torch.get_num_threads() - 1).submit(work, start, stop)
        for start, stop in pairwise(ends[1:])
    ]
    try:
        work(ends[0], ends[1])
    finally:
        for each in further:
            each.result()
