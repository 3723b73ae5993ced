"""The positional convolution: relative position from a wide grouped convolution over frames.

In inference on a CPU it is computed by Fourier transforms of a few windows of frames, where it is
one small matrix product a frequency.

Reference: wav2vec 2.0, Baevski et al., 2020, https://arxiv.org/abs/2006.11477, section 2; the
weight is normalised per tap (weight norm over dimension 2), Salimans and Kingma, 2016,
https://arxiv.org/abs/1602.07868.

Notation: B batch, T frames, D width, G groups, C = D / G, F frequencies.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.functional import conv1d, gelu, pad
from torch.nn.utils.parametrizations import weight_norm

from superbit.upstreams.encoders.frozen import is_front_end_inference, kept

_WIDE = 32  # taps from which on Fourier transforms are faster


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
        if (y := self._by_spectrum(x)) is not None:
            return y
        x = x.transpose(1, 2)
        y = self._with_one_tap_more(x) if self._half_on_cpu else self.conv(x)  # (B, D, T + surplus)
        y = y[..., : x.shape[2]] if self.surplus else y
        return self.activation(y).transpose(1, 2)

    def _by_spectrum(self, x: Tensor) -> Tensor | None:
        """Return what `forward` does, in inference; else None."""
        if not is_front_end_inference(self, x) or self.conv.kernel_size[0] < _WIDE:
            return None
        spectrum = kept(self, list(self.parameters()), lambda: Spectrum.of(self.conv))
        return None if spectrum is None else spectrum.convolved(x)

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """A grouped convolution over frames in the frequencies of windows, the weight norm taken.

    Attributes:
        weight: (F · G, C in, C out), complex.
        bias: (D,)
        taps: of the kernel; ``window`` frames are transformed together, a power of two.
        before: taps before a frame's own.
    """

    weight: Tensor
    bias: Tensor
    taps: int
    window: int
    before: int

    @classmethod
    def of(cls, conv: nn.Conv1d) -> "Spectrum":
        """Transform the weight of a convolution with a bias."""
        weight, bias = conv.weight.detach(), conv.bias
        assert bias is not None
        taps = weight.shape[-1]
        window = 1 << (2 * taps - 1).bit_length()
        by_group = weight.unflatten(0, (conv.groups, -1))  # (G, C out, C in, taps)
        shape = window // 2 + 1, conv.groups, *by_group.shape[2:0:-1]
        spectrum = torch.empty(shape, dtype=torch.complex64)  # (F, G, C in, C out)
        for group, taps_of in enumerate(by_group):  # by and by, as all at once take much memory
            # torch's convolution is a correlation, whose transform is the conjugate
            spectrum[:, group] = torch.fft.rfft(taps_of, n=window).conj().permute(2, 1, 0)
        return cls(
            weight=spectrum.flatten(0, 1),
            bias=bias.detach().clone(),
            taps=taps,
            window=window,
            before=taps // 2,
        )

    def convolved(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to GELU of the convolution, (B, T, D)."""
        batch, frames, dim = x.shape
        channels = self.weight.shape[1]
        step = self.window - self.taps + 1  # frames of a window that see no other window's
        count = -(-frames // step)
        total = count * step + self.taps - 1
        padded = pad(x, (0, 0, self.before, total - self.before - frames))  # (B, total, D)
        rows = padded.transpose(1, 2).contiguous()  # (B, D, total)
        windows = rows.unfold(2, self.window, step)  # (B, D, windows, window)
        x_of = torch.fft.rfft(windows).permute(3, 1, 0, 2)  # (F, D, B, windows)
        left = x_of.reshape(-1, channels, batch * count).transpose(1, 2)  # (F · G, rows, C)
        y_of = torch.bmm(left, self.weight).view(-1, dim // channels, batch, count, channels)
        # (B, G, C, windows, F)
        y = torch.fft.irfft(y_of.permute(2, 1, 4, 3, 0).contiguous(), n=self.window)
        y = y[..., :step].reshape(batch, dim, count * step)[..., :frames].transpose(1, 2)
        seen = self._seen(x)
        return gelu((y if seen is None else y.masked_fill(~seen[..., None], 0.0)) + self.bias)

    def _seen(self, x: Tensor) -> Tensor | None:
        """Return which frames see any that is not 0, (B, T); None where all do.

        The others, padding, are 0 to the bit by a convolution, and all but 0 by a transform, which
        a norm would make much of.
        """
        there = (x != 0).any(-1)
        if there.all():
            return None
        counts = pad(there, (self.before + 1, self.taps - 1 - self.before)).cumsum(1)
        return counts[:, self.taps :] > counts[:, : -self.taps]
