"""Which keys which queries see, laid out as the kernels of attention take it.

Dense attention: all keys are shared. Sparse attention: `encoders.sparse_attention` says which are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from superbit.upstreams.quantization.kernels.attention import HIDDEN
from superbit.upstreams.quantization.kernels.rows import whole


@dataclass(frozen=True, kw_only=True, eq=False)
class Pattern:
    """Which keys which queries see, for one number of frames; see `kernels.attention`.

    Attributes:
        shared: frames of the shared keys, (S,); one that is not there is 0 and hidden.
        own: of each block's own, (blocks, P); (0, 0) where there are none.
        beyond: where a block's own keys begin, S padded.
        hide: (blocks, S padded + P padded) uint8.
        stride: queries of a block.
        first_until: the last query that sees the first shared key.
        there: columns that the simulation has, in its order.
    """

    shared: np.ndarray
    own: np.ndarray
    beyond: int
    hide: np.ndarray
    stride: int
    first_until: int
    there: np.ndarray


@lru_cache(maxsize=16)
def pattern_of(algorithm: Any, frames: int, stride: int | None, expressivity: int) -> Pattern:
    """Return the pattern of dense attention, ``stride`` None, or of sparse attention."""
    if stride is None:
        beyond = whole(frames, algorithm)
        hide = np.full((1, beyond), HIDDEN, np.uint8)
        hide[0, :frames] = 0
        return Pattern(
            shared=np.arange(frames),
            own=np.zeros((0, 0), np.int64),
            beyond=beyond,
            hide=hide,
            stride=frames,
            first_until=frames,
            there=np.arange(frames),
        )
    blocks = max(1, -(-(frames - 1) // stride))
    own = stride - min(expressivity + 1, stride)
    cut = 1 + np.arange(blocks * stride).reshape(blocks, stride)
    shared = np.concatenate([[0], cut[:, own:].reshape(-1)])
    private = cut[:, :own]
    beyond = whole(len(shared), algorithm)
    hide = np.full((blocks, beyond + whole(own, algorithm)), HIDDEN, np.uint8)
    hide[:, : len(shared)] = np.where(shared < frames, 0, HIDDEN)
    hide[:, beyond : beyond + own] = np.where(private < frames, 0, HIDDEN)
    return Pattern(
        shared=np.where(shared < frames, shared, 0),
        own=np.where(private < frames, private, 0) if own else np.zeros((0, 0), np.int64),
        beyond=beyond,
        hide=hide,
        stride=stride,
        first_until=stride if expressivity < stride else frames,
        there=np.concatenate([np.arange(len(shared)), beyond + np.arange(own)]),
    )
