"""FastConv, the front end: from a waveform to one feature vector every 20 ms.

References:
- SEW, Wu et al., 2021, https://arxiv.org/abs/2109.06870: the compact feature extractor "WFE-C",
  in which a pointwise convolution follows each strided one.
- Group normalization after the first layer only: wav2vec 2.0, Baevski et al., 2020,
  https://arxiv.org/abs/2006.11477.

Notation: B batch, N samples, T frames, C channels.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.functional import pad

from superbit.upstreams.encoders import frontend_kernels
from superbit.upstreams.encoders.frozen import is_front_end_inference, kept
from superbit.upstreams.hubert_config import ConvLayer

# A waveform that passes alone is convolved as if it ended at a multiple of so many samples: oneDNN
# compiles a convolution for every new length, which took longer than the convolution.
_LENGTH_STEP = 2_560


class OwnGELU(nn.GELU):
    """GELU in the memory of its input, which nothing else reads, where no gradient is wanted."""

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of its shape."""
        if torch.is_grad_enabled():
            return super().forward(input)
        activated: Tensor = torch.ops.aten.gelu_(input)
        return activated


class ConvBlock(nn.Module):
    """Convolution without bias or padding, an optional norm over time, GELU."""

    def __init__(
        self, channels_in: int, channels_out: int, *, kernel: int, stride: int, norm: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, stride=stride, bias=False)
        # one group a channel: each channel is normalised over the frames of its utterance
        self.norm = nn.GroupNorm(channels_out, channels_out) if norm else nn.Identity()
        self.activation = OwnGELU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels in, T) to (B, channels out, (T - kernel) // stride + 1)."""
        return self.activation(self.norm(self.conv(x)))


class FastConv(nn.Module):
    """The stack of convolutions; only the first is followed by a norm.

    In inference on a CPU its layers are products of windows, see `frontend_kernels`.

    No layer pads, so a frame depends on the samples of its receptive field and on the norm's
    statistics. These run over all N samples, zeros after a short waveform included: whoever wants
    an utterance's features to be its own passes it alone.
    """

    def __init__(self, conv_layers: Sequence[ConvLayer]) -> None:
        super().__init__()
        blocks = []
        channels_in = 1
        for index, (channels_out, kernel, stride) in enumerate(conv_layers):
            blocks.append(
                ConvBlock(channels_in, channels_out, kernel=kernel, stride=stride, norm=index == 0)
            )
            channels_in = channels_out
        self.blocks = nn.Sequential(*blocks)

    def forward(self, samples: Tensor) -> Tensor:
        """Map waveforms (B, N) to features (B, T, C)."""
        held = self._held(samples)
        if held is not None:
            return torch.stack([frontend_kernels.features(held, one) for one in samples])
        return self.blocks(samples[:, None, :]).transpose(1, 2)

    def alone(self, samples: Tensor) -> Tensor:
        """Map one waveform (N,) to its features (T, C).

        The same as a batch of one up to rounding. How it is computed depends on N alone.
        """
        held = self._held(samples)
        if held is not None:
            return frontend_kernels.features(held, samples)
        first, *further = cast(list[ConvBlock], list(self.blocks))
        length = len(samples)
        # Only there: costs are counted on the meta device.
        surplus = -length % _LENGTH_STEP if samples.device.type == "cpu" else 0
        x = pad(samples, (0, surplus))[None, None]
        # The norm sees the utterance's own frames; further layers look back only.
        length = _convolved(length, first.conv)
        x = first.conv(x)
        own = first.activation(first.norm(x[..., :length].contiguous()))
        x = pad(own, (0, x.shape[-1] - length))
        for block in further:
            x, length = block(x), _convolved(length, block.conv)
        return x[0, :, :length].T

    def _held(self, samples: Tensor) -> frontend_kernels.FrontEnd | None:
        """Return the weights as kernels read them, in inference; else None."""
        blocks = cast(list[ConvBlock], list(self.blocks))
        if not is_front_end_inference(self, samples) or not frontend_kernels.fits(blocks):
            return None
        length = samples.shape[-1]
        for block in blocks:
            length = _convolved(length, block.conv)
        if length < 1:
            return None
        held: frontend_kernels.FrontEnd | None = kept(
            self, list(self.parameters()), lambda: frontend_kernels.prepared(blocks)
        )
        return held


def _convolved(length: int, layer: nn.Conv1d) -> int:
    """Frames that a layer makes of ``length``."""
    return (length - layer.kernel_size[0]) // layer.stride[0] + 1
