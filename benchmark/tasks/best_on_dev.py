"""The protocol of most tasks: the checkpoint that is best on dev counts, with its test items."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from superbit.benchmark.records.measured import Interval, Selection
from superbit.benchmark.tasks.task import Items, Records, Tested, TestedByName

if TYPE_CHECKING:
    from superbit.benchmark.running.candidate import Candidate
    from superbit.benchmark.running.session import Session


@dataclass(frozen=True, kw_only=True)
class BestOnDev:
    """Train, keep the best on dev, evaluate it on test.

    Attributes:
        items: the expert's records of an evaluation → one dict an item.
        score: items → the task's value in the table's unit.
        interval: items → the value's confidence interval.
    """

    items: Callable[[Records], Items]
    score: Callable[[Items], float]
    interval: Callable[[Items], Interval | None]

    def __call__(self, session: Session) -> TestedByName:
        """Return each candidate's number."""
        session.train()
        selections = session.experiment.each(partial(select_on_dev, session))
        evaluations = session.test()
        binding = session.binding

        def tested(candidate: Candidate) -> Tested:
            evaluation = evaluations[candidate.name]
            items = self.items(evaluation.records)
            value = self.score(items)
            require_equal(
                value, evaluation.metrics[binding.metric] * binding.metric_scale, binding.metric
            )
            return Tested(
                value=value,
                items=items,
                metrics=session.metrics(candidate, evaluation),
                interval=self.interval(items),
                selection=selections[candidate.name],
                curve=session.curve(candidate),
                layer_weights=candidate.layer_weights(),
            )

        return session.experiment.each(tested)


def select_on_dev(session: Session, candidate: Candidate) -> Selection:
    """Load the best weights on dev into the candidate, or leave the last ones."""
    training = candidate.training
    score = None
    if training.best is not None:
        candidate.load_weights(training.best)
        score = next(
            value for step, value in session.dev_scores(candidate) if step == training.best_step
        )
    return best_on_dev(
        best_step=training.best_step, score=score, last_step=session.experiment.position.step
    )


def best_on_dev(*, best_step: int | None, score: float | None, last_step: int) -> Selection:
    """The rule: the checkpoint that was best on dev.

    An expert asks for a best checkpoint only above a score of 0 (below a word error rate of 100);
    where it never asked, the last one is tested.

    Args:
        best_step: step of the last checkpoint that the expert called best, if any.
        score: the dev score there, in the table's unit.
        last_step: the step at which training ended.
    """
    if best_step is None:
        return Selection(
            rule="last step, as none was best on dev",
            selected_on=None,
            step=last_step,
            score=None,
            checkpoint="last",
        )
    return Selection(
        rule="best on dev", selected_on="dev", step=best_step, score=score, checkpoint="best"
    )


def require_equal(ours: float, experts: float, metric: str) -> None:
    """Refuse a number that differs from the expert's own."""
    if not math.isclose(ours, experts, rel_tol=1e-4, abs_tol=1e-4):
        raise RuntimeError(
            f"superbit's {metric} is {ours:.6f} and s3prl's own is {experts:.6f}: "
            "they must be equal."
        )
