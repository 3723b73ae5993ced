"""The training loop, of any objective, on one device or on the ranks of ``torchrun``.

Nothing that changes a weight depends on a state that is not written down: crops and masks follow
from seed, epoch and utterance, dropout from seed, update and rank, left-out layers from seed and
update, the learning rate from the update. So a run that was killed goes on from its last checkpoint
as if it had not been: on a CPU to the bit. A twin that begins has its scales calibrated on the
first crops that it is to learn from.

Several ranks average their gradients (DDP), which equals one rank with all their batches where no
layer mixes utterances. A batch norm (Conformer, Squeezeformer) does mix them: it normalises each
micro-batch of each rank by itself, and the running statistics are rank 0's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from superbit.upstreams import checkpoint
from superbit.upstreams.errors import InputError
from superbit.upstreams.quantization.convert import calibrate
from superbit.upstreams.stopping import Pace, Stopped
from superbit.upstreams.training import data
from superbit.upstreams.training.configuration import (
    TrainingConfig,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)
from superbit.upstreams.training.data import CropBatches, MicroBatch
from superbit.upstreams.training.distributed import World, in_parallel, synchronised
from superbit.upstreams.training.evaluation import Meter, finite, held_out, sentence
from superbit.upstreams.training.manifest import SAMPLE_RATE
from superbit.upstreams.training.objective import FrameCounts, Objective, dropped_layers, seed_of
from superbit.upstreams.training.state import RunFolder, check_same_run

# Updates in a row without a finite gradient after which going on makes no sense.
HOPELESS = 100
_DROPOUT, _LAYERS = 0, 1  # random streams of an update


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """How a run ended."""

    folder: Path
    update: int
    held_out: dict[str, float]
    skipped_files: int
    nan_updates: int
    audio_hours: float
    seconds: float


class Trainer:
    """One run of one model.

    Args:
        config: the run's settings.
        objective: what is trained, on the CPU, and how.
        train: its data.
        valid: held-out data.
        folder: where checkpoints and the log go; a run that is there goes on.
        world: this rank.
        facts: what identifies model and data, for `check_same_run`; JSON.
        training: what a checkpoint's config says of how the weights came about; JSON.
        say: called with a line of progress.
        scalars: called with (update, values) whenever a line is logged; for TensorBoard.
        pace: when it is saved beside ``save_every``, and when it stops.
    """

    def __init__(
        self,
        *,
        config: TrainingConfig,
        objective: Objective,
        train: CropBatches,
        valid: CropBatches,
        folder: RunFolder,
        world: World,
        facts: dict[str, Any],
        training: dict[str, Any],
        say: Callable[[str], None] = print,
        scalars: Callable[[int, dict[str, Any]], None] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.config, self.world, self.folder = config, world, folder
        self.train_data, self.valid_data = train, valid
        self._facts, self._training = facts, training
        self._say, self._scalars = say, scalars
        self._pace, self._asked_to_stop = pace or Pace(), False
        self.objective, self.layer_drop = objective, objective.layer_drop
        objective.to(world.device)
        self._batch_norms = [
            module
            for module in objective.model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        self.optimizer = make_optimizer(config, objective.parameter_groups())
        self.update = 0  # updates done
        self.taken = 0  # micro-batches taken by all ranks
        self.skipped_files = self.nan_updates = self._nan_in_a_row = 0
        self.samples = self.seconds = 0.0
        self.best_loss = float("inf")
        self._held_out: dict[str, float] = {}
        if not self._resume() and objective.model.policy is not None:
            calibrate(objective.model, list(train[world.rank].samples))
        self._parallel = in_parallel(objective.module, world, find_unused=self.layer_drop > 0)

    def run(self) -> FinishedRun:
        """Train to the last update and return how it went.

        Raises:
            InputError: data that is wrong, no finite gradient for too long, or a folder that
                cannot be written to; checkpoints are whole in any case.
            Stopped: a rank was asked to stop; all is saved.
        """
        config, world = self.config, self.world
        meter, began = Meter(world, self.objective.sums), time.monotonic()
        logged_at, logged_samples = began, self.samples
        pin = world.device.type == "cuda"
        batches = data.load(self.train_data, self._numbers(), workers=config.workers, pin=pin)
        earlier, saved = self.seconds, began
        while self.update < config.updates:
            norm = self.step(list(islice(batches, config.accumulate)), meter)
            last = self.update == config.updates
            if self.update % config.log_every == 0 or last:
                self._count(values := meter.read())
                now = time.monotonic()
                self.seconds = earlier + now - began
                pace = (self.samples - logged_samples) / SAMPLE_RATE / max(now - logged_at, 1e-9)
                logged_at, logged_samples = now, self.samples
                self._log("update", {**values, "gradient_norm": norm, "hours_an_hour": pace})
            if self.update % config.validate_every == 0 or last:
                self._validate()
            stops = self._asked_to_stop and not last
            late = time.monotonic() - saved >= self._pace.save_seconds
            if self.update % config.save_every == 0 or last or stops or late:
                self._count(meter.read())
                self.seconds = earlier + time.monotonic() - began
                self.save()
                saved = time.monotonic()
            if stops:
                raise Stopped
        return FinishedRun(
            folder=self.folder.path,
            update=self.update,
            held_out=self._held_out,
            skipped_files=self.skipped_files,
            nan_updates=self.nan_updates,
            audio_hours=self.samples / SAMPLE_RATE / 3600,
            seconds=self.seconds,
        )

    def step(self, micro_batches: Sequence[MicroBatch], meter: Meter) -> float:
        """Do one update and return the norm of its gradient, NaN or infinite if it was skipped."""
        config, world = self.config, self.world
        set_learning_rate(self.optimizer, config, self.update)
        torch.manual_seed(seed_of(config.seed, self.update, world.rank, _DROPOUT))
        counts = self._counts(micro_batches)
        statistics = [each.clone() for each in self._running_statistics()]
        measured = []
        for index, batch in enumerate(micro_batches):
            last = index == len(micro_batches) - 1
            with synchronised(self._parallel, last), self._layers_left_out():
                on_device = batch.to(world.device)
                with self.autocast():
                    sums = self._parallel(on_device.samples, on_device.units, on_device.mask)
                loss = self.objective.loss(sums, counts)
                (loss * world.size).backward()  # DDP takes the mean over ranks
            measured.append((sums, batch))
        # the same on every rank, and not finite if any loss was not
        learnt = self.objective.module.parameters()
        norm = float(nn.utils.clip_grad_norm_(learnt, config.gradient_clip))
        if np.isfinite(norm):
            self.optimizer.step()
            self._nan_in_a_row = 0
            for sums, batch in measured:
                masked, unmasked = batch.frames
                meter.add(
                    sums,
                    masked=masked,
                    unmasked=unmasked,
                    samples=batch.samples.numel(),
                    skipped=len(batch.skipped),
                )
        else:
            # A NaN that a batch norm has taken in never leaves its running mean.
            for each, before in zip(self._running_statistics(), statistics, strict=True):
                each.copy_(before)
            self._skip()
        for _, batch in measured:
            for reason in batch.skipped:
                self._say(f"skipped: {reason}")
        self.optimizer.zero_grad(set_to_none=True)
        self.update += 1
        self.taken += config.accumulate * world.size
        return norm

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of a forward pass: bfloat16 where the config says so."""
        kind = self.world.device.type
        wanted = self.config.precision
        half = kind == "cuda" if wanted == "auto" else wanted == "bf16"
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=half)

    def save(self) -> None:
        """Write a checkpoint; only rank 0 does."""
        if not self.world.leads:
            return
        loss = self.objective.held_out_loss(self._held_out) if self._held_out else float("inf")
        best = loss <= self.best_loss
        self.best_loss = min(self.best_loss, loss)
        hours = self.samples / SAMPLE_RATE / 3600
        training = {
            **self._training,
            "phase": self.objective.phase,
            **self.objective.record,
            "update": self.update,
            "updates": self.config.updates,
            "audio_hours": round(hours, 4),
            "seconds": round(self.seconds, 1),
            "held_out": self._held_out,
            "skipped_files": self.skipped_files,
            "nan_updates": self.nan_updates,
        }
        self.folder.save(
            self.update,
            self.objective.model,
            state=self._state(),
            training=training,
            best=best,
            keep_every=self.config.keep_every,
        )

    def _state(self) -> dict[str, Any]:
        return {
            "phase": self.objective.phase,
            "config": self.config.model_dump(mode="json"),
            "facts": self._facts,
            "update": self.update,  # the random streams and the learning rate follow from it
            "taken": self.taken,
            **self.objective.state(),
            "optimizer": self.optimizer.state_dict(),
            "counters": {
                "skipped_files": self.skipped_files,
                "nan_updates": self.nan_updates,
                "samples": self.samples,
                "seconds": self.seconds,
                "best_loss": self.best_loss,
            },
            "held_out": self._held_out,
        }

    def _resume(self) -> bool:
        """Go on from the folder's last checkpoint, and return whether there is one."""
        found = self.folder.load_last()
        if found is None:
            if self.world.leads:
                self.folder.trim_log(-1)
            return False
        path, state = found
        objective = self.objective
        check_same_run(
            self.folder.path, state, phase=objective.phase, config=self.config, facts=self._facts
        )
        objective.model.load_state_dict(checkpoint.load(path).model.state_dict())
        objective.load_state(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.update, self.taken = state["update"], state["taken"]
        for key, value in state["counters"].items():
            setattr(self, key, value)
        self._held_out = state["held_out"]
        if self.world.leads:
            self.folder.trim_log(self.update)
            self._say(f"going on from {path} at update {self.update:,}")
        return True

    def _numbers(self) -> range:
        """Return the numbers of this rank's micro-batches, from where the run stands to its end."""
        size, accumulate = self.world.size, self.config.accumulate
        first = self.taken + self.world.rank
        updates = self.config.updates - self.update
        return range(first, first + updates * accumulate * size, size)

    def _counts(self, micro_batches: Sequence[MicroBatch]) -> FrameCounts:
        own = torch.tensor([batch.frames for batch in micro_batches], dtype=torch.float64).sum(0)
        asked = torch.tensor([float(self._pace.stop())], dtype=torch.float64)
        totals = self.world.total(torch.cat([own, asked]).float().to(self.world.device))
        masked, unmasked, asking = totals
        # all ranks stop after the same update, whichever was asked
        self._asked_to_stop = bool(asking)
        return FrameCounts(masked=masked, unmasked=unmasked)

    def _layers_left_out(self) -> AbstractContextManager[None]:
        if self.layer_drop == 0:
            return nullcontext()
        layers = list(self.objective.model.encoder.get_submodule("layers").children())
        random = np.random.default_rng([self.config.seed, self.update, _LAYERS])
        dropped = random.random(len(layers)) < self.layer_drop
        return dropped_layers(layers, dropped.tolist())

    def _running_statistics(self) -> list[torch.Tensor]:
        return [each for norm in self._batch_norms for each in norm.buffers(recurse=False)]

    def _skip(self) -> None:
        self.nan_updates += 1
        self._nan_in_a_row += 1
        if self._nan_in_a_row >= HOPELESS:
            raise InputError(
                f"{self.folder.path}: {HOPELESS} updates in a row, to update {self.update + 1}, "
                "had no finite gradient; a lower learning_rate is needed."
            )

    def _count(self, values: dict[str, float]) -> None:
        self.samples += values["samples"]
        self.skipped_files += int(values["skipped"])

    def _validate(self) -> None:
        self._held_out = held_out(
            self.objective,
            self.valid_data,
            self.world,
            self.autocast,
            say=lambda line: None if self._held_out else self._say(line),
        )
        self._log("held_out", self._held_out)

    def _log(self, event: str, values: dict[str, Any]) -> None:
        if not self.world.leads:
            return
        line = {
            "event": event,
            "update": self.update,
            "learning_rate": learning_rate(self.config, self.update - 1),
            **{key: value for key, value in values.items() if key not in ("samples", "skipped")},
            "audio_hours": self.samples / SAMPLE_RATE / 3600,
            "seconds": self.seconds,
            "skipped_files": self.skipped_files,
            "nan_updates": self.nan_updates,
        }
        self.folder.append_log(finite(line))
        if self._scalars is not None:
            self._scalars(self.update, line)
        self._say(sentence(event, line, self.config.updates))
