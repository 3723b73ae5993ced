"""Lists a folder without what systems and editors leave in it.

macOS puts ``._NAME`` beside every file that it copies to another file system, and ``__MACOSX``
into archives; notebooks keep ``.ipynb_checkpoints``, network drives ``@eaDir``. Some of it has the
name of audio and is none, some has files of the folder twice.
"""

from __future__ import annotations

import os
from pathlib import Path

_LEFT_BEHIND = {
    *("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"),
    *("Thumbs.db", "desktop.ini"),
}


def is_hidden(name: str) -> bool:
    """Whether a file's or a folder's name says that it is not of what it lies in."""
    return name.startswith(".") or name in _LEFT_BEHIND


def visible(folder: Path, pattern: str) -> list[Path]:
    """What ``folder.glob(pattern)`` finds, sorted, without hidden files and hidden folders in it.

    The folder itself may lie in a hidden one.
    """
    skip = len(folder.parts)
    return sorted(
        path for path in folder.glob(pattern) if not any(map(is_hidden, path.parts[skip:]))
    )


def below_hidden(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a path inside ``folder`` is hidden, or lies in a folder that is."""
    if not any(map(is_hidden, Path(path).parts)):
        return False  # most paths, and there are a hundred thousand
    return any(map(is_hidden, Path(os.path.relpath(path, folder)).parts))
