"""Operations of s3prl's heads in fewer steps, to the same bits.

Written out, both build an autograd graph of several nodes an utterance, and the backward pass of
``pad_sequence`` copies the whole batch for each of them. With features from a store that was most
of a step.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padding_value: float, *sequences: Tensor) -> Tensor:
        ctx.lengths = [len(sequence) for sequence in sequences]
        return rnn.pad_sequence(list(sequences), batch_first=True, padding_value=padding_value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(gradient[i, :length] for i, length in enumerate(ctx.lengths))


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0
) -> Tensor:
    """As torch's; a gradient goes back as views, without copies."""
    if batch_first and any(sequence.requires_grad for sequence in sequences):
        return _Pad.apply(padding_value, *sequences)
    return rnn.pad_sequence(list(sequences), batch_first, padding_value)


class _MeanOverTime(nn.Module):
    """s3prl's mean over an utterance's frames; of a single frame, that frame."""

    def __init__(self, pooling: nn.Module) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, features: Tensor, lengths: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """Map (B, T, D) and (B,) to (B, D) and the lengths 1."""
        if features.shape[1] == 1:
            return features[:, 0], torch.ones(len(features)).long()
        return self.pooling(features, lengths, **options)


def make_lean(head: nn.Module) -> None:
    """Put what is faster in the place of s3prl's mean pooling; no weight changes its name."""
    from s3prl.downstream.model import MeanPooling

    for parent in list(head.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, MeanPooling):
                setattr(parent, name, _MeanOverTime(child))


@contextmanager
def lean(head: nn.Module) -> Iterator[None]:
    """Within it the head's module pads with :func:`pad_sequence`."""
    module = sys.modules[type(head).__module__]
    before = getattr(module, "pad_sequence", None)
    if before is None:
        yield
        return
    module.pad_sequence = pad_sequence  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.pad_sequence = before  # type: ignore[attr-defined]
