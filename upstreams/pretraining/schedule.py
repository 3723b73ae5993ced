"""The optimizer and its learning rate: linear warm-up, then linear decay to 0.

References: the published settings of HuBERT (fairseq): Adam with decoupled weight decay; of BiT:
scales of quantizers have a learning rate of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from superbit.upstreams.pretraining.configuration import TrainingConfig


def learning_rate(config: TrainingConfig, update: int) -> float:
    """Return the learning rate of one update, counted from 0."""
    if update < config.warm_up_updates:
        return config.learning_rate * (update + 1) / config.warm_up_updates
    rest = config.updates - config.warm_up_updates
    return config.learning_rate * max(config.updates - update, 0) / max(rest, 1)


def make_optimizer(
    config: TrainingConfig, groups: Sequence[Mapping[str, Any]]
) -> torch.optim.Optimizer:
    """Return the optimizer of groups of parameters, as torch's take them.

    A group may have ``rate``, a factor on the learning rate, 1 by default; `set_learning_rate` is
    to be called before every update.
    """
    own = [dict(group) for group in groups]
    if config.optimizer == "sgd":
        return torch.optim.SGD(own, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.AdamW(
        own,
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=own[0]["params"][0].is_cuda,
    )


def set_learning_rate(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, update: int
) -> None:
    """Give every group its learning rate of one update, counted from 0."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, update) * group.get("rate", 1.0)
