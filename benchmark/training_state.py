"""What a training run knows of itself: where it stands, and what an evaluation said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class InterruptedRun(Exception):
    """The user asked to stop; the next call continues from the checkpoint on disk."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an expert said of one split.

    Attributes:
        split: the expert's name of the split.
        step: optimizer steps before it.
        metrics: the expert's scalars by short name, in its own units.
        records: what the expert collected, one entry an utterance.
        is_best: whether the expert wants these weights kept as the best so far.
    """

    split: str
    step: int
    metrics: dict[str, float]
    records: dict[str, list[Any]]
    is_best: bool


@dataclass
class Progress:
    """Where training stands; everything that a checkpoint must hold besides weights and RNG."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    backward_steps: int = 0
    skipped_steps: int = 0
    evaluated_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    best_step: int | None = None


class ScalarCapture:
    """Stands where s3prl's experts expect a SummaryWriter and keeps the scalars they log."""

    def __init__(self) -> None:
        self.scalars: dict[str, float] = {}

    def add_scalar(self, tag: str, value: Any, global_step: int = 0) -> None:
        """Keep ``value`` under ``tag``, e.g. ``speech_commands/dev-acc``."""
        self.scalars[tag] = float(value)
