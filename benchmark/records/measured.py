"""What stands beside a number: which model it is of, its interval, its chance level, its curve.

Parts of a record that tasks and scoring make; ``schema`` puts them together.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator


class Frozen(BaseModel):
    """Part of a record: no key too many, no number that JSON cannot hold, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Selection(Frozen):
    """Which of a run's models was scored on the test set, and how it was chosen."""

    # in words, e.g. "best on dev" or "lowest test EER of ten checkpoints"
    rule: str
    # the split that decided; None where nothing was chosen
    selected_on: Literal["dev", "test"] | None = None
    # optimizer steps the chosen model had taken
    step: int | None = None
    # its score on that split, in s3prl's unit
    score: float | None = None
    # the best checkpoint, or the last one where a best one never appeared
    checkpoint: Literal["best", "last"] | None = None


class Point(Frozen):
    """One evaluation on dev while training."""

    # optimizer steps before it
    step: int
    # the metric that selects, in the table's unit (SD: frame accuracy as a fraction)
    score: float


class Interval(Frozen):
    """Confidence interval of `value`, in the unit of `value`."""

    low: float
    high: float
    # confidence level as a fraction, e.g. 0.95
    level: float
    # in words, e.g. "Wilson score" or "BCa bootstrap over utterances"
    method: str
    # number of bootstrap resamples; None for a closed form
    resamples: int | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Chance(Frozen):
    """What an answer that is the same for every test item reaches, in the unit of `value`."""

    value: float
    # in words, e.g. "the most frequent label"
    method: str
