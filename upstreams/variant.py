"""Named sizes: a variant is a folder whose ``hubconf.py`` declares its names; needs no torch.

    vanilla, bq_vanilla = pair("vanilla", HubertConfig(encoder="vanilla", layers=12, ...))

A name's packaged checkpoint, if there is one, is ``FOLDER/NAME/``, and its twin's
``FOLDER/bq_NAME/``. Kinds of encoder that were registered bring sizes as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from superbit.upstreams import encoder_kinds
from superbit.upstreams.encoder_kinds import EncoderKind
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.spec import TWIN_PREFIX

if TYPE_CHECKING:
    from torch import nn

# Folders of superbit's own, in the order of listings and of the nano checkpoints' seeds.
VARIANTS = ("vanilla", "conformer_s", "squeeze_xs", "sparseformer_dn_s", "sparseformer_sw_s")
# The attribute by which a function of a hubconf.py tells its size.
SIZE_ATTRIBUTE = "superbit_size"
_NANO = "_nano"  # ends the names of sizes that are feasible on two CPU cores


def summary(size: HubertConfig) -> str:
    """Return one line on a size, for lists."""
    return (
        f"{size.encoder}, {size.layers} layers × {size.dim}, {size.heads} heads, "
        f"feed-forward {size.ffn_dim}"
    )


def twin_summary(name: str) -> str:
    """Return one line on the twin of a size, for lists."""
    return f"1-bit twin of {name}"


def sizes() -> dict[str, HubertConfig]:
    """Return every named size that is known now: superbit's own, the nanos last, then others'."""
    own = [item for names in _declared().values() for item in names.items()]
    own.sort(key=lambda item: item[0].endswith(_NANO))  # stable: else as they are declared
    return {**dict(own), **encoder_kinds.registered_sizes()}


def size_of(name: str) -> HubertConfig:
    """Return a named size; an installed package that brings it is imported.

    Raises:
        InputError: there is none of that name; the message names the nearest.
    """
    found = sizes()
    if name not in found:
        encoder_kinds.import_installed()
        found = sizes()
    if name not in found:
        raise InputError(
            f"{name!r} is no encoder of superbit; there are {', '.join(found)}."
            f"{did_you_mean(name, set(found))}"
        )
    return found[name]


def nanos() -> dict[str, str]:
    """Return the folder of each of superbit's nano sizes, in the order of their seeds."""
    return {
        name: folder
        for folder, names in _declared().items()
        for name in names
        if name.endswith(_NANO)
    }


@cache
def _declared() -> dict[str, dict[str, HubertConfig]]:
    """Return the sizes that each folder of superbit's declares, by name."""
    found: dict[str, dict[str, HubertConfig]] = {}
    for folder in VARIANTS:
        offered = vars(import_module(f"{__package__}.{folder}.hubconf"))
        found[folder] = {
            name: getattr(function, SIZE_ATTRIBUTE)
            for name, function in offered.items()
            if hasattr(function, SIZE_ATTRIBUTE)
        }
    return found


def add_kind(
    kind: str,
    build: Callable[[HubertConfig], nn.Module],
    *,
    settings: type[Any] | None,
    sizes: Mapping[str, Mapping[str, Any]],
    revision: int,
) -> None:
    """Make a kind known, and its named sizes; `superbit.upstreams.register_encoder` says more.

    Raises:
        InputError: a name that is none or is taken, settings that are none, a size that no model
            can have, or roles that do not exist.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", kind) or kind in encoder_kinds.ENCODERS:
        raise InputError(
            f"encoder kind {kind!r}: a kind is a word of small letters, digits and '_', and not "
            f"one of superbit's own ({', '.join(encoder_kinds.ENCODERS)})."
        )
    for name in sizes:
        _check_name(kind, name)
    encoder_kinds.check_roles(getattr(build, "roles", {}), where=f"encoder kind {kind!r}")
    if settings is not None:
        _check_settings(kind, settings)
    before = encoder_kinds.registered(kind)
    new = EncoderKind(build=build, revision=revision, settings=settings)
    encoder_kinds.remember(kind, new)
    try:
        made = {
            name: HubertConfig.from_dict({"encoder": kind, **size}) for name, size in sizes.items()
        }
    except InputError as error:
        encoder_kinds.remember(kind, before)
        raise InputError(f"encoder kind {kind!r}, sizes: {error}") from None
    encoder_kinds.remember(kind, replace(new, sizes=made))


def add_size(name: str, size: HubertConfig) -> None:
    """Name a size of a kind that was registered.

    Raises:
        InputError: the name is none, or is taken.
    """
    _check_name(size.encoder, name)
    known = encoder_kinds.registered(size.encoder)
    if known is not None:
        encoder_kinds.remember(size.encoder, replace(known, sizes={**known.sizes, name: size}))


def _check_name(kind: str, name: str) -> None:
    if not name.isidentifier() or name.startswith(TWIN_PREFIX):
        raise InputError(
            f"encoder kind {kind!r}: size {name!r} is no name of an upstream; a name is a "
            "Python identifier, like 'my_nano', and does not begin with 'bq_'."
        )
    before = encoder_kinds.registered(kind)
    if name in sizes() and not (before and name in before.sizes):
        raise InputError(f"encoder kind {kind!r}: the name {name!r} is taken; choose another.")


def _check_settings(kind: str, settings: Any) -> None:
    params = getattr(settings, "__dataclass_params__", None)
    if not isinstance(settings, type) or params is None or not params.frozen:
        raise InputError(
            f"encoder kind {kind!r}: settings is {settings!r}; a frozen dataclass is needed."
        )
    shared = {field.name for field in fields(HubertConfig)}
    for field in fields(settings):
        if field.name in shared:
            raise InputError(
                f"encoder kind {kind!r}: settings has {field.name!r}, which all encoders share; "
                "choose another name."
            )
