"""Upstreams that are not superbit's own: found by path, built with care.

What a spec says has to reach the model: a checkpoint that the builder does not use is refused, and
weights that are drawn at random are told from others by drawing them twice.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import io
import os
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.upstreams import stopping
from superbit.upstreams.errors import BrokenUpstream, InputError, did_you_mean
from superbit.upstreams.files import is_file
from superbit.upstreams.identity.fingerprint import same_features, source_sha256, weights_sha256
from superbit.upstreams.identity.sources import (
    content_sha256,
    imported,
    is_at_or_below,
    opened_files,
)
from superbit.upstreams.spec import UpstreamSpec

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

    A builder that names ``policy`` or ``untrained`` among its parameters is given them.

    Raises:
        BrokenUpstream: it raised, or gave something else than a module with a state.
    """
    from torch import nn

    asked: dict[str, Any] = {"policy": spec.policy, "untrained": spec.untrained}
    more = {key: value for key, value in asked.items() if value and takes(builder, key)}
    try:
        with _seeded_generators(draw_seed), opened_files() as opened:
            expert = builder(ckpt=spec.checkpoint, model_config=None, refresh=False, **more)
    except InputError as error:
        raise BrokenUpstream(str(error)) from error
    except stopping.RAISED as error:
        stopping.raise_if_users(error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BrokenUpstream(f"upstream {spec.typed!r} cannot be built: {reason}.") from error
    if not isinstance(expert, nn.Module):
        raise BrokenUpstream(
            f"upstream {spec.typed!r}: its function returned {type(expert).__name__}; "
            "it must return a torch.nn.Module."
        )
    _require_state(expert, spec)
    return Built(expert=expert, opened=frozenset(opened))


def _require_state(expert: nn.Module, spec: UpstreamSpec) -> None:
    """Raise `BrokenUpstream` where a module that is not quite one has no state to tell it by."""
    needed = "a mapping from names to tensors is needed, by which its results are told from others'"
    try:
        state = expert.state_dict()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BrokenUpstream(
            f"upstream {spec.typed!r}: its state_dict() raised {reason}; {needed}."
        ) from error
    if not isinstance(state, Mapping):
        raise BrokenUpstream(
            f"upstream {spec.typed!r}: its state_dict() returned {type(state).__name__}; {needed}."
        )


def require_checkpoint_taken(spec: UpstreamSpec, *, origin: str) -> None:
    """Refuse a checkpoint for an entry of s3prl's hub that would fetch its own weights instead.

    Raises:
        InputError: such an entry; the message names one that loads the file.
    """
    if spec.checkpoint is None or origin != "s3prl" or spec.name.endswith(_TAKES_WEIGHTS):
        return
    raise InputError(
        f"upstream {spec.typed!r}: s3prl's {spec.name!r} takes no checkpoint, it would run as it "
        f"is without {spec.checkpoint!r}{_what_takes(spec)}."
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
            f"upstream {spec.typed!r}: its function did not use the checkpoint {checkpoint!r}: the "
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
    from superbit.upstreams.rng import seed_everything, undrawn

    with undrawn():
        seed_everything(seed)
        yield


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
    found = getattr(hub, name) if name in hub.options() else None
    # what its files import for themselves, as Path, is listed among its options too
    return found if getattr(found, "__module__", "").startswith("s3prl.") else None


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
        InputError: no such file or function.
        BrokenUpstream: the file cannot be imported.
    """
    path_text, _, function = name.rpartition(":")
    path = Path(path_text)
    if not is_file(path):
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
    except stopping.RAISED as error:
        stopping.raise_if_users(error)
        raise BrokenUpstream(
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
