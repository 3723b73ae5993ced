"""The functions by which s3prl calls an upstream: in its hub, and in a ``hubconf.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from superbit.upstreams import variant
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.spec import TWIN_POLICY, TWIN_PREFIX

if TYPE_CHECKING:
    from torch import nn

    from superbit.upstreams.entry import UpstreamEntry

# Marks what was put into the hub, so that a second time (a module reloaded) it is replaced.
OURS = "_of_superbit"


def of_entry(entry: UpstreamEntry) -> Callable[..., nn.Module]:
    """Return what stands for an upstream in ``s3prl.hub``."""

    def build(
        ckpt: str | None = None, model_config: str | None = None, refresh: bool = False
    ) -> nn.Module:
        if not entry.ours:
            return entry.build(ckpt=ckpt, model_config=model_config, refresh=refresh)
        if model_config is not None:
            raise InputError(
                f"{entry.name}: model_config={model_config!r} is not used: the sizes are in the "
                "config.json of its checkpoint; leave it out."
            )
        return entry.build(ckpt=ckpt)  # nothing is downloaded that could be refreshed

    build.__name__ = entry.name
    build.__doc__ = entry.summary
    setattr(build, OURS, True)
    return build


def of_size(
    name: str, size: HubertConfig
) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
    """Return what a ``hubconf.py`` offers of one size: its function, and that of its 1-bit twin.

    s3prl also passes ``model_config`` and ``refresh``, which mean nothing here.
    """

    def build(
        ckpt: str | None = None, untrained: bool = False, policy: str | None = None, **_: object
    ) -> nn.Module:
        from superbit.upstreams import expert

        return expert.build(name, size=size, ckpt=ckpt, untrained=untrained, policy=policy)

    def build_twin(ckpt: str | None = None, untrained: bool = False, **_: object) -> nn.Module:
        from superbit.upstreams import expert

        return expert.build(name, size=size, ckpt=ckpt, untrained=untrained, policy=TWIN_POLICY)

    build.__name__, build.__doc__ = name, variant.summary(size)
    build_twin.__name__, build_twin.__doc__ = f"{TWIN_PREFIX}{name}", variant.twin_summary(name)
    setattr(build, variant.SIZE_ATTRIBUTE, size)
    return build, build_twin
