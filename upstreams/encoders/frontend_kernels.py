"""FastConv in inference: its layers as products of windows, a few frames through all of them.

Torch's convolutions take the channels apart, which small kernels pay for, and oneDNN compiles each
for every new length. Here the channels of a frame lie together: a layer is one product of windows
and weights, with GELU while the sums are in registers
(`superbit.upstreams.quantization.kernels.convolutions`). Each sum runs over its inputs in one
order, so a frame's features do not depend on which frames are computed with it.

Notation: N samples, T frames, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from superbit.upstreams.quantization.kernels import choose


@dataclass(frozen=True, kw_only=True, eq=False)
class FrontEnd:
    """A stack of convolutions as the kernels read it.

    Attributes:
        weights: of each layer, arranged; the channels are filled up to whole panels with zeros.
        plan: (L, 5) integers, see `convolutions`.
        channels: of the last layer.
        gain, bias: of the first layer's norm, (C filled up,) float64.
        epsilon: of that norm.
    """

    weights: Sequence[np.ndarray]
    plan: np.ndarray
    channels: int
    gain: np.ndarray
    bias: np.ndarray
    epsilon: float


def fits(blocks: Sequence[Any]) -> bool:
    """Whether blocks are those that the kernels compute, and the kernels are there."""
    first, *further = blocks
    norm = first.norm
    return (
        choose.available()
        and type(norm) is nn.GroupNorm
        and norm.num_groups == norm.num_channels
        and norm.affine
        and all(type(block.norm) is nn.Identity for block in further)
        and all(_is_plain(block.conv) for block in blocks)
        and all(isinstance(block.activation, nn.GELU) for block in blocks)
        and all(block.activation.approximate == "none" for block in blocks)
    )


def _is_plain(conv: Any) -> bool:
    return (
        type(conv) is nn.Conv1d
        and conv.bias is None
        and (conv.padding, conv.dilation, conv.groups) == ((0,), (1,), 1)
    )


def prepared(blocks: Sequence[Any]) -> FrontEnd:
    """Arrange the weights of blocks that fit."""
    from superbit.upstreams.quantization.kernels.float_products import arranged, tile

    outputs, before = tile().outputs, 1
    weights, rows = [], []
    for block in blocks:
        weight = block.conv.weight.detach()  # (C out, C in, kernel)
        channels_out, channels_in, kernel = weight.shape
        (stride,) = block.conv.stride
        windows = np.zeros((channels_out, kernel, before), np.float32)
        windows[:, :, :channels_in] = weight.transpose(1, 2).numpy()
        laid_out = arranged(windows.reshape(channels_out, -1), tile())
        held = aligned(*laid_out.shape)
        held[:] = laid_out
        weights.append(held)
        rows.append((held.ctypes.data, kernel * before, len(held), stride * before, stride))
        before = len(held) * outputs
    norm, width = blocks[0].norm, len(weights[0]) * outputs
    return FrontEnd(
        weights=weights,
        plan=np.array(rows, np.int64),
        channels=blocks[-1].conv.out_channels,
        gain=_filled(norm.weight, width),
        bias=_filled(norm.bias, width),
        epsilon=norm.eps,
    )


def aligned(*shape: int) -> np.ndarray:
    """Return zeros, float32, that begin at a cache line, as torch's memory does."""
    return cast(np.ndarray, torch.zeros(shape).numpy())


def _filled(values: Tensor, width: int) -> np.ndarray:
    whole = np.zeros(width)
    whole[: len(values)] = values.detach().numpy()
    return whole


def features(held: FrontEnd, samples: Tensor) -> Tensor:
    """Map one waveform (N,) of at least a frame to its features (T, C)."""
    from superbit.upstreams.quantization.kernels import convolutions
    from superbit.upstreams.quantization.kernels.float_products import tile
    from superbit.upstreams.quantization.kernels.threads import spread

    plan, of = held.plan, tile()
    kernels = plan[:, 1] // (plan[:, 3] // plan[:, 4])
    frames, first_frames = len(samples), 0
    for index, (kernel, stride) in enumerate(zip(kernels, plan[:, 4], strict=True)):
        frames = int((frames - kernel) // stride + 1)
        first_frames = first_frames if index else frames
    own = samples.clone()  # at a cache line, so that a batch's rows are computed alike
    waveform = own.numpy()
    scale, shift = _norm(held, waveform, first_frames)
    sizes, needed = [], convolutions.FRAMES
    for layer in range(len(plan) - 1, 0, -1):
        needed = int((needed - 1) * plan[layer, 4] + kernels[layer])
        sizes.append(needed * int(plan[layer - 1, 2]) * of.outputs)
    sizes.reverse()
    out = torch.empty(frames, int(plan[-1, 2]) * of.outputs)
    row = out.shape[1] * out.element_size()
    write = convolutions.frames_of(of)

    def work(start: int, stop: int) -> None:
        one, other = (aligned(max(sizes[turn::2], default=0)) for turn in (0, 1))
        write(
            waveform.ctypes.data,
            plan,
            start,
            stop,
            scale.ctypes.data,
            shift.ctypes.data,
            one.ctypes.data,
            other.ctypes.data,
            out.data_ptr() + start * row,
            row,
        )

    spread(frames, convolutions.FRAMES, work)
    return out[:, : held.channels]


def _norm(held: FrontEnd, waveform: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift of each channel of the first layer, from its moments over frames."""
    from superbit.upstreams.quantization.kernels import convolutions
    from superbit.upstreams.quantization.kernels.float_products import tile
    from superbit.upstreams.quantization.kernels.threads import spread

    width, size = len(held.gain), convolutions.BLOCK
    blocks = -(-frames // size)
    means, squares = np.empty((blocks, width)), np.empty((blocks, width))
    take = convolutions.moments_of(tile())

    def work(start: int, stop: int) -> None:
        sums = aligned(size + 3, width)
        take(waveform.ctypes.data, held.plan, frames, start, stop, sums, means, squares)

    spread(blocks, 1, work)
    counts = np.full((blocks, 1), float(size))
    counts[-1] = frames - size * (blocks - 1)
    mean = (counts * means).sum(0) / frames
    variance = (squares + counts * (means - mean) ** 2).sum(0) / frames
    gain = held.gain / np.sqrt(variance + held.epsilon)
    scale, shift = aligned(width), aligned(width)
    scale[:] = gain
    shift[:] = held.bias - gain * mean
    return scale, shift
