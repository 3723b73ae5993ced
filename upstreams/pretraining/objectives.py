"""What the training loop lowers, and all that it needs to know of it.

The loop (`superbit.upstreams.pretraining.train`) crops audio, accumulates gradients, keeps
checkpoints and counts; an objective turns a micro-batch into sums and sums into a loss. There are
two: HuBERT's, here, for FP32 models and for twins, and a twin's distillation, in
`superbit.upstreams.pretraining.distil_objective`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from superbit.upstreams.hubert import Hubert
from superbit.upstreams.pretraining.configuration import TrainingConfig
from superbit.upstreams.pretraining.objective import Counts, Pretrainer, Sums, update_loss
from superbit.upstreams.quantization.convert import quantizer_scales

UNIT_EMBEDDINGS = "unit_embeddings"  # the key of a training state


class Objective(Protocol):
    """What a run lowers."""

    @property
    def module(self) -> nn.Module:
        """What is trained: (samples (B, N), units (B, T), mask (B, T)) to a micro-batch's sums."""

    @property
    def model(self) -> Hubert:
        """The part of it that a checkpoint holds."""

    @property
    def sums(self) -> type[Any]:
        """A dataclass of scalars with `means`, as `superbit.upstreams.pretraining.objective`'s."""

    @property
    def phase(self) -> int | str:
        """1 or 2 of HuBERT, or a word."""

    @property
    def units(self) -> int | None:
        """K of the data's labels; None where it has none, or they are not looked at."""

    @property
    def layer_drop(self) -> float:
        """Probability of leaving a layer out of an update."""

    @property
    def record(self) -> Mapping[str, Any]:
        """What a checkpoint's config says of how it was trained; JSON."""

    def to(self, device: torch.device) -> None:
        """Move everything to a device."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what is learnt, as `superbit.upstreams.pretraining.schedule` takes it."""

    def loss(self, sums: Any, counts: Counts) -> Tensor:
        """Return one micro-batch's part of the update's loss; the parts of all add up to it."""

    def held_out_loss(self, means: Mapping[str, float]) -> float:
        """Return what the best checkpoint has the lowest of, from held-out means."""

    def state(self) -> dict[str, Tensor]:
        """Return what a training state keeps beside the model."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take that back."""


class HubertObjective:
    """Units of masked frames, for an FP32 model or (quantization-aware) a twin.

    Args:
        config: weights of the parts of the loss; seed of the embeddings.
        model: what is trained, in training mode.
        units: K.
        phase: 1, 2 or a word.
        layer_drop: probability of leaving a layer out of an update.
        record: see `Objective`.
        unit_embeddings: (K, E) to begin with; None: random.
        scale_rate: factor on the learning rate of a twin's scales, which do not decay.
    """

    sums = Sums

    def __init__(
        self,
        config: TrainingConfig,
        model: Hubert,
        *,
        units: int,
        phase: int | str,
        layer_drop: float,
        record: Mapping[str, Any],
        unit_embeddings: Tensor | None = None,
        scale_rate: float = 1.0,
    ) -> None:
        self.config, self.model, self.units = config, model, units
        self.phase, self.layer_drop, self.record = phase, layer_drop, record
        self._scale_rate = scale_rate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed))
            self.module = Pretrainer(
                model,
                units=units,
                temperature=config.temperature,
                front_end_gradient=config.front_end_gradient,
            )
        if unit_embeddings is not None:
            self.load_state({UNIT_EMBEDDINGS: unit_embeddings})

    def to(self, device: torch.device) -> None:
        """Move everything to a device."""
        self.module.to(device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters, a twin's scales apart."""
        scales = quantizer_scales(self.model)
        apart = {id(scale) for scale in scales}
        others = [each for each in self.module.parameters() if id(each) not in apart]
        if not scales:
            return [{"params": others}]
        return [
            {"params": others},
            {"params": scales, "rate": self._scale_rate, "weight_decay": 0.0},
        ]

    def loss(self, sums: Sums, counts: Counts) -> Tensor:
        """Return one micro-batch's part of the update's loss; the parts of all add up to it."""
        return update_loss(
            sums,
            counts,
            unmasked_weight=self.config.unmasked_weight,
            feature_penalty=self.config.feature_penalty,
        )

    def held_out_loss(self, means: Mapping[str, float]) -> float:
        """Return the cross-entropy of masked frames."""
        return means["masked_loss"]

    def state(self) -> dict[str, Tensor]:
        """Return the units' embeddings."""
        return {UNIT_EMBEDDINGS: self.module.unit_embeddings.detach().cpu()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the units' embeddings."""
        with torch.no_grad():
            self.module.unit_embeddings.copy_(state[UNIT_EMBEDDINGS])


def seed_of(*numbers: int) -> int:
    """Return a seed that follows from some numbers and differs for all others."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
