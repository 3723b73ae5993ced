"""A folder of results, one JSON a run: written whole or not at all, found by key, checked on load.

A result is found by its key only, never by its name, and once written it is never edited. Runs may
be packed, a file a task (`superbit.benchmark.records.packed`), and are found and read all the same;
what is written is a single file.

This module imports neither torch nor s3prl, so that results are readable without either.
"""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from superbit.benchmark.records import packed
from superbit.benchmark.records.canonical import canonical_json
from superbit.benchmark.records.packed import Pack
from superbit.benchmark.records.rate_search import DeclaredSearch
from superbit.benchmark.records.schema import SCHEMA_VERSION, Items, RunIdentity, RunRecord
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.counting import Counting, unseen
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import locked, write_bytes
from superbit.upstreams.visible import visible

# Where a sweep writes unless it is told otherwise.
DEFAULT_FOLDER = Path("results/local")


class ResultStore:
    """A folder of results: ``ROOT/TASK/UPSTREAM-KEY.json``, ``….items.jsonl.gz`` beside it.

    Packed ones are in ``ROOT/TASK.jsonl.gz`` and ``ROOT/TASK.items.jsonl.gz``. Of one run that is
    there in both forms the single file counts, unless it failed and the packed one is done. Other
    folders in ``ROOT`` (work in progress, tables) are neither read nor touched.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._packs: dict[Path, tuple[object, Pack]] = {}

    def __reduce__(self) -> tuple[type[ResultStore], tuple[Path]]:
        return type(self), (self.root,)  # another process reads packs itself

    def require_folder(self) -> None:
        """Say so if there is no such folder; where sweeps write by default, none need be there yet.

        Raises:
            InputError: it does not exist.
        """
        if not self.root.exists() and self.root != DEFAULT_FOLDER:
            raise InputError(
                f"--results: {self.root} does not exist: give the folder that a sweep wrote to."
            )

    @contextmanager
    def locked(self, task: str) -> Iterator[None]:
        """Keep other processes from writing a task's results meanwhile."""
        # two processes of one sweep must not both find the place free
        with locked(self.root / "work" / "locks" / task, every=0.02):
            yield

    def path(self, identity: RunIdentity) -> Path:
        """Return where the record of this run is, or would be."""
        return self.root / identity.task / _name(identity)

    def holds(self, identity: RunIdentity) -> bool:
        """Whether there is a record of exactly this run, done or failed, readable or not."""
        path = self.path(identity)
        return path.exists() or self._records(identity.task).line(path.name) is not None

    def find(self, identity: RunIdentity) -> RunRecord | None:
        """Return the done record of exactly this run, or None.

        Raises:
            InputError: its file is there but cannot be read as this run's record.
        """
        record = self.at(self.path(identity))
        return record if record is not None and record.status == "done" else None

    def ended(self, identity: RunIdentity) -> RunRecord | None:
        """Return the record of a run that is done, or that failed because training diverged.

        Such a failure would come again: it is no reason to run once more.

        Raises:
            InputError: as :meth:`find`.
        """
        record = self.at(self.path(identity))
        settled = record is not None and (record.status == "done" or record.diverged is not None)
        return record if settled else None

    def read(self, identity: RunIdentity) -> RunRecord:
        """Return the record of exactly this run, done or failed.

        Raises:
            InputError: there is none, or it cannot be read as this run's record.
        """
        path = self.path(identity)
        record = self.at(path)
        if record is None:
            raise _unreadable(path, "there is no such file")
        return record

    def at(self, path: Path) -> RunRecord | None:
        """Return the record whose single file is ``path``, or was before it was packed; or None.

        Raises:
            InputError: it is there but cannot be read.
        """
        single = self.read_single(path)
        if single is not None and single.status == "done":
            return single
        other = self.read_packed(path)
        return other if other is not None and (single is None or other.status == "done") else single

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
        sidecar_bytes = None
        if items is not None:
            if record.status != "done" or record.items is not None:
                raise ValueError("items go with a done record whose items field is empty")
            # the same items give the same bytes: sorted keys, no time stamp
            lines = "".join(canonical_json(item) + "\n" for item in items)
            sidecar_bytes = packed.compress_items(lines.encode())
            digest = hashlib.sha256(sidecar_bytes).hexdigest()
            described = Items(
                file=sidecar.name, sha256=digest, count=len(items), expected=expected_items
            )
            record = record.model_copy(update={"items": described})
        content = packed.json_file(record.model_dump())
        with self.locked(record.identity.task):
            held = self.at(path)
            if held is not None and held.status == "done":
                raise FileExistsError(f"{path} is a done result, and those are never overwritten")
            if sidecar_bytes is not None:
                write_bytes(sidecar, sidecar_bytes, on_disk=True)
            write_bytes(path, content, on_disk=True)
        return record

    def forget_unbuilt(self, identity: RunIdentity) -> None:
        """Delete what says that this run failed as its upstream could not be built; it can now."""
        for earlier in identity.unbuilt:
            path = self.path(earlier)
            path.unlink(missing_ok=True)
            if self._records(earlier.task).line(path.name) is not None:
                with self.locked(earlier.task):
                    pack = self._records(earlier.task)
                    kept = {n: pack.line(n) or b"" for n in pack.names() if n != path.name}
                    write_bytes(pack.path, packed.pack_bytes(kept), on_disk=True)

    def declare(self, search: DeclaredSearch) -> None:
        """Note that a search over learning rates was asked for, so that tables compare its runs."""
        path = self.root / packed.SEARCHES / f"{search.identity.task}-{search.key[:16]}.json"
        held = {"identity": search.identity.model_dump(), "rates": sorted(search.rates)}
        if not path.exists() and self._searches().line(path.name) is None:
            write_bytes(path, packed.json_file(held), on_disk=True)

    def read_searches(self) -> list[DeclaredSearch]:
        """Return every search that was asked for, but those that packed records name themselves.

        Raises:
            InputError: a file does not name one.
        """
        return list(self.searches_by_name().values())

    def searches_by_name(self) -> dict[str, DeclaredSearch]:
        """As :meth:`read_searches`, by the names of the single files.

        Raises:
            InputError: a file does not name one.
        """
        singles = {path.name: path for path in visible(self.root / packed.SEARCHES, "*.json")}
        pack = self._searches()
        found = {}
        for name in sorted({*singles, *pack.names()}):
            path = singles.get(name)
            try:
                held = pack.content(name) if path is None else self._read_json(path)
                identity = RunIdentity(**held["identity"])
                found[name] = DeclaredSearch(identity=identity, rates=frozenset(held["rates"]))
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
                if path is None:
                    raise pack.damaged(name, "names no search over learning rates") from error
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
        found = []
        with counting(f"reading {self.root}") as on_progress, without_garbage_collection():
            for number, task in enumerate(TASKS, start=1):
                # in this order: what is packed meanwhile is then in the pack
                singles = {path.name for path in visible(self.root / task, "*.json")}
                pack = self._records(task)
                for name in sorted(singles.union(pack.names())):
                    if name in singles:
                        found.append(self.at(self.root / task / name))
                    else:
                        found.append(_packed_record(pack, task, name))
                on_progress(number, len(TASKS))
        return [record for record in found if record is not None]

    def newest(self, task: str, *, count: int) -> Iterator[RunRecord]:
        """Yield a task's records that were written last, but what cannot be read."""
        try:
            files = [(path.stat().st_mtime, path) for path in (self.root / task).glob("*.json")]
        except OSError:
            return
        for _, path in sorted(files, reverse=True)[:count]:
            with suppress(InputError):
                record = self.read_single(path)
                if record is not None:
                    yield record
        if len(files) >= count:
            return
        earlier = []
        with suppress(InputError):
            for name in self._records(task).names():
                with suppress(InputError):
                    earlier.append(self.read_packed(self.root / task / name))
        known = [record for record in earlier if record is not None]
        known.sort(key=lambda record: record.provenance.started or "", reverse=True)
        yield from known[: count - len(files)]

    def read_items(self, record: RunRecord) -> list[dict[str, Any]]:
        """Return a record's per-item counts; an empty list where it has none.

        Raises:
            InputError: the sidecar is missing, or is not the one the record was written with.
        """
        if record.items is None:
            return []
        path = self.path(record.identity).parent / record.items.file
        compressed = read_sidecar(path, sha256=record.items.sha256)
        if compressed is not None:
            text: str | None = gzip.decompress(compressed).decode()
        else:
            pack = self._pack(packed.items_file(self.root, record.identity.task))
            text = packed.items_text(pack, path.name, sha256=record.items.sha256)
        if text is None:
            raise InputError(f"per-item counts {path} are missing: restore the file.")
        return [json.loads(line) for line in text.splitlines()]

    def read_single(self, path: Path) -> RunRecord | None:
        """Return the record of a single file; None if there is no such file.

        Raises:
            InputError: it cannot be read as the record of its place.
        """
        try:
            raw = self._read_json(path)
        except FileNotFoundError:
            return None
        except (ValueError, OSError, RecursionError) as error:
            raise _unreadable(path, f"it is not JSON ({error})") from error
        place = (path.parent.name, path.name)
        return _checked(raw, place, lambda problem: _unreadable(path, problem))

    def _read_json(self, path: Path) -> Any:
        if stat.S_ISFIFO(path.stat().st_mode):  # to read it would wait for ever
            raise OSError("it is a pipe")
        return json.loads(path.read_bytes(), parse_constant=_no_constant)

    def read_packed(self, path: Path) -> RunRecord | None:
        """Return the packed record whose single file was ``path``; None if there is none.

        Raises:
            InputError: it cannot be read as the record of its place.
        """
        return _packed_record(self._records(path.parent.name), path.parent.name, path.name)

    def _records(self, task: str) -> Pack:
        return self._pack(packed.records_file(self.root, task))

    def _searches(self) -> Pack:
        return self._pack(packed.searches_file(self.root))

    def _pack(self, path: Path) -> Pack:
        """The pack as it is on disk now; another process may have packed since."""
        try:
            stat = path.stat()
            state: object = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            state = None
        known = self._packs.get(path)
        if known is None or known[0] != state:
            known = self._packs[path] = (state, Pack(path))
        return known[1]


def _name(identity: RunIdentity) -> str:
    slug = re.sub(r"[^A-Za-z0-9._=-]+", "-", identity.upstream).strip("-.")[:80]
    return f"{slug}-{identity.key[:16]}.json"


def _packed_record(pack: Pack, task: str, name: str) -> RunRecord | None:
    if pack.line(name) is None:
        return None
    return _checked(
        pack.content(name),
        (task, name),
        lambda problem: pack.damaged(name, f"is no record: {problem}"),
    )


def _checked(
    raw: Any, place: tuple[str, str], unreadable: Callable[[str], InputError]
) -> RunRecord:
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise unreadable(f"schema_version is {version!r}, not {SCHEMA_VERSION}")
    try:
        record = RunRecord.model_validate(raw)
    except ValidationError as error:
        raise unreadable(_first_problem(error)) from error
    belongs = (record.identity.task, _name(record.identity))
    if belongs != place:
        raise unreadable(f"its identity belongs into {Path(*belongs)}")
    return record


def read_sidecar(path: Path, *, sha256: str) -> bytes | None:
    """Return the bytes of a sidecar of per-item counts; None if there is no such file.

    Raises:
        InputError: it is not the one with that hash.
    """
    if not path.is_file():
        return None
    compressed = path.read_bytes()
    if hashlib.sha256(compressed).hexdigest() != sha256:
        raise InputError(
            f"per-item counts {path} are not those the run wrote (another SHA-256 than the "
            "record's items.sha256): restore the file."
        )
    return compressed


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Put off Python's search for cycles, for work on many records; also a decorator."""
    # records hold no cycles, and looking for them took a quarter of the time of reading 2,000
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
