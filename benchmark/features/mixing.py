"""s3prl's weighted sum of layers over a batch's hidden states, for several featurizers at once.

A batch holds hundreds of megabytes, and a sum does next to nothing with each number of them: what
it costs is their way through memory. So a batch is read in chunks that stay in a core's cache, once
for the sums of all featurizers and once more for all their gradients. Chunks do not depend on who
else sums, and each sum is taken by itself: a featurizer gets what it would get alone, to the bit.

Notation: L layers, F frames of all utterances of a batch one after the other, D width.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

# Of float32: what two cores of today's servers keep for themselves, with room for the sums.
_CHUNK_BYTES = 1 << 21


class Room:
    """Memory that is used over and over: fresh memory costs more than what is written into it."""

    def __init__(self, device: str) -> None:
        self._numbers = torch.empty(0, device=device)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self._numbers.device

    def take(self, *shape: int) -> Tensor:
        """Return a tensor of float32 with anything in it; the next call gives the same memory."""
        size = torch.Size(shape).numel()
        if self._numbers.numel() < size:
            self._numbers = torch.empty(size, device=self._numbers.device)
        return self._numbers[:size].view(shape)


class Batch:
    """A batch's hidden states, without gradient: any number of heads can train on it.

    Args:
        states: (L, frames, D) of each utterance, on any device, in any precision.
        room: where chunks are put; one room, one batch at a time.

    Attributes:
        frames: of each utterance; one where the mean over time is stored.
    """

    def __init__(self, states: Sequence[Tensor], *, room: Room) -> None:
        self._states, self._room = list(states), room
        self.frames = [each.shape[1] for each in states]
        self.layers, _, self.dim = states[0].shape
        self._starts = [0, *accumulate(self.frames)]
        self._only: Tensor | None = None

    def layer(self, index: int) -> list[Tensor]:
        """A copy of one layer's features, float32 (frames, D) an utterance."""
        return [
            each[index].to(self._room.device, torch.float32, copy=True) for each in self._states
        ]

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield frames and their (L, frames, D) as float32; the next one takes its memory."""
        total = self._starts[-1]
        size = max(1, total)
        if self._room.device.type == "cpu":
            size = max(1, _CHUNK_BYTES // (4 * self.layers * self.dim))
        for start in range(0, total, size):
            frames = slice(start, min(start + size, total))
            yield frames, self.chunk(frames)

    def chunk(self, frames: slice) -> Tensor:
        """Return (L, frames, D) of some frames, as float32."""
        if self._only is not None:
            return self._only
        chunk = self._room.take(self.layers, frames.stop - frames.start, self.dim)
        if chunk.shape[1] == self._starts[-1]:  # all there is: it need not be written again
            self._only = chunk
            if all(each.device == chunk.device for each in self._states):
                return torch.cat(self._states, dim=1, out=chunk)
        index, at = bisect_right(self._starts, frames.start) - 1, frames.start
        while at < frames.stop:
            first = at - self._starts[index]
            count = min(self.frames[index] - first, frames.stop - at)
            written = slice(at - frames.start, at - frames.start + count)
            chunk[:, written] = self._states[index][:, first : first + count]
            index, at = index + 1, at + count
        return chunk


class WeightedSums:
    """A batch's weighted sums of layers, by each featurizer's own weights.

    The same sums as ``Featurizer.forward`` of s3prl, over frames that are there, where s3prl's
    copies all layers twice, padding included. Whoever trains on a sum calls :meth:`backward`
    afterwards: gradients stop at the sums until then.

    Args:
        batch: must not be followed by another in its room until this is done with.
        featurizers: s3prl's, of as many layers as the batch.
    """

    def __init__(self, batch: Batch, featurizers: Sequence[nn.Module]) -> None:
        self._batch = batch
        self._weights: dict[nn.Module, Tensor] = {}  # that sum to one
        if batch.layers == 1:  # s3prl weighs nothing then
            self._sums = dict.fromkeys(featurizers, torch.cat(batch.layer(0)))
            return
        with torch.no_grad():
            for each in featurizers:
                self._weights[each] = torch.softmax(each.get_parameter("weights"), dim=-1)
            self._sums = self._sum()
        if torch.is_grad_enabled():
            for own in self._sums.values():
                own.requires_grad_()

    def of(self, featurizer: nn.Module) -> list[Tensor]:
        """Return one featurizer's sums, (frames, D) an utterance."""
        return list(self._sums[featurizer].split(self._batch.frames))

    @torch.no_grad()
    def backward(self) -> None:
        """Add to the featurizers' gradients what came back to their sums."""
        came_back = {
            each: total.grad
            for each, total in self._sums.items()
            if each in self._weights and total.grad is not None
        }
        if not came_back:
            return
        gradients = {each: torch.zeros_like(self._weights[each]) for each in came_back}
        for frames, chunk in self._batch.chunks():
            rows = chunk.view(self._batch.layers, -1)
            for each, gradient in came_back.items():
                gradients[each] += rows @ gradient[frames].reshape(-1)
        for each, gradient in gradients.items():
            own = self._weights[each]
            through_softmax = own * (gradient - own @ gradient)
            raw = each.get_parameter("weights")
            raw.grad = through_softmax if raw.grad is None else raw.grad + through_softmax

    def _sum(self) -> dict[nn.Module, Tensor]:
        sums = {
            each: torch.empty(sum(self._batch.frames), self._batch.dim, device=own.device)
            for each, own in self._weights.items()
        }
        for frames, chunk in self._batch.chunks():
            rows = chunk.view(self._batch.layers, -1)
            for each, own in self._weights.items():
                torch.mm(own[None], rows, out=sums[each][frames].view(1, -1))
        return sums
