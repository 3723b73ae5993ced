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
    """Where training stands, the same for all candidates that train side by side."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    backward_steps: int = 0
    evaluated_step: int = 0


@dataclass
class Course:
    """How one candidate's training went.

    Attributes:
        skipped_steps: steps without an update, as the gradient's norm was NaN.
        diverged: the step since which every loss or gradient has been NaN or infinite, if any.
        history: every evaluation in training: step, split and the expert's metrics.
        best: weights of the last evaluation that the expert called best.
        best_step: the step of that evaluation.
        failure: why the candidate was given up, in one sentence.
    """

    skipped_steps: int = 0
    diverged: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    best_step: int | None = None
    failure: str | None = None


class ScalarCapture:
    """Stands where s3prl's experts expect a SummaryWriter and keeps the scalars they log."""

    def __init__(self) -> None:
        self.scalars: dict[str, float] = {}

    def add_scalar(self, tag: str, value: Any, global_step: int = 0) -> None:
        """Keep ``value`` under ``tag``, e.g. ``speech_commands/dev-acc``."""
        self.scalars[tag] = float(value)
