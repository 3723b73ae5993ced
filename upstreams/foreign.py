"""Upstreams that are not superbit's own: found by path, built with care."""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.upstreams.errors import ForeignError, InputError, did_you_mean
from superbit.upstreams.fingerprint import source_sha256
from superbit.upstreams.spec import UpstreamSpec

if TYPE_CHECKING:
    from torch import nn


def build(builder: Callable[..., nn.Module], spec: UpstreamSpec, *, draw_seed: int) -> nn.Module:
    """Call somebody else's builder: the same weights at every call, one sentence where it fails.

    Raises:
        InputError: it raised, or gave something else than a module.
    """
    from torch import nn

    try:
        with _seeded_generators(draw_seed):
            expert = builder(ckpt=spec.checkpoint, model_config=None, refresh=False)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ForeignError(f"upstream {str(spec)!r} cannot be built: {reason}.") from error
    if not isinstance(expert, nn.Module):
        raise InputError(
            f"upstream {str(spec)!r}: its function returned {type(expert).__name__}; "
            "it must return a torch.nn.Module."
        )
    return expert


@contextmanager
def _seeded_generators(seed: int) -> Iterator[None]:
    """Draw from one seed, and leave the generators as they were.

    A model without weights is otherwise another one at each build: its key changes and no result
    is ever found again.
    """
    import random

    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def by_hub_name(name: str) -> Callable[..., nn.Module] | None:
    """Return the function that s3prl's hub has under ``name``, None if it has none.

    The whole hub is imported only where a look at its sources does not tell: its upstreams bring
    transformers, which takes seconds in every process, and print.

    Raises:
        ImportError: s3prl is missing, or that one file of it cannot be imported.
    """
    sources = _hub_sources()
    if not name.isidentifier() or name.startswith("_"):
        return None
    for module in reversed(sources):  # the last one that has a name gives it to the hub
        if re.search(rf"^def {name}\(", sources[module], re.M):
            with _muted():
                build: Callable[..., nn.Module] = getattr(importlib.import_module(module), name)
            return build
    if not any(re.search(rf"\b{name}\b", source) for source in sources.values()):
        return None
    with _muted():
        from s3prl import hub
    return getattr(hub, name) if name in hub.options() else None


def hub_names() -> list[str]:
    """Return the names that a look at the sources of s3prl's hub tells; none without s3prl."""
    try:
        sources = _hub_sources()
    except ImportError:
        return []
    found = [re.findall(r"^def ([a-zA-Z]\w*)\(", source, re.M) for source in sources.values()]
    return list(dict.fromkeys(name for names in found for name in names))


def _hub_sources() -> dict[str, str]:
    """Return the source of each module from which s3prl's hub takes names, in its order.

    Raises:
        ImportError: s3prl is missing.
    """
    found = importlib.util.find_spec("s3prl")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 's3prl'", name="s3prl")
    hub = Path(found.origin).with_name("hub.py")
    modules = re.findall(r"^from (s3prl\.[\w.]+\.hubconf) import", hub.read_text("utf-8"), re.M)
    return {
        module: hub.parent.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text("utf-8")
        for module in modules
    }


class _Muffler(io.TextIOBase):
    """Drops what is written while ``muted``; afterwards it is the stream that ``sys`` has.

    A log handler that a library makes meanwhile keeps it, and must be heard later.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name, self.muted = name, True

    def write(self, text: str) -> int:
        stream = getattr(sys, self._name)
        if not self.muted and stream is not self:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        stream = getattr(sys, self._name)
        if not self.muted and stream is not self:
            stream.flush()


@contextmanager
def _muted() -> Iterator[None]:
    """Keep from the user what libraries print and warn of while they are imported."""
    out, err = _Muffler("stdout"), _Muffler("stderr")
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            out.muted = err.muted = False


def by_path(name: str) -> tuple[Callable[..., nn.Module], str]:
    """Return the function that ``path/to/hubconf.py:function`` names, and its source's hash.

    Raises:
        InputError: no such file or function, or the file cannot be imported.
    """
    path_text, _, function = name.rpartition(":")
    path = Path(path_text)
    if not path.is_file():
        raise InputError(f"upstream {name!r}: there is no file {path_text!r}.")
    module = _import_file(path.resolve())
    build = getattr(module, function, None)
    if not callable(build):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        hint = did_you_mean(function, public)
        raise InputError(f"upstream {name!r}: {path_text} has no function {function!r}.{hint}")
    return build, source_sha256(path.resolve())


def _import_file(path: Path) -> types.ModuleType:
    """Import ``path`` as a member of a package of its own, so that its relative imports work."""
    package_name = f"superbit_path_{source_sha256(path)[:16]}_{abs(hash(path.parent))}"
    if package_name not in sys.modules:
        package = types.ModuleType(package_name)
        package.__path__ = [str(path.parent)]
        sys.modules[package_name] = package
    try:
        return importlib.import_module(f"{package_name}.{path.stem}")
    except (Exception, SystemExit) as error:
        raise ForeignError(
            f"upstream file {path} cannot be imported: {type(error).__name__}: {error}."
        ) from error
