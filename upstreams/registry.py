"""Names of upstreams and how each is built; nothing is imported before an upstream is asked for.

Five sources, looked up in this order: superbit's own sizes; what :func:`register` was told; entry
points of the group ``superbit.upstreams``; ``path/to/hubconf.py:function``; every name of
``s3prl.hub``. In specs an earlier source hides a later one; s3prl's own command line keeps s3prl's
names, and :func:`put_into_hub` warns of one that is taken.
"""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.upstreams import foreign, identifying
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.fingerprint import weights_sha256
from superbit.upstreams.identifying import Further
from superbit.upstreams.spec import TWIN_POLICY, TWIN_PREFIX, UpstreamSpec

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINT_GROUP = "superbit.upstreams"
# Raised whenever the hidden states that superbit's own encoders give for the same weights change;
# superbit.upstreams.known then writes those that records stand for anew.
OUR_REVISION = 3


@dataclass(frozen=True, kw_only=True)
class UpstreamEntry:
    """One upstream that can be built.

    Attributes:
        name: its name in specs and in ``s3prl.hub``.
        build: ``build(ckpt=None)`` returns the s3prl-style expert; superbit's own builders take
            ``untrained`` and ``policy`` as well.
        origin: ``"superbit"``, ``"registered"``, ``"path"``, ``"s3prl"`` or a distribution's name.
        revision: part of a run's key: an integer, or the hash of the source for a path.
        summary: one line for ``superbit list upstreams``.
    """

    name: str
    build: Callable[..., nn.Module]
    origin: str
    revision: str
    summary: str = ""

    @property
    def ours(self) -> bool:
        """Whether superbit itself defines this upstream, and so answers for its contract."""
        return self.origin == "superbit"


@dataclass(frozen=True, kw_only=True)
class LoadedUpstream:
    """An upstream in memory, and what a run's key needs to know of it.

    Attributes:
        spec: canonical; ``untrained`` is set whenever there are no trained weights.
        entry: where it came from.
        expert: the s3prl-style module: list of waveforms → ``{"hidden_states": [...]}``.
        weights_sha256: hash over its whole state.
        opened: files that Python read while it was imported and built.
        planned: what :attr:`further` was when the runs were planned, in another process.
    """

    spec: UpstreamSpec
    entry: UpstreamEntry
    expert: nn.Module
    weights_sha256: str
    opened: frozenset[str] = field(default=frozenset(), repr=False)
    planned: Further | None = None

    @cached_property
    def further(self) -> Further:
        """What can change its numbers besides name, weights and revision; costs a forward pass."""
        return identifying.further(
            self.entry, self.spec, self.expert, opened=self.opened, planned=self.planned
        )


_registered: dict[str, UpstreamEntry] = {}


def register(
    name: str, build: Callable[..., nn.Module], *, revision: int = 1, summary: str = ""
) -> None:
    """Make an upstream available under ``name``, here and in ``s3prl.hub``.

    Args:
        name: a Python identifier that no upstream of superbit has.
        build: ``build(ckpt=None, **kwargs)`` returns the expert.
        revision: raise it whenever the upstream's output changes for the same weights, so that
            stored results are not reused.
        summary: one line for ``superbit list upstreams``.

    Raises:
        InputError: the name is not an identifier, or is taken by superbit.
    """
    if not name.isidentifier() or name.startswith(TWIN_PREFIX):
        raise InputError(
            f"upstream name {name!r}: a name is a Python identifier, like 'my_model', and does "
            f"not begin with {TWIN_PREFIX!r}, which means a 1-bit twin."
        )
    if name in _our_entries():
        raise InputError(f"upstream name {name!r} is superbit's own: choose another.")
    _registered[name] = UpstreamEntry(
        name=name, build=build, origin="registered", revision=str(revision), summary=summary
    )
    if "s3prl.hub" in sys.modules:
        setattr(sys.modules["s3prl.hub"], name, _hub_function(_registered[name]))


def names() -> list[str]:
    """Return the names of superbit's own, registered and plug-in upstreams."""
    return [*_our_entries(), *_registered, *_plugin_points()]


def entries() -> list[UpstreamEntry]:
    """Return every upstream but s3prl's own; a plug-in that cannot be imported warns."""
    found = [*_our_entries().values(), *_registered.values()]
    for point in _plugin_points().values():
        try:
            found.append(_plugin_entry(point))
        except InputError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def find(name: str) -> UpstreamEntry:
    """Return the entry called ``name``.

    Raises:
        InputError: there is none (the message names the nearest), or its plug-in is broken.
    """
    if name in _our_entries():
        return _our_entries()[name]
    if name in _registered:
        return _registered[name]
    if name in _plugin_points():
        return _plugin_entry(_plugin_points()[name])
    if ".py:" in name:
        build, revision = foreign.by_path(name)
        return UpstreamEntry(name=name, build=build, origin="path", revision=revision)
    return _s3prl_entry(name)


def load(spec: str, ckpt: str | None = None, *, draw_seed: int = 0) -> nn.Module:
    """Return the s3prl-style expert that ``spec`` names.

    Args:
        spec: ``NAME[@CHECKPOINT][+untrained][+policy=POLICY]``.
        ckpt: the checkpoint, where it is not part of ``spec``.
        draw_seed: seed of what somebody else's builder draws at random; superbit's own untrained
            weights have one seed.

    Raises:
        InputError: no such upstream, or a checkpoint that does not fit it.
    """
    parsed = UpstreamSpec.parse(spec)
    if ckpt is not None:
        if parsed.checkpoint or parsed.untrained:
            raise InputError(f"upstream {spec!r} and ckpt={ckpt!r}: give the weights once.")
        parsed = replace(parsed, checkpoint=str(ckpt))
    return _build(find(parsed.name), parsed, draw_seed=draw_seed).expert


def load_upstream(spec: str, *, planned: Further | None = None) -> LoadedUpstream:
    """Build the upstream that ``spec`` names, with what a run's key needs to know of it.

    Args:
        planned: what it was found to be by the process that planned its runs, from which ``spec``
            comes as well: it is not measured again.

    Raises:
        InputError: as :func:`load`.
    """
    parsed = UpstreamSpec.parse(spec).normalized()
    entry = find(parsed.name)
    built = _build(entry, parsed, trusted=planned is not None)
    return LoadedUpstream(
        spec=replace(parsed, untrained=built.untrained),
        entry=entry,
        expert=built.expert,
        weights_sha256=weights_sha256(built.expert),
        opened=built.opened,
        planned=planned,
    )


def put_into_hub(hub: types.ModuleType) -> None:
    """Make every upstream of ours an attribute of ``s3prl.hub``, where s3prl looks names up."""
    points = {
        name: UpstreamEntry(
            name=name, build=partial(_build_plugin, point), origin=point.module, revision="0"
        )
        for name, point in _plugin_points().items()
    }
    for name, entry in {**points, **_registered, **_our_entries()}.items():
        if hasattr(hub, name):
            warnings.warn(
                f"upstream {name!r} is already a name of s3prl's hub: "
                "s3prl's command line will use s3prl's.",
                stacklevel=2,
            )
            continue
        setattr(hub, name, _hub_function(entry))


def _build(
    entry: UpstreamEntry, spec: UpstreamSpec, *, draw_seed: int = 0, trusted: bool = False
) -> foreign.Built:
    if entry.ours:
        expert = entry.build(ckpt=spec.checkpoint, untrained=spec.untrained, policy=spec.policy)
        return foreign.Built(expert=expert, untrained=bool(getattr(expert, "untrained", False)))
    if spec.policy:
        raise _ours_only(spec, "+policy", entry)
    checkpoint = spec.checkpoint
    if checkpoint and "://" not in checkpoint and not Path(checkpoint).exists():
        raise InputError(f"upstream {str(spec)!r}: there is no checkpoint {checkpoint!r}.")
    foreign.require_checkpoint_taken(spec, origin=entry.origin)
    built = foreign.build(entry.build, spec, draw_seed=draw_seed)
    foreign.require_checkpoint_used(entry.build, spec, built, draw_seed=draw_seed)
    untrained = spec.untrained if trusted else foreign.is_untrained(entry.build, spec, built)
    if spec.untrained and not untrained:
        raise InputError(
            f"upstream {str(spec)!r}: '+untrained' is for superbit's own encoders and for weights "
            f"that are random, and {entry.name!r} of {entry.origin} has the same at each build."
        )
    return replace(built, untrained=untrained)


def _ours_only(spec: UpstreamSpec, part: str, entry: UpstreamEntry) -> InputError:
    return InputError(
        f"upstream {str(spec)!r}: {part!r} is for superbit's own encoders, "
        f"and {entry.name!r} comes from {entry.origin}."
    )


def _hub_function(entry: UpstreamEntry) -> Callable[..., nn.Module]:
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
    return build


def _our_entries() -> dict[str, UpstreamEntry]:
    """Return superbit's own encoders in full precision, then the 1-bit twin of each."""
    from superbit.upstreams.hubert_config import NAMED_SIZES

    plain = {
        name: UpstreamEntry(
            name=name,
            build=partial(_build_ours, name),
            origin="superbit",
            revision=str(OUR_REVISION),
            summary=f"{size.encoder}, {size.layers} layers × {size.dim}, {size.heads} heads, "
            f"feed-forward {size.ffn_dim}",
        )
        for name, size in NAMED_SIZES.items()
    }
    twins = {
        f"{TWIN_PREFIX}{name}": replace(
            entry,
            name=f"{TWIN_PREFIX}{name}",
            build=partial(_build_ours, name, policy=TWIN_POLICY),
            summary=f"1-bit twin of {name}",
        )
        for name, entry in plain.items()
    }
    return plain | twins


def _build_ours(name: str, **kwargs: Any) -> nn.Module:
    from superbit.upstreams import expert

    return expert.build(name, **kwargs)


def _plugin_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _build_plugin(point: EntryPoint, **kwargs: Any) -> nn.Module:
    return _plugin_entry(point).build(**kwargs)


def _plugin_entry(point: EntryPoint) -> UpstreamEntry:
    origin = point.dist.name if point.dist else point.module
    try:
        build = point.load()
    except (Exception, SystemExit) as error:
        raise InputError(
            f"plug-in upstream {point.name!r} of {origin} cannot be imported: "
            f"{type(error).__name__}: {error}."
        ) from error
    summary = (getattr(build, "__doc__", None) or "").strip().partition("\n")[0]
    revision = str(getattr(build, "superbit_revision", 1))
    return UpstreamEntry(
        name=point.name, build=build, origin=origin, revision=revision, summary=summary
    )


def _s3prl_entry(name: str) -> UpstreamEntry:
    try:
        build = foreign.by_hub_name(name)
        if build is not None:
            return UpstreamEntry(name=name, build=build, origin="s3prl", revision="1")
        from s3prl import hub
    except ImportError as error:
        raise InputError(
            f"unknown upstream {name!r}: superbit knows {', '.join(names())}; for the names of "
            f"s3prl's hub install superbit[run] ({error})."
        ) from error
    known = hub.options()
    if name not in known:
        hint = did_you_mean(name, [*names(), *known])
        raise InputError(
            f"unknown upstream {name!r}: neither superbit nor s3prl's hub has it; "
            f"'superbit list upstreams' shows what there is.{hint}"
        )
    return UpstreamEntry(name=name, build=getattr(hub, name), origin="s3prl", revision="1")
