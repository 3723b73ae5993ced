"""Files that are derived from others and kept: checked when they are read, else made anew.

Beside each that takes long to make lies its hash. A loss of power, a full disk or a hand may leave
another content than was written; nobody reads it then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from superbit.upstreams.files import write_bytes

# Behind the name of a file, the name of what holds its hash.
HASH = ".sha256"


def keep_text(path: Path, text: str) -> None:
    """Let the file hold just this text, where it is cheap to know."""
    content = text.encode()
    if _content(path) != content:
        write_bytes(path, content, on_disk=True)


def kept_text(path: Path, make: Callable[[], str]) -> str:
    """Return the text that was kept in a file; make it where there is none, or not what was kept.

    Args:
        make: gives the text, which takes long.

    Raises:
        OSError: it cannot be written.
    """
    content = _content(path)
    if content is not None and _content(_hash_of(path)) == _digest(content):
        return content.decode()
    text = make()
    content = text.encode()
    write_bytes(path, content, on_disk=True)
    write_bytes(_hash_of(path), _digest(content), on_disk=True)
    return text


def _hash_of(path: Path) -> Path:
    return path.with_name(path.name + HASH)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
