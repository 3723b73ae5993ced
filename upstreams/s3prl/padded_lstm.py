"""LSTMs over utterances of different lengths, an order of magnitude faster on CPUs.

torch runs a packed sequence whose utterances differ in length step by step, and its backward pass
takes ten times as long as that of utterances of one length. s3prl's heads of ASR and SF pack. Here
each direction runs over the padded batch instead: forwards, padding comes after all that counts;
backwards, each utterance is turned around within its own length. What padding gives is dropped.
The same sums, rounded otherwise (3e-7 relative); tests hold it against torch's own.

Notation: B batch, T frames of the longest, C input width, H width of a direction.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class PaddedLSTM(nn.LSTM):
    """`nn.LSTM` that computes a `PackedSequence` over padded utterances."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As `nn.LSTM`; of a packed sequence the final states are not given back, but None."""
        plain = self.num_layers == 1 and not self.proj_size and self.bias
        if hx is not None or not plain or not isinstance(input, PackedSequence):
            return super().forward(input, hx)
        forwards, backwards, shape = _rows(input)
        states = [_packed(self._run(_padded(input.data, forwards, shape), ""), forwards)]
        if self.bidirectional:
            turned = _padded(input.data, backwards, shape)
            states.append(_packed(self._run(turned, "_reverse"), backwards))
        return input._replace(data=torch.cat(states, dim=-1)), None

    def _run(self, x: Tensor, direction: str) -> Tensor:
        """Map (B, T, C) to (B, T, H), from zero states, in one direction."""
        weights = [
            getattr(self, f"{name}_l0{direction}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        zeros = x.new_zeros(1, x.shape[0], self.hidden_size)
        # has biases, layers, dropout, training, bidirectional, batch first
        return torch.lstm(x, (zeros, zeros), weights, True, 1, 0.0, self.training, False, True)[0]


def without_packing(module: nn.Module) -> None:
    """Let every LSTM of ``module`` compute packed sequences as `PaddedLSTM` does, in place."""
    for part in module.modules():
        if type(part) is nn.LSTM:
            part.__class__ = PaddedLSTM


def _rows(packed: PackedSequence) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Return where each packed frame is among B · T padded ones, (frames,), and (B, T).

    First as utterances run forwards, then with each turned around within its own length.
    """
    sizes = packed.batch_sizes
    batch, frames = int(sizes[0]), len(sizes)
    order = packed.sorted_indices
    order = torch.arange(batch) if order is None else order.cpu()
    frame, rank = (torch.arange(batch) < sizes[:, None]).nonzero(as_tuple=True)
    lengths = (sizes[:, None] > torch.arange(batch)).sum(dim=0)
    first = order[rank] * frames
    where = packed.data.device
    forwards, backwards = first + frame, first + lengths[rank] - 1 - frame
    return forwards.to(where), backwards.to(where), (batch, frames)


def _padded(data: Tensor, rows: Tensor, shape: tuple[int, int]) -> Tensor:
    """Spread packed frames (frames, C) over (B, T, C), zeros between."""
    batch, frames = shape
    x = data.new_zeros(batch * frames, data.shape[1]).index_copy(0, rows, data)
    return x.view(batch, frames, -1)


def _packed(states: Tensor, rows: Tensor) -> Tensor:
    """Collect packed frames (frames, H) from (B, T, H)."""
    return states.flatten(0, 1).index_select(0, rows)
