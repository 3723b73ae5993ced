"""The files that an upstream of somebody else is made of, and one hash over their contents.

Names in the hash are relative or without their folder, so that a project that is moved, or called
from another working directory, stays the same. Times of change do not count. What Python and
installed packages bring does not count either: the versions of a machine are no part of a run.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from superbit.upstreams.identity.fingerprint import source_files

# Formats that code which is not Python reads, unseen by superbit.upstreams.identity.sources.
READ_UNSEEN = (
    *(".onnx", ".data", ".tflite", ".pb", ".pt", ".pth", ".pte", ".ts", ".jit", ".bin", ".ckpt"),
    *(".safetensors", ".gguf", ".ggml", ".h5", ".hdf5", ".mlmodel", ".engine", ".plan", ".xml"),
    ".model",
)
_INSTALLED = {"site-packages", "dist-packages", "__pycache__", "node_modules"}
_OF_THE_MACHINE = ("/dev/", "/proc/", "/sys/", "/etc/", "/run/", "/usr/lib/", "/usr/share/")
_OURS = Path(__file__).resolve().parents[1]
_BLOCK = 1 << 20


def files_sha256(files: dict[str, Path]) -> str | None:
    """Return the sha256 over names and contents, None without files; what is gone is left out."""
    digest, found = hashlib.sha256(), False
    for name, path in sorted(files.items()):
        content = content_sha256(path)
        if content is not None:
            digest.update(f"{name} {content}\n".encode())
            found = True
    return digest.hexdigest() if found else None


def of_checkpoint(checkpoint: str | None) -> dict[str, Path]:
    """Every file of a checkpoint: itself, or all of its folder but what is hidden."""
    if checkpoint is None or "://" in checkpoint:
        return {}
    top = Path(checkpoint)
    if top.is_file():
        return {"checkpoint": top}
    files = (Path(folder) / name for folder, _, names in os.walk(top) for name in names)
    return {
        f"checkpoint/{path.relative_to(top).as_posix()}": path
        for path in files
        if not _is_aside(path.relative_to(top))
    }


def beside(hubconf: Path) -> dict[str, Path]:
    """The source in a hubconf's folder and below, and in these folders what is read unseen.

    A folder below without source holds data or results, and only what is opened there counts.
    """
    source = source_files(hubconf)
    folders = {hubconf.parent, *(path.parent for path in source)}
    models = (
        path
        for folder in folders
        for path in folder.iterdir()
        if path.suffix.lower() in READ_UNSEEN and not path.name.startswith(".")
    )
    return {
        f"beside/{path.relative_to(hubconf.parent).as_posix()}": path for path in (*source, *models)
    }


def opened(
    paths: Iterable[str], *, hubconf: Path | None, checkpoint: str | None
) -> dict[str, Path]:
    """Those of the files that a builder opened that are somebody's own, wherever they lie."""
    found: dict[str, Path] = {}
    top = None if checkpoint is None else os.path.realpath(checkpoint)
    for text in sorted(paths):
        path = Path(text)
        if top is not None and os.path.realpath(path).startswith(top):
            continue  # of_checkpoint has it
        if hubconf is not None and path.is_relative_to(hubconf.parent):
            inside = path.relative_to(hubconf.parent)
            if not _is_aside(inside):
                found[f"beside/{inside.as_posix()}"] = path
        elif is_somebodys(path):
            found[_free(f"opened/{path.name}", found)] = path
    return found


def imported(file: Path) -> dict[str, Path]:
    """The modules from outside Python and its packages that ``file`` imports, and they in turn.

    Told from the text, so that it does not matter what another upstream imported before; names
    that are put together at run time are not seen. ``file`` itself is not among them.
    """
    found: dict[str, Path] = {}
    seen, waiting = {file.resolve()}, [file.resolve()]
    while waiting:
        for name, path in _imports_of(waiting.pop()):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                waiting.append(path.resolve())
                found[_free(f"module/{name}", found)] = path.resolve()
    return found


def _imports_of(file: Path) -> Iterator[tuple[str, Path]]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield from _relative(file, node)
            continue
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            yield from _absolute(name)


def _relative(file: Path, node: ast.ImportFrom) -> Iterator[tuple[str, Path]]:
    folder = file.parents[node.level - 1] if node.level <= len(file.parents) else file.parent
    base = folder.joinpath(*node.module.split(".")) if node.module else folder
    for place in (base, *(base / alias.name for alias in node.names)):
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                yield f"{place.parent.name}/{place.name}", path


def _absolute(name: str) -> Iterator[tuple[str, Path]]:
    """The files of a module and of the packages that it lies in."""
    parts = name.split(".")
    if parts[0] in sys.stdlib_module_names or parts[0] in ("superbit", "torch", "s3prl"):
        return
    search: list[str] | None = None
    for depth in range(1, len(parts) + 1):
        dotted = ".".join(parts[:depth])
        module = sys.modules.get(dotted)
        spec = getattr(module, "__spec__", None)
        if spec is None:
            try:
                spec = importlib.machinery.PathFinder.find_spec(dotted, search)
            except (ImportError, ValueError, AttributeError):
                return
        if spec is None:
            return
        if spec.origin and spec.has_location and spec.origin.endswith(".py"):
            if not is_somebodys(Path(spec.origin)):
                return
            yield dotted, Path(spec.origin)
        search = list(spec.submodule_search_locations or [])
        if not search:
            return


def is_somebodys(path: Path) -> bool:
    """Whether a file is neither Python's, a package's, the machine's, superbit's nor hidden."""
    text = os.path.realpath(path)
    if _INSTALLED.intersection(path.parts) or _INSTALLED.intersection(Path(text).parts):
        return False
    if text.startswith((*_OF_THE_MACHINE, *_python_folders())):
        return False
    if any(Path(text).is_relative_to(each) for each in (_OURS, _OURS.parent / "benchmark")):
        return False
    home = os.path.realpath(Path.home()) + os.sep
    inside = Path(text[len(home) :]) if text.startswith(home) else Path(Path(text).name)
    hidden = any(part.startswith(".") for part in inside.parts)
    # but for what Hugging Face's and torch's hub keep there of models
    return not hidden or any(part.startswith("models--") for part in inside.parts)


def _python_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(os.path.realpath(paths[key]) + os.sep for key in ("stdlib", "platstdlib"))


def _is_aside(relative: Path) -> bool:
    return any(part.startswith(".") or part in _INSTALLED for part in relative.parts)


def _free(name: str, taken: dict[str, Path]) -> str:
    return name if name not in taken else _free(f"{name}'", taken)


def content_sha256(path: Path) -> str | None:
    """The sha256 of a file, None where there is none or it cannot be read."""
    digest = hashlib.sha256()
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


_listening: list[set[str]] = []
_installed = False


@contextmanager
def opened_files() -> Iterator[set[str]]:
    """Give a set that fills with the absolute paths of what is opened for reading meanwhile.

    Imports are left out: what of a module is on disk, source or bytecode, says nothing.
    """
    global _installed
    if not _installed:  # no audit hook can be taken back, so it comes with the first need
        sys.addaudithook(_on_event)
        _installed = True
    opened: set[str] = set()
    _listening.append(opened)
    try:
        yield opened
    finally:
        # by identity: two sets may be equal
        _listening[:] = [each for each in _listening if each is not opened]


def is_at_or_below(path: str, top: str | Path) -> bool:
    """Whether ``path`` is ``top`` or lies below it, links followed."""
    found, wanted = os.path.realpath(path), os.path.realpath(top)
    return found == wanted or found.startswith(wanted.rstrip(os.sep) + os.sep)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _listening:
        return
    path, _, flags = arguments
    if not isinstance(path, str | bytes | os.PathLike) or not _is_for_reading(flags):
        return
    caller = sys._getframe().f_back
    if caller is not None and caller.f_code.co_filename.startswith("<frozen importlib"):
        return
    absolute = os.path.abspath(os.fsdecode(path))  # now: the working directory may change
    for each in _listening:
        each.add(absolute)


def _is_for_reading(flags: object) -> bool:
    if not isinstance(flags, int):
        return True
    access = flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
    # what is made anew here, a lock file for one, is not read
    return access != os.O_WRONLY and not flags & (os.O_CREAT | os.O_TRUNC)
