"""The form of packed results: of each task one file of records and one of per-item counts.

``KS.jsonl.gz`` has a line for each record of KS, ``KS.items.jsonl.gz`` one for the per-item counts
of each, ``searches.jsonl.gz`` one for each search over learning rates that no record names. Lines
are sorted by the name that the single file had, there is no time stamp, and each line gives its
file back byte for byte. `superbit.benchmark.records.packing` makes packs, `ResultStore` reads them.

This module imports neither torch nor s3prl, so that results are readable without either.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from superbit.upstreams.errors import InputError

SEARCHES = "searches"
_SUFFIX = ".jsonl.gz"
_START = b'{"file":"'


def records_file(root: Path, task: str) -> Path:
    """Where the packed records of ``task`` are in the folder ``root``."""
    return root / f"{task}{_SUFFIX}"


def items_file(root: Path, task: str) -> Path:
    """Where the packed per-item counts of ``task`` are in the folder ``root``."""
    return root / f"{task}.items{_SUFFIX}"


def searches_file(root: Path) -> Path:
    """Where the packed searches are in the folder ``root``."""
    return root / f"{SEARCHES}{_SUFFIX}"


class Pack:
    """A pack as it is on disk, its lines by the names of the single files; read as far as needed.

    Attributes:
        path: of the pack; a file that is not there has no lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, bytes] = {}
        self._places: dict[str, int] = {}
        self._more = self._read()
        self._damage: InputError | None = None
        self._one_at_a_time = Lock()

    def names(self) -> list[str]:
        """Return the names of all single files in it, sorted.

        Raises:
            InputError: the file is no pack; the message names the line.
        """
        while self._read_a_line():
            pass
        return sorted(self._lines)

    def line(self, name: str) -> bytes | None:
        """Return the line of the single file ``name``, without its end; None if there is none.

        Raises:
            InputError: as :meth:`names`.
        """
        while name not in self._lines and self._read_a_line():
            pass
        return self._lines.get(name)

    def get(self, name: str) -> dict[str, Any] | None:
        """Return what the line of the single file ``name`` holds; None if there is none.

        Raises:
            InputError: as :meth:`names`.
        """
        line = self.line(name)
        return None if line is None else self._parsed(line, self._places[name])

    def content(self, name: str) -> Any:
        """Return the JSON value that the single file ``name`` held; None if there is none.

        Raises:
            InputError: as :meth:`names`.
        """
        held = self.get(name)
        if held is None:
            return None
        try:
            return held["json"] if "json" in held else _loads(held["text"])
        except (KeyError, TypeError, ValueError) as error:
            raise self.damaged(name, "holds no JSON file") from error

    def damaged(self, name: str, problem: str) -> InputError:
        """Return the error that says what is wrong with the line of the single file ``name``."""
        return _damaged(self.path, f"line {self._places[name]} ({name}) {problem}")

    def _read_a_line(self) -> bool:
        """Read one more line; False at the end. What is damaged stays so, however often asked."""
        with self._one_at_a_time:
            if self._damage is not None:
                raise self._damage
            try:
                return next(self._more, None) is not None
            except InputError as error:
                self._damage = error
                raise

    def _read(self) -> Iterator[str]:
        try:
            compressed = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _damaged(self.path, f"it cannot be read ({error})") from error
        number = 0
        try:
            for number, line in enumerate(gzip.GzipFile(fileobj=io.BytesIO(compressed)), start=1):
                name = self._name_in(line, number)
                if name in self._lines:
                    raise _damaged(self.path, f"line {number} has {name} a second time")
                self._places[name] = number
                self._lines[name] = line.rstrip(b"\n")
                yield name
        except (OSError, EOFError, zlib.error) as error:
            problem = f"behind line {number} it is no gzip file ({error})"
            raise _damaged(self.path, problem) from error

    def _name_in(self, line: bytes, number: int) -> str:
        start, quote, _ = line.removeprefix(_START).partition(b'"')
        if line.startswith(_START) and quote and b"\\" not in start and start.isascii():
            return start.decode()
        name = self._parsed(line, number).get("file")
        if not isinstance(name, str):
            raise _damaged(self.path, f"line {number} does not say whose it is")
        return name

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            held = _loads(line)
        except (ValueError, RecursionError) as error:
            raise _damaged(self.path, f"line {number} is not JSON ({error})") from error
        if not isinstance(held, dict):
            raise _damaged(self.path, f"line {number} is no JSON object")
        return held


def file_line(name: str, content: bytes) -> bytes:
    """Return the line of a single JSON file.

    Args:
        content: the file's bytes, UTF-8 text. JSON that is laid out as results are is held as
            JSON, everything else as text.
    """
    value = json.loads(content)
    as_text = json_file(value) != content
    return _line({"file": name} | ({"text": content.decode()} if as_text else {"json": value}))


def file_content(held: Mapping[str, Any]) -> bytes:
    """Return the bytes of the single JSON file that a line holds."""
    return held["text"].encode() if "text" in held else json_file(held["json"])


def json_file(value: Any) -> bytes:
    """Return the bytes of a JSON file as results are laid out.

    Raises:
        ValueError: a number that JSON does not have.
    """
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def items_line(name: str, compressed: bytes) -> bytes:
    """Return the line of a sidecar of per-item counts.

    Its hash is of bytes that another build of zlib would compress to others, so the line has one
    of the text as well.
    """
    text = gzip.decompress(compressed)
    return _line(
        {
            "file": name,
            "sha256": hashlib.sha256(compressed).hexdigest(),
            "text_sha256": hashlib.sha256(text).hexdigest(),
            "text": text.decode(),
        }
    )


def items_text(pack: Pack, name: str, *, sha256: str) -> str | None:
    """Return the per-item counts of one record, a JSON object a line; None if there are none.

    Args:
        sha256: of the sidecar, as the record says.

    Raises:
        InputError: they are not those that were packed, or not that record's.
    """
    held = pack.get(name)
    if held is None:
        return None
    text = held.get("text")
    known = isinstance(text, str) and hashlib.sha256(text.encode()).hexdigest()
    if not known or known != held.get("text_sha256"):
        raise pack.damaged(name, "holds other per-item counts than were packed")
    if held.get("sha256") != sha256:
        raise pack.damaged(name, "holds the per-item counts of another run (see items.sha256)")
    return text


def compress_items(text: bytes) -> bytes:
    """Return a sidecar: the same text gives the same bytes, with the same build of zlib."""
    return gzip.compress(text, compresslevel=9, mtime=0)


def pack_bytes(lines: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a pack, from its lines by the names of their single files."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        for name in sorted(lines):
            file.write(lines[name] + b"\n")
    return buffer.getvalue()


def _line(held: Mapping[str, Any]) -> bytes:
    text = json.dumps(held, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _loads(text: str | bytes) -> Any:
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _damaged(path: Path, problem: str) -> InputError:
    return InputError(f"packed results {path} cannot be used: {problem}; restore the file.")
