"""A stack of layers that keeps what every one of them was given: what most encoders are.

Notation: B batch, T frames, D width.
"""

from collections.abc import Callable

import torch.nn as nn
from torch import Tensor

from superbit.upstreams.hubert_config import HubertConfig


class Stack(nn.Module):
    """As many layers as the config says, each called as ``layer(x, valid)``.

    Args:
        config: the model's.
        make_layer: returns one layer of the config's sizes.
    """

    def __init__(
        self, config: HubertConfig, make_layer: Callable[[HubertConfig], nn.Module]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make_layer(config) for _ in range(config.layers))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> list[Tensor]:
        """Map (B, T, D) to layers + 1 states (B, T, D): every layer's input, then the output."""
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], valid))
        return states
