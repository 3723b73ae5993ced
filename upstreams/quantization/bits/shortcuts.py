"""Which blocks of a twin are computed by bits, and when.

What is computed is what the simulation in floats computes, to the bit. Between the linear layers of
a block no float is written: what one layer gives becomes the next one's bits by one integer
comparison (`superbit.upstreams.quantization.thresholds`), and sums of levels are integers either
way. A block that does not fit is left to the simulation, and the function here returns None: in
training or where gradients are wanted, with other numbers of bits, on another device or in another
precision, with a mask, with hooks on its layers, or while it is traced or compiled.

Notation: B batch, T frames, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from superbit.upstreams.encoders.attention import SelfAttention, Shortcut
from superbit.upstreams.encoders.conformer import ConvolutionModule
from superbit.upstreams.encoders.frozen import is_inference, is_watched, kept
from superbit.upstreams.encoders.sparse_attention import SparseSelfAttention
from superbit.upstreams.encoders.vanilla import FeedForward
from superbit.upstreams.quantization.elastic import PackedSigns, WeightBinarizer
from superbit.upstreams.quantization.folded import FoldedLinear
from superbit.upstreams.quantization.kernels import choose
from superbit.upstreams.quantization.layers import (
    BinarizedConv1d,
    BinarizedLinear,
    BinarizedProduct,
)


def attention(module: Any, x: Tensor, valid: Tensor | None) -> Tensor | None:
    """Return what a `SelfAttention` maps (B, T, D) to, or None."""
    if valid is not None or (isinstance(module, SparseSelfAttention) and not module.gather):
        return None
    names = ("query", "key", "value", "score_product", "context_product", "output")
    leaves = [module.get_submodule(name) for name in names]
    if not _fits(module, leaves, x):
        return None
    from superbit.upstreams.quantization.bits.attention import attend, integers_of

    return _by_bits(module, leaves, x, integers_of, attend)


def feed_forward(module: Any, x: Tensor, valid: Tensor | None = None) -> Tensor | None:
    """Return what a `FeedForward` maps (B, T, D) to, or None."""
    leaves = [module.expand, module.contract]
    if type(module.activation) is not nn.ReLU or not _fits(module, leaves, x):
        return None
    from superbit.upstreams.quantization.bits.feed_forward import contracted, integers_of

    return _by_bits(module, leaves, x, integers_of, contracted)


def convolution(module: Any, x: Tensor, valid: Tensor | None) -> Tensor | None:
    """Return what a `ConvolutionModule` maps (B, T, D) to, or None."""
    leaves = [module.pointwise_in, module.depthwise, module.pointwise_out]
    if valid is not None or not _fits(module, leaves, x):
        return None
    from superbit.upstreams.quantization.bits.convolution import convolved, integers_of

    return _by_bits(module, leaves, x, integers_of, partial(convolved, module=module))


def linear(module: Any, x: Tensor, valid: Tensor | None = None) -> Tensor | None:
    """Return what a `BinarizedLinear` alone maps (B, T, in) to, or None."""
    if not _fits(module, [module], x, watched=True):
        return None
    from superbit.upstreams.quantization.bits.linear import integers_of, mapped

    return _by_bits(module, [module], x, integers_of, mapped)


# By the class of a block, which `superbit.upstreams.quantization.convert` gives it to.
SHORTCUTS: dict[type[nn.Module], Shortcut] = {
    SelfAttention: attention,
    SparseSelfAttention: attention,
    FeedForward: feed_forward,
    ConvolutionModule: convolution,
    BinarizedLinear: linear,
}


def _fits(
    module: nn.Module, leaves: Sequence[nn.Module], x: Tensor, *, watched: bool = False
) -> bool:
    """Whether a block can be computed by bits now; ``watched``: its leaves may have hooks."""
    return (
        is_inference(module, x)
        and x.dim() == 3
        and choose.chosen() is not None
        and all(map(_is_one_bit, leaves))
        and (watched or not is_watched(leaves))
    )


def _is_one_bit(leaf: Any) -> bool:
    """Whether both operands of a layer have one bit now."""
    if type(leaf) in (BinarizedLinear, BinarizedConv1d, FoldedLinear):
        if type(leaf.weight_quantizer) not in (WeightBinarizer, PackedSigns):
            return False
        inputs = [leaf.input_quantizer]
    elif type(leaf) is BinarizedProduct:
        inputs = [leaf.left_quantizer, leaf.right_quantizer]
    else:
        return False
    return leaf.quantized and all(
        each is not None and each.bits == 1 and each.ready and not each.calibrating
        for each in inputs
    )


def _by_bits(
    module: nn.Module,
    leaves: Sequence[nn.Module],
    x: Tensor,
    make: Callable[[Any, Any], Any],
    compute: Callable[[Any, Tensor], Tensor],
) -> Tensor | None:
    """Return (B, T, D) of what ``compute`` makes of a block's integers and (T, D), or None."""
    algorithm = choose.algorithm()
    tensors = [t for leaf in leaves for t in (*leaf.parameters(), *leaf.buffers())]
    packed = kept(module, tensors, lambda: make(module, algorithm), of=algorithm)
    if packed is None:
        return None
    if len(x) == 1:
        return compute(packed, x[0])[None]
    return torch.stack([compute(packed, one) for one in x])
