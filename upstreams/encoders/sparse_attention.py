"""Fixed factorised sparse attention: each frame sees its own window and a summary of all windows.

Reference: Child et al., 2019, https://arxiv.org/abs/1904.10509, section 4.3 ("fixed" pattern), in
the bidirectional form of fairseq's SparseMultiheadAttention, whose two patterns are merged in every
head. Published code that carries this name can turn out dense at run time: fairseq's default
forward never applies its mask. Here the mask is applied, and tests move forbidden values to see it.

Query i of T frames may see A(i) = W(i) ∪ S, with stride l and expressivity c:

- W(i), its window: keys w·l … min((w + 1)·l, T - 1), where w = ⌈i / l⌉ - 1 and w = 0 for i = 0;
  neighbouring windows share the frame on their boundary;
- S, the summaries, one set for all queries: keys j < T in k·l - c … k·l for some k ≥ 1.

Cutting a batch at T longer than an utterance and hiding its padding leaves the same sets, so a
neighbour's length cannot change what a frame sees.

Notation: B batch, T frames, D width, H heads.
"""

from functools import lru_cache

import torch
from torch import Tensor

from superbit.upstreams.encoders.attention import SelfAttention


def sparse_mask(
    frames: int, *, stride: int, expressivity: int, device: torch.device | None = None
) -> Tensor:
    """Return which key (column) each query (row) may see, (T, T) bool, in closed form."""
    frame = torch.arange(frames, device=device)
    # ⌈i / l⌉ - 1, and 0 for i = 0 (as integers: floor((i - 1) / l) is -1 there)
    window = torch.div(frame - 1, stride, rounding_mode="floor").clamp(min=0)[:, None]  # (T, 1)
    in_window = (frame >= window * stride) & (frame <= (window + 1) * stride)  # (T, T)
    # each summary ends on its window's boundary, a multiple of l; the first one is l, never 0
    boundary = torch.div(frame + stride - 1, stride, rounding_mode="floor").clamp(min=1) * stride
    in_summary = boundary - frame <= expressivity  # (T,)
    return in_window | in_summary


# few entries: the layers of one forward pass share one, and at 80 s of audio each takes 16 MB
@lru_cache(maxsize=8)
def _cached_sparse_mask(
    frames: int, stride: int, expressivity: int, device: torch.device
) -> Tensor:
    # made outside inference mode: a later backward pass may have to keep it
    with torch.inference_mode(False):
        return sparse_mask(frames, stride=stride, expressivity=expressivity, device=device)


class SparseSelfAttention(SelfAttention):
    """Self-attention whose every head sees A(i) only: dense arithmetic under the exact mask."""

    def __init__(
        self, dim: int, heads: int, *, stride: int, expressivity: int, dropout: float = 0.0
    ) -> None:
        super().__init__(dim, heads, dropout=dropout)
        self.stride = stride
        self.expressivity = expressivity

    def visible(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Return A(i) without the padded keys, (1 or B, 1, T, T) bool."""
        if torch.compiler.is_compiling():  # a traced tensor must not outlive its trace
            pattern = sparse_mask(
                x.shape[1], stride=self.stride, expressivity=self.expressivity, device=x.device
            )
        else:
            pattern = _cached_sparse_mask(x.shape[1], self.stride, self.expressivity, x.device)
        pattern = pattern[None, None]
        return pattern if valid is None else pattern & valid[:, None, None, :]
