"""Batch normalization whose statistics are those of the valid frames, whatever padding holds.

Reference: Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167.

Notation: B batch, T frames, C channels, n valid frames of the batch.
"""

import torch
import torch.nn as nn
from torch import Tensor


class MaskedBatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` (parameters, buffers, evaluation) that leaves padding out in training.

    A batch of a single frame, which torch refuses in training, is normalised to 0.
    """

    # never None here: running statistics are always kept
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, channels: int, *, momentum: float = 0.1) -> None:
        super().__init__(channels, momentum=momentum)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, C, T) to (B, C, T); ``valid`` is (B, T) bool, None where no frame is padding."""
        batch, _, frames = x.shape
        if not self.training or (valid is None and batch * frames > 1):
            return super().forward(x)
        if valid is None:
            valid = torch.ones(batch, frames, dtype=torch.bool, device=x.device)
        # under autocast, half precision is too coarse for sums over frames
        values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        mask = valid[:, None, :]  # (B, 1, T)
        count = valid.sum()
        mean = values.where(mask, 0.0).sum(dim=(0, 2)) / count  # (C,)
        centred = values - mean[:, None]
        variance = centred.where(mask, 0.0).square().sum(dim=(0, 2)) / count
        self._track(mean, variance, count)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None] + self.bias[:, None]).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, the variance by its unbiased estimate, as torch does."""
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked.add_(1)
