"""One upstream by its name: how it is built and where it comes from; nothing is imported for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class UpstreamEntry:
    """One upstream that can be built.

    Attributes:
        name: its name in specs and in ``s3prl.hub``.
        build: ``build(ckpt=None)`` returns the s3prl-style expert; superbit's own builders take
            ``untrained`` and ``policy`` as well.
        origin: ``"superbit"``, ``"registered"``, ``"path"``, ``"s3prl"`` or a distribution's name.
        kind: of the encoder that stands in superbit's model, where it is a registered one.
        revision: part of a run's key: an integer, or the hash of the source for a path.
        summary: one line for ``superbit list upstreams``.
    """

    name: str
    build: Callable[..., nn.Module]
    origin: str
    revision: str
    summary: str = ""
    kind: str | None = None

    @property
    def ours(self) -> bool:
        """Whether it is superbit's model, which answers for the contract and can have a twin."""
        return self.origin == "superbit" or self.kind is not None
