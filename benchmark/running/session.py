"""An experiment and what surrounds it while it is trained and tested: the steps of procedures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from superbit.benchmark.records.schema import Chance, Interval, Point, Selection
from superbit.benchmark.running import checkpoints, selection_rules
from superbit.benchmark.running.candidate import Candidate, Evaluation
from superbit.benchmark.running.experiment import Experiment
from superbit.benchmark.tasks.bindings import Binding, Items, Places


@dataclass(frozen=True, kw_only=True)
class Session:
    """An experiment with what its procedure needs around it.

    Attributes:
        run_dir: where the expert writes and the checkpoint lies.
        key: of the run, kept in its checkpoint.
        on_step: told steps done and what goes on.
    """

    experiment: Experiment
    binding: Binding
    places: Places
    run_dir: Path
    key: str
    on_step: Callable[[int, str], None]


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A candidate's number and where it comes from; ``value`` is in the table's unit.

    ``curve`` is the metric that selects, by step on dev; ``chance`` the level that cannot be told
    from the items.
    """

    value: float
    items: Items
    metrics: dict[str, float]
    interval: Interval | None
    selection: Selection
    curve: tuple[Point, ...] = ()
    chance: Chance | None = None


# By the candidates' names; one that was given up is absent.
TestedByName = dict[str, Tested]


def train(session: Session) -> None:
    """Train to the end, from the checkpoint where there is one, and keep checkpoints."""
    experiment, file = session.experiment, session.run_dir / checkpoints.CHECKPOINT
    if file.exists():
        checkpoints.load(file, experiment, key=session.key)

    def save() -> None:
        test_step = experiment.config["runner"].get("test_step")
        if test_step and experiment.progress.step % test_step == 0 and experiment.progress.step:
            checkpoints.save_snapshot(session.run_dir, experiment)
        checkpoints.save(file, experiment, key=session.key)

    experiment.train(
        on_step=lambda step, losses: session.on_step(step, _losses(losses)),
        on_evaluation=lambda split: session.on_step(experiment.progress.step, f"{split} done"),
        on_save=save,
    )


def _losses(losses: list[float]) -> str:
    return f"loss {' '.join(f'{loss:.3f}' for loss in losses)}"


def select_on_dev(session: Session, candidate: Candidate) -> Selection:
    """Load the best weights on dev into the candidate, or leave the last ones."""
    course = candidate.course
    score = None
    if course.best is not None:
        candidate.load_weights(course.best)
        score = next(
            value for step, value in _dev_scores(session, candidate) if step == course.best_step
        )
    return selection_rules.best_on_dev(
        best_step=course.best_step, score=score, last_step=session.experiment.progress.step
    )


def _dev_scores(session: Session, candidate: Candidate) -> list[tuple[int, float]]:
    """The metric that selects, by step, in the table's unit (SD: frame accuracy)."""
    binding = session.binding
    return [
        (point["step"], point[binding.metric] * binding.metric_scale)
        for point in candidate.course.history
        if point["split"] == binding.dev
    ]


def curve(session: Session, candidate: Candidate) -> tuple[Point, ...]:
    """Return the metric that selects at each evaluation on dev."""
    return tuple(
        Point(step=step, score=score)
        for step, score in _dev_scores(session, candidate)
        if math.isfinite(score)
    )


def test(session: Session) -> dict[str, Evaluation]:
    """Evaluate every candidate on the split that is reported, by name."""
    split = session.binding.test
    session.on_step(session.experiment.progress.step, f"{split} evaluation")
    return session.experiment.evaluate_all(split)


def compare(ours: float, experts: float, metric: str) -> None:
    """Refuse a number that differs from the expert's own."""
    if not math.isclose(ours, experts, rel_tol=1e-4, abs_tol=1e-4):
        raise RuntimeError(
            f"superbit's {metric} is {ours:.6f} and s3prl's own is {experts:.6f}: "
            "they must be equal."
        )


def metrics(candidate: Candidate, evaluation: Evaluation) -> dict[str, float]:
    """The expert's scalars on the tested split that JSON can hold."""
    named = {f"{evaluation.split}-{name}": value for name, value in evaluation.metrics.items()}
    named["skipped_steps"] = float(candidate.course.skipped_steps)
    return {name: value for name, value in named.items() if math.isfinite(value)}
