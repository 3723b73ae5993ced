"""Upstreams that are not superbit's own: found by path, built with care."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.fingerprint import source_sha256
from superbit.upstreams.spec import UpstreamSpec

if TYPE_CHECKING:
    from torch import nn


def build(builder: Callable[..., nn.Module], spec: UpstreamSpec, *, draw_seed: int) -> nn.Module:
    """Call somebody else's builder: the same weights at every call, one sentence where it fails.

    A builder that names ``policy`` or ``untrained`` among its parameters is given them.

    Raises:
        InputError: it raised, or gave something else than a module.
    """
    from torch import nn

    asked: dict[str, Any] = {"policy": spec.policy, "untrained": spec.untrained}
    more = {key: value for key, value in asked.items() if value and takes(builder, key)}
    try:
        with _seeded_generators(draw_seed):
            expert = builder(ckpt=spec.checkpoint, model_config=None, refresh=False, **more)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"upstream {str(spec)!r} cannot be built: {reason}.") from error
    if not isinstance(expert, nn.Module):
        raise InputError(
            f"upstream {str(spec)!r}: its function returned {type(expert).__name__}; "
            "it must return a torch.nn.Module."
        )
    return expert


def takes(builder: Callable[..., nn.Module], parameter: str) -> bool:
    """Return whether a builder names a parameter of its own; ``**kwargs`` names none."""
    try:
        found = inspect.signature(builder).parameters.get(parameter)
    except (TypeError, ValueError):  # not every callable has a signature
        return False
    return found is not None and found.kind is not found.VAR_KEYWORD


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
    """Return the function that s3prl's hub has under ``name``, without importing all of the hub.

    Its other upstreams bring transformers, which takes seconds in every process. ``None`` where a
    look at the sources does not tell.

    Raises:
        ImportError: s3prl is missing, or that one file of it cannot be imported.
    """
    found = importlib.util.find_spec("s3prl")
    if found is None or found.origin is None or name.startswith("_"):
        return None
    hub = Path(found.origin).with_name("hub.py")
    modules = re.findall(r"^from (s3prl\.upstream\.\w+\.hubconf) import \*", hub.read_text(), re.M)
    for module in reversed(modules):  # the last one that has a name gives it to the hub
        source = hub.parent.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text()
        if re.search(rf"^def {re.escape(name)}\(", source, re.M):
            build: Callable[..., nn.Module] = getattr(importlib.import_module(module), name)
            return build
    return None


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
        raise InputError(
            f"upstream file {path} cannot be imported: {type(error).__name__}: {error}."
        ) from error
