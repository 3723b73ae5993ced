"""Names of upstreams and how each is built; nothing is imported before an upstream is asked for.

Five sources, looked up in this order: superbit's own sizes; what :func:`register` was told; entry
points of the group ``superbit.upstreams``; ``path/to/hubconf.py:function``; every name of
``s3prl.hub``. In specs an earlier source hides a later one; s3prl's own command line keeps s3prl's
names, and :func:`put_into_hub` warns of one that is taken.
"""

from __future__ import annotations

import os
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from superbit.upstreams import (
    checkpoint_hints,
    encoder_kinds,
    foreign,
    hub_functions,
    stopping,
    variant,
)
from superbit.upstreams.entry import UpstreamEntry
from superbit.upstreams.errors import BrokenUpstream, InputError, did_you_mean
from superbit.upstreams.extras import how_to_install, pip_line
from superbit.upstreams.files import exists, require_place
from superbit.upstreams.identity import further
from superbit.upstreams.identity.fingerprint import weights_sha256
from superbit.upstreams.identity.further import Further
from superbit.upstreams.spec import TWIN_POLICY, TWIN_PREFIX, UpstreamSpec, spelled

if TYPE_CHECKING:
    from torch import nn

    from superbit.upstreams.hubert_config import HubertConfig

ENTRY_POINT_GROUP = "superbit.upstreams"
# Raised whenever the hidden states that superbit's own encoders give for the same weights change;
# superbit.upstreams.identity.known then writes those that records stand for anew.
OUR_REVISION = 4


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
        return further.further(
            self.entry, self.spec, self.expert, opened=self.opened, planned=self.planned
        )


_registered: dict[str, UpstreamEntry] = {}


def register(
    name: str, build: Callable[..., nn.Module], *, revision: int | str = 1, summary: str = ""
) -> None:
    """Make an upstream available under ``name``, here and in ``s3prl.hub``.

    Args:
        name: a Python identifier that no upstream of superbit has.
        build: ``build(ckpt=None, **kwargs)`` returns the expert.
        revision: raise it whenever the upstream's output changes for the same weights, so that
            stored results are not reused; or the hash of its source, which changes by itself.
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
        setattr(sys.modules["s3prl.hub"], name, hub_functions.of_entry(_registered[name]))


@contextmanager
def registered(
    name: str, build: Callable[..., nn.Module], *, revision: int | str = 1
) -> Iterator[None]:
    """Within it ``name`` is an upstream, as :func:`register` makes it.

    Raises:
        InputError: as :func:`register`.
    """
    register(name, build, revision=revision)
    try:
        yield
    finally:
        del _registered[name]
        # the hub may have been imported meanwhile, and taken the name over
        hub = sys.modules.get("s3prl.hub")
        if hub is not None and hasattr(hub, name):
            delattr(hub, name)


def register_encoder(
    kind: str,
    build: Callable[[HubertConfig], nn.Module],
    *,
    sizes: Mapping[str, Mapping[str, Any]] | None = None,
    settings: type[Any] | None = None,
    revision: int = 1,
) -> None:
    """Make a kind of encoder known: its sizes are upstreams, and so is the 1-bit twin of each.

    Args:
        kind: a word, the ``encoder`` of its configs and checkpoints.
        build: a class (or a function) that makes of a `HubertConfig` what stands between the
            positional convolution and the hidden states; ``upstreams/ENCODERS.md`` says what it
            needs. Its attribute ``roles`` says which modules of a layer a twin binarizes.
        sizes: from names of upstreams to the fields of their `HubertConfig`, ``encoder`` left out;
            :func:`pair` names a size as well.
        settings: a frozen dataclass of what the kind has of its own: numbers, words or None, which
            stand beside the fields of `HubertConfig` in ``sizes`` and in ``config.json``, and in
            `HubertConfig.own` for ``build``.
        revision: raise it whenever the hidden states change for the same weights.

    Raises:
        InputError: a name that is none or is taken, settings that are none, a size that no model
            can have, or a role that does not exist.
    """
    _require_free(kind, sizes or {})
    variant.add_kind(kind, build, settings=settings, sizes=sizes or {}, revision=revision)
    _offer_kind(kind)


def pair(
    name: str, size: HubertConfig
) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
    """Return what a ``hubconf.py`` offers of one size: its function, and that of its 1-bit twin.

    Of a kind that was registered the size becomes an upstream of that name, and so does its twin.

    >>> from superbit.upstreams import pair
    >>> from superbit.upstreams.hubert_config import HubertConfig
    >>> size = HubertConfig(encoder="vanilla", layers=2, dim=64, heads=2, ffn_dim=128)
    >>> small, bq_small = pair("small", size)
    >>> small(untrained=True).model.config.layers
    2

    Args:
        name: of the upstream; the twin's is ``bq_NAME``.
        size: its sizes.

    Raises:
        InputError: of a registered kind, a name that is none or is taken.
    """
    if encoder_kinds.registered(size.encoder) is not None:
        _require_free(size.encoder, [name])
        variant.add_size(name, size)
        _offer_kind(size.encoder)
    return hub_functions.of_size(name, size)


def _require_free(kind: str, names: Iterable[str]) -> None:
    taken = {**_registered, **_plugin_points()}
    for name in names:
        if name in taken:
            raise InputError(
                f"encoder kind {kind!r}: the name {name!r} is another upstream's; choose another."
            )


def _offer_kind(kind: str) -> None:
    """Put the names of a registered kind into s3prl's hub, if that is imported already."""
    if "s3prl.hub" in sys.modules:
        for entry in _our_entries().values():
            if entry.kind == kind:
                setattr(sys.modules["s3prl.hub"], entry.name, hub_functions.of_entry(entry))


def names() -> list[str]:
    """Return the names of superbit's own, registered and plug-in upstreams."""
    encoder_kinds.import_installed()
    return [*_our_entries(), *_registered, *_plugin_points()]


def entries() -> list[UpstreamEntry]:
    """Return every upstream but s3prl's own; a plug-in that cannot be imported warns."""
    encoder_kinds.import_installed()
    found = [*_our_entries().values(), *_registered.values()]
    for point in _plugin_points().values():
        try:
            found.append(_plugin_entry(point))
        except InputError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def find(name: str, *, twin: bool = False) -> UpstreamEntry:
    """Return the entry called ``name``; of ``bq_NAME`` that is ``NAME``, asked for as a ``twin``.

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
    encoder_kinds.import_installed()
    typed = f"{TWIN_PREFIX}{name}" if twin else name
    return _our_entries().get(name) or _s3prl_entry(name, typed=typed)


def load(
    spec: str | os.PathLike[str] | UpstreamSpec,
    ckpt: str | None = None,
    *,
    train: bool = False,
    draw_seed: int = 0,
) -> nn.Module:
    """Return the upstream that ``spec`` names, ready to give hidden states.

    It is frozen as SUPERB has it: in eval mode, so that the same waveforms give the same hidden
    states, and without gradients. It is on the CPU; ``load(...).to("cuda")`` moves it.

    It takes a list of waveforms: 1-D numpy arrays or tensors, ``(samples,)``, of floating-point
    samples at 16 kHz, one channel, full scale 1.0, of different lengths; one alone is a batch of
    one. Arrays are copied to the model's device as float32; integers are refused (divide 16-bit
    samples by 32768). It returns a dict whose ``"hidden_states"`` is a list of float32 tensors
    ``(batch, frames, dim)``, all of one shape: of superbit's own the input of the first layer and
    the output of each. A frame is ``get_downsample_rates("hidden_states")`` samples, 320 or 20 ms
    for superbit's own: an utterance has ``round(samples / 320)`` frames, and what stands behind
    them, up to the batch's longest, is padding.

    >>> import numpy as np
    >>> from superbit.upstreams import load
    >>> model = load("vanilla_nano")
    >>> one_second = np.random.default_rng(0).uniform(-0.1, 0.1, 16_000)
    >>> states = model([one_second, one_second[:8_000]])["hidden_states"]
    >>> len(states), tuple(states[0].shape)
    (5, (2, 50, 128))
    >>> states[-1].requires_grad
    False

    Args:
        spec: ``NAME[@CHECKPOINT][+untrained][+policy=POLICY]``; ``superbit list upstreams`` has
            the names, and s3prl's and ``path/to/hubconf.py:function`` are names too; a path object
            or an `UpstreamSpec` says the same.
        ckpt: the checkpoint, where it is not part of ``spec``.
        train: for fine-tuning, in train mode and with gradients, as s3prl's hub gives it.
        draw_seed: seed of what somebody else's builder draws at random; superbit's own untrained
            weights have one seed.

    Raises:
        InputError: no such upstream (the message names the nearest), or a checkpoint that does not
            fit it. The model raises it too, for waveforms that it cannot take.
    """
    spec = spelled(spec)
    parsed = UpstreamSpec.parse(spec)
    if ckpt is not None:
        if not str(ckpt):
            raise InputError(f"upstream {spec!r}: ckpt is empty; leave it out, or name a file.")
        if parsed.checkpoint or parsed.untrained:
            raise InputError(f"upstream {spec!r} and ckpt={ckpt!r}: give the weights once.")
        parsed = replace(parsed, checkpoint=str(ckpt))
    entry = find(parsed.name, twin=spec.startswith(TWIN_PREFIX))
    expert = _build(entry, parsed, draw_seed=draw_seed).expert
    if not entry.ours:
        from superbit.upstreams.waveforms import take_arrays

        take_arrays(expert)
    return expert.train() if train else expert.eval().requires_grad_(False)


def load_upstream(spec: str, *, planned: Further | None = None) -> LoadedUpstream:
    """Build the upstream that ``spec`` names, with what a run's key needs to know of it.

    Args:
        planned: what it was found to be by the process that planned its runs, from which ``spec``
            comes as well: it is not measured again.

    Raises:
        InputError: as :func:`load`.
    """
    parsed = UpstreamSpec.parse(spec).normalized()
    entry = find(parsed.name, twin=spec.startswith(TWIN_PREFIX))
    built = _build(entry, parsed, trusted=planned is not None)
    return LoadedUpstream(
        spec=replace(parsed, untrained=built.untrained),
        entry=entry,
        expert=built.expert,
        weights_sha256=_hash_of(entry, built.expert),
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
        present = getattr(hub, name, None)
        if present is not None and not hasattr(present, hub_functions.OURS):
            warnings.warn(
                f"upstream {name!r} is already a name of s3prl's hub: "
                "s3prl's command line will use s3prl's.",
                stacklevel=2,
            )
            continue
        setattr(hub, name, hub_functions.of_entry(entry))


def _build(
    entry: UpstreamEntry, spec: UpstreamSpec, *, draw_seed: int = 0, trusted: bool = False
) -> foreign.Built:
    if spec.checkpoint is not None:
        require_place(spec.checkpoint, "a checkpoint, a file or a folder")
    if entry.ours:
        expert = entry.build(ckpt=spec.checkpoint, untrained=spec.untrained, policy=spec.policy)
        return foreign.Built(expert=expert, untrained=bool(getattr(expert, "untrained", False)))
    if spec.policy and not foreign.takes(entry.build, "policy"):
        raise _ours_only(spec, "+policy", entry)
    checkpoint = spec.checkpoint
    if checkpoint_hints.is_hub_name(spec, origin=entry.origin):
        checkpoint_hints.require_hub(spec)
    elif checkpoint and "://" not in checkpoint and not exists(checkpoint):
        raise InputError(f"upstream {spec.typed!r}: there is no checkpoint {checkpoint!r}.")
    foreign.require_checkpoint_taken(spec, origin=entry.origin)
    try:
        built = foreign.build(entry.build, spec, draw_seed=draw_seed)
    except InputError as error:
        raise checkpoint_hints.explained(spec, error, origin=entry.origin) from error.__cause__
    if spec.policy and getattr(getattr(built.expert, "model", None), "policy", None) is None:
        raise _ours_only(spec, "+policy", entry)
    foreign.require_checkpoint_used(entry.build, spec, built, draw_seed=draw_seed)
    untrained = spec.untrained if trusted else foreign.is_untrained(entry.build, spec, built)
    if spec.untrained and not untrained:
        raise InputError(
            f"upstream {spec.typed!r}: '+untrained' is for superbit's own encoders and for weights "
            f"that are random, and {entry.name!r} of {entry.origin} has the same at each build."
        )
    return replace(built, untrained=untrained)


def _hash_of(entry: UpstreamEntry, expert: nn.Module) -> str:
    """The hash of an upstream's weights; of a packed twin that of the twin that was packed."""
    known = getattr(getattr(expert, "model", None), "packed_weights_sha256", None)
    return known if known and entry.ours else weights_sha256(expert)


def _ours_only(spec: UpstreamSpec, part: str, entry: UpstreamEntry) -> InputError:
    return InputError(
        f"upstream {spec.typed!r}: {part!r} is for superbit's own encoders, "
        f"and {entry.name!r} comes from {entry.origin} (a kind of encoder that "
        "superbit.upstreams.register_encoder was told of has it too)."
    )


def _our_entries() -> dict[str, UpstreamEntry]:
    """Return superbit's own encoders in full precision, then the 1-bit twin of each.

    Kinds of encoder that were registered stand in the same model, and are among them.
    """
    sizes = variant.sizes()
    kinds = {size.encoder: encoder_kinds.registered(size.encoder) for size in sizes.values()}

    def whose(size: HubertConfig) -> dict[str, Any]:
        added = kinds[size.encoder]
        if added is None:
            return {"origin": "superbit", "revision": str(OUR_REVISION)}
        revision = f"{OUR_REVISION}, {size.encoder} {added.revision}"
        return {"origin": "registered", "revision": revision, "kind": size.encoder}

    plain = {
        name: UpstreamEntry(
            name=name,
            build=partial(_build_ours, name),
            **whose(size),
            summary=variant.summary(size),
        )
        for name, size in sizes.items()
    }
    twins = {
        f"{TWIN_PREFIX}{name}": replace(
            entry,
            name=f"{TWIN_PREFIX}{name}",
            build=partial(_build_ours, name, policy=TWIN_POLICY),
            summary=variant.twin_summary(name),
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
    except stopping.RAISED as error:
        stopping.raise_if_users(error)
        raise BrokenUpstream(
            f"plug-in upstream {point.name!r} of {origin} cannot be imported: "
            f"{type(error).__name__}: {error}."
        ) from error
    summary = (getattr(build, "__doc__", None) or "").strip().partition("\n")[0]
    revision = str(getattr(build, "superbit_revision", 1))
    return UpstreamEntry(
        name=point.name, build=build, origin=origin, revision=revision, summary=summary
    )


def _s3prl_entry(name: str, *, typed: str) -> UpstreamEntry:
    try:
        build = foreign.by_hub_name(name)
    except ImportError as error:
        if error.name != "s3prl":
            raise BrokenUpstream(
                f"upstream {typed!r} of s3prl's hub cannot be imported: "
                f"{how_to_install(error) or error}."
            ) from error
        raise InputError(
            f"unknown upstream {typed!r}: superbit knows {', '.join(names())}; for the names of "
            f"s3prl's hub: {pip_line('run')}.{did_you_mean(typed, names())}"
        ) from error
    if build is None:
        # a twin is superbit's own, so only its names come into question
        known = names() if typed != name else [*names(), *foreign.hub_names()]
        raise InputError(
            f"unknown upstream {typed!r}: neither superbit nor s3prl's hub has it; "
            f"'superbit list upstreams' shows what there is.{did_you_mean(typed, known)}"
        )
    return UpstreamEntry(name=name, build=build, origin="s3prl", revision="1")
