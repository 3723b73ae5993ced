"""One s3prl expert on one frozen upstream: built, trained and evaluated as s3prl's Runner would.

The expert owns data, head, loss and metric. What is ours is the loop; a golden test holds it
against ``s3prl.downstream.runner.Runner``: same seed, same batches, same losses. Hence the order
in which things are built, the evaluations that reseed in the middle of training, and the
featurizer's parameters before the head's in the optimizer.

Several learning rates train side by side, a candidate each (``candidate``).
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import torch
from torch import nn

from superbit.benchmark.features.mixing import WeightedSums
from superbit.benchmark.features.source import FeatureReader
from superbit.benchmark.running import heads
from superbit.benchmark.running.batches import ExpertBatches, FrozenUpstream, LiveSums, reading
from superbit.benchmark.running.candidate import (
    Candidate,
    Evaluation,
    InterruptedRun,
    Result,
    TrainingPosition,
    at_each_rate,
    each,
    still_active,
)
from superbit.upstreams.errors import InputError
from superbit.upstreams.rng import seed_everything
from superbit.upstreams.s3prl.lean_heads import lean


class Experiment:
    """A head on a frozen upstream, or one for each of several learning rates.

    Args:
        upstream: s3prl-style expert; stays in eval mode and gets no gradient.
        downstream: package under ``s3prl.downstream``.
        config: resolved config whose ``downstream_expert`` section holds every path.
        seed: of head initialization, batch order, and of each evaluation.
        expdir: folder for the files that the expert writes; with several rates one in it for each.
        device: of upstream and heads.
        learning_rates: in place of the config's, one candidate each.
        reinitialize_head: draw the head's weights anew from ``seed``, after its construction.
        feature_source: called with the upstream and its samples a frame, gives what feeds the
            head from stored features; without it the upstream runs on every batch, as in s3prl.
        stop: asked before every step and batch; true ends the run by :class:`InterruptedRun`.
        save_seconds: after so long it is saved, beside every ``save_step``.
    """

    def __init__(
        self,
        *,
        upstream: nn.Module,
        downstream: str,
        config: dict[str, Any],
        seed: int,
        expdir: Path,
        device: str = "cpu",
        stop: Callable[[], bool] = lambda: False,
        save_seconds: float = math.inf,
        learning_rates: Sequence[float] = (),
        reinitialize_head: bool = False,
        feature_source: Callable[[nn.Module, float], FeatureReader] | None = None,
    ) -> None:
        from s3prl.upstream.interfaces import Featurizer

        self.config, self.seed, self.device, self.stop = config, seed, device, stop
        self._save_seconds = save_seconds
        self.upstream = upstream.to(device)
        featurizer = Featurizer(
            upstream=self.upstream, feature_selection="hidden_states", upstream_device=device
        ).to(device)
        self.source = feature_source and feature_source(self.upstream, featurizer.downsample_rate)
        self._frozen = FrozenUpstream(self.upstream, source=self.source, device=device)
        (name, own_config, folder), *others = at_each_rate(config, learning_rates, expdir)
        folder.mkdir(parents=True, exist_ok=True)
        with reading(self.source):  # ER reads its audio here
            head = heads.build(
                downstream,
                own_config,
                upstream_dim=featurizer.output_dim,
                upstream_rate=featurizer.downsample_rate,
                expdir=folder,
                seed=seed,
                device=device,
            )
        if reinitialize_head:
            heads.reinitialize(head, seed=seed)
        first = Candidate(name, featurizer=featurizer, head=head, config=own_config, folder=folder)
        self.candidates = [
            first,
            *(first.copy(name, config=each, folder=folder) for name, each, folder in others),
        ]
        self.augment = heads.specaug(config)
        self.position = TrainingPosition()
        self.layer_records: list[dict[str, list[Any]]] = []
        self._batches = ExpertBatches(head, source=self.source, limit=config.get("limit"))

    @property
    def head(self) -> Any:
        """The head, or the first of several; they share their data."""
        return self.candidates[0].head

    @property
    def featurizer(self) -> Any:
        """The featurizer, or the first of several."""
        return self.candidates[0].featurizer

    def train(
        self,
        *,
        on_step: Callable[[int, list[float]], None] = lambda step, losses: None,
        on_evaluation: Callable[[str], None] = lambda split: None,
        on_save: Callable[[], None] = lambda: None,
    ) -> None:
        """Train from where :attr:`position` stands to the config's last step.

        Args:
            on_step: called with the step's number and each candidate's mean loss over
                accumulated batches.
            on_evaluation: called after each evaluation of a split.
            on_save: called every ``save_step`` steps and ``save_seconds``, at a point from which
                training can resume.

        Raises:
            InputError: the train split has fewer items than a batch.
            InterruptedRun: ``stop`` said so.
        """
        runner = self.config["runner"]
        self._training_mode()
        saved = time.monotonic()

        def save() -> None:
            nonlocal saved
            on_save()
            saved = time.monotonic()

        while self.position.step < runner["total_steps"]:
            batches = self._batches.training(self.position)
            # After resuming from a checkpoint whose evaluation was cut short.
            self._evaluate_if_due(on_evaluation)
            for wavs, *others in batches:
                if self.position.step >= runner["total_steps"]:
                    break
                with lean(self.head):
                    self._backward(wavs, others)
                if self.position.backward_steps % runner["gradient_accumulate_steps"]:
                    continue
                self.position.step += 1
                step = self.position.step
                losses = self.each(methodcaller("step", step))
                on_step(step, list(losses.values()))
                if step % runner["log_step"] == 0:
                    self.each(methodcaller("log_training", step))
                if self._evaluation_is_due():
                    save()
                    self._evaluate_if_due(on_evaluation)
                late = time.monotonic() - saved >= self._save_seconds
                if late or step % runner["save_step"] == 0:
                    save()
                # Only here, where no gradient is pending.
                if self.stop():
                    save()
                    raise InterruptedRun
            else:
                self.position.epoch += 1
                self.position.batch = 0
        self._evaluate_if_due(on_evaluation)
        save()

    def evaluate(self, split: str) -> Evaluation:
        """Evaluate the first candidate with the others, see :meth:`evaluate_all`."""
        return self.evaluate_all(split)[self.candidates[0].name]

    def evaluate_all(
        self, split: str, among: Sequence[Candidate] | None = None
    ) -> dict[str, Evaluation]:
        """Evaluate the present weights on ``split``, by the candidates' names.

        Reseeds first, as s3prl does, so that each evaluation draws the same batches.

        Args:
            among: only these.
        """
        seed_everything(self.seed)
        self._eval_mode()
        count, batches = self._batches.evaluation(split)
        records: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for index, (wavs, *others) in enumerate(batches):
            if self.stop():
                raise InterruptedRun
            with torch.no_grad():
                sums = self._sums(wavs, among)
                forward = partial(_forward, split, sums, others, records, index)
                self.each(forward, among=among)
        if not records:
            raise InputError(f"split {split!r} is empty: there is nothing to evaluate on.")
        step = self.position.step
        return self.each(
            lambda c: c.log(split, records[c.name], step=step, batches=count), among=among
        )

    def collect_layers(self, split: str) -> None:
        """Let the head collect a split's features layer by layer into :attr:`layer_records`.

        One forward pass of the upstream serves all layers; s3prl makes one pass a layer.
        """
        seed_everything(self.seed)
        self._eval_mode()
        self.layer_records = []
        for wavs, *others in self._batches.queries(split):
            if self.stop():
                raise InterruptedRun
            layers = self._frozen.layers(self.featurizer, wavs)
            while len(self.layer_records) < len(layers):
                self.layer_records.append(defaultdict(list))
            for records, features in zip(self.layer_records, layers, strict=True):
                self.head(split, features, *others, records=records)

    def each(
        self, act: Callable[[Candidate], Result], among: Sequence[Candidate] | None = None
    ) -> dict[str, Result]:
        """Let every candidate act, see :func:`superbit.benchmark.running.candidate.each`."""
        return each(self.candidates, act, among=among)

    def state(self) -> dict[str, Any]:
        """Return everything that :meth:`load_state` needs to continue as if never stopped."""
        return {
            "candidates": {candidate.name: candidate.state() for candidate in self.candidates},
            "progress": vars(self.position),
            **self._batches.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned, to the bit.

        The state may hold more candidates than there are here.
        """
        for candidate in self.candidates:
            candidate.load_state(state["candidates"][candidate.name])
        self.position = TrainingPosition(**state["progress"])
        self._batches.load_state(state)

    # --- one step ---------------------------------------------------------------------------------

    def _backward(self, wavs: Any, others: list[Any]) -> None:
        sums = self._sums(wavs)

        def backward(candidate: Candidate) -> None:
            features = sums.of(candidate.featurizer)
            if self.augment is not None:
                features, _ = self.augment(features)
            candidate.backward(features, others)

        self.each(backward)
        sums.backward()
        self.position.batch += 1
        self.position.backward_steps += 1

    def _sums(self, wavs: Any, among: Sequence[Candidate] | None = None) -> WeightedSums | LiveSums:
        acting = still_active(self.candidates, among)
        return self._frozen.sums(wavs, [each.featurizer for each in acting])

    def _evaluation_is_due(self) -> bool:
        step = self.position.step
        due = step > 0 and step % self.config["runner"]["eval_step"] == 0
        return due and self.position.evaluated_step != step

    def _evaluate_if_due(self, on_evaluation: Callable[[str], None]) -> None:
        if not self._evaluation_is_due():
            return
        before = [len(candidate.training.history) for candidate in self.candidates]
        try:
            for split in self.config["runner"]["eval_dataloaders"]:
                evaluations = self.evaluate_all(split)
                self._training_mode()
                self.each(partial(_remember, evaluations))
                on_evaluation(split)
        except InterruptedRun:
            for candidate, length in zip(self.candidates, before, strict=True):
                del candidate.training.history[length:]
            raise
        self.position.evaluated_step = self.position.step

    def _training_mode(self) -> None:
        self.upstream.eval()
        for candidate in self.candidates:
            candidate.training_mode(True)

    def _eval_mode(self) -> None:
        self.upstream.eval()
        for candidate in self.candidates:
            candidate.training_mode(False)


def _forward(
    split: str,
    sums: WeightedSums | LiveSums,
    others: list[Any],
    records: dict[str, Any],
    index: int,
    candidate: Candidate,
) -> None:
    features = sums.of(candidate.featurizer)
    candidate.head(split, features, *others, records=records[candidate.name], batch_id=index)


def _remember(evaluations: dict[str, Evaluation], candidate: Candidate) -> None:
    candidate.remember(evaluations[candidate.name])
