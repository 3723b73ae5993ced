"""Squeezeformer: the layers in the middle run at half the frame rate.

References:
- Kim et al., 2022, https://arxiv.org/abs/2206.00888, section 3: temporal U-Net, block, learnt
  scaling in place of a second layer norm; details from the authors' published code.

Time is halved before one layer and doubled before a later one, where what was there before comes
back over a skip (`SqueezeformerSettings.half_rate_layers` says which). Two builds
differ in their layers:

- ``squeezeformer``: Conformer layers, the only content that fits the parameters of the paper's
  Table 1;
- ``squeezeformer_faithful``: the block of Squeezeformer's own paper, normalised after each sum, and
  with a learnt scale and bias s·x + b before each module. The one layer norm before its first
  block is the model's own, `Hubert.encoder_norm`.

      x = LN(x + attention(s x + b));   x = LN(x + feed_forward_1(s x + b))
      x = LN(x + convolution(s x + b)); x = LN(x + feed_forward_2(s x + b))

Notation: B batch, T frames, D width, K kernel of the reduction in frames.
"""

from typing import ClassVar

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from superbit.upstreams.encoder_kinds import Roles
from superbit.upstreams.encoders.attention import SelfAttention
from superbit.upstreams.encoders.conformer import (
    ConformerEncoder,
    ConvolutionModule,
    make_attention,
    make_layer,
)
from superbit.upstreams.encoders.settings import SqueezeformerSettings
from superbit.upstreams.encoders.vanilla import FeedForward
from superbit.upstreams.hubert_config import HubertConfig

# TensorFlow's 0.985, the weight of the past, in the authors' code
FAITHFUL_BATCH_NORM_MOMENTUM = 1.0 - 0.985


class TimeReduction(nn.Module):
    """Half the frames: a depthwise convolution of stride 2, then a pointwise one."""

    def __init__(self, dim: int, *, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, kernel, stride=2, groups=dim)
        self.pointwise = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map (B, T, D) and its (B, T) mask to ⌈T / 2⌉ frames of both.

        Frame t is made from frames 2t … 2t + K - 1; what lies beyond an utterance is 0, so that an
        odd last frame gives the same in any batch. (In the authors' code it gives nothing, a frame
        of 0, where the batch ends with it.)
        """
        if valid is not None:
            x = x.masked_fill(~valid[:, :, None], 0.0)
            valid = valid[:, ::2]
        frames = x.shape[1]
        last = (frames + 1) // 2 - 1
        beyond = 2 * last + self.depthwise.kernel_size[0] - frames
        x = F.pad(x.transpose(1, 2), (0, beyond))  # (B, D, T + beyond)
        return self.pointwise(self.depthwise(x)).transpose(1, 2), valid


def repeat_frames(x: Tensor, frames: int) -> Tensor:
    """Return (B, ⌈T / 2⌉, D) at the full rate (B, T = ``frames``, D), every frame twice."""
    return x.repeat_interleave(2, dim=1)[:, :frames]


class ScaleAndBias(nn.Module):
    """s·x + b, one learnt number of each for every channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the identity."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        return x * self.scale + self.bias


class SqueezeformerLayer(nn.Module):
    """Attention and feed-forward, then convolution and feed-forward, normalised after each."""

    def __init__(
        self,
        attention: SelfAttention,
        convolution: ConvolutionModule,
        *,
        dim: int,
        ffn_dim: int,
        dropout: float = 0.0,
        activation_dropout: float = 0.0,
    ) -> None:
        super().__init__()

        def feed_forward() -> FeedForward:
            return FeedForward(
                dim, ffn_dim, activation=nn.SiLU, activation_dropout=activation_dropout
            )

        self.attention_scale = ScaleAndBias(dim)
        self.attention = attention
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_1_scale = ScaleAndBias(dim)
        self.feed_forward_1 = feed_forward()
        self.feed_forward_1_norm = nn.LayerNorm(dim)
        self.convolution_scale = ScaleAndBias(dim)
        self.convolution = convolution
        self.convolution_norm = nn.LayerNorm(dim)
        self.feed_forward_2_scale = ScaleAndBias(dim)
        self.feed_forward_2 = feed_forward()
        self.feed_forward_2_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); ``valid`` is (B, T) bool, None where no frame is padding."""
        y = self.attention(self.attention_scale(x), valid)
        x = self.attention_norm(x + self.dropout(y))
        y = self.feed_forward_1(self.feed_forward_1_scale(x))
        x = self.feed_forward_1_norm(x + self.dropout(y))
        y = self.convolution(self.convolution_scale(x), valid)
        x = self.convolution_norm(x + self.dropout(y))
        y = self.feed_forward_2(self.feed_forward_2_scale(x))
        return self.feed_forward_2_norm(x + self.dropout(y))


def make_faithful_layer(config: HubertConfig) -> SqueezeformerLayer:
    """Return one block as Squeezeformer's own paper has it, of the config's sizes."""
    own: SqueezeformerSettings = config.own
    return SqueezeformerLayer(
        make_attention(config),
        ConvolutionModule(
            config.dim,
            kernel=own.depthwise_kernel,
            gated=False,
            bias=True,
            momentum=FAITHFUL_BATCH_NORM_MOMENTUM,
        ),
        dim=config.dim,
        ffn_dim=config.ffn_dim,
        dropout=config.dropout,
        activation_dropout=config.activation_dropout,
    )


class SqueezeformerEncoder(nn.Module):
    """A stack of layers, some at half the frame rate, that keeps what every one of them gave."""

    roles: ClassVar[Roles] = ConformerEncoder.roles  # in either build

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        faithful = config.encoder == "squeezeformer_faithful"
        own: SqueezeformerSettings = config.own
        self.half_rate_layers = own.half_rate_layers(config.layers)
        self.layers = nn.ModuleList(
            make_faithful_layer(config) if faithful else make_layer(config)
            for _ in range(config.layers)
        )
        self.reduction = TimeReduction(config.dim, kernel=own.reduction_kernel)
        self.recovery = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> list[Tensor]:
        """Map (B, T, D) to layers + 1 states (B, T, D): the first input, every layer's output.

        Outputs at half the rate are returned at the full one, each frame twice.
        """
        frames, full_rate, full_rate_valid = x.shape[1], x, valid
        states = [x]
        for index, layer in enumerate(self.layers):
            if index == self.half_rate_layers.start:
                full_rate = x
                x, valid = self.reduction(x, valid)
            elif index == self.half_rate_layers.stop:
                x = full_rate + self.recovery(repeat_frames(x, frames))
                valid = full_rate_valid
            x = layer(x, valid)
            states.append(repeat_frames(x, frames) if index in self.half_rate_layers else x)
        return states
