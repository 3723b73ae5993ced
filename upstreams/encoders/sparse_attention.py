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

Only visible scores are computed. Frames 1 … T - 1 fall into N = ⌈(T - 1) / l⌉ blocks of l: those
with the same w. The last s = min(c + 1, l) frames of a block are summaries, the first l - s are
private to the block's own queries. So A(i) is, without a frame counted twice,

    {0 if i ≤ l, or if c = l}  ∪  all summaries  ∪  the private frames of i's block,

and query 0 goes with block 0. One softmax runs over the three together. Time and memory grow with
T·(l + |S|) in place of T².

Notation: B batch, T frames, H heads, E width of a head, N blocks, l stride, s summaries a block.
"""

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


class SparseSelfAttention(SelfAttention):
    """Self-attention whose every head sees A(i) only.

    With ``gather`` off it computes all T² scores and hides those outside A(i): the same function
    in dense arithmetic, a reference for tests and timings. Both have the same parameters.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        stride: int,
        expressivity: int,
        dropout: float = 0.0,
        gather: bool = True,
    ) -> None:
        super().__init__(dim, heads, dropout=dropout)
        self.stride = stride
        self.expressivity = expressivity
        self.gather = gather

    def attend(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
        """Map queries, keys and values, each (B, H, T, E), to contexts of that shape."""
        if not self.gather:
            return super().attend(query, key, value, valid)
        frames = query.shape[-2]
        shared_keys, private_keys = self._split_frames(key)  # (B, H, 1 + N·s, E), (B, H, N, l-s, E)
        shared_values, private_values = self._split_frames(value)
        scores = [self.score_product(query, shared_keys.transpose(-1, -2))]  # (B, H, T, 1 + N·s)
        if self._private:
            scores.append(self._by_block(self.score_product, query, private_keys.transpose(-1, -2)))
        # of its own storage after `cat`, so changing it in place is safe
        joint = torch.cat(scores, dim=-1).mul_(self.scale)  # (B, H, T, 1 + N·s + l - s)
        visible = self._gathered_visible(frames, valid, query.device)
        # a finite floor gives hidden keys a weight of exactly 0, and no NaN to a row of them
        joint = joint.masked_fill_(~visible, torch.finfo(joint.dtype).min)
        weights = self.dropout(joint.softmax(dim=-1))
        shared = shared_keys.shape[-2]
        context = self.context_product(weights[..., :shared], shared_values)
        if self._private:
            context = context + self._by_block(
                self.context_product, weights[..., shared:], private_values
            )
        return context

    def visible(self, frames: int, valid: Tensor | None, device: torch.device) -> Tensor:
        """Return A(i) without the padded keys, (1 or B, 1, T, T) bool: the dense reference's."""
        pattern = sparse_mask(
            frames, stride=self.stride, expressivity=self.expressivity, device=device
        )[None, None]
        return pattern if valid is None else pattern & valid[:, None, None, :]

    @property
    def _private(self) -> int:
        """Frames of a block that only its own queries see, l - s; none if c is l - 1 or l."""
        return self.stride - min(self.expressivity + 1, self.stride)

    def _blocks(self, x: Tensor) -> Tensor:
        """Cut frames 1 … T - 1 of (…, T, E) into blocks, (…, N, l, E); zeros fill the last."""
        frames = x.shape[-2]
        blocks = max(1, -(-(frames - 1) // self.stride))  # one, of zeros, if there is frame 0 only
        # by `cat`, whose layout in memory is the same whether or not there is something to fill:
        # `pad` by nothing keeps the layout it was given, which a trace at another length gets wrong
        filling = x.new_zeros(*x.shape[:-2], blocks * self.stride - (frames - 1), x.shape[-1])
        return torch.cat([x[..., 1:, :], filling], dim=-2).unflatten(-2, (blocks, self.stride))

    def _split_frames(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split (…, T, E) into frame 0 and the summaries, (…, 1 + N·s, E), and private frames."""
        blocks = self._blocks(x)
        summaries = blocks[..., self._private :, :].flatten(-3, -2)
        return torch.cat([x[..., :1, :], summaries], dim=-2), blocks[..., : self._private, :]

    def _by_block(self, product: torch.nn.Module, left: Tensor, right: Tensor) -> Tensor:
        """Multiply each row of (…, T, K) with the matrix of its block in (…, N, K, M).

        Row 0 has no block of its own and takes block 0's matrix.
        """
        frames = left.shape[-2]
        first = product(left[..., :1, :], right[..., 0, :, :])  # (…, 1, M)
        others = product(self._blocks(left), right).flatten(-3, -2)  # (…, N·l, M)
        return torch.cat([first, others[..., : frames - 1, :]], dim=-2)

    def _gathered_visible(self, frames: int, valid: Tensor | None, device: torch.device) -> Tensor:
        """Return which of its gathered keys each query sees, (1 or B, 1, T, 1 + N·s + l - s)."""
        if valid is None:
            valid = torch.ones(1, frames, dtype=torch.bool, device=device)
        shared, private = self._split_frames(valid[..., None])  # what fills the last block is False
        rows = shared[:, None, :, 0].expand(-1, frames, -1)  # (B, T, 1 + N·s)
        if self.expressivity < self.stride:  # frame 0 is no summary: only its own window sees it
            row = torch.arange(frames, device=device)[:, None]
            column = torch.arange(rows.shape[-1], device=device)
            rows = rows & ((row <= self.stride) | (column > 0))
        if self._private:
            own = private[..., 0]  # (B, N, l - s)
            others = own.repeat_interleave(self.stride, dim=1)[:, : frames - 1]
            rows = torch.cat([rows, torch.cat([own[:, :1], others], dim=1)], dim=-1)
        return rows[:, None]
