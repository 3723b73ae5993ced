"""Files: written whole or not at all, locked, read as text, YAML or JSON, and hashed.

The one place for it, in both packages. What is the user's to mend is an `InputError` that names the
file; nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.upstreams import leases
from superbit.upstreams.errors import InputError, shortened
from superbit.upstreams.parsing import parse_json, parse_yaml

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# The end of a file's name until all of it is there; what a killed process left ends so too.
PARTIAL = ".partial"
_OF_A_PARTIAL = re.compile(r"\.~(?P<host>[^~]+)~(?P<pid>\d+)~\w+\.partial$")


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str], *, on_disk: bool = False) -> Iterator[Path]:
    """Yield a file to write to, which takes the place of ``path`` when all went well.

    Other processes see the old file or the new one, never a part. Of a disk that is full, or of an
    error, nothing is left. The folder is made if it is not there. Who may read the file is the
    umask's to say, not the library's that writes it (safetensors' are for their owner alone).

    Args:
        path: the file that is to be.
        on_disk: wait until the contents would survive a loss of power.

    Raises:
        OSError: as the file system says; `said_of` makes a sentence of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    who = f"{leases.this_host()}~{os.getpid()}~{uuid.uuid4().hex[:12]}"
    partial = path.with_name(f".{path.name}.~{who}{PARTIAL}")
    try:
        partial.touch()
        mode = stat.S_IMODE(partial.stat().st_mode)
        yield partial
        if stat.S_IMODE(partial.stat().st_mode) != mode:
            partial.chmod(mode)
        if on_disk:
            with open(partial, "rb+") as written:
                os.fsync(written.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):  # what went wrong first says more
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, on_disk: bool = False) -> None:
    """Write a file in one step, as `replaced` does."""
    with replaced(path, on_disk=on_disk) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file in one step, as `replaced` does; the same bytes on every system."""
    write_bytes(path, text.encode())


@contextlib.contextmanager
def said_of(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say in one sentence that ``path`` cannot be written, where the file system says so.

    Raises:
        InputError: in place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error


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


def existing_folder(path: Path, holds: str) -> Path:
    """Return ``path`` if it is a folder; ``holds`` says in the error what should be there."""
    if not path.is_dir():
        raise InputError(f"{path} is not there: it should be {holds}.")
    return path


@contextlib.contextmanager
def locked(
    path: Path, *, stop: Callable[[], bool] = lambda: False, every: float = 0.2
) -> Iterator[bool]:
    """Hold the lock that the file ``path`` stands for; wait while someone else holds it.

    Threads of one process exclude each other as processes do. The operating system frees the lock
    of a process that dies. The file may stay, and says nothing. Where the file system has no lock
    that all machines obey, a lease is held instead (`superbit.upstreams.leases`).

    Args:
        path: a file of its own; its folder is made.
        stop: asked while waiting; true ends it.
        every: seconds between two attempts.

    Yields:
        Whether the lock is held: False where ``stop`` ended the waiting.

    Raises:
        OSError: the file cannot be made.
    """
    release = _claim(path)
    while release is None:
        if stop():
            yield False
            return
        time.sleep(every)
        release = _claim(path)
    try:
        yield True
    finally:
        release()


def _claim(path: Path) -> Callable[[], object] | None:
    """Return what gives the lock back, or None where somebody else holds it."""
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    if not leases.flock_holds(path.parent):
        lease = leases.Lease(path)
        return lease.release if lease.acquire() else None
    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return None
    return lock.release


def remove_leftovers(folder: Path, *, without: Sequence[str] = ()) -> None:
    """Delete what processes of this machine were writing below ``folder`` when they were killed.

    Args:
        without: names of folders that are left alone.
    """
    host = leases.this_host()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in without]
        for name in names:
            found = _OF_A_PARTIAL.search(name)
            if found and found["host"] == host and leases.has_ended(int(found["pid"])):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(place, name))


def require_regular(path: Path | Traversable, what: str = "a file") -> None:
    """Refuse what is there and no file: to read a pipe that nobody writes to takes for ever.

    A shell's ``<(…)`` is a pipe as well, and somebody writes to it.

    Args:
        what: it should be, for the message.

    Raises:
        InputError: it is a pipe, a socket or a device, or its name can be no file's.
    """
    if not isinstance(path, Path) or str(path).startswith(("/dev/fd/", "/proc/self/fd/")):
        return
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{shortened(str(path))} cannot be read ({reason}): it should be {what}."
        ) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # who reads a folder says so
        raise InputError(f"{path} is a pipe or a device: it should be {what}.")


def require_place(path: str | os.PathLike[str], what: str) -> None:
    """Refuse what is there and neither a file nor a folder; what reads it might wait for ever.

    Raises:
        InputError: it is a pipe, a socket or a device; ``what`` says what it should be.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # who reads it says so
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} is a pipe or a device: it should be {what}.")


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file or folder; False for a name that none can have."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file; False for a name that none can have."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def read_text(path: Path | Traversable, what: str = "a text file") -> str:
    """Return a UTF-8 file's text, without the byte order mark that Windows puts first.

    Args:
        path: the file.
        what: it should be, for the messages.

    Raises:
        InputError: it is missing or not such a file.
    """
    require_regular(path, what)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} is not there: it should be {what}.") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} cannot be read as UTF-8 text ({error}): it should be {what}."
        ) from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): it should be {what}."
        ) from None


def read_yaml(path: Path | Traversable, what: str) -> Any:
    """Return what a YAML file holds, None where it is empty; ``what`` says what it should be.

    Raises:
        InputError: it is missing, no UTF-8 text or no YAML.
    """
    return parse_yaml(read_text(path, what), where=str(path))


def read_json(path: Path, what: str) -> Any:
    """Return what a JSON file holds; ``what`` says what it should be.

    Raises:
        InputError: it is missing, no UTF-8 text or no JSON.
    """
    return parse_json(read_text(path, what), where=str(path))


def sha256(path: Path) -> str:
    """Return the hex digest of a file's bytes.

    Raises:
        InputError: it cannot be read.
    """
    require_regular(path)
    try:
        with open(path, "rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
