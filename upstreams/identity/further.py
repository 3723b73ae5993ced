"""What can change an upstream's numbers besides its name, its weights and its revision.

Three hashes, each only where the three do not say it already. Records that were made before there
were any have none of them; a model of which they say enough keeps that identity:

- superbit's own without a checkpoint, and s3prl's own names without one: their weights are in the
  key, their code is superbit's or s3prl's. ``fingerprints.json`` has the hidden states that these
  records stand for; only a model that gives others now has a fingerprint in its key.
- a checkpoint, a function by path, a plug-in, what is registered: always.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.upstreams import foreign
from superbit.upstreams.identity import sources
from superbit.upstreams.identity.fingerprint import (
    alike,
    describe,
    fingerprint,
    hidden_states,
    states_of_ours,
)
from superbit.upstreams.spec import is_policy_file

if TYPE_CHECKING:
    from torch import nn

    from superbit.upstreams.entry import UpstreamEntry
    from superbit.upstreams.spec import UpstreamSpec

KNOWN = Path(__file__).with_name("fingerprints.json")


@dataclass(frozen=True, kw_only=True)
class Further:
    """Hashes of what names, weights and revision leave open; None where they leave nothing open.

    Attributes:
        upstream_files_sha256: names and contents of the files it is made of.
        upstream_config_sha256: the sizes and the policy of one of superbit's own.
        upstream_fingerprint: its hidden states on two seconds of a fixed signal.
    """

    upstream_files_sha256: str | None = None
    upstream_config_sha256: str | None = None
    upstream_fingerprint: str | None = None

    def fields(self) -> dict[str, str | None]:
        """By name, as a run's identity has them."""
        return asdict(self)


def further(
    entry: UpstreamEntry,
    spec: UpstreamSpec,
    expert: nn.Module,
    *,
    opened: frozenset[str],
    planned: Further | None,
) -> Further:
    """Find what else identifies an upstream; the expert is left as it was.

    A forward pass that raises gives no fingerprint: its runs fail, and say why.

    Args:
        planned: what another process found: its fingerprint is taken over.
    """
    print_of = (
        _fingerprint(entry, spec, expert) if planned is None else planned.upstream_fingerprint
    )
    if entry.ours:
        from_file = spec.checkpoint or is_policy_file(spec.policy or "")
        config = _config_sha256(expert) if from_file else None
        return Further(upstream_config_sha256=config, upstream_fingerprint=print_of)
    files = sources.files_sha256(_files(entry, spec, opened))
    return Further(upstream_files_sha256=files, upstream_fingerprint=print_of)


def describe_upstream(entry: UpstreamEntry, expert: nn.Module) -> list[list[float]] | None:
    """Figures of the hidden states, None where the forward pass raises or gives none."""
    ours: Any = expert
    try:
        return describe(states_of_ours(ours.model) if entry.ours else hidden_states(expert))
    except Exception:  # whatever it is, it comes again in the runs, whose records tell it
        return None


def _fingerprint(entry: UpstreamEntry, spec: UpstreamSpec, expert: nn.Module) -> str | None:
    known = None
    if spec.checkpoint is None and (entry.ours or entry.origin == "s3prl"):
        known = _known().get(str(spec))
        if known is None and entry.origin == "s3prl":
            return None
    found = describe_upstream(entry, expert)
    if found is None or (known is not None and alike(found, known["states"])):
        return None
    return fingerprint(found)


@functools.cache
def _known() -> dict[str, Any]:
    return dict(json.loads(KNOWN.read_text(encoding="utf-8")))


def _config_sha256(expert: Any) -> str:
    """Hash of the sizes and the rules of a model of superbit's own, as JSON with sorted keys."""
    policy = expert.model.policy
    held = {
        "config": expert.model.config.to_dict(),
        "policy": None if policy is None else policy.to_dict(),
    }
    text = json.dumps(held, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _files(entry: UpstreamEntry, spec: UpstreamSpec, opened: frozenset[str]) -> dict[str, Path]:
    files = sources.of_checkpoint(spec.checkpoint)
    hubconf = None
    if entry.origin == "path":
        hubconf = Path(entry.name.rpartition(":")[0]).resolve()
        files |= sources.beside(hubconf) | sources.imported(hubconf)
        opened |= foreign.opened_by_import(hubconf)
    elif entry.origin != "s3prl":
        files |= _module_files(entry)
    if entry.origin != "s3prl" or spec.checkpoint is not None:
        files |= sources.opened(opened, hubconf=hubconf, checkpoint=spec.checkpoint)
    return files


def _module_files(entry: UpstreamEntry) -> dict[str, Path]:
    """The source of a plug-in that no installed package brings, and what it imports of such."""
    builder = entry.build.func if isinstance(entry.build, functools.partial) else entry.build
    name = getattr(builder, "__module__", None) or ""
    file = getattr(sys.modules.get(name), "__file__", None)
    if name == "__main__" or file is None or not sources.is_somebodys(Path(file)):
        return {}
    return {f"module/{name}": Path(file)} | sources.imported(Path(file))
