"""The positional convolution: relative position from a wide grouped convolution over frames.

Reference: wav2vec 2.0, Baevski et al., 2020, https://arxiv.org/abs/2006.11477, section 2; the
weight is normalised per tap (weight norm over dimension 2), Salimans and Kingma, 2016,
https://arxiv.org/abs/1602.07868.

Notation: B batch, T frames, D width.
"""

import math

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.functional import conv1d, pad
from torch.nn.utils.parametrizations import weight_norm


class PositionalConvolution(nn.Module):
    """GELU of a convolution over ``kernel`` frames, to be added to its input."""

    def __init__(self, dim: int, *, kernel: int, groups: int) -> None:
        super().__init__()
        conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        if conv.weight.is_meta:
            # a norm on the meta device imports torch's compiler, for 1.5 s of every process
            with torch.device("cpu"):
                self.conv = weight_norm(conv.to_empty(device="cpu"), dim=2).to("meta")
        else:
            self.conv = weight_norm(conv, dim=2)
        self.activation = nn.GELU()
        # an even kernel centred by padding on both sides gives one frame too many
        self.surplus = 1 - kernel % 2

    def reset_parameters(self) -> None:
        """Draw the weight from N(0, 4 / (kernel · dim)), as wav2vec 2.0 does; the bias is 0."""
        dim, _, kernel = self.conv.weight.shape
        with torch.no_grad():
            # assigning to a parametrized weight sets its direction and its length
            self.conv.weight = torch.empty_like(self.conv.weight).normal_(
                0.0, math.sqrt(4.0 / (kernel * dim))
            )
            self.conv.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D); frames of padding must be 0 in ``x``, as beyond its ends."""
        x = x.transpose(1, 2)
        y = self._with_one_tap_more(x) if self._half_on_cpu else self.conv(x)  # (B, D, T + surplus)
        y = y[..., : x.shape[2]] if self.surplus else y
        return self.activation(y).transpose(1, 2)

    @property
    def _half_on_cpu(self) -> bool:
        plain = isinstance(self.conv, nn.Conv1d) and self.conv.weight.device.type == "cpu"
        return plain and torch.is_autocast_enabled("cpu")

    def _with_one_tap_more(self, x: Tensor) -> Tensor:
        """Convolve with a last tap of 0, which changes nothing but what oneDNN does.

        Its bfloat16 convolution of 8 channels a group, as nanos have them, with a multiple of 16
        taps is wrong: a relative error of 1.1 (torch 2.13, on a CPU with AMX).
        """
        weight = pad(self.conv.weight, (0, 1))
        return conv1d(x, weight, self.conv.bias, padding=self.conv.padding, groups=self.conv.groups)
