"""numba functions made once for each algorithm, and kept on disk under names that cannot go stale.

numba keeps compiled code by the file and the name of a function, and looks whether that file has
changed. The code of ours comes from several files and depends on the algorithm, so the name says
both: the algorithm's, and a hash of every file of the kernels.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numba


def unset(*_arguments: Any) -> Any:
    """Stand for a function that `compiled` is given another for."""
    raise NotImplementedError


@cache
def _sources() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def compiled(
    function: Callable[..., Any], *, name: str, given: Mapping[str, Any]
) -> Callable[..., Any]:
    """Return ``function`` compiled with other values for the names that it uses from its module.

    It is compiled at its first call and runs without Python's lock. Its code is kept on disk,
    beside the module or in the user's folder of caches.

    Args:
        function: a function of a module of the kernels, whose body numba can compile.
        name: what tells it from the same function with other values.
        given: the values, by name.
    """
    whole = f"{function.__name__}_{name}_{_sources()}"
    body = function.__code__.replace(co_name=whole)
    made = types.FunctionType(body, {**function.__globals__, **given}, whole)
    made.__qualname__, made.__module__ = whole, function.__module__
    try:
        return numba.njit(cache=True, nogil=True)(made)
    except RuntimeError:  # nowhere to keep it: each process compiles
        return numba.njit(nogil=True)(made)


def jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function compiled for every algorithm alike, from the names defined above it."""
    return compiled(function, name="of_all", given={})
