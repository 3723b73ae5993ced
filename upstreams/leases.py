"""Claims on files that processes of several machines share: flock where it works, else leases.

The operating system frees a flock with its process. Some shared file systems have none, or one that
each machine keeps to itself. There a claim is a file that says who holds it and is touched again
and again; one whose holder is gone is taken over.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import re
import shutil
import subprocess
import threading
import time
import uuid
from functools import cache
from pathlib import Path
from typing import Any

RENEWED_EVERY, STALE_AFTER = 15.0, 120.0  # seconds
# Before a queue is asked whether a holder's job is still there.
_ASKED_AFTER = 30.0
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
# Shared file systems whose flock, if any, is each machine's own.
_OF_ONE_NODE = re.compile(r"9p|afs|fuse\.(sshfs|s3fs|rclone|gcsfuse|goofys)|vboxsf")
_LOCAL_OPTIONS = re.compile(r"(^|,)(nolock|localflock|local_lock=(all|flock))(,|$)")


def this_host() -> str:
    """The name of what process numbers are counted on: machine and, in a container, its own."""
    name = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node())[:60] or "unknown"
    try:
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return name
    return f"{name}.{space}"


def has_ended(pid: int, started: str | None = None) -> bool:
    """Whether no process of this host has that number, or another one that began later."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return started is not None and began(pid) not in (None, started)


def began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None where that is not told."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def flock_holds(folder: Path) -> bool:
    """Whether a flock on a file in ``folder`` keeps out every process that sees the folder."""
    try:
        device = os.stat(folder).st_dev
    except OSError:
        return True
    return _flock_holds(device, str(folder))


@cache
def _flock_holds(_device: int, folder: str) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows, whose own locks hold
        return True
    probe = Path(folder) / f".{this_host()}.{uuid.uuid4().hex}.probe"
    try:
        with open(probe, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_FLOCK  # who takes the lock says what else is wrong
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return not _is_of_one_node(Path(folder))


def _is_of_one_node(folder: Path) -> bool:
    """Whether the mount that holds ``folder`` is shared, and its flock each machine's own."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        here = os.path.realpath(folder)
    except OSError:
        return False
    best, found = "", False
    for line in lines:
        mount, _, of_file_system = line.partition(" - ")
        point, options = mount.split()[4:6]
        kind, _, more = (*of_file_system.split(" ", 2), "", "")[:3]
        within = here == point or here.startswith(point.rstrip("/") + "/")
        if within and len(point) >= len(best):
            local = _LOCAL_OPTIONS.search(f"{options},{more}") is not None
            best, found = point, local or _OF_ONE_NODE.fullmatch(kind) is not None
    return found


class Lease:
    """A claim that is a file beside ``path``: who holds it, renewed while it is held."""

    def __init__(self, path: Path) -> None:
        self.file = path.with_name(f"{path.name}.lease")
        self._token = uuid.uuid4().hex

    def acquire(self) -> bool:
        """Take it if nobody holds it, or if its holder is gone."""
        if self._create():
            return True
        held = _read(self.file)
        if held is None or not _is_stale(self.file, held):
            return False
        return self._take_over(held)

    def release(self) -> None:
        """Give it back, if it is still ours."""
        _renewals.remove(self)
        if (_read(self.file) or {}).get("token") == self._token:
            self.file.unlink(missing_ok=True)

    def renew(self) -> None:
        """Show that the holder lives; of one that somebody took over, nothing."""
        if (_read(self.file) or {}).get("token") == self._token:
            with contextlib.suppress(OSError):
                os.utime(self.file)

    def _create(self) -> bool:
        holder = {
            "host": this_host(),
            "pid": os.getpid(),
            "began": began(os.getpid()),
            "job": os.environ.get("SLURM_JOB_ID"),
            "token": self._token,
        }
        own = self.file.with_name(f".{self.file.name}.{self._token}")
        try:
            own.write_text(json.dumps(holder))
            try:
                os.link(own, self.file)  # whole, and only if there is none
            except FileExistsError:
                return False
            except OSError:  # no links there
                try:
                    with open(self.file, "x") as file:
                        file.write(json.dumps(holder))
                except FileExistsError:
                    return False
        finally:
            own.unlink(missing_ok=True)
        _renewals.add(self)
        return True

    def _take_over(self, held: dict[str, Any]) -> bool:
        # One at a time: else the second to come would take the first one's new lease.
        turn = self.file.with_name(f"{self.file.name}.turn")
        try:
            os.close(os.open(turn, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            if (_age(turn) or 0.0) > STALE_AFTER:
                turn.unlink(missing_ok=True)
            return False
        try:
            now = _read(self.file)
            if now is None or now.get("token") != held.get("token"):
                return False
            self.file.unlink(missing_ok=True)
            return self._create()
        finally:
            turn.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, Any] | None:
    """Who holds it; of a file that is half written, nobody that is known; None: it is not there."""
    try:
        held = json.loads(file.read_text())
    except OSError:
        return None
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}


def _is_stale(file: Path, held: dict[str, Any]) -> bool:
    pid = held.get("pid")
    if held.get("host") == this_host() and isinstance(pid, int):
        return has_ended(pid, held.get("began"))
    age = _age(file)
    if age is None:
        return False
    if age > _ASKED_AFTER and held.get("job") and _job_is_gone(str(held["job"])):
        return True
    return age > STALE_AFTER


def _age(file: Path) -> float | None:
    """Seconds since a file was touched, by the clock of the file system alone."""
    probe = file.with_name(f".{file.name}.{uuid.uuid4().hex}.now")
    try:
        probe.touch()
        return probe.stat().st_mtime - file.stat().st_mtime
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _job_is_gone(job: str) -> bool:
    """Whether Slurm is here and does not know the job any more."""
    squeue = shutil.which("squeue")
    if squeue is None or not re.fullmatch(r"[\d_]+", job):
        return False
    try:
        found = subprocess.run(
            [squeue, "-h", "-j", job, "-o", "%T"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    if found.returncode != 0:
        return "invalid job id" in found.stderr.lower()
    states = found.stdout.split()
    return all(state in ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT") for state in states)


class _Renewals:
    """One thread that renews all leases of a process."""

    def __init__(self) -> None:
        self._held: set[Lease] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        with self._lock:
            self._held.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, daemon=True)
                self._thread.start()

    def remove(self, lease: Lease) -> None:
        with self._lock:
            self._held.discard(lease)

    def forget(self) -> None:
        """After a fork: the leases are the parent's."""
        self.__init__()  # type: ignore[misc]

    def _renew(self) -> None:
        while True:
            time.sleep(RENEWED_EVERY)
            with self._lock:
                held = list(self._held)
            for lease in held:
                lease.renew()


_renewals = _Renewals()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renewals.forget)
