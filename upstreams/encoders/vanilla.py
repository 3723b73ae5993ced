"""The transformer encoder of HuBERT: post-LN layers of self-attention and feed-forward.

References:
- Vaswani et al., 2017, https://arxiv.org/abs/1706.03762 (normalisation after each residual sum).
- HuBERT base, Hsu et al., 2021, https://arxiv.org/abs/2106.07447 (GELU; no norm after the last
  layer beyond its own).

Notation: B batch, T frames, D width, F inner width of the feed-forward block.
"""

from collections.abc import Callable
from typing import ClassVar

import torch.nn as nn
from torch import Tensor

from superbit.upstreams.encoder_kinds import Roles
from superbit.upstreams.encoders.attention import SelfAttention, Shortcut
from superbit.upstreams.encoders.stack import Stack
from superbit.upstreams.hubert_config import HubertConfig


class FeedForward(nn.Module):
    """Two linear layers around an activation."""

    shortcut: Shortcut | None = None

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        *,
        activation: Callable[[], nn.Module] = nn.GELU,
        activation_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, ffn_dim)
        self.activation = activation()
        self.activation_dropout = nn.Dropout(activation_dropout)
        self.contract = nn.Linear(ffn_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D) through (B, T, F)."""
        if self.shortcut is not None and (y := self.shortcut(self, x, None)) is not None:
            return y
        return self.contract(self.activation_dropout(self.activation(self.expand(x))))


class TransformerLayer(nn.Module):
    """x = LN(x + attention(x)); x = LN(x + feed_forward(x))."""

    def __init__(
        self,
        attention: SelfAttention,
        *,
        dim: int,
        ffn_dim: int,
        dropout: float = 0.0,
        activation_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, ffn_dim, activation_dropout=activation_dropout)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); ``valid`` is (B, T) bool, None where no frame is padding."""
        x = self.attention_norm(x + self.dropout(self.attention(x, valid)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


def make_attention(config: HubertConfig) -> SelfAttention:
    """Return one layer's attention: dense."""
    return SelfAttention(config.dim, config.heads, dropout=config.attention_dropout)


def make_layer(config: HubertConfig, attention: SelfAttention) -> TransformerLayer:
    """Return one layer of the config's sizes around its attention."""
    return TransformerLayer(
        attention,
        dim=config.dim,
        ffn_dim=config.ffn_dim,
        dropout=config.dropout,
        activation_dropout=config.activation_dropout,
    )


class TransformerEncoder(Stack):
    """A stack of dense layers."""

    roles: ClassVar[Roles] = {
        "linear": (
            "attention.query",
            "attention.key",
            "attention.value",
            "attention.output",
            "feed_forward*.expand",
        ),
        "activation": ("feed_forward*.activation",),
        "rectified_linear": ("feed_forward*.contract",),
        "scores": ("attention.score_product",),
        "contexts": ("attention.context_product",),
    }

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(config, lambda config: make_layer(config, make_attention(config)))
