"""A folder of results, one JSON a run: written whole or not at all, found by key, checked on load.

A result is found by its key only, never by its name, and once written it is never edited.

This module imports neither torch nor s3prl, so that results are readable without either.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from superbit.benchmark.records.provenance import Provenance
from superbit.benchmark.records.rate_search import Declared
from superbit.benchmark.records.schema import (
    SCHEMA_VERSION,
    Corpus,
    Interval,
    Items,
    RunIdentity,
    RunRecord,
    Selection,
    canonical_json,
)
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.counting import Counting, unseen
from superbit.upstreams.errors import InputError
from superbit.upstreams.visible import visible

# the schema's names, importable from here as well
__all__ = [
    "Corpus",
    "Interval",
    "Items",
    "Provenance",
    "ResultStore",
    "RunIdentity",
    "RunRecord",
    "Selection",
]

# Where a sweep writes unless it is told otherwise.
DEFAULT_FOLDER = Path("results/local")
_TEMPORARY_SUFFIX = ".part"
_SEARCHES = "searches"


class ResultStore:
    """A folder of results: ``ROOT/TASK/UPSTREAM-KEY.json``, ``….items.jsonl.gz`` beside it.

    Other folders in ``ROOT`` (work in progress, tables) are neither read nor touched.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def require_folder(self) -> None:
        """Say so if there is no such folder; where sweeps write by default, none need be there yet.

        Raises:
            InputError: it does not exist.
        """
        if not self.root.exists() and self.root != DEFAULT_FOLDER:
            raise InputError(
                f"--results: {self.root} does not exist: give the folder that a sweep wrote to."
            )

    def path(self, identity: RunIdentity) -> Path:
        """Return where the record of this run is, or would be."""
        slug = re.sub(r"[^A-Za-z0-9._=-]+", "-", identity.upstream).strip("-.")[:80]
        return self.root / identity.task / f"{slug}-{identity.key[:16]}.json"

    def find(self, identity: RunIdentity) -> RunRecord | None:
        """Return the done record of exactly this run, or None.

        Raises:
            InputError: its file is there but cannot be read as this run's record.
        """
        path = self.path(identity)
        record = self._read(path) if path.exists() else None
        return record if record is not None and record.status == "done" else None

    def ended(self, identity: RunIdentity) -> RunRecord | None:
        """Return the record of a run that is done, or that failed because training diverged.

        Such a failure would come again: it is no reason to run once more.

        Raises:
            InputError: as :meth:`find`.
        """
        record = self.read(identity) if self.path(identity).exists() else None
        settled = record is not None and (record.status == "done" or record.diverged is not None)
        return record if settled else None

    def read(self, identity: RunIdentity) -> RunRecord:
        """Return the record of exactly this run, done or failed.

        Raises:
            InputError: there is none, or it cannot be read as this run's record.
        """
        return self._read(self.path(identity))

    def write(
        self,
        record: RunRecord,
        items: Sequence[Mapping[str, Any]] | None = None,
        *,
        expected_items: int | None = None,
    ) -> RunRecord:
        """Write a record, its per-item counts first, and return it as written.

        Both files appear whole or not at all. A failed record is replaced; a done one never is.

        Args:
            record: the run; with ``items`` given, its own ``items`` field must be empty.
            items: one mapping of JSON values a test item.
            expected_items: how many items the test split holds.

        Raises:
            FileExistsError: this run has a done record already.
            InputError: the file in this record's place cannot be read.
            ValueError: ``items`` for a failed run, or an item that JSON cannot hold.
        """
        path = self.path(record.identity)
        sidecar = path.with_name(path.name.removesuffix(".json") + ".items.jsonl.gz")
        packed = None
        if items is not None:
            if record.status != "done" or record.items is not None:
                raise ValueError("items go with a done record whose items field is empty")
            packed = _pack(items)
            digest = hashlib.sha256(packed).hexdigest()
            described = Items(
                file=sidecar.name, sha256=digest, count=len(items), expected=expected_items
            )
            record = record.model_copy(update={"items": described})
        text = json.dumps(record.model_dump(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            if path.exists() and self._read(path).status == "done":
                raise FileExistsError(f"{path} is a done result, and those are never overwritten")
            if packed is not None:
                _replace(sidecar, packed)
            _replace(path, text.encode())
        return record

    def forget_unbuilt(self, identity: RunIdentity) -> None:
        """Delete what says that this run failed as its upstream could not be built; it can now."""
        for earlier in identity.unbuilt:
            self.path(earlier).unlink(missing_ok=True)

    def declare(self, search: Declared) -> None:
        """Note that a search over learning rates was asked for, so that tables compare its runs."""
        path = self.root / _SEARCHES / f"{search.identity.task}-{search.key[:16]}.json"
        held = {"identity": search.identity.model_dump(), "rates": sorted(search.rates)}
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, (json.dumps(held, indent=2, ensure_ascii=False) + "\n").encode())

    def read_searches(self) -> list[Declared]:
        """Return every search that was asked for.

        Raises:
            InputError: a file does not name one.
        """
        found = []
        for path in visible(self.root / _SEARCHES, "*.json"):
            try:
                held = json.loads(path.read_text(encoding="utf-8"))
                identity = RunIdentity(**held["identity"])
                found.append(Declared(identity=identity, rates=frozenset(held["rates"])))
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"{path} does not name a search over learning rates: delete it, and sweep "
                    "again with --lr search."
                ) from error
        return found

    def read_all(self, *, counting: Counting = unseen) -> list[RunRecord]:
        """Return every record, by task in the paper's order, then by file name.

        Args:
            counting: shows how many are read.

        Raises:
            InputError: a file is not a record; the message names it and what is wrong.
        """
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"results {self.root} is a file: give the folder that holds them.")
        files = [path for task in TASKS for path in visible(self.root / task, "*.json")]
        records = []
        with counting(f"reading {self.root}") as on_progress:
            for path in files:
                records.append(self._read(path))
                on_progress(len(records), len(files))
        return records

    def newest(self, task: str, *, count: int) -> Iterator[RunRecord]:
        """Yield a task's records that were written last, but what cannot be read."""
        try:
            files = [(path.stat().st_mtime, path) for path in (self.root / task).glob("*.json")]
        except OSError:
            return
        for _, path in sorted(files, reverse=True)[:count]:
            with suppress(InputError):
                yield self._read(path)

    def read_items(self, record: RunRecord) -> list[dict[str, Any]]:
        """Return a record's per-item counts; an empty list where it has none.

        Raises:
            InputError: the sidecar is missing, or is not the one the record was written with.
        """
        if record.items is None:
            return []
        path = self.path(record.identity).parent / record.items.file
        if not path.is_file():
            raise InputError(f"per-item counts {path} are missing: restore the file.")
        packed = path.read_bytes()
        if hashlib.sha256(packed).hexdigest() != record.items.sha256:
            raise InputError(
                f"per-item counts {path} are not those the run wrote (another SHA-256 than the "
                "record's items.sha256): restore the file."
            )
        return [json.loads(line) for line in gzip.decompress(packed).decode().splitlines()]

    def _read(self, path: Path) -> RunRecord:
        try:
            raw = json.loads(path.read_bytes(), parse_constant=_no_constant)
        except (ValueError, OSError) as error:
            raise _unreadable(path, f"it is not JSON ({error})") from error
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if version != SCHEMA_VERSION:
            raise _unreadable(path, f"schema_version is {version!r}, not {SCHEMA_VERSION}")
        try:
            record = RunRecord.model_validate(raw)
        except ValidationError as error:
            raise _unreadable(path, _first_problem(error)) from error
        if self.path(record.identity) != path:
            belongs = self.path(record.identity).relative_to(self.root)
            raise _unreadable(path, f"its identity belongs into {belongs}")
        return record


def _pack(items: Sequence[Mapping[str, Any]]) -> bytes:
    # the same items give the same bytes: sorted keys, no time stamp
    lines = "".join(canonical_json(item) + "\n" for item in items)
    return gzip.compress(lines.encode(), compresslevel=9, mtime=0)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # two processes of one sweep must not both find the place free
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _unreadable(path: Path, problem: str) -> InputError:
    return InputError(
        f"result {path} cannot be used: {problem}; restore the file, or delete it to run it again."
    )


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
