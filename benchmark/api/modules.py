"""Modules as upstreams: named by their class, known by their weights and their source."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.models import Model
from superbit.upstreams import foreign, registry
from superbit.upstreams.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    Upstream = str | nn.Module | Model


@contextmanager
def as_specs(upstreams: Sequence[Upstream]) -> Iterator[tuple[str, ...]]:
    """Give the spec of each upstream.

    Within the block a module is an upstream under its class's name; afterwards it is as it was.

    Raises:
        InputError: neither a spec nor a module; a class whose name is another upstream's; two
            modules of one class.
    """
    from torch import nn

    specs: list[str] = []
    with ExitStack() as stack:
        for each in upstreams:
            if isinstance(each, str):
                specs.append(each)
            elif isinstance(each, Model):
                specs.append(each.spec)
            elif isinstance(each, nn.Module):
                name = _free_name(each, specs)
                stack.enter_context(_as_it_was(each))
                stack.enter_context(
                    registry.registered(name, _builder(each), revision=classes_sha256(each))
                )
                specs.append(name)
            else:
                raise InputError(
                    f"an upstream is a spec, a torch module or what superbit.load gives, not "
                    f"{type(each).__name__}."
                )
        yield tuple(specs)


def classes_sha256(module: nn.Module) -> str:
    """Hash over the source of a module's class and of those of its parts that somebody wrote.

    Classes of torch and of installed packages do not count; nor does what has no source. The hash
    of nothing stands for a module of such alone.
    """
    digest = hashlib.sha256()
    classes = {base for part in module.modules() for base in type(part).__mro__}
    for each in sorted(classes, key=lambda each: (each.__module__, each.__qualname__)):
        source = _source(each)
        if source is not None:
            digest.update(f"{each.__qualname__}\n{source}\n".encode())
    return digest.hexdigest()


def _source(written: type) -> str | None:
    from superbit.upstreams.identity.sources import is_somebodys

    functions = [part for part in vars(written).values() if inspect.isfunction(part)]
    files = {part.__code__.co_filename for part in functions}
    # a cell of a notebook is somebody's, whatever its file is called
    if not any(not Path(file).is_file() or is_somebodys(Path(file)) for file in files):
        return None
    try:
        return inspect.getsource(written)
    except (OSError, TypeError):  # of a notebook's class the functions are found, not the class
        pass
    try:
        return "\n".join(inspect.getsource(part) for part in functions)
    except (OSError, TypeError):
        return None


def _free_name(module: nn.Module, taken: Sequence[str]) -> str:
    name = type(module).__name__
    if name in taken:
        raise InputError(
            f"two modules are both called {name!r}, by their class: register one under a name of "
            "its own with superbit.upstreams.register, and give that name."
        )
    if name in registry.names() or name in foreign.hub_names():
        raise InputError(
            f"the module of class {name!r} has the name of another upstream: rename the class."
        )
    return name


def _builder(module: nn.Module) -> Callable[..., nn.Module]:
    def build(**_given: Any) -> nn.Module:
        return module

    # the file that the class is in, and what it imports, are part of what the upstream is
    build.__module__ = type(module).__module__
    return build


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Afterwards mode, device, gradients and hooks of a module are what they were before."""
    parts = list(module.modules())
    modes = [part.training for part in parts]
    parameters = [(each, each.data, each.requires_grad) for each in module.parameters()]
    buffers = [dict(part._buffers) for part in parts]
    hooks = [dict(part._forward_pre_hooks) for part in parts]
    try:
        yield
    finally:
        for part, mode, buffer, hook in zip(parts, modes, buffers, hooks, strict=True):
            part.training = mode
            part._buffers.update(buffer)
            for added in part._forward_pre_hooks.keys() - hook.keys():
                del part._forward_pre_hooks[added]
        for parameter, data, requires_grad in parameters:
            parameter.data = data
            parameter.requires_grad_(requires_grad)
