"""``superbit cache``: stored features, listed and deleted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_cache_folder, add_group, add_results

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    cache_verbs = add_group(verbs, "cache", help="stored features: list them, delete them")
    verb = cache_verbs.add_parser("ls", help="what is stored, by upstream")
    add_cache_folder(verb)
    add_results(verb)
    verb.set_defaults(verb=run_ls)
    verb = cache_verbs.add_parser("prune", help="delete features, the oldest first")
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument("--all", action="store_true", help="every upstream's")
    what.add_argument("--upstream", metavar="SPEC", help="one upstream's")
    what.add_argument("--to", metavar="SIZE", help="until no more than this is left, e.g. 50GB")
    add_cache_folder(verb)
    add_results(verb)
    verb.set_defaults(verb=run_prune)


def run_ls(arguments: argparse.Namespace) -> int:
    """Print one line an upstream: bytes, last write, name, folder."""
    from datetime import UTC, datetime

    from superbit.benchmark.features.store import cached_folders, size_text
    from superbit.upstreams.spec import typed

    found = cached_folders(_folder(arguments))
    for folder, upstream, size, written in found:
        when = datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d %H:%M")
        print(f"{size_text(size):>9}  {when}  {typed(upstream)}  {folder.name}")
    print(f"{size_text(sum(size for _, _, size, _ in found)):>9}  in {_folder(arguments)}")
    return 0


def run_prune(arguments: argparse.Namespace) -> int:
    """Delete whole upstreams' features; what a sweep is extracting right now is left alone."""
    import os

    from superbit.benchmark.features.store import (
        cached_folders,
        delete_features,
        locked_whole,
        parse_size,
        size_text,
    )
    from superbit.upstreams.spec import typed

    found = sorted(cached_folders(_folder(arguments)), key=lambda each: each[3])
    if arguments.upstream is not None:
        wanted = _stored_upstream(arguments.upstream, {name for _, name, _, _ in found})
        found = [each for each in found if each[1] == wanted]
    left = sum(size for _, _, size, _ in found)
    keep = parse_size(arguments.to, option="--to") if arguments.to is not None else -1
    freed = 0
    for folder, upstream, size, _ in found:
        if left <= keep:
            break
        with locked_whole(folder) as ours:
            if not ours:
                print(f"in use, left alone: {typed(upstream)} ({folder.name})")
                continue
            # Under its own name no reader may find what is about to go.
            doomed = folder.with_name(f".{folder.name}.{os.getpid()}.deleted")
            folder.rename(doomed)
            others = delete_features(doomed)
            if others:
                doomed.rename(folder)
                print(f"not of superbit, left alone: {len(others)} files in {folder}")
        left, freed = left - size, freed + size
        print(f"deleted: {typed(upstream)} ({size_text(size)})")
    print(f"{size_text(freed)} freed.")
    return 0


def _stored_upstream(text: str, stored: set[str]) -> str:
    """The canonical spec that ``text`` means; it has features, or it is a mistake."""
    from superbit.upstreams.errors import InputError, did_you_mean
    from superbit.upstreams.spec import UpstreamSpec, typed

    wanted = str(UpstreamSpec.parse(text).normalized())
    if wanted not in stored:
        shown = [typed(name) for name in sorted(stored)]
        raise InputError(
            f"--upstream: no features of {typed(wanted)!r} are stored; there are "
            f"{', '.join(shown) or 'none at all'}.{did_you_mean(typed(wanted), shown)}"
        )
    return wanted


def _folder(arguments: argparse.Namespace) -> Path:
    from superbit.benchmark.records.store import ResultStore
    from superbit.upstreams.errors import InputError

    given: Path | None = arguments.cache_dir
    if given is None:
        ResultStore(arguments.results).require_folder()
        return arguments.results / "work" / "features"
    if not given.exists():
        raise InputError(f"--cache-dir: {given} does not exist: give the folder of the features.")
    return given
