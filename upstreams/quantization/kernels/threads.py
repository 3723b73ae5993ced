"""Work of kernels that run without Python's lock, spread over as many threads as torch has."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import torch

_here = threading.local()  # ``spread``: whether this thread works on a part already


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="superbit-kernels")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def spread(count: int, step: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(start, stop)`` for parts of ``range(count)``, at most one a thread of torch's.

    What a part calls is not spread again.

    Args:
        count: of items.
        step: parts are whole numbers of so many items, but for the last: what is worth a thread.
        work: may run in another thread, without gradients; this one takes the first part.
    """
    most = 1 if getattr(_here, "spread", False) else torch.get_num_threads()
    steps = -(-count // step)
    threads = min(most, steps)
    if threads < 2:
        work(0, count)
        return

    def part(start: int, stop: int) -> None:
        _here.spread = True
        try:
            with torch.no_grad():
                work(start, stop)
        finally:
            _here.spread = False

    ends = [min(count, step * (steps * index // threads)) for index in range(threads + 1)]
    further = [_pool(most - 1).submit(part, *each) for each in pairwise(ends[1:])]
    try:
        part(ends[0], ends[1])
    finally:
        for each in further:
            each.result()
