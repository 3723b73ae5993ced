"""A depthwise convolution of ±1 by ±1: one word of weights a channel, one window of bits a frame.

What lies beyond the frames is 0 and counts for nothing, so the sum at a frame is the number of taps
that meet a frame less twice those whose signs differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from superbit.upstreams.quantization.kernels import vector_code as code
from superbit.upstreams.quantization.kernels.machine_code import jitted
from superbit.upstreams.quantization.kernels.vector_code import I64, intrinsic

WIDEST = 64  # taps: a word


@intrinsic
def _ones(context, word):
    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.call(code.external(b, "llvm.ctpop.i64", I64, I64), arguments)

    return types.uint64(types.uint64), generate


@jitted
def depthwise(x, thresholds, weights, taps, out):
    """Write the sums of levels, exact in float32.

    Args:
        x: (C, T) float32; a level is 1 where it reaches its channel's threshold, else -1.
        thresholds: (C,) float32.
        weights: (C,) uint64: bit k is 1 where the weight of tap k is 1.
        taps: K, odd, at most `WIDEST`; K // 2 lie before the frame itself.
        out: (C, T) float32.
    """
    channels, frames = x.shape
    before = taps // 2
    full = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - taps)
    top = np.uint64(taps - 1)
    for c in range(channels):
        signs, there = np.uint64(0), np.uint64(0)
        for t in range(frames + before):
            # the newest frame is the last tap: the window moves by one bit
            signs >>= np.uint64(1)
            there >>= np.uint64(1)
            if t < frames:
                there |= np.uint64(1) << top
                if x[c, t] >= thresholds[c]:
                    signs |= np.uint64(1) << top
            if t >= before:
                differing: int = _ones((signs ^ weights[c]) & there & full)
                out[c, t - before] = np.float32(np.int64(_ones(there)) - 2 * np.int64(differing))
