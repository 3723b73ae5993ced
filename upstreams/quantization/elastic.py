"""Elastic binarization of activations, and of weights: forward values and their gradients.

References:
- BiT, Liu et al., 2022, https://arxiv.org/abs/2205.13016, section 3: learnt scale and threshold.
- LSQ, Esser et al., 2020, https://arxiv.org/abs/1902.08153: more bits, the scale's gradient.
- XNOR-Net, Rastegari et al., 2016, https://arxiv.org/abs/1603.05279: a weight's scale is its mean
  magnitude.

With a learnt shift b for each channel, a learnt scale α ≥ 10⁻⁵ for each tensor, x' = x + b and
q = x' / α, a quantizer gives y = α · n with integer levels n:

- signed, 1 bit: n = +1 where x' ≥ 0, else -1. ∂y/∂x' = [-1 ≤ q ≤ 1], ∂y/∂α = n;
- otherwise n = clip(round(q), Qn, Qp), ties to even. ∂y/∂x' = [Qn ≤ q ≤ Qp] and ∂y/∂α = n outside
  of that range, n - q inside. Unsigned: Qn = 0, Qp = 2ᵏ - 1. Signed: Qn = -2ᵏ⁻¹, Qp = 2ᵏ⁻¹ - 1.

α's gradient is divided by √(N · Qp) for N elements (Qp = 1 at 1 bit). Beyond 1 bit the unsigned
set begins at the smallest x' of the call, a constant that is subtracted first and added to y.

Levels and scale come apart, so that a layer can multiply integers, exactly, and scale afterwards.
There are as many levels as bits give: published code has torch.sign(0) = 0 as a third one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor

from superbit.upstreams.errors import InputError

SMALLEST_SCALE = 1e-5  # of an activation
SMALLEST_WEIGHT_SCALE = 1e-8  # never 0: the gradient passes through a division by it


def level_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """Return the lowest and the highest level: Qn and Qp, and ±1 for one signed bit."""
    if signed:
        return (-1, 1) if bits == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return 0, 2**bits - 1


def _signs(x: Tensor) -> Tensor:
    # by copysign, several times as fast as `where`; + 0.0 leaves no -0.0
    return torch.copysign(x.new_ones(()), x + 0.0)


class _Levels(torch.autograd.Function):
    """From shifted values x' and α to levels n and the scale used; gradients as the module says.

    What arrives for n is α · ∂L/∂y, as every user of n multiplies by α.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        gradient_scale: float | Tensor,
        bounds: tuple[int, int],
        sign: bool,
    ) -> tuple[Tensor, Tensor]:
        used = scale.clamp(min=SMALLEST_SCALE)
        q = x / used
        levels = _signs(x) if sign else q.round().clamp_(*bounds)
        ctx.save_for_backward(q, used)
        ctx.gradient_scale, ctx.bounds, ctx.sign = gradient_scale, bounds, sign
        return levels, used

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        to_levels, to_scale = grads
        q, used = ctx.saved_tensors
        low, high = ctx.bounds
        to_x = torch.where((q >= low) & (q <= high), to_levels / used, 0.0)
        if not ctx.sign:
            to_scale = to_scale - (to_x * q).sum(dtype=used.dtype)
        return to_x, to_scale * ctx.gradient_scale, None, None, None


class _WeightSigns(torch.autograd.Function):
    """From W to sign(W - mean W) and m = mean |W|; W's gradient is that of m · sign."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, per_channel: bool) -> tuple[Tensor, Tensor]:
        # the mean of the whole tensor in either case, as in BiT
        signs = weight.ge(weight.mean()).to(weight.dtype).mul_(2.0).sub_(1.0)
        magnitude = weight.abs()
        if per_channel:
            magnitude = magnitude.mean(dim=tuple(range(1, weight.dim())), keepdim=True)
        scale = (magnitude if per_channel else magnitude.mean()).clamp(min=SMALLEST_WEIGHT_SCALE)
        ctx.save_for_backward(scale)
        ctx.mark_non_differentiable(scale)
        return signs, scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return grads[0] / scale, None


class WeightBinarizer(nn.Module):
    """W → mean |W| · sign(W - mean W): 1 bit, nothing to learn beside W.

    Args:
        per_channel: one mean |W| for each output channel; by default one for the tensor.
    """

    bits = 1

    def __init__(self, *, per_channel: bool = False) -> None:
        super().__init__()
        self.per_channel = per_channel

    def levels(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return signs like ``weight`` (out, …), and scales: () or (out, 1, …)."""
        return _WeightSigns.apply(weight, self.per_channel)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the binarized weight."""
        signs, scale = self.levels(weight)
        return signs * scale


class PackedSigns(nn.Module):
    """The signs of a weight and their scale in place of the weight: for inference.

    Args:
        shape: of the weight, (out, …).
        per_channel: as for `WeightBinarizer`.
    """

    bits = 1
    signs: Tensor
    scale: Tensor

    def __init__(self, shape: Sequence[int], *, per_channel: bool = False) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.per_channel = per_channel
        inputs = math.prod(self.shape[1:])
        scales = (self.shape[0], *(1 for _ in self.shape[1:])) if per_channel else ()
        # eight a byte, the first input the lowest bit
        self.register_buffer(
            "signs", torch.zeros(self.shape[0], -(-inputs // 8), dtype=torch.uint8)
        )
        self.register_buffer("scale", torch.ones(scales))

    def levels(self, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return signs (out, …) as float32, and scales: () or (out, 1, …)."""
        places = torch.arange(8, dtype=torch.uint8, device=self.signs.device)
        bits = (self.signs[:, :, None] >> places) & 1
        inputs = math.prod(self.shape[1:])
        signs = bits.flatten(1)[:, :inputs].to(self.scale.dtype).mul_(2.0).sub_(1.0)
        return signs.reshape(self.shape), self.scale


class ElasticQuantizer(nn.Module):
    """One tensor to levels times a learnt scale, after a learnt shift.

    It computes nothing before its scale is set: by `superbit.upstreams.quantization.calibrate`,
    or from a checkpoint, which carries the flag ``initialized`` as it carries the scale.

    Args:
        bits: 1 to 8.
        signed: the set {-1, +1} or its multi-bit range; else {0, 1} or its.
        shift_shape: of the shift, broadcast against the input from its last axis; None for none.
        from_zero: an unsigned set of several bits begins at 0, not at the smallest value: for
            probabilities, of which hidden keys have 0.
    """

    initialized: Tensor
    shift: nn.Parameter | None

    def __init__(
        self,
        *,
        bits: int,
        signed: bool,
        shift_shape: Sequence[int] | None = None,
        from_zero: bool = False,
    ) -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed
        self.bounds = level_range(bits, signed=signed)
        self.from_zero = from_zero
        self.scale = nn.Parameter(torch.ones(()))
        shift = None if shift_shape is None else nn.Parameter(torch.zeros(tuple(shift_shape)))
        self.register_parameter("shift", shift)
        self.register_buffer("initialized", torch.tensor(False))
        # the flag again where a forward pass can read it without waiting for the device
        self.ready = False
        self.calibrating = False

    def levels(
        self, x: Tensor, *, count: int | Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return integer levels (as floats, like ``x``) and the scale that multiplies them.

        An unsigned set of several bits that begins elsewhere than at 0 has no such pair: it gives
        y itself, and None.

        Args:
            x: the tensor to quantize.
            count: N, the elements that the tensor has in dense arithmetic, padding left out; by
                default all of ``x``.
            mask: which of ``x`` are no padding, broadcasting to it; None for all.

        Raises:
            InputError: the scale was never set.
        """
        if x.is_meta:  # shapes alone are wanted, and real operations take as long there
            return x, self.scale
        x = self._shifted(x)
        count = x.numel() if count is None else count
        if self.calibrating:
            self._set_scale(x, count=count, mask=mask)
        elif not self.ready:
            raise InputError(
                "this model was binarized but never calibrated: calibrate it on audio, or load a "
                "checkpoint of a calibrated twin."
            )
        minimum = self._minimum(x, mask)
        x = x if minimum is None else x - minimum
        sign = self.signed and self.bits == 1
        if torch.is_grad_enabled():
            gradient_scale = (count * self._steps) ** -0.5
            levels, scale = _Levels.apply(x, self.scale, gradient_scale, self.bounds, sign)
        else:
            scale = self.scale_in_use()
            levels = _signs(x) if sign else (x / scale).round_().clamp_(*self.bounds)
        if minimum is None:
            return levels, scale
        return levels * scale + minimum, None

    def scale_in_use(self) -> Tensor:
        """Return what multiplies the levels: α, never below `SMALLEST_SCALE`."""
        return self.scale.clamp(min=SMALLEST_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """Return y, the quantized ``x``; see `levels`."""
        levels, scale = self.levels(x)
        return levels if scale is None else levels * scale

    def calibrate(
        self, x: Tensor, *, count: int | Tensor | None = None, mask: Tensor | None = None
    ) -> None:
        """Set α to 2 mean |x'| / √Qp, twice that for an unsigned set, and the flag.

        Under `torch.distributed` the mean is over all ranks. Arguments as for `levels`.
        """
        self._set_scale(self._shifted(x), count=x.numel() if count is None else count, mask=mask)

    @property
    def _steps(self) -> int:
        """Qp of the formulas, 1 at 1 bit."""
        return 1 if self.bits == 1 else self.bounds[1]

    def _shifted(self, x: Tensor) -> Tensor:
        if self.shift is None:
            return x
        shift: Tensor = self.shift
        if shift.dim() == 3:  # (H, …): blocks of sparse attention have axes after that of heads
            between = (1,) * (x.dim() - 4)
            shift = shift.reshape(shift.shape[:1] + between + shift.shape[1:])
        return x + shift

    def _minimum(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        if self.signed or self.bits == 1 or self.from_zero:
            return None
        x = x.detach()
        return (x if mask is None else x.masked_fill(~mask, math.inf)).amin()

    @torch.no_grad()
    def _set_scale(self, x: Tensor, *, count: int | Tensor, mask: Tensor | None) -> None:
        magnitude = x.abs() if mask is None else x.abs().masked_fill(~mask, 0.0)
        total = torch.stack(
            [magnitude.sum(dtype=torch.float64), torch.as_tensor(count, device=x.device).double()]
        )
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)
        factor = (2.0 if self.signed else 4.0) / math.sqrt(self._steps)
        self.scale.copy_(factor * total[0] / total[1])
        self.initialized.fill_(True)
        self.ready = True

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.ready = not self.initialized.is_meta and bool(self.initialized)
