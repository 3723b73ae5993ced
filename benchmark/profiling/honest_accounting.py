"""What a model costs, from the modules that exist: parameters, bytes, MACs, FLOP, bit operations.

- Storage: 4 bytes a parameter; a 1-bit weight as ⌈bits / 8⌉ bytes of packed signs and one 4-byte
  scale a tensor; for each binarized input one scale, and where the policy gives it a learned shift
  a channel, 4 bytes each. Buffers that inference needs (running statistics of a batch norm, which
  can be folded into the neighbouring weights) are not counted.
- FLOP: 2 × MAC + element-wise operations, see `counting`. A MAC whose operands are both binarized
  is no FLOP; what binarizing and rescaling cost is not counted.
- Bit operations (BOP): MAC × bits of the one operand × bits of the other, full precision 32
  (van Baalen et al., 2020, https://arxiv.org/abs/2005.07093); element-wise operations have none.
- Both are counted on the frames that the front end gives, without padding to an even number, and
  what does not run in inference (the projection that pre-training uses) has parameters but no MACs.

A kind of encoder that was registered may multiply outside of such modules: what torch counts beyond
them is "other", in full precision.

A model that is not superbit's own is run on the CPU. Its linear layers and convolutions are seen as
modules, its other matrix products and convolutions as torch's operations; where an operation runs
whose cost torch does not tell, such as a Fourier transform, every total is unknown (None).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from superbit.benchmark.profiling.counting import ModuleCount, OperationCounts, count, count_model
from superbit.upstreams.encoder_kinds import ENCODERS
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.quantization.convert import binarized_modules, dense_attention
from superbit.upstreams.quantization.elastic import ElasticQuantizer
from superbit.upstreams.quantization.layers import quantized_bits
from superbit.upstreams.quantization.policy import FULL_BITS

CATEGORIES = ("front_end", "positional", "linear", "convolution", "attention", "other")
_BYTES = 4  # of an FP32 number
# Operations whose arithmetic is no matrix product, convolution or element-wise one.
_OPAQUE = ("fft", "stft", "lstm", "gru", "rnn", "mkldnn_rnn", "linalg")


@dataclass(frozen=True, kw_only=True)
class HonestCells:
    """One row; None is unknown.

    Attributes:
        parameters: of the FP32 model.
        quantized_parameters: of these, those that the twin binarizes; 0 for FP32.
        full_precision_bytes: of the parameters that stay FP32.
        sign_bytes: packed binarized weights.
        scale_bytes: their scales.
        activation_bytes: learned scales and shifts of binarized inputs.
        macs: by category, see `CATEGORIES`.
        total_macs: of all categories.
        low_bit_macs: of these, those with both operands below 32 bits.
        elementwise: element-wise operations.
        full_precision_bop: bit operations with both operands in 32 bits.
        low_bit_bop: all others.
    """

    parameters: int
    quantized_parameters: int
    full_precision_bytes: int
    sign_bytes: int
    scale_bytes: int
    activation_bytes: int
    macs: dict[str, int | None]
    total_macs: int | None
    low_bit_macs: int | None
    elementwise: int | None
    full_precision_bop: int | None
    low_bit_bop: int | None

    @property
    def storage_bytes(self) -> int:
        """Bytes of the whole model."""
        return (
            self.full_precision_bytes + self.sign_bytes + self.scale_bytes + self.activation_bytes
        )

    @property
    def flop(self) -> int | None:
        """2 × MAC + element-wise operations."""
        if self.total_macs is None or self.low_bit_macs is None or self.elementwise is None:
            return None
        return 2 * (self.total_macs - self.low_bit_macs) + self.elementwise

    @property
    def bop(self) -> int | None:
        """Bit operations."""
        if self.full_precision_bop is None or self.low_bit_bop is None:
            return None
        return self.full_precision_bop + self.low_bit_bop


def honest_cells(
    model: Hubert, samples: int, *, counts: OperationCounts | None = None
) -> HonestCells:
    """Return the row of one of superbit's own models for so many samples.

    Args:
        model: an FP32 model or a twin, whose modules tell their bits; the meta device will do.
        samples: of the one utterance, at 16 kHz.
        counts: `count_model` of both, where somebody has it.
    """
    counts = counts or count_model(model, samples)
    other = 0 if model.config.encoder in ENCODERS else _unseen_macs(model, samples)
    macs: dict[str, int | None] = dict.fromkeys(CATEGORIES, 0)
    full, low, low_macs = 0, 0, 0
    for name, done in counts.modules.items():
        category = _category(name, done)
        macs[category] = (macs[category] or 0) + done.macs
        bits = quantized_bits(model.get_submodule(name))
        if bits.first == bits.second == FULL_BITS:
            full += done.macs * FULL_BITS**2
        else:
            low += done.macs * bits.first * bits.second
            low_macs += done.macs if max(bits.first, bits.second) < FULL_BITS else 0
    return HonestCells(
        **_bytes(model),
        macs=macs | {"other": other},
        total_macs=None if other is None else counts.macs + other,
        low_bit_macs=low_macs,
        elementwise=counts.elementwise,
        full_precision_bop=None if other is None else full + other * FULL_BITS**2,
        low_bit_bop=low,
    )


def _unseen_macs(model: Hubert, samples: int) -> int | None:
    """Return what the encoder of a registered kind multiplies outside of modules that we count.

    None where an operation runs whose cost torch does not tell.

    Raises:
        InputError: it does not run without storage for its numbers.
    """
    frames = model.config.convolution_frames(samples)
    x = torch.zeros(1, frames, model.config.dim, device=model.mask_emb.device)
    opaque, flop_counter = _Opaque(), FlopCounterMode(display=False)
    try:
        # dense: torch counts what sparse attention gathers, we only what it has to compute
        with dense_attention(model), _plain_kernels(), flop_counter, opaque:
            counts = count(model, lambda: model.encoder(x, None))
    except Exception as error:  # somebody else's code
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"encoder kind {model.config.encoder!r} cannot be counted, which runs it on torch's "
            f"'meta' device: {reason}."
        ) from error
    return None if opaque.seen else flop_counter.get_total_flops() // 2 - counts.macs


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Let attention and recurrent layers run as products that torch's counter sees."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about switching oneDNN off
        with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
            yield


def foreign_cells(expert: nn.Module, samples: int) -> HonestCells:
    """Return the row of any s3prl-style expert, by running it on noise of so many samples.

    Raises:
        InputError: it cannot encode them.
    """
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(samples, generator=generator)
    opaque = _Opaque()
    flop_counter = FlopCounterMode(display=False)

    def run() -> None:
        with _plain_kernels(), flop_counter, opaque:
            _encode(expert, waveform)

    counts = count(expert.eval(), run)
    macs: dict[str, int | None] = dict.fromkeys(CATEGORIES, None)
    for kind in ("linear", "convolution"):
        seen = [done.macs for done in counts.modules.values() if done.kind == kind]
        macs[kind] = sum(seen) if seen else None
    total = None if opaque.seen else flop_counter.get_total_flops() // 2
    if total is not None:
        macs["other"] = total - sum(seen for seen in macs.values() if seen is not None)
    return HonestCells(
        **_bytes(expert),
        macs=macs,
        total_macs=total,
        low_bit_macs=None if total is None else 0,
        elementwise=None,
        full_precision_bop=None if total is None else total * FULL_BITS**2,
        low_bit_bop=None if total is None else 0,
    )


def _encode(expert: nn.Module, waveform: torch.Tensor) -> None:
    try:
        expert([waveform])
    except InputError:
        raise
    except Exception as error:  # somebody else's code: any error is theirs to read
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"the upstream cannot encode {len(waveform)} samples: {reason}."
        ) from error


class _Opaque(TorchDispatchMode):
    """Notes the operations that run and whose cost nobody counts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func.name()
        if not name.startswith(("aten::", "prim")) or any(word in name for word in _OPAQUE):
            self.seen.add(name)
        return func(*args, **(kwargs or {}))


def _category(name: str, done: ModuleCount) -> str:
    if name.startswith("front_end."):
        return "front_end"
    if name.startswith("position."):
        return "positional"
    return {"product": "attention", "convolution": "convolution"}.get(done.kind, "linear")


def _bytes(model: nn.Module) -> dict[str, int]:
    quantized = signs = scales = of_weights = 0
    for module in binarized_modules(model).values():
        quantizer = getattr(module, "weight_quantizer", None)
        if quantizer is None:  # a product, or a layer of which only the input is binarized
            continue
        weight = module.get_parameter("weight")
        quantized += weight.numel()
        signs += math.ceil(weight.numel() * quantizer.bits / 8)
        scales += _BYTES * (len(weight) if getattr(quantizer, "per_channel", False) else 1)
        of_weights += _learned(quantizer)
    parameters = fp32_parameters(model)
    return {
        "parameters": parameters,
        "quantized_parameters": quantized,
        "full_precision_bytes": _BYTES * (parameters - quantized),
        "sign_bytes": signs,
        "scale_bytes": scales,
        "activation_bytes": _BYTES * (_learned(model) - of_weights),
    }


def fp32_parameters(model: nn.Module) -> int:
    """Return how many parameters a model has, without the scales and shifts of a twin."""
    return sum(parameter.numel() for parameter in model.parameters()) - _learned(model)


def _learned(model: nn.Module) -> int:
    """Scales and shifts of all quantizers."""
    return sum(
        parameter.numel()
        for module in model.modules()
        if isinstance(module, ElasticQuantizer)
        for parameter in module.parameters()
    )
