"""Upstreams that are not superbit's own: found by path, built with care.

What a spec says has to reach the model: a checkpoint that the builder does not use is refused, and
weights that are drawn at random are told from others by drawing them twice.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.fingerprint import same_features, source_sha256, weights_sha256
from superbit.upstreams.sources import content_sha256, imported
from superbit.upstreams.spec import UpstreamSpec
from superbit.upstreams.watching import is_at_or_below, opened_files

if TYPE_CHECKING:
    from torch import nn

_Builder = Callable[..., "nn.Module"]
# How s3prl's hub calls those of its entries that load the weights they are given; every other one
# overwrites its argument ckpt with the address of its own (s3prl.hub.options tells them alike).
_TAKES_WEIGHTS = ("_local", "_custom", "_url", "_gdriveid")
# Above so many bytes of weights a model is not built twice where it read a file of that order.
_BUILT_TWICE_BYTES = 64 * 2**20
_OTHER_DRAW = 20_110  # a seed that nobody gives


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a builder gave.

    Attributes:
        expert: the module.
        opened: the files that Python read meanwhile.
        untrained: the weights are random.
    """

    expert: nn.Module
    opened: frozenset[str] = frozenset()
    untrained: bool = False


def build(builder: _Builder, spec: UpstreamSpec, *, draw_seed: int) -> Built:
    """Call somebody else's builder: the same weights at every call, one sentence where it fails.

    Raises:
        InputError: it raised, or gave something else than a module.
    """
    from torch import nn

    try:
        with _seeded_generators(draw_seed), opened_files() as opened:
            expert = builder(ckpt=spec.checkpoint, model_config=None, refresh=False)
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
    return Built(expert=expert, opened=frozenset(opened))


def require_checkpoint_taken(spec: UpstreamSpec, *, origin: str) -> None:
    """Refuse a checkpoint for an entry of s3prl's hub that would fetch its own weights instead.

    Raises:
        InputError: such an entry; the message names one that loads the file.
    """
    if spec.checkpoint is None or origin != "s3prl" or spec.name.endswith(_TAKES_WEIGHTS):
        return
    raise InputError(
        f"upstream {str(spec)!r}: s3prl's {spec.name!r} takes no checkpoint, it would run as it is "
        f"without {spec.checkpoint!r}{_what_takes(spec)}."
    )


def require_checkpoint_used(
    builder: _Builder, spec: UpstreamSpec, built: Built, *, draw_seed: int
) -> None:
    """Refuse a checkpoint that made no difference: a name would promise weights that do not run.

    It was used if Python opened it or a file below it; or if the model is another one without it,
    or cannot be built. What is read unseen (safetensors, ONNX) shows by the latter.

    Raises:
        InputError: it was not used.
    """
    checkpoint = spec.checkpoint
    if checkpoint is None:
        return
    if "://" not in checkpoint and any(is_at_or_below(p, checkpoint) for p in built.opened):
        return
    try:
        without = build(builder, replace(spec, checkpoint=None), draw_seed=draw_seed)
    except InputError:
        return
    if _same_weights(built, without) and same_features(built.expert, without.expert) is not False:
        raise InputError(
            f"upstream {str(spec)!r}: its function did not use the checkpoint {checkpoint!r}: the "
            "file was not opened, and the model is the same one without it; the function gets it "
            "as its argument ckpt."
        )


def is_untrained(builder: _Builder, spec: UpstreamSpec, built: Built) -> bool:
    """Whether what was built has weights that are drawn at random.

    An attribute ``untrained`` says so. Without it, and without a checkpoint, it is built once more
    from other draws. Random weights that no hidden state depends on (a mask vector that only
    training uses) do not count. A large model that read a file of a quarter of its size is taken to
    have its weights from there, and is not built twice.
    """
    said = getattr(built.expert, "untrained", None)
    if isinstance(said, bool) or spec.checkpoint is not None:
        return bool(said)
    size = sum(t.numel() * t.element_size() for t in built.expert.state_dict().values())
    if size == 0:
        return False
    if size > _BUILT_TWICE_BYTES and any(_file_size(p) > size / 4 for p in built.opened):
        return False
    again = build(builder, spec, draw_seed=_OTHER_DRAW)
    return not _same_weights(built, again) and not same_features(built.expert, again.expert)


def _same_weights(one: Built, other: Built) -> bool:
    return weights_sha256(one.expert) == weights_sha256(other.expert)


def _what_takes(spec: UpstreamSpec) -> str:
    """E.g. ``"; 'hubert_local@w.pt' loads it"``; empty where s3prl has none of that family."""
    build, checkpoint = by_hub_name(spec.name), str(spec.checkpoint)
    if build is None:
        return ""
    module = importlib.import_module(build.__module__)
    family = module.__name__.split(".")[-2]
    if "://" in checkpoint:
        fits = [f"{family}_url", f"{family}_custom"]
    elif Path(checkpoint).is_dir():  # as Hugging Face's save_pretrained writes one
        fits = [f"hf_{family}_custom"]
    else:
        fits = [f"{family}_local", f"{family}_custom"]
    known = [name for name in fits if by_hub_name(name) is not None and family != "baseline"]
    return f"; {str(replace(spec, name=known[0]))!r} loads it" if known else ""


def _file_size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


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
    for module, functions in _hub_functions(Path(found.origin).with_name("hub.py")).items():
        if name in functions:
            build: Callable[..., nn.Module] = getattr(importlib.import_module(module), name)
            return build
    return None


@functools.cache
def _hub_functions(hub: Path) -> dict[str, set[str]]:
    """The functions of each module of s3prl's hub; the first one that has a name gives it."""
    modules = re.findall(r"^from (s3prl\.upstream\.\w+\.hubconf) import \*", hub.read_text(), re.M)
    found = {}
    for module in reversed(modules):  # a later import hides an earlier one
        source = hub.parent.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text()
        found[module] = set(re.findall(r"^def (\w+)\(", source, re.M))
    return found


def by_path(name: str) -> tuple[Callable[..., nn.Module], str]:
    """Return the function that ``path/to/hubconf.py:function`` names, and its source's hash.

    Raises:
        InputError: no such file or function, or the file cannot be imported.
    """
    path_text, _, function = name.rpartition(":")
    path = Path(path_text)
    if not path.is_file():
        raise InputError(f"upstream {name!r}: there is no file {path_text!r}.")
    module = import_file(path.resolve())
    build = getattr(module, function, None)
    if not callable(build):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        hint = did_you_mean(function, public)
        raise InputError(f"upstream {name!r}: {path_text} has no function {function!r}.{hint}")
    return build, source_sha256(path.resolve())


# What importing a file opened, and what it imported from outside its folder, with its content then.
_opened_by: dict[Path, frozenset[str]] = {}
_imported_by: dict[Path, dict[Path, str | None]] = {}


def opened_by_import(path: Path) -> frozenset[str]:
    """The files that Python read while the module of ``path`` was imported in this process."""
    return _opened_by.get(path, frozenset())


def import_file(path: Path) -> types.ModuleType:
    """Import ``path`` as a member of a package of its own, so that its relative imports work.

    It is imported once for each state of its source, and again where a module that it imports from
    outside its folder has changed.
    """
    package_name = f"superbit_path_{source_sha256(path)[:16]}_{abs(hash(path.parent))}"
    _forget_if_edited(path, package_name)
    if package_name not in sys.modules:
        package = types.ModuleType(package_name)
        package.__path__ = [str(path.parent)]
        sys.modules[package_name] = package
    name = f"{package_name}.{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    try:
        with opened_files() as opened:
            module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"upstream file {path} cannot be imported: {type(error).__name__}: {error}."
        ) from error
    _opened_by[path] = frozenset(opened)
    _imported_by[path] = {file: content_sha256(file) for file in imported(path).values()}
    return module


def _forget_if_edited(path: Path, package_name: str) -> None:
    """Let Python forget the modules that a file imported, and the file, where one was edited."""
    known = _imported_by.get(path, {})
    if all(content_sha256(file) == content for file, content in known.items()):
        return
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith(f"{package_name}.") or (file and Path(file).resolve() in known):
            del sys.modules[name]
