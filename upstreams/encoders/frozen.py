"""When a module is computed by another way than it trains by, and what is kept of its weights.

In eval mode without gradients, on a CPU, in float32, a convolution or a block of a twin can be
computed faster than by the operations that have gradients. What that needs of the weights is made
once, and again when one of them changes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

_as_trained: ContextVar[bool] = ContextVar("as_trained", default=False)


def is_inference(module: nn.Module, x: Tensor) -> bool:
    """Whether a module maps ``x`` in eval mode without gradients, on a CPU in float32.

    Not so under autocast, nor while torch traces or compiles it.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not module.training
        and not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def is_watched(modules: Iterable[nn.Module]) -> bool:
    """Whether one of the modules has hooks, which see nothing of what is computed otherwise."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)


@contextmanager
def as_trained() -> Iterator[None]:
    """Within it, front ends and positional convolutions are computed as they are in training."""
    token = _as_trained.set(True)
    try:
        yield
    finally:
        _as_trained.reset(token)


def is_front_end_inference(module: nn.Module, x: Tensor) -> bool:
    """Whether a convolution of the front end is computed by its faster way; its parts unwatched."""
    return is_inference(module, x) and not _as_trained.get() and not is_watched(module.modules())


# By module: what was kept was made from, and what was kept.
_kept: WeakKeyDictionary[nn.Module, tuple[Any, list[np.ndarray], Any]] = WeakKeyDictionary()
_SAMPLES = 64  # of a tensor that are compared, besides torch's own count of its changes


def kept(
    module: nn.Module,
    tensors: Sequence[Tensor],
    make: Callable[[], Any],
    *,
    of: Hashable = None,
) -> Any | None:
    """Return what ``make`` makes of a module, kept until one of its tensors changes, or ``of``.

    Torch counts changes, but not those through ``.data``: so some elements of each tensor are
    compared as well, all of a small one. None for tensors of inference mode, which have no count.
    """
    if any(tensor.is_inference() for tensor in tensors):
        return None
    state = of, [(tensor.data_ptr(), tensor._version) for tensor in tensors]
    samples = [_sample(tensor) for tensor in tensors]
    known = _kept.get(module)
    if known is None or known[0] != state or not all(map(np.array_equal, known[1], samples)):
        with torch.no_grad():
            made = make()
        known = state, [sample.copy() for sample in samples], made
        _kept[module] = known
    return known[2]


def _sample(tensor: Tensor) -> np.ndarray:
    values = tensor.detach().numpy().reshape(-1)
    return values if len(values) <= _SAMPLES**2 else values[:: len(values) // _SAMPLES]
