"""What a task's procedure works with: an experiment and what surrounds it, trained and tested."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from superbit.benchmark.records.measured import Point
from superbit.benchmark.running import checkpoints
from superbit.benchmark.running.candidate import Candidate, Evaluation
from superbit.benchmark.running.experiment import Experiment
from superbit.benchmark.tasks.binding import Binding, RunPlaces
from superbit.upstreams.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Session:
    """An experiment with what its procedure needs around it.

    Attributes:
        run_dir: where the expert writes and the checkpoint lies.
        key: of the run, kept in its checkpoint.
        on_step: told steps done and what is being done.
    """

    experiment: Experiment
    binding: Binding
    places: RunPlaces
    run_dir: Path
    key: str
    on_step: Callable[[int, str], None]

    def train(self) -> None:
        """Train to the end, from the checkpoint where there is one, and keep checkpoints."""
        experiment, file = self.experiment, self.run_dir / checkpoints.CHECKPOINT
        said = checkpoints.resume(file, experiment, key=self.key)
        if said is not None:
            print(said)  # into the run's log
            print(f"superbit: {said}", file=sys.__stderr__, flush=True)

        def save() -> None:
            test_step = experiment.config["runner"].get("test_step")
            if test_step and experiment.position.step % test_step == 0 and experiment.position.step:
                checkpoints.save_snapshot(self.run_dir, experiment)
            checkpoints.save(file, experiment, key=self.key)

        experiment.train(
            on_step=lambda step, losses: self.on_step(step, _losses(losses)),
            on_evaluation=lambda split: self.on_step(experiment.position.step, f"{split} done"),
            on_save=save,
        )

    def test(self) -> dict[str, Evaluation]:
        """Evaluate every candidate on the split that is reported, by name."""
        split = self.binding.test
        self.on_step(self.experiment.position.step, f"{split} evaluation")
        return self.experiment.evaluate_all(split)

    def each_snapshot(self) -> Iterator[int]:
        """Load what was kept every ``test_step`` into all candidates; yield the step of each.

        Raises:
            InputError: nothing was kept.
        """
        kept = checkpoints.snapshots(self.run_dir)
        if not kept:
            raise InputError("runner.test_step is above the steps that are trained: lower it.")
        for step, file in sorted(kept.items()):
            self.experiment.each(partial(_take, checkpoints.load_snapshot(file)))
            yield step

    def dev_scores(self, candidate: Candidate) -> list[tuple[int, float]]:
        """The metric that selects, by step, in the table's unit (SD: frame accuracy)."""
        binding = self.binding
        return [
            (point["step"], point[binding.metric] * binding.metric_scale)
            for point in candidate.training.history
            if point["split"] == binding.dev
        ]

    def curve(self, candidate: Candidate) -> tuple[Point, ...]:
        """Return the metric that selects at each evaluation on dev."""
        return tuple(
            Point(step=step, score=score)
            for step, score in self.dev_scores(candidate)
            if math.isfinite(score)
        )

    def metrics(self, candidate: Candidate, evaluation: Evaluation) -> dict[str, float]:
        """The expert's scalars on the tested split that JSON can hold."""
        named = {f"{evaluation.split}-{name}": value for name, value in evaluation.metrics.items()}
        named["skipped_steps"] = float(candidate.training.skipped_steps)
        return {name: value for name, value in named.items() if math.isfinite(value)}


def _take(weights: dict[str, Any], candidate: Candidate) -> None:
    candidate.load_weights(weights[candidate.name])


def _losses(losses: list[float]) -> str:
    return f"loss {' '.join(f'{loss:.3f}' for loss in losses)}"
