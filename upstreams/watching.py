"""Which files Python opens while somebody else's code runs: by Python's own audit events.

Code that is not Python opens unseen: safetensors and ONNX sessions read in Rust and C++.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_listening: list[set[str]] = []
_installed = False


@contextmanager
def opened_files() -> Iterator[set[str]]:
    """Give a set that fills with the absolute paths of what is opened for reading meanwhile.

    Imports are left out: what of a module is on disk, source or bytecode, says nothing.
    """
    global _installed
    if not _installed:  # no audit hook can be taken back, so it comes with the first need
        sys.addaudithook(_on_event)
        _installed = True
    opened: set[str] = set()
    _listening.append(opened)
    try:
        yield opened
    finally:
        # by identity: two sets may be equal
        _listening[:] = [each for each in _listening if each is not opened]


def is_at_or_below(path: str, top: str | Path) -> bool:
    """Whether ``path`` is ``top`` or lies below it, links followed."""
    found, wanted = os.path.realpath(path), os.path.realpath(top)
    return found == wanted or found.startswith(wanted.rstrip(os.sep) + os.sep)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _listening:
        return
    path, _, flags = arguments
    if not isinstance(path, str | bytes | os.PathLike) or not _is_for_reading(flags):
        return
    caller = sys._getframe().f_back
    if caller is not None and caller.f_code.co_filename.startswith("<frozen importlib"):
        return
    absolute = os.path.abspath(os.fsdecode(path))  # now: the working directory may change
    for each in _listening:
        each.add(absolute)


def _is_for_reading(flags: object) -> bool:
    if not isinstance(flags, int):
        return True
    access = flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
    # what is made anew here, a lock file for one, is not read
    return access != os.O_WRONLY and not flags & (os.O_CREAT | os.O_TRUNC)
