"""``superbit cache ls`` and ``superbit cache prune``."""

from __future__ import annotations

import argparse
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from superbit.benchmark.features.store import cached_folders, locked, parse_size, size_text
from superbit.benchmark.records.store import ResultStore
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.spec import UpstreamSpec, typed


def list_command(arguments: argparse.Namespace) -> int:
    """Print one line an upstream: bytes, last write, name, folder."""
    found = cached_folders(_folder(arguments))
    for folder, upstream, size, written in found:
        when = datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d %H:%M")
        print(f"{size_text(size):>9}  {when}  {typed(upstream)}  {folder.name}")
    print(f"{size_text(sum(size for _, _, size, _ in found)):>9}  in {_folder(arguments)}")
    return 0


def prune_command(arguments: argparse.Namespace) -> int:
    """Delete whole upstreams' features; what a sweep is extracting right now is left alone."""
    found = sorted(cached_folders(_folder(arguments)), key=lambda each: each[3])
    if arguments.upstream is not None:
        wanted = str(UpstreamSpec.parse(arguments.upstream).normalized())
        names = sorted({name for _, name, _, _ in found})
        if wanted not in names:
            shown = [typed(name) for name in names]
            raise InputError(
                f"--upstream: no features of {typed(wanted)!r} are stored; there are "
                f"{', '.join(shown) or 'none at all'}.{did_you_mean(typed(wanted), shown)}"
            )
        found = [each for each in found if each[1] == wanted]
    left = sum(size for _, _, size, _ in found)
    keep = parse_size(arguments.to, option="--to") if arguments.to is not None else -1
    freed = 0
    for folder, upstream, size, _ in found:
        if left <= keep:
            break
        with locked(folder, stop=lambda: True) as ours:
            if not ours:
                print(f"in use, left alone: {typed(upstream)} ({folder.name})")
                continue
            # Under its own name no reader may find what is about to go.
            doomed = folder.with_name(f".{folder.name}.{os.getpid()}.deleted")
            folder.rename(doomed)
            shutil.rmtree(doomed)
        left, freed = left - size, freed + size
        print(f"deleted: {typed(upstream)} ({size_text(size)})")
    print(f"{size_text(freed)} freed.")
    return 0


def _folder(arguments: argparse.Namespace) -> Path:
    given: Path | None = arguments.cache_dir
    if given is None:
        ResultStore(arguments.results).require_folder()
        return arguments.results / "work" / "features"
    if not given.exists():
        raise InputError(f"--cache-dir: {given} does not exist: give the folder of the features.")
    return given
