"""Self-attention whose scores also depend on how far apart two frames are.

References:
- Transformer-XL, Dai et al., 2019, https://arxiv.org/abs/1901.02860, section 3.3.
- Conformer, Gulati et al., 2020, https://arxiv.org/abs/2005.08100, section 2.1, which sees both
  sides, so distances run from T - 1 (a key far in the past) to -(T - 1).

The score of query i and key j is ((q_i + u) · k_j + (q_i + v) · W r_{i-j}) / √E, where r is a
sinusoid of the distance and W, u and v are learnt.

Notation: B batch, T frames, D width, H heads, E = D / H width of a head.
"""

import math
from functools import lru_cache

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from superbit.upstreams.encoders.attention import MatrixProduct, SelfAttention


def distance_sinusoids(frames: int, dim: int, *, device: torch.device | None = None) -> Tensor:
    """Return r for the distances T - 1, …, 0, …, -(T - 1), as (2 T - 1, D).

    Columns 2k and 2k + 1 are the sine and the cosine of distance · 10000^(-2k / D).
    """
    distance = torch.arange(frames - 1, -frames, -1, device=device, dtype=torch.float32)
    pair = torch.arange(0, dim, 2, device=device, dtype=torch.float32)
    angle = distance[:, None] * torch.exp(pair * (-math.log(10_000.0) / dim))  # (2 T - 1, ⌈D / 2⌉)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :dim]


# few entries: the layers of one forward pass share one
@lru_cache(maxsize=8)
def _cached_sinusoids(frames: int, dim: int, device: torch.device) -> Tensor:
    # made outside inference mode: a later backward pass may have to keep it
    with torch.inference_mode(False):
        return distance_sinusoids(frames, dim, device=device)


def from_distance_to_key(scores: Tensor) -> Tensor:
    """Pick from scores by distance (…, T, 2 T - 1) those by key (…, T, T).

    Entry (i, j) is the one for the distance i - j, column T - 1 - i + j. Rows that begin one
    column earlier each time are, once a column is appended, rows of a view of width 2 T - 1.
    """
    frames = scores.shape[-2]
    width = 2 * frames - 1
    flat = F.pad(scores, (0, 1)).flatten(-2)  # (…, T · 2 T)
    shifted = flat[..., frames - 1 : frames - 1 + frames * width]
    return shifted.unflatten(-1, (frames, width))[..., :frames]


class RelativeSelfAttention(SelfAttention):
    """Dense attention over content and distance."""

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__(dim, heads, dropout=dropout)
        self.position = nn.Linear(dim, dim, bias=False)  # W
        self.content_bias = nn.Parameter(torch.empty(heads, dim // heads))  # u
        self.position_bias = nn.Parameter(torch.empty(heads, dim // heads))  # v
        self.position_product = MatrixProduct()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start both biases at 0; the linear layers are drawn by the model."""
        nn.init.zeros_(self.content_bias)
        nn.init.zeros_(self.position_bias)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
        """Map queries, keys and values, each (B, H, T, E), to contexts of that shape.

        The context of a padded query is finite and means nothing.
        """
        frames = query.shape[-2]
        distance = self._split_heads(self.position(self._sinusoids(query))[None])
        # (1, H, 2 T - 1, E)
        by_content = self.score_product(
            query + self.content_bias[:, None], key.transpose(-1, -2)
        )  # (B, H, T, T)
        by_position = self.position_product(
            query + self.position_bias[:, None], distance.transpose(-1, -2)
        )  # (B, H, T, 2 T - 1)
        scores = (by_content + from_distance_to_key(by_position)) * self.scale
        visible = self.visible(frames, valid, query.device)
        if visible is not None:
            # a finite floor gives hidden keys a weight of exactly 0, and no NaN to a row of them
            scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(dim=-1))
        return self.context_product(weights, value)  # (B, H, T, E)

    def _sinusoids(self, like: Tensor) -> Tensor:
        """Return (2 T - 1, D) for the T frames of ``like``, in its precision and place."""
        frames, dim = like.shape[-2], self.position.in_features
        if torch.compiler.is_compiling():  # a traced tensor must not outlive its trace
            return distance_sinusoids(frames, dim, device=like.device).to(like.dtype)
        return _cached_sinusoids(frames, dim, like.device).to(like.dtype)
