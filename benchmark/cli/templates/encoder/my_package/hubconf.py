"""A kind of encoder, depthwise: a convolution over time in each layer; and its smallest size."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn as nn

from superbit.upstreams import pair, register_encoder
from superbit.upstreams.encoders.stack import Stack
from superbit.upstreams.hubert_config import HubertConfig


@dataclass(frozen=True, kw_only=True)
class DepthwiseSettings:
    kernel: int = 31  # frames seen by a layer; odd


class Layer(nn.Module):
    """x = x + mix(LN(x)); x = x + feed-forward(LN(x))."""

    def __init__(self, config):
        super().__init__()
        dim, kernel = config.dim, config.own.kernel
        self.mix_norm = nn.LayerNorm(dim)
        self.mix = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, config.ffn_dim)
        self.activation = nn.GELU()
        self.contract = nn.Linear(config.ffn_dim, dim)

    def forward(self, x, valid=None):
        y = self.mix_norm(x)
        if valid is not None:  # what lies beyond an utterance must not reach it
            y = y.masked_fill(~valid[:, :, None], 0.0)
        x = x + self.mix(y.transpose(1, 2)).transpose(1, 2)
        return x + self.contract(self.activation(self.expand(self.norm(x))))


class DepthwiseEncoder(Stack):
    roles: ClassVar = {
        "convolution": ("mix",),
        "linear": ("expand",),
        "activation": ("activation",),
        "rectified_linear": ("contract",),
    }

    def __init__(self, config):
        super().__init__(config, Layer)


register_encoder("depthwise", DepthwiseEncoder, settings=DepthwiseSettings, revision=1)

depthwise_nano, bq_depthwise_nano = pair(
    "depthwise_nano",
    HubertConfig(encoder="depthwise", layers=2, dim=64, heads=1, ffn_dim=128),
)
