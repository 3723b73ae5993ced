"""The optimizer and its learning rate.

Reference: HuBERT's published settings (fairseq): Adam with decoupled weight decay on every
parameter; linear warm-up, then linear decay to 0.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import Parameter

from superbit.upstreams.pretraining.configuration import PretrainingConfig


def learning_rate(config: PretrainingConfig, update: int) -> float:
    """Return the learning rate of one update, counted from 0."""
    if update < config.warm_up_updates:
        return config.learning_rate * (update + 1) / config.warm_up_updates
    rest = config.updates - config.warm_up_updates
    return config.learning_rate * max(config.updates - update, 0) / max(rest, 1)


def make_optimizer(
    config: PretrainingConfig, parameters: Iterable[Parameter]
) -> torch.optim.Optimizer:
    """Return the optimizer; its learning rate is set before every update."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
    parameters = list(parameters)
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=parameters[0].is_cuda,
    )
