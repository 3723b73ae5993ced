"""Where a number came from: code, versions, machine, time.

None of it changes a run's key, and collecting it never fails a run: what cannot be found out
is None.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from superbit.upstreams.machine import cpu_model, git_state

# distributions whose version can move a number
PACKAGES = ("torch", "torchaudio", "s3prl", "numpy", "scipy", "jiwer")

T = TypeVar("T")


class Provenance(BaseModel):
    """Circumstances of a run; every key may be None."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    # version of superbit
    superbit: str | None = None
    # git commit of the checkout superbit was imported from; None for an installed package
    commit: str | None = None
    # whether tracked files of that checkout differed from the commit
    dirty: bool | None = None
    # version of Python
    python: str | None = None
    # version of each package that can move a number; None where it is not installed
    versions: dict[str, str | None] = {}
    # operating system and architecture
    platform: str | None = None
    # name of the machine
    hostname: str | None = None
    # model of the processor
    cpu: str | None = None
    # logical processors of the machine
    cpu_count: int | None = None
    # threads torch computed with
    threads: int | None = None
    # name of the accelerator; None for a run on the processor
    gpu: str | None = None
    # the command line that started the run
    command: list[str] | None = None
    # when it started: UTC, ISO 8601
    started: str | None = None
    # how long it took
    seconds: float | None = None
    # stored features it was made of: kind, precision, utterances stored and live, damaged ones, and
    # how far the upstream's features depend on the batch; None where the upstream ran on all.
    # No part of the key: within float16 a number is the same number, as it is on another processor
    features: dict[str, Any] | None = None


def collect(
    command: Sequence[str] | None = None,
    *,
    gpu: str | None = None,
    threads: int | None = None,
    started: datetime | None = None,
    seconds: float | None = None,
    features: dict[str, Any] | None = None,
) -> Provenance:
    """Return what can be found out about this process; never raises.

    Args:
        command: the command line; this process' own where not given. The program's folder is
            left out.
        gpu: name of the accelerator in use, from the caller, because asking needs torch.
        threads: threads torch computes with; asked of torch where it is imported already.
        started: when the run started (a time without zone is taken as UTC); now where not given.
        seconds: how long the run took.
        features: what is to be said of stored features.
    """
    commit, dirty = _or_none(_git_state_of_this_package) or (None, None)
    words = [str(word) for word in (sys.argv if command is None else command)]
    return Provenance(
        superbit=_version("superbit"),
        commit=commit,
        dirty=dirty,
        python=_or_none(platform.python_version),
        versions={name: _version(name) for name in PACKAGES},
        platform=_or_none(platform.platform),
        hostname=_or_none(socket.gethostname),
        cpu=_or_none(cpu_model),
        cpu_count=_or_none(os.cpu_count),
        threads=threads if threads is not None else _or_none(_torch_threads),
        gpu=gpu,
        command=[Path(words[0]).name, *words[1:]] if words else None,
        started=_or_none(lambda: _utc(started or datetime.now(UTC))),
        seconds=None if seconds is None else float(seconds),
        features=features,
    )


def _or_none(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except Exception:  # provenance must never cost a run its result
        return None


def _version(distribution: str) -> str | None:
    return _or_none(lambda: metadata.version(distribution))


def _utc(moment: datetime) -> str:
    zoned = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return zoned.isoformat(timespec="seconds")


def _torch_threads() -> int | None:
    # asked only of a torch that somebody else imported: this module must stay light
    torch = sys.modules.get("torch")
    return None if torch is None else torch.get_num_threads()


@lru_cache(maxsize=1)
def _git_state_of_this_package() -> tuple[str | None, bool | None]:
    # once a process: the code that runs is the code that was there at import
    return git_state(Path(__file__).resolve())
