"""One s3prl expert on one frozen upstream: built, trained and evaluated as s3prl's Runner would.

The expert owns data, head, loss and metric. What is ours is the loop; a golden test holds it
against ``s3prl.downstream.runner.Runner``: same seed, same batches, same losses. Hence the order
in which things are built, the evaluations that reseed in the middle of training, and the
featurizer's parameters before the head's in the optimizer.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from superbit.benchmark import heads
from superbit.benchmark.features.source import FeatureSource, weighted_sum
from superbit.benchmark.rng import rng_state, seed_everything, set_rng_state
from superbit.benchmark.training_state import (
    Evaluation,
    InterruptedRun,
    Progress,
    ScalarCapture,
)
from superbit.upstreams.errors import InputError


class Experiment:
    """A head on a frozen upstream.

    Args:
        upstream: s3prl-style expert; stays in eval mode and gets no gradient.
        downstream: package under ``s3prl.downstream``.
        config: resolved config whose ``downstream_expert`` section holds every path.
        seed: of head initialization, batch order, and of each evaluation.
        expdir: folder for the files that the expert writes.
        device: of upstream and head.
        reinitialize_head: draw the head's weights anew from ``seed``, after its construction.
        feature_source: called with the upstream and its samples a frame, gives what feeds the
            head from stored features; without it the upstream runs on every batch, as in s3prl.
        stop: asked before every step and batch; true ends the run by :class:`InterruptedRun`.
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
        reinitialize_head: bool = False,
        feature_source: Callable[[nn.Module, float], FeatureSource] | None = None,
    ) -> None:
        from s3prl.optimizers import get_optimizer
        from s3prl.upstream.interfaces import Featurizer

        self.config, self.seed, self.device, self.stop = config, seed, device, stop
        self.batch_limit: int | None = config.get("limit")
        self.upstream = upstream.to(device)
        self.featurizer = Featurizer(
            upstream=self.upstream, feature_selection="hidden_states", upstream_device=device
        ).to(device)
        self.source: FeatureSource | None = None
        if feature_source is not None:
            self.source = feature_source(self.upstream, self.featurizer.downsample_rate)
        with self._reading():  # ER reads its audio here
            self.head = heads.build(
                downstream,
                config,
                upstream_dim=self.featurizer.output_dim,
                upstream_rate=self.featurizer.downsample_rate,
                expdir=expdir,
                seed=seed,
                device=device,
            )
        if reinitialize_head:
            heads.reinitialize(self.head, seed=seed)
        self.optimizer: Any = None
        if "optimizer" in config:  # QbE trains nothing
            self.optimizer = get_optimizer(
                [self.featurizer, self.head], config["runner"]["total_steps"], config["optimizer"]
            )
        self.scheduler = heads.scheduler(self.optimizer, config)
        self.augment = heads.specaug(config)
        self.progress = Progress()
        self.layer_records: list[dict[str, list[Any]]] = []
        self._epoch_rng: dict[str, Any] = {}

    def train(
        self,
        *,
        on_step: Callable[[int, float], None] = lambda step, loss: None,
        on_evaluation: Callable[[Evaluation], None] = lambda evaluation: None,
        on_save: Callable[[], None] = lambda: None,
    ) -> None:
        """Train from where :attr:`progress` stands to the config's last step.

        Args:
            on_step: called with the step's number and its mean loss over accumulated batches.
            on_evaluation: called after each evaluation of a split.
            on_save: called every ``save_step`` steps, at a point from which training can resume.

        Raises:
            InputError: the train split has fewer items than a batch.
            InterruptedRun: ``stop`` said so.
        """
        runner = self.config["runner"]
        self._training_mode()
        losses: list[float] = []
        records: dict[str, list[Any]] = defaultdict(list)
        while self.progress.step < runner["total_steps"]:
            batches = self._train_batches()
            # After resuming from a checkpoint whose evaluation was cut short.
            self._evaluate_if_due(on_evaluation)
            for wavs, *others in batches:
                if self.progress.step >= runner["total_steps"]:
                    break
                losses.append(self._backward(wavs, others, records))
                if self.progress.backward_steps % runner["gradient_accumulate_steps"]:
                    continue
                self._optimizer_step()
                on_step(self.progress.step, sum(losses) / len(losses))
                losses.clear()
                if self.progress.step % runner["log_step"] == 0:
                    self._log("train", records)
                    records = defaultdict(list)
                if self._evaluation_is_due():
                    on_save()
                    self._evaluate_if_due(on_evaluation)
                if self.progress.step % runner["save_step"] == 0:
                    on_save()
                # Only here, where no gradient is pending.
                if self.stop():
                    on_save()
                    raise InterruptedRun
            else:
                self.progress.epoch += 1
                self.progress.batch = 0
        self._evaluate_if_due(on_evaluation)
        on_save()

    def evaluate(self, split: str) -> Evaluation:
        """Evaluate the head's present weights on ``split``.

        Reseeds first, as s3prl does, so that each evaluation draws the same batches.
        """
        seed_everything(self.seed)
        self._eval_mode()
        limited = self._limited(split)
        loader = self.head.get_dataloader(split)
        records: dict[str, list[Any]] = defaultdict(list)
        for index, (wavs, *others) in enumerate(self._read(loader)):
            if limited and index >= (self.batch_limit or 0):
                break
            if self.stop():
                raise InterruptedRun
            with torch.no_grad():
                features = self._features(wavs)
                self.head(split, features, *others, records=records, batch_id=index)
        if not records:
            raise InputError(f"split {split!r} is empty: there is nothing to evaluate on.")
        metrics, saves = self._log(split, records, batches=len(loader))
        return Evaluation(
            split=split,
            step=self.progress.step,
            metrics=metrics,
            records=dict(records),
            is_best=any("best" in name for name in saves),
        )

    def collect_layers(self, split: str) -> None:
        """Let the head collect a split's features layer by layer into :attr:`layer_records`.

        One forward pass of the upstream serves all layers; s3prl makes one pass a layer.
        """
        seed_everything(self.seed)
        self._eval_mode()
        loader = self.head.get_dataloader(split)
        if self.batch_limit is not None:
            heads.limit_queries(loader.dataset, self.batch_limit)
        self.layer_records = []
        for wavs, *others in self._read(loader):
            if self.stop():
                raise InterruptedRun
            layers = self._layers(wavs)
            while len(self.layer_records) < len(layers):
                self.layer_records.append(defaultdict(list))
            for records, features in zip(self.layer_records, layers, strict=True):
                self.head(split, features, *others, records=records)

    def weights(self) -> dict[str, Any]:
        """Return a copy of featurizer and head, on the CPU."""
        return {
            part: {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
            for part, module in (("featurizer", self.featurizer), ("head", self.head))
        }

    def load_weights(self, weights: dict[str, Any]) -> None:
        """Put featurizer and head back to what :meth:`weights` returned."""
        self.featurizer.load_state_dict(weights["featurizer"])
        self.head.load_state_dict(weights["head"])

    def state(self) -> dict[str, Any]:
        """Return everything that :meth:`load_state` needs to continue as if never stopped."""
        return {
            "weights": self.weights(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "progress": vars(self.progress),
            "rng": rng_state(),
            "epoch_rng": self._epoch_rng,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned; exact with ``num_workers: 0``."""
        self.load_weights(state["weights"])
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        self.progress = Progress(**state["progress"])
        self._epoch_rng = state["epoch_rng"]
        self._resume_rng = state["rng"]

    # --- one step ---------------------------------------------------------------------------------

    def _features(self, wavs: Any) -> list[Tensor]:
        if self.source is not None:
            return weighted_sum(self.featurizer, self.source.gather(wavs))
        batch = self._batch(wavs)
        with torch.no_grad():
            hidden = self.upstream(batch)
        features = self.featurizer(batch, hidden)
        if not all(bool(feature.isfinite().all()) for feature in features):
            raise InputError(
                f"the upstream gave NaN or infinity after step {self.progress.step}: "
                "'superbit check' says for which input."
            )
        return features

    def _layers(self, wavs: Any) -> list[list[Tensor]]:
        """Every layer's features of a batch."""
        if self.source is not None:
            gathered = self.source.gather(wavs)
            # Copies: these are kept until the whole split is read.
            return [
                [features.clone() for features in gathered.layer(index)]
                for index in range(len(gathered.states))
            ]
        batch = self._batch(wavs)
        with torch.no_grad():
            states = self.upstream(batch)["hidden_states"]
        return [self.featurizer.tolist(batch, state) for state in states]

    def _batch(self, wavs: Any) -> list[Tensor]:
        return [torch.as_tensor(wav, dtype=torch.float32).to(self.device) for wav in wavs]

    def _backward(self, wavs: Any, others: list[Any], records: dict[str, list[Any]]) -> float:
        features = self._features(wavs)
        if self.augment is not None:
            features, _ = self.augment(features)
        loss = self.head("train", features, *others, records=records)
        loss = loss / self.config["runner"]["gradient_accumulate_steps"]
        loss.backward()
        self.progress.batch += 1
        self.progress.backward_steps += 1
        return loss.item() * self.config["runner"]["gradient_accumulate_steps"]

    def _optimizer_step(self) -> None:
        parameters = [*self.featurizer.parameters(), *self.head.parameters()]
        norm = nn.utils.clip_grad_norm_(parameters, self.config["runner"]["gradient_clipping"])
        if math.isnan(norm):
            self.progress.skipped_steps += 1
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()
        if self.scheduler:
            self.scheduler.step()
        self.progress.step += 1

    def _evaluation_is_due(self) -> bool:
        step = self.progress.step
        due = step > 0 and step % self.config["runner"]["eval_step"] == 0
        return due and self.progress.evaluated_step != step

    def _evaluate_if_due(self, on_evaluation: Callable[[Evaluation], None]) -> None:
        if not self._evaluation_is_due():
            return
        before = len(self.progress.history)
        try:
            for split in self.config["runner"]["eval_dataloaders"]:
                on_evaluation(self._evaluate_in_training(split))
        except InterruptedRun:
            del self.progress.history[before:]
            raise
        self.progress.evaluated_step = self.progress.step

    def _evaluate_in_training(self, split: str) -> Evaluation:
        evaluation = self.evaluate(split)
        self._training_mode()
        self.progress.history.append(
            {"step": evaluation.step, "split": split, **evaluation.metrics}
        )
        if evaluation.is_best:
            self.progress.best, self.progress.best_step = self.weights(), evaluation.step
        return evaluation

    def _log(
        self, split: str, records: dict[str, list[Any]], batches: int = 0
    ) -> tuple[dict[str, float], list[str]]:
        capture = ScalarCapture()
        saves = self.head.log_records(
            split,
            records=records,
            logger=capture,
            global_step=self.progress.step,
            batch_ids=[],
            total_batch_num=batches,
        )
        prefix = f"{split}-"
        metrics = {
            tag.rpartition("/")[2].removeprefix(prefix): value
            for tag, value in capture.scalars.items()
        }
        return metrics, saves or []

    # --- batches ----------------------------------------------------------------------------------

    def _reading(self) -> contextlib.AbstractContextManager[None]:
        """Within it, the datasets name what is stored instead of decoding it."""
        return self.source.reading() if self.source is not None else contextlib.nullcontext()

    def _read(self, batches: Any) -> Iterator[Any]:
        """The same batches, each read under :meth:`_reading`."""
        with self._reading():
            remaining = iter(batches)
        while True:
            try:
                with self._reading():
                    batch = next(remaining)
            except StopIteration:
                return
            yield batch

    def _train_batches(self) -> Iterator[Any]:
        """One epoch's batches from :attr:`Progress.batch` on."""
        resume_rng = self.__dict__.pop("_resume_rng", None)
        if resume_rng is None:
            self._epoch_rng = rng_state()
        else:
            set_rng_state(self._epoch_rng)
        loader = self._train_loader()
        if len(loader) == 0:
            raise InputError(
                "the train split has fewer items than one batch; lower the batch size "
                "or give more audio."
            )
        with self._reading():  # worker processes start here and keep what they inherit
            batches = iter(loader)
            if resume_rng is not None:
                self._skip(loader, batches)
                set_rng_state(resume_rng)
        return self._read(batches)

    def _skip(self, loader: DataLoader, batches: Any) -> None:
        """Pass over the batches that were trained on before the checkpoint."""
        for _ in range(self.progress.batch):
            if loader.num_workers == 0:
                batches._next_index()  # draws the indices without reading audio
            else:
                next(batches)

    def _train_loader(self) -> DataLoader:
        get_dataloader = self.head.get_dataloader
        if "epoch" in inspect.signature(get_dataloader).parameters:
            return get_dataloader("train", epoch=self.progress.epoch)
        return get_dataloader("train")

    def _limited(self, split: str) -> bool:
        """Whether an evaluation stops early; a trial list is cut instead (ASV)."""
        if self.batch_limit is None:
            return False
        trials = getattr(getattr(self.head, f"{split}_dataset", None), "pair_table", None)
        if trials is not None:
            heads.limit_trials(getattr(self.head, f"{split}_dataset"), self.batch_limit)
        return trials is None

    # --- parts ------------------------------------------------------------------------------------

    def _training_mode(self) -> None:
        self.upstream.eval()
        self.featurizer.train()
        self.head.train()

    def _eval_mode(self) -> None:
        for module in (self.upstream, self.featurizer, self.head):
            module.eval()
