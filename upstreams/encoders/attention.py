"""Multi-head self-attention from leaf modules, each of which can be swapped for a 1-bit twin.

References:
- Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, section 3.2.
- BiT, Liu et al., 2022, https://arxiv.org/abs/2205.13016: in the twins the operands of both matrix
  products are binarized as well as the linear layers, hence a module for each product.

Notation: B batch, T frames, D width, H heads, E = D / H width of a head.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

# Another way to compute what a block's forward computes, to the bit: called with the block and the
# arguments; None where it does not fit. A twin's blocks have one, which computes by bits.
Shortcut = Callable[[Any, Tensor, Tensor | None], Tensor | None]


class MatrixProduct(nn.Module):
    """``left @ right`` as a module, so that a twin with 1-bit operands can take its place."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Map (…, M, K) and (…, K, N) to (…, M, N)."""
        return left @ right


class SelfAttention(nn.Module):
    """Dense scaled dot-product attention over the frames of each utterance."""

    shortcut: Shortcut | None = None

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 1.0 / math.sqrt(dim // heads)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.score_product = MatrixProduct()
        self.dropout = nn.Dropout(dropout)
        self.context_product = MatrixProduct()
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); ``valid`` is (B, T) bool, None where no frame is padding."""
        if self.shortcut is not None and (y := self.shortcut(self, x, valid)) is not None:
            return y
        query = self._split_heads(self.query(x))  # (B, H, T, E)
        key = self._split_heads(self.key(x))
        value = self._split_heads(self.value(x))
        context = self.attend(query, key, value, valid)
        if valid is not None:
            # only a padded query can have no visible key, as every frame sees itself
            context = context.masked_fill(~valid[:, None, :, None], 0.0)
        return self.output(context.transpose(1, 2).flatten(2))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
        """Map queries, keys and values, each (B, H, T, E), to contexts of that shape.

        The context of a padded query is finite and means nothing.
        """
        scores = self.score_product(query, key.transpose(-1, -2)) * self.scale  # (B, H, T, T)
        visible = self.visible(query.shape[-2], valid, query.device)
        if visible is not None:
            # a finite floor gives hidden keys a weight of exactly 0, and no NaN to a row of them
            scores = scores.masked_fill_(~visible, torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(dim=-1))
        return self.context_product(weights, value)  # (B, H, T, E)

    def visible(self, frames: int, valid: Tensor | None, device: torch.device) -> Tensor | None:
        """Return which keys each query may see, broadcasting to (B, H, T, T); None is all."""
        return None if valid is None else valid[:, None, None, :]

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, E)
