"""Files: those of a corpus are read, those derived from one are written elsewhere."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

from superbit.upstreams.errors import InputError


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that other processes see the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:  # of a disk that is full nothing is left
        partial.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """The contents of a UTF-8 text file, without the byte order mark that Windows puts first.

    Raises:
        InputError: it is missing or not such a file.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} is not there: it should be a text file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}.") from None


def require_writable(folder: Path, *, option: str, instead: str = "give a folder that can") -> None:
    """Make ``folder`` if it is not there, and refuse one that cannot be written to.

    Args:
        option: of the command line, that the message names.
        instead: what would be right, for the message.

    Raises:
        InputError: it cannot be made, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{option}: {folder} cannot be written to ({error.strerror}): {instead}."
        ) from error
