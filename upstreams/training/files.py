"""Small file helpers: whole or not at all, and hashes."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from superbit.upstreams.errors import InputError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a file to write to, which takes the place of ``path`` when all went well.

    Raises `InputError` where the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step.

    Raises `InputError` where the folder cannot be written to.
    """
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: Path, what: str) -> str:
    """Return a UTF-8 file's text without a byte order mark; ``what`` says what it should be.

    Raises `InputError` where it is missing or not such a file.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} is not there: it should be {what}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as {what}: {error}.") from None


def sha256(path: Path) -> str:
    """Return the hex digest of a file's bytes.

    Raises `InputError` where it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    return digest.hexdigest()
