"""A stack of convolutions over time, GELU behind each, a few frames of its output at a time.

What a few frames need of every layer stays in a cache. The first layer's sums are normalised: with
one scale and one shift a channel, which come from its moments over all frames.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from superbit.upstreams.quantization.kernels.float_products import Tile, product_of
from superbit.upstreams.quantization.kernels.machine_code import compiled, unset

BLOCK = 48  # frames of the first layer whose moments are taken together, in float32
FRAMES = 64  # of the output that are computed together

# Set for each tile by `frames_of` and `moments_of`.
_first = _further = _plain = unset


def _frames(samples, plan, start, stop, scale, shift, one, other, out, out_stride):
    """Write frames ``start`` to ``stop`` of the last layer.

    ``plan`` (L, 5) holds of each layer: address of its weights, inputs K, panels, floats from one
    window to the next, stride in frames; ``kernels`` and widths follow from them. ``one`` and
    ``other`` are addresses of what two layers write in turns.
    """
    layers = plan.shape[0]
    needed = np.empty(layers, np.int64)  # frames that each layer has to give
    hop = 1
    for i in range(layers):
        hop *= plan[i, 4]
    for f in range(start, stop, FRAMES):
        frames = min(FRAMES, stop - f)
        needed[layers - 1] = frames
        for i in range(layers - 1, 0, -1):
            kernel = plan[i, 1] // (plan[i, 3] // plan[i, 4])
            needed[i - 1] = (needed[i] - 1) * plan[i, 4] + kernel
        x = samples + 4 * f * hop
        for i in range(layers):
            weights, depth, panels, step = plan[i, 0], plan[i, 1], plan[i, 2], plan[i, 3]
            if i == layers - 1:
                y, stride = out + (f - start) * out_stride, out_stride
            else:
                y, stride = other if i % 2 else one, plan[i + 1, 3] // plan[i + 1, 4] * 4
            if i == 0:
                _first(x, 4 * step, needed[i], weights, depth, panels, scale, shift, y, stride)
            else:
                _further(x, 4 * step, needed[i], weights, depth, panels, scale, shift, y, stride)
            x = y


def _moments(samples, plan, frames, start, stop, sums, means, squares):
    """Write of blocks ``start`` to ``stop`` each channel's mean, and squares about it, summed.

    Args:
        sums: (`BLOCK` + 3, C) float32, what is written to.
        means, squares: (blocks, C) float64.
    """
    weights, depth, panels, step = plan[0, 0], plan[0, 1], plan[0, 2], plan[0, 3]
    channels = sums.shape[1]
    nowhere = sums.ctypes.data
    for block in range(start, stop):
        first = block * BLOCK
        count = min(BLOCK, frames - first)
        x = samples + 4 * first * step
        _plain(x, 4 * step, count, weights, depth, panels, nowhere, nowhere, nowhere, 4 * channels)
        mean, drift, square = sums[BLOCK], sums[BLOCK + 1], sums[BLOCK + 2]
        mean[:] = 0
        drift[:] = 0
        square[:] = 0
        for t in range(count):
            for c in range(channels):
                mean[c] += sums[t, c]
        for c in range(channels):
            mean[c] /= count
        for t in range(count):
            for c in range(channels):
                away = sums[t, c] - mean[c]
                drift[c] += away
                square[c] += away * away
        for c in range(channels):
            off = np.float64(drift[c]) / count  # what float32 rounded off the mean
            means[block, c] = mean[c] + off
            squares[block, c] = square[c] - count * off * off


@cache
def frames_of(of: Tile) -> Callable[..., None]:
    """Return the function that writes frames, for a tile."""
    given = {"_first": product_of(of, "scaled"), "_further": product_of(of, "gelu")}
    return compiled(_frames, name=_name(of), given=given)


@cache
def moments_of(of: Tile) -> Callable[..., None]:
    """Return the function that takes the first layer's moments, for a tile."""
    return compiled(_moments, name=_name(of), given={"_plain": product_of(of, "plain")})


def _name(of: Tile) -> str:
    return f"{of.rows}x{of.vectors}x{of.lanes}"
