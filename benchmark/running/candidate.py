"""One learning rate's part of an experiment: featurizer, head, optimizer, and how they fare.

Several candidates share the batches and the upstream's features: one pass over data and upstream
for all. What a head draws (dropout, SpecAug) depends on shapes and never on weights, so every
candidate gets the generators as a run of its own would find them, and trains as that run would.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from superbit.benchmark.running import heads
from superbit.upstreams.rng import Draws

Result = TypeVar("Result")


class Candidate:
    """A featurizer and a head that train at one learning rate.

    Args:
        name: tells it from the others, in checkpoints as well.
        config: resolved config; its ``optimizer`` section holds the learning rate.
        folder: where the head writes its files.

    Attributes:
        training: how that goes so far.
        losses: of the present optimizer step, one a batch.
        error: what ended it, if anything did in this process.
    """

    def __init__(
        self,
        name: str,
        *,
        featurizer: nn.Module,
        head: Any,
        config: dict[str, Any],
        folder: Path,
    ) -> None:
        self.name, self.featurizer, self.head, self.folder = name, featurizer, head, folder
        self.runner: dict[str, Any] = config.get("runner", {})
        self.optimizer = heads.optimizer([featurizer, head], config)
        self.scheduler = heads.scheduler(self.optimizer, config)
        self.training = TrainingSoFar()
        self.losses: list[float] = []
        self.error: Exception | None = None
        self._records: dict[str, list[Any]] = defaultdict(list)

    @property
    def active(self) -> bool:
        """Whether it still trains and is tested: it was not given up."""
        return self.training.failure is None

    def copy(self, name: str, *, config: dict[str, Any], folder: Path) -> Candidate:
        """Return a candidate with the same weights and data and a training of its own."""
        return Candidate(
            name,
            featurizer=heads.copy_of(self.featurizer),
            head=heads.copy_of(self.head, folder=self.folder, to=folder),
            config=config,
            folder=folder,
        )

    def backward(self, features: list[Tensor], others: list[Any]) -> None:
        """Add one batch's gradients to those that are pending."""
        accumulated = self.runner["gradient_accumulate_steps"]
        loss = self.head("train", features, *others, records=self._records)
        loss = loss / accumulated
        loss.backward()
        self.losses.append(loss.item() * accumulated)

    def step(self, number: int) -> float:
        """Take optimizer step ``number``; return the mean loss of its batches."""
        parameters = [*self.featurizer.parameters(), *self.head.parameters()]
        norm = nn.utils.clip_grad_norm_(parameters, self.runner["gradient_clipping"])
        if math.isnan(norm):
            self.training.skipped_steps += 1
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()
        if self.scheduler:
            self.scheduler.step()
        loss = sum(self.losses) / len(self.losses)
        self.losses.clear()
        if math.isfinite(loss) and math.isfinite(norm):
            self.training.diverged = None
        elif self.training.diverged is None:
            self.training.diverged = number
        return loss

    def log_training(self, step: int) -> None:
        """Let the expert log what it collected since the last call."""
        self.log("train", self._records, step=step)
        self._records = defaultdict(list)

    def log(
        self, split: str, records: dict[str, list[Any]], *, step: int, batches: int = 0
    ) -> Evaluation:
        """Let the expert compute a split's metrics from what it collected."""
        capture = ScalarCapture()
        saves = self.head.log_records(
            split,
            records=records,
            logger=capture,
            global_step=step,
            batch_ids=[],
            total_batch_num=batches,
        )
        metrics = {
            tag.rpartition("/")[2].removeprefix(f"{split}-"): value
            for tag, value in capture.scalars.items()
        }
        return Evaluation(
            split=split,
            step=step,
            metrics=metrics,
            records=dict(records),
            is_best=any("best" in name for name in saves or []),
        )

    def remember(self, evaluation: Evaluation) -> None:
        """Keep an evaluation in training, and the weights if the expert calls them best."""
        self.training.history.append(
            {"step": evaluation.step, "split": evaluation.split, **evaluation.metrics}
        )
        if evaluation.is_best:
            self.training.best, self.training.best_step = self.weights(), evaluation.step

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return all(
            bool(weight.isfinite().all())
            for module in (self.featurizer, self.head)
            for weight in module.parameters()
        )

    def training_mode(self, on: bool) -> None:
        """Put featurizer and head into training mode, or into evaluation mode."""
        self.featurizer.train(on)
        self.head.train(on)

    def weights(self) -> dict[str, Any]:
        """Return a copy of featurizer and head, on the CPU."""
        return {
            part: {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
            for part, module in (("featurizer", self.featurizer), ("head", self.head))
        }

    def layer_weights(self) -> tuple[float, ...] | None:
        """Return what is taken of each hidden state, in sum 1; None where there is one state."""
        weights = getattr(self.featurizer, "weights", None)
        if weights is None or len(weights) < 2:
            return None
        return tuple(weights.detach().double().softmax(dim=-1).tolist())

    def load_weights(self, weights: dict[str, Any]) -> None:
        """Put featurizer and head back to what :meth:`weights` returned."""
        self.featurizer.load_state_dict(weights["featurizer"])
        self.head.load_state_dict(weights["head"])

    def state(self) -> dict[str, Any]:
        """Return what :meth:`load_state` needs to continue."""
        return {
            "weights": self.weights(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "course": vars(self.training),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.load_weights(state["weights"])
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        self.training = TrainingSoFar(**state["course"])


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
class TrainingPosition:
    """Where training stands, for all candidates alike; its fields are names in checkpoints."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    backward_steps: int = 0
    evaluated_step: int = 0


@dataclass
class TrainingSoFar:
    """How one candidate's training has gone so far; its fields are names in checkpoints.

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


# --- several side by side -------------------------------------------------------------------------


def still_active(
    candidates: Sequence[Candidate], among: Sequence[Candidate] | None = None
) -> list[Candidate]:
    """Return those that were not given up, or of ``among`` only."""
    return [each for each in among or candidates if each.active]


def each(
    candidates: Sequence[Candidate],
    act: Callable[[Candidate], Result],
    *,
    among: Sequence[Candidate] | None = None,
) -> dict[str, Result]:
    """Let every candidate act from the same state of the generators; results by name.

    One of several that fails is given up, and the others go on; the last one's error is raised.

    Args:
        among: only these.
    """
    acting = still_active(candidates, among)
    if len(acting) == 1:
        (only,) = acting
        return {only.name: act(only)}
    before, after, drawn = Draws(), None, True
    results: dict[str, Result] = {}
    for candidate in acting:
        # Nothing to go back from where the first one drew nothing.
        if results and drawn:
            before.restore()
        try:
            results[candidate.name] = act(candidate)
        except InterruptedRun:
            raise
        except Exception as error:
            _give_up(candidate, error, candidates)
            before.restore()
            continue
        if after is None:
            after = Draws()
            drawn = after.differ(before)
    if after is not None and not acting[-1].active:
        after.restore()
    return results


def _give_up(candidate: Candidate, error: Exception, candidates: Sequence[Candidate]) -> None:
    candidate.error = error
    if sum(each.active for each in candidates) == 1:
        raise error
    candidate.training.failure = " ".join(str(error).split()) or type(error).__name__


def at_each_rate(
    config: dict[str, Any], learning_rates: Sequence[float], expdir: Path
) -> list[tuple[str, dict[str, Any], Path]]:
    """Return name, config and folder of each candidate."""
    if "optimizer" not in config:
        return [("none", config, expdir)]
    found = []
    for rate in learning_rates or [config["optimizer"]["lr"]]:
        changed = copy.copy(config) | {"optimizer": config["optimizer"] | {"lr": rate}}
        folder = expdir / f"lr-{rate!r}" if len(learning_rates) > 1 else expdir
        found.append((repr(rate), changed, folder))
    return found
