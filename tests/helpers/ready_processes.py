"""Processes that begin at once, forked from one that has imported what they need.

A process that trains imports torch, its compiler, s3prl and scipy first: nine seconds of work on
one core. Here one process of the session does so (Python's fork server), and others are forked
from it. All else is as in a process of its own: it has its own memory and signals, can be killed,
it is handed its arguments by pickle, and knows nothing of what a test has patched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, process
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
import torch

HERE = str(Path(__file__).parent)
VERB = "import sys; from superbit.benchmark import cli; sys.exit(cli.main(sys.argv[1:]))"


class ReadyProcess(ForkServerProcess):
    """A process that is forked from the ready one, which the first of them starts."""

    def start(self) -> None:
        begin()
        super().start()


class ReadyContext(ForkServerContext):
    """Stands for Python's context "spawn"."""

    Process = ReadyProcess


def begin() -> None:
    """Start the ready process, if it is not there."""
    forkserver.set_forkserver_preload(["ready_imports"])
    before = os.environ.get("PYTHONPATH")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", HERE if before is None else HERE + os.pathsep + before)
        forkserver.ensure_running()


class Program:
    """A program in a process of its own, as by ``python -c CODE WORDS``.

    Args:
        code: Python.
        words: what ``sys.argv`` holds after the program's name.
        environment: variables that differ from this process's.
        folder: where it runs; by default where this process does.
    """

    def __init__(
        self,
        code: str,
        *words: object,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        files = tempfile.NamedTemporaryFile
        self._printed = [files("r") for _ in ("output", "errors")]
        self._process = ReadyProcess(
            target=_run,
            args=(code, [str(word) for word in words]),
            kwargs={
                "environment": {**os.environ, **(environment or {})},
                "folder": str(folder or Path.cwd()),
                "printed": [file.name for file in self._printed],
            },
        )
        self._process.start()

    def finished(self, *, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Wait for its end; the status of one that a signal ended is that signal, negative."""
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            self._process.kill()
            raise TimeoutError(f"the program still runs after {timeout} s")
        return subprocess.CompletedProcess(
            [sys.executable], status, *(file.read() for file in self._printed)
        )


def verb(*words: object) -> Program:
    """Start ``superbit WORDS``."""
    return Program(VERB, *words)


def _run(
    code: str,
    words: list[str],
    *,
    environment: dict[str, str],
    folder: str,
    printed: Sequence[str],
) -> None:
    """Become that program: in the process that was forked."""
    os.environ.clear()
    os.environ.update(environment)
    if threads := environment.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))  # torch reads it when it is imported, which was before
    os.chdir(folder)
    for number, name in enumerate(printed, 1):
        os.dup2(os.open(name, os.O_WRONLY), number)
    process._parent_process = None  # it is nobody's worker
    sys.argv = ["-c", *words]
    exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
