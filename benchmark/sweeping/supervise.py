"""A sweep in a process of its own, begun again without what it died in.

No code of a process runs after a segmentation fault, `os._exit` or SIGKILL. So the command itself
only watches: it imports neither torch nor an upstream, passes signals on, and where the process
died, the next one records what it died in as failed and does the rest.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from typing import Any

from superbit.benchmark.running import doing
from superbit.benchmark.running.doing import Doing, Lost, Watch, cause_of, reason_of, too_long
from superbit.upstreams import stopping
from superbit.upstreams.machine import end_with_parent

# After the second signal, for partial files to be removed.
_SECONDS_TO_END = 10.0
_SECONDS_BETWEEN_LOOKS = 0.5
# Beyond a run's limit, in which it writes where it hangs.
SECONDS_TO_SAY_WHERE = 2.0


@dataclass
class _Command:
    """What is known of the command so far, over all of its processes."""

    argv: list[str]
    run_timeout: float | None
    main: Callable[[list[str]], int]
    began: float = field(default_factory=time.monotonic)
    lost: list[Lost] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    asked: list[float] = field(default_factory=list)
    child: Any = None


def supervise(
    argv: Sequence[str],
    *,
    main: Callable[[list[str]], int],
    run_timeout: float | None = None,
) -> int:
    """Run the command line ``argv`` in processes of its own; return the last one's status.

    Args:
        main: what takes the command line; a module's function.
        run_timeout: seconds after which a run that the process itself does is ended.
    """
    command = _Command(argv=list(argv), run_timeout=run_timeout, main=main)
    with _passed_on(command):
        while True:
            status, at, cause = _once(command)
            if command.asked:
                return stopping.STATUS if status is None else status
            if status is not None:
                return status
            if at is None or any(lost.doing == at for lost in command.lost):
                _say(f"superbit: the process of the sweep ended: {cause}.")
                return 1
            command.lost.append(Lost(doing=at, reason=reason_of(at.what, cause)))
            where = f"{at.what} {at.label or at.upstream}"
            _say(f"superbit: the process died {where}: {cause}; the sweep goes on without it.")


def _once(command: _Command) -> tuple[int | None, Doing | None, str]:
    """Run it in one process; return its status, or what it was at when it died, and of what."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    watch = Watch(lost=tuple(command.lost), ended=frozenset(command.ended), began=command.began)
    child = spawn.Process(
        target=_child,
        args=(command.main, command.argv, theirs, watch),
    )
    with stopping.blocked():  # until it listens itself
        child.start()
        command.child = child
    theirs.close()
    status: int | None = None
    at: Doing | None = None
    since, late, open_ = time.monotonic(), "", True
    while open_ or child.is_alive():
        connection.wait(
            [ours, child.sentinel] if open_ else [child.sentinel], _SECONDS_BETWEEN_LOOKS
        )
        while open_:
            try:
                if not ours.poll():
                    break
                what, content = ours.recv()
            except (EOFError, OSError):
                open_ = False
                break
            if what == "status":
                status = content
            elif what == "ended":
                command.ended.update(content)
            else:
                at, since = content, time.monotonic()
        if not child.is_alive() and not (open_ and ours.poll()):
            break
        if _is_late(at, since, command.run_timeout) and not late and status is None:
            late = too_long(command.run_timeout or 0.0)
            child.kill()
        if len(command.asked) > 1 and time.monotonic() - command.asked[1] > _SECONDS_TO_END:
            child.kill()
    child.join()
    return status, at, late or cause_of(child.exitcode)


def _is_late(at: Doing | None, since: float, limit: float | None) -> bool:
    if limit is None or at is None or at.what != "running":
        return False
    return time.monotonic() - since > limit + SECONDS_TO_SAY_WHERE


@contextmanager
def _passed_on(command: _Command) -> Iterator[None]:
    """Pass signals on to the process at work, and count those that are not one request."""

    def on_signal(number: int, _frame: object) -> None:
        now = time.monotonic()
        if not command.asked or now - command.asked[-1] >= stopping.ONE_REQUEST_SECONDS:
            command.asked.append(now)
        if command.child is not None and command.child.is_alive():
            with suppress(OSError):
                os.kill(command.child.pid, number)

    handlers = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- in the process that is watched ---------------------------------------------------------------


def _child(main: Callable[[list[str]], int], argv: list[str], parent: Any, told: Watch) -> None:
    end_with_parent()
    # What was said before a crash is on the terminal, or in the file.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    doing.watch = replace(
        told,
        tell=lambda at: parent.send(("at", at)),
        tell_ended=lambda keys: parent.send(("ended", keys)),
    )
    try:
        with stopping.listening():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)
            status = main(argv)
    except KeyboardInterrupt:
        status = stopping.STATUS
    except Exception:
        traceback.print_exc()
        status = 1
    with suppress(OSError):
        parent.send(("status", status))
    sys.exit(status)
