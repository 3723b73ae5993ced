"""Kinds of encoder: superbit's own, and those that somebody else's file adds; needs no torch.

A kind is a class, built from a `HubertConfig`, that stands between the positional convolution and
the hidden states. `superbit.upstreams.register_encoder` adds one; ``upstreams/ENCODERS.md`` says
what the class must have. A package adds one for every process by an entry point of the group
``superbit.encoders``: its name is the kind, its value the module that registers it when imported.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from superbit.upstreams import stopping
from superbit.upstreams.encoders.settings import SETTINGS, require_choice
from superbit.upstreams.errors import BrokenUpstream, InputError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from superbit.upstreams.hubert_config import HubertConfig

ENTRY_POINT_GROUP = "superbit.encoders"

# superbit's own
ENCODERS = ("vanilla", "conformer", "squeezeformer", "squeezeformer_faithful", "sparseformer")

# What a module of a layer can be to a policy. A kind's class says which of its modules are what.
ROLES = {
    "linear": "a linear layer whose input has both signs",
    "activation": "an activation whose place a ReLU takes, so that what follows is not negative",
    "rectified_linear": "a linear layer behind such an activation",
    "scores": "attention's product of queries and keys",
    "contexts": "attention's product of probabilities and values",
    "convolution": "a one-dimensional convolution whose input has both signs",
}
# From a role to globs of module names, relative to a layer: ``attention.query``.
Roles = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class EncoderKind:
    """A kind that was registered.

    Attributes:
        build: the class, or a function like it.
        revision: raised whenever the hidden states change for the same weights.
        settings: the frozen dataclass of what it has of its own in `HubertConfig.own`, if anything.
        sizes: its upstreams by name.
    """

    build: Callable[[HubertConfig], nn.Module]
    revision: int
    settings: type[Any] | None = None
    sizes: Mapping[str, HubertConfig] = field(default_factory=dict)


_registered: dict[str, EncoderKind] = {}


def remember(kind: str, known: EncoderKind | None) -> None:
    """Make a kind known, or with None forget it; `superbit.upstreams.variant` checks it."""
    if known is None:
        _registered.pop(kind, None)
    else:
        _registered[kind] = known


def check_roles(roles: Any, *, where: str) -> None:
    """Raise `InputError` unless ``roles`` maps names of `ROLES` to tuples of globs."""
    if not isinstance(roles, Mapping):
        raise InputError(f"{where}: roles is {roles!r}; a mapping of roles to globs is needed.")
    for role, globs in roles.items():
        if role not in ROLES:
            raise InputError(
                f"{where}: there is no role {role!r}; there are {', '.join(ROLES)}."
                f"{did_you_mean(str(role), tuple(ROLES))}"
            )
        words = isinstance(globs, tuple | list) and all(isinstance(each, str) for each in globs)
        if not words or not globs:
            raise InputError(
                f"{where}: role {role!r} is {globs!r}; a tuple of globs over the names in a layer "
                "is needed, like ('attention.query',)."
            )


def kinds() -> tuple[str, ...]:
    """Return the kinds that are known now: superbit's own, then those that were registered."""
    return (*ENCODERS, *_registered)


def is_known(kind: Any) -> bool:
    """Return whether there is such a kind; an installed package that brings it is imported.

    Raises:
        InputError: it cannot be imported, or does not register the kind.
    """
    if kind in kinds():
        return True
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if kind not in points:
        return False
    _import(points[kind])
    return True


def registered(kind: str) -> EncoderKind | None:
    """Return what was registered under the name ``kind``; None for superbit's own."""
    return _registered.get(kind)


def registered_sizes() -> dict[str, HubertConfig]:
    """Return the named sizes of every kind that was registered."""
    return {name: size for kind in _registered.values() for name, size in kind.sizes.items()}


def settings_of(kind: Any) -> type[Any] | None:
    """Return the dataclass of what a kind has of its own; None if it has nothing.

    Raises:
        InputError: there is no such kind (the message names the nearest), or the package that
            brings it is broken.
    """
    if not is_known(kind):
        require_choice("encoder", kind, kinds())
    found = _registered.get(kind)
    return SETTINGS.get(kind) if found is None else found.settings


def is_installed(kind: str | None) -> bool:
    """Whether an installed package brings the kind, so that every process finds it."""
    return any(point.name == kind for point in entry_points(group=ENTRY_POINT_GROUP))


def import_installed() -> None:
    """Import every kind that an installed package brings; one that cannot be imported warns."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name not in _registered:
            try:
                _import(point)
            except InputError as error:
                warnings.warn(str(error), stacklevel=2)


def _import(point: EntryPoint) -> None:
    origin = point.dist.name if point.dist else point.value
    try:
        point.load()
    except InputError as error:
        raise BrokenUpstream(str(error)) from error
    except stopping.RAISED as error:
        stopping.raise_if_users(error)
        raise BrokenUpstream(
            f"encoder kind {point.name!r} of {origin} cannot be imported: "
            f"{type(error).__name__}: {error}."
        ) from error
    if point.name not in _registered:
        raise BrokenUpstream(
            f"encoder kind {point.name!r} of {origin}: {point.value} registers no such kind; call "
            "superbit.upstreams.register_encoder when it is imported."
        )
