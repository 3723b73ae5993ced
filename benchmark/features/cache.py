"""The folder of all stored features, and what decides which of them an upstream may use.

``CACHE/UPSTREAM-HASH/{pooled-float32, frames-float16}/`` holds shards (``store.py``);
``upstream.json`` beside them is what the hash is of: everything that can change a feature.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from superbit.benchmark.features.store import FeatureStore, folder_bytes, said_of_cache
from superbit.benchmark.records.schema import canonical_json
from superbit.upstreams import files
from superbit.upstreams.errors import InputError
from superbit.upstreams.quantization.policy import Policy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from superbit.upstreams.registry import LoadedUpstream

Precision = Literal["float16", "float32"]
PRECISIONS: tuple[Precision, ...] = ("float16", "float32")
# Relative deviation up to which an utterance's features count as its own, whatever its batch.
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """What the user wants stored.

    Attributes:
        folder: of all features.
        budget_bytes: what a plan may fill in ``folder``, with what is there already; ``None``: no
            limit. Two sweeps that plan at once do not see each other's.
        precision: of frames; means over time are always float32.
        any_upstream: also features of upstreams whose output depends on the batch.
    """

    folder: Path
    budget_bytes: int | None = None
    precision: Precision = "float16"
    any_upstream: bool = False

    def upstream_folder(self, upstream: LoadedUpstream) -> Path:
        """Where one upstream's features are."""
        identity = upstream_identity(upstream)
        digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
        slug = re.sub(r"[^A-Za-z0-9._=-]+", "-", str(upstream.spec)).strip("-.")[-40:]
        if upstream.entry.ours:  # two names of one model share its features
            slug = str(_config(upstream)["encoder"])
        return self.folder / f"{slug}-{digest[:16]}"

    def dtype(self, kind: str) -> Precision:
        """Number type of one kind of features."""
        return "float32" if kind == "pooled" else self.precision

    def store(self, upstream: LoadedUpstream, kind: str) -> FeatureStore:
        """Open the store of one kind of features of an upstream; it may be empty."""
        folder = self.upstream_folder(upstream) / f"{kind}-{self.dtype(kind)}"
        return FeatureStore(folder, dtype=self.dtype(kind))


def cache_settings(
    *,
    results: Path,
    folder: Path | None,
    none: bool,
    budget: str | None,
    precision: Precision,
    any_upstream: bool,
) -> CacheSettings | None:
    """Return what is wanted stored, ``None`` for nothing, from the options that say it.

    Raises:
        InputError: a budget that is no size, or options that have no effect together.
    """
    given = {"dir": folder, "budget": budget, "any-upstream": any_upstream or None}
    for name, value in given.items():
        if none and value is not None:
            raise InputError(
                f"--cache-{name} has no effect with --no-cache: leave one of them out."
            )
    if none:
        return None
    return CacheSettings(
        folder=folder or results / "work" / "features",
        budget_bytes=None if budget is None else parse_size(budget, option="--cache-budget"),
        precision=precision,
        any_upstream=any_upstream,
    )


def upstream_identity(upstream: LoadedUpstream) -> dict[str, Any]:
    """Everything of an upstream that can change a feature, as JSON."""
    if upstream.entry.ours:
        # Weights and config (padding included) say it all, under whatever name or path.
        what: dict[str, Any] = {"config": _config(upstream)}
    else:
        what = {"spec": str(upstream.spec), "origin": upstream.entry.origin}
        if upstream.entry.origin == "s3prl":
            what["s3prl"] = metadata.version("s3prl")
    # how many bits is not in the weights, and a policy's file may change under its name
    policy = getattr(getattr(upstream.expert, "model", None), "policy", None)
    if isinstance(policy, Policy):
        what["policy"] = policy.to_dict()
    said = upstream.further.fields()
    if upstream.entry.ours:
        said["upstream_config_sha256"] = None  # "config" and "policy" say it
    return {
        "weights_sha256": upstream.weights_sha256,
        "revision": upstream.entry.revision,
        **what,
        **{name: value for name, value in said.items() if value is not None},
    }


def parse_size(text: str, *, option: str) -> int:
    """Bytes of ``200GB``, ``500 MB``, ``1.5TB`` or a plain number.

    Raises:
        InputError: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise InputError(f"{option}: {text!r} is no size: write it like 200GB or 500MB.")
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " "))


def _config(upstream: LoadedUpstream) -> dict[str, Any]:
    model: Any = upstream.expert.model
    return dict(model.config.to_dict())


def note_upstream(folder: Path, upstream: LoadedUpstream) -> None:
    """Write what a folder's features are of, for people and for ``superbit cache ls``."""
    file = folder / "upstream.json"
    if not file.exists():
        described = {"upstream": str(upstream.spec), **upstream_identity(upstream)}
        files.write_text(file, json.dumps(described, indent=2) + "\n")


@contextlib.contextmanager
def locked(folder: Path, *, stop: Callable[[], bool]) -> Iterator[bool]:
    """Keep an upstream's folder to one extraction; others wait. Gives False where ``stop`` ended
    the waiting."""
    # Beside the folder: ``cache prune`` deletes it whole while it holds the lock.
    lock = folder.with_name(f".{folder.name}.lock")
    with contextlib.ExitStack() as held:
        with said_of_cache(folder):
            ours = held.enter_context(files.locked(lock, stop=stop))
        yield ours


def batch_deviation(upstream: nn.Module, rate: float, *, zeros_follow: bool = False) -> float:
    """Largest relative difference between an utterance's features alone and in a batch.

    Measured on noise of four lengths, as a head sees them: cut by s3prl's Featurizer. Infinite
    where their number of frames differs; zero where the batch makes no difference.

    Args:
        zeros_follow: a batch may add frames of zeros up to its longest utterance, as s3prl's filter
            banks do, which have a frame or two less than the Featurizer would keep.
    """
    return _largest_difference(_alone_and_batched(upstream, rate), zeros_follow=zeros_follow)


def deviation_of(upstream: LoadedUpstream, rate: float) -> tuple[float, bool]:
    """As :func:`batch_deviation`, and whether it is that small with zeros that follow only.

    0 for an upstream of ours that promises it, tested elsewhere.
    """
    if upstream.entry.ours and getattr(upstream.expert, "batch_invariant", False):
        return 0.0, False
    pairs = _alone_and_batched(upstream.expert, rate)
    deviation = _largest_difference(pairs, zeros_follow=False)
    if deviation <= TOLERANCE:
        return deviation, False
    with_zeros = _largest_difference(pairs, zeros_follow=True)
    return (with_zeros, True) if with_zeros <= TOLERANCE else (deviation, False)


def _alone_and_batched(upstream: nn.Module, rate: float) -> list[tuple[Tensor, Tensor]]:
    """Return (frames, dim) of each of four utterances and each layer, alone and in one batch."""
    import torch

    generator = torch.Generator().manual_seed(0)
    lengths = (16_000, 27_650, 40_333, 11_111)
    waves = [0.1 * torch.randn(n, generator=generator) for n in lengths]

    def cut(batch: Sequence[Tensor]) -> list[list[Tensor]]:
        with torch.no_grad():
            output = upstream(list(batch))["hidden_states"]
        layers = list(output.values()) if isinstance(output, dict) else output
        layers = layers if isinstance(layers, list | tuple) else [layers]
        return [
            [layer[index, : round(len(wave) / rate)] for layer in layers]
            for index, wave in enumerate(batch)
        ]

    together = cut(waves)
    return [
        pair
        for wave, in_batch in zip(waves, together, strict=True)
        for pair in zip(cut([wave])[0], in_batch, strict=True)
    ]


def _largest_difference(pairs: Sequence[tuple[Tensor, Tensor]], *, zeros_follow: bool) -> float:
    from torch.nn.functional import pad

    worst = 0.0
    for alone, batched in pairs:
        if zeros_follow:
            alone = pad(alone, (0, 0, 0, max(0, len(batched) - len(alone))))
        if alone.shape != batched.shape:
            return float("inf")
        scale = float(alone.abs().max()) or 1.0
        worst = max(worst, float((alone - batched).abs().max()) / scale)
    return worst


def cached_folders(cache: Path) -> list[tuple[Path, str, int, float]]:
    """(folder, upstream, bytes, time of the last write) of every upstream with features."""
    found = []
    for note in sorted(cache.glob("*/upstream.json")):
        try:
            name = str(files.read_json(note, "a note of features")["upstream"])
        except (InputError, KeyError, TypeError):
            name = "?"
        newest = max((file.stat().st_mtime for file in note.parent.rglob("*")), default=0.0)
        found.append((note.parent, name, folder_bytes(note.parent), newest))
    return found
