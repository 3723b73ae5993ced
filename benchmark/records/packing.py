"""Single files of results become packs, and single files again.

Packs are written whole before a single file goes, so that nothing is lost wherever it stops, and
packing again goes on from there. Records are read and checked before they are packed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from superbit.benchmark.records import packed
from superbit.benchmark.records.packed import Pack
from superbit.benchmark.records.store import ResultStore, read_sidecar
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import write_bytes
from superbit.upstreams.visible import visible


@dataclass(frozen=True, kw_only=True)
class PackedTask:
    """What became of a task's results.

    Attributes:
        task: its short name.
        records: that were taken from one form into the other.
        items: per-item counts that were.
    """

    task: str
    records: int
    items: int


def pack(store: ResultStore) -> list[PackedTask]:
    """Take the single files of a store into its packs.

    Returns:
        Of each task that had single files, how many were taken in.

    Raises:
        InputError: a file is no record, or its per-item counts are not those of its run. The
            tasks before it are packed then, all others are as they were.
    """
    tasks = [task for task in TASKS if visible(store.root / task, "*.json")]
    done = [_pack_task(store, task) for task in tasks]
    _pack_searches(store)
    return done


def _pack_task(store: ResultStore, task: str) -> PackedTask:
    folder = store.root / task
    with store.locked(task):
        records = Pack(packed.records_file(store.root, task))
        items = Pack(packed.items_file(store.root, task))
        record_lines, item_lines = _lines(records), _lines(items)
        sidecars: list[Path] = []
        singles = visible(folder, "*.json")
        for path in singles:
            record = store.at(path)
            if record is None or record != store.read_single(path):
                continue  # it failed, and the packed one is done
            record_lines[path.name] = packed.file_line(path.name, path.read_bytes())
            if record.items is None:
                continue
            name, sha256 = record.items.file, record.items.sha256
            compressed = read_sidecar(folder / name, sha256=sha256)
            if compressed is not None:
                sidecars.append(folder / name)
                item_lines[name] = packed.items_line(name, compressed)
            elif name in item_lines:
                packed.items_text(items, name, sha256=sha256)
        _write(items.path, item_lines)
        _write(records.path, record_lines)
        # A record without its sidecar finds the packed one; a sidecar alone would be nobody's.
        for path in (*sidecars, *singles):
            path.unlink()
    return PackedTask(task=task, records=len(singles), items=len(sidecars))


def _pack_searches(store: ResultStore) -> None:
    """Pack the searches, but those that are no more than what done records say of theirs."""
    singles = visible(store.root / packed.SEARCHES, "*.json")
    if not singles:
        return
    noted: dict[str, set[float]] = {}
    for record in store.read_all():
        if record.status == "done" and record.search is not None:
            rates = {each.learning_rate for each in record.search.tried}
            noted.setdefault(record.identity.key_without_rate, set()).update(rates)
    pack = Pack(packed.searches_file(store.root))
    lines = _lines(pack) | {
        path.name: packed.file_line(path.name, path.read_bytes()) for path in singles
    }
    for name, search in store.searches_by_name().items():
        if search.rates <= noted.get(search.identity.key, set()):
            lines.pop(name, None)
    _write(pack.path, lines)
    for path in singles:
        path.unlink()


def unpack(store: ResultStore) -> list[PackedTask]:
    """Make single files of what is packed, each as it was; a single file that is there stays.

    Searches that were left out, as records name them, do not come back.

    Returns:
        Of each task that was packed, how many files it gave.

    Raises:
        InputError: a damaged pack; this machine's zlib compresses per-item counts to other bytes
            than those whose hash is in the record. The task is as it was then.
    """
    done = []
    for task in TASKS:
        if packed.records_file(store.root, task).exists():
            done.append(_unpack_task(store, task))
    pack = Pack(packed.searches_file(store.root))
    _write_singles(store.root / packed.SEARCHES, _contents(pack))
    pack.path.unlink(missing_ok=True)
    return done


def _unpack_task(store: ResultStore, task: str) -> PackedTask:
    folder = store.root / task
    folder.mkdir(exist_ok=True)
    with store.locked(task):
        records = Pack(packed.records_file(store.root, task))
        items = Pack(packed.items_file(store.root, task))
        contents, sidecars = {}, {}
        for name, content in _contents(records).items():
            path = folder / name
            record = store.read_packed(path)
            if record is None or record != store.at(path):
                continue  # a single file has taken its place
            contents[name] = content
            if record.items is None:
                continue
            text = packed.items_text(items, record.items.file, sha256=record.items.sha256)
            if text is not None:
                compressed = packed.compress_items(text.encode())
                if hashlib.sha256(compressed).hexdigest() != record.items.sha256:
                    raise InputError(
                        f"{items.path} cannot be unpacked here: this machine's zlib compresses "
                        f"{record.items.file} to other bytes than the run's; leave it packed."
                    )
                sidecars[record.items.file] = compressed
        _write_singles(folder, sidecars)
        _write_singles(folder, contents)
        # in this order: while the records are packed, unpacking goes on from where it stopped
        items.path.unlink(missing_ok=True)
        records.path.unlink()
    return PackedTask(task=task, records=len(contents), items=len(sidecars))


def _lines(pack: Pack) -> dict[str, bytes]:
    return {name: pack.line(name) or b"" for name in pack.names()}


def _contents(pack: Pack) -> dict[str, bytes]:
    found = {}
    for name in pack.names():
        pack.content(name)  # says so if it is damaged
        found[name] = packed.file_content(pack.get(name) or {})
    return found


def _write(path: Path, lines: Mapping[str, bytes]) -> None:
    if lines:
        write_bytes(path, packed.pack_bytes(lines), on_disk=True)
    else:
        path.unlink(missing_ok=True)


def _write_singles(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        write_bytes(folder / name, content, on_disk=True)
