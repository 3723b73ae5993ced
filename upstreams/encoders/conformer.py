"""Conformer: self-attention for the whole utterance, convolution for its detail, in every layer.

References:
- Gulati et al., 2020, https://arxiv.org/abs/2005.08100, section 2 and figures 1 to 4.
- wav2vec 2.0 and HuBERT with Conformer layers in fairseq, whose convolutions have no bias and whose
  positions come from the convolution before the layers; relative ones are an option.

    x = x + ½ feed_forward_in(LN(x))
    x = x + attention(LN(x))
    x = x + convolution(LN(x))
    x = LN(x + ½ feed_forward_out(LN(x)))

A frame of padding is 0 before the depthwise convolution, as what lies beyond the ends of an
utterance alone, and counts for nothing in the batch norm. Published implementations let it in.

Notation: B batch, T frames, D width, F inner width of a feed-forward block, K kernel in frames.
"""

from typing import ClassVar

import torch.nn as nn
from torch import Tensor

from superbit.upstreams.encoder_kinds import Roles
from superbit.upstreams.encoders.attention import SelfAttention, Shortcut
from superbit.upstreams.encoders.batch_norm import MaskedBatchNorm
from superbit.upstreams.encoders.relative_attention import RelativeSelfAttention
from superbit.upstreams.encoders.settings import ConformerSettings, SqueezeformerSettings
from superbit.upstreams.encoders.stack import Stack
from superbit.upstreams.encoders.vanilla import FeedForward, TransformerEncoder
from superbit.upstreams.hubert_config import HubertConfig


class ConvolutionModule(nn.Module):
    """Pointwise D → 2 D, gate, depthwise over K frames, batch norm, Swish, pointwise → D.

    Args:
        dim: D.
        kernel: K, odd.
        gated: a gated linear unit halves the 2 D channels; without it, Swish keeps them all.
        bias: the three convolutions have a bias.
        momentum: weight of a new batch in the batch norm's running statistics.
    """

    shortcut: Shortcut | None = None

    def __init__(
        self,
        dim: int,
        *,
        kernel: int,
        gated: bool = True,
        bias: bool = False,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        channels = dim if gated else 2 * dim
        self.pointwise_in = nn.Conv1d(dim, 2 * dim, 1, bias=bias)
        self.gate = nn.GLU(dim=1) if gated else nn.SiLU()
        self.depthwise = nn.Conv1d(
            channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias
        )
        self.norm = MaskedBatchNorm(channels, momentum=momentum)
        self.activation = nn.SiLU()
        self.pointwise_out = nn.Conv1d(channels, dim, 1, bias=bias)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); ``valid`` is (B, T) bool, None where no frame is padding."""
        if self.shortcut is not None and (y := self.shortcut(self, x, valid)) is not None:
            return y
        x = self.gate(self.pointwise_in(x.transpose(1, 2)))  # (B, D or 2 D, T)
        if valid is not None:
            x = x.masked_fill(~valid[:, None, :], 0.0)
        x = self.activation(self.norm(self.depthwise(x), valid))
        return self.pointwise_out(x).transpose(1, 2)


class ConformerLayer(nn.Module):
    """Half a feed-forward, attention, convolution, the other half; normalised before each."""

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

        self.feed_forward_in_norm = nn.LayerNorm(dim)
        self.feed_forward_in = feed_forward()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = attention
        self.convolution_norm = nn.LayerNorm(dim)
        self.convolution = convolution
        self.feed_forward_out_norm = nn.LayerNorm(dim)
        self.feed_forward_out = feed_forward()
        self.final_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); ``valid`` is (B, T) bool, None where no frame is padding."""
        x = x + 0.5 * self.dropout(self.feed_forward_in(self.feed_forward_in_norm(x)))
        x = x + self.dropout(self.attention(self.attention_norm(x), valid))
        x = x + self.dropout(self.convolution(self.convolution_norm(x), valid))
        x = x + 0.5 * self.dropout(self.feed_forward_out(self.feed_forward_out_norm(x)))
        return self.final_norm(x)


def make_attention(config: HubertConfig) -> SelfAttention:
    """Return one layer's attention: dense, with relative positions if the config says so."""
    own: ConformerSettings | SqueezeformerSettings = config.own
    kind = RelativeSelfAttention if own.attention_position == "relative" else SelfAttention
    return kind(config.dim, config.heads, dropout=config.attention_dropout)


def make_layer(config: HubertConfig) -> ConformerLayer:
    """Return one layer of the config's sizes."""
    own: ConformerSettings | SqueezeformerSettings = config.own
    return ConformerLayer(
        make_attention(config),
        ConvolutionModule(config.dim, kernel=own.depthwise_kernel),
        dim=config.dim,
        ffn_dim=config.ffn_dim,
        dropout=config.dropout,
        activation_dropout=config.activation_dropout,
    )


class ConformerEncoder(Stack):
    """A stack of Conformer layers."""

    # the parts that it shares with the transformer have the same names
    roles: ClassVar[Roles] = {
        **TransformerEncoder.roles,
        "convolution": (
            "convolution.pointwise_in",
            "convolution.depthwise",
            "convolution.pointwise_out",
        ),
    }

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(config, make_layer)
