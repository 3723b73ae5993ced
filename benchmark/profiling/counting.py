"""Operations of a model, counted module by module while it runs on a signal of a given length.

A forward hook on each module sees the shapes that it works on, so that layers at half rate, frames
that the convolutions drop and modules that never run are counted as they are. Our own encoders run
on the meta device: shapes only, no arithmetic, no weights.

Rules, for one multiply-accumulate (MAC) each:

- linear: elements of the output × features in; convolution: elements of the output × taps of one
  of its channels, taps on padding included; product of attention: rows × columns × inner width;
- sparse attention: only the (query, key) pairs that its pattern lets a query see, whatever the
  implementation touches besides.

Element-wise operations: 5 for each element of a norm (DeepSpeed's rule; 2 for batch norm, whose
statistics are constants at inference), 1 for each output element of an activation or a gate, 1 for
each score of a softmax. Biases, residual sums, scalings and masks are not counted.

Notation: B batch, T frames, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from superbit.upstreams.encoders.attention import MatrixProduct, SelfAttention
from superbit.upstreams.encoders.sparse_attention import SparseSelfAttention
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.sound import SAMPLE_RATE


@dataclass(frozen=True, kw_only=True)
class ModuleCount:
    """What one module did.

    Attributes:
        kind: ``linear``, ``convolution``, ``product`` or ``elementwise``.
        macs: multiply-accumulates.
        elementwise: element-wise operations.
        frames: the longest time axis of its output, as far as it has one.
    """

    kind: str
    macs: int = 0
    elementwise: int = 0
    frames: int = 0


@dataclass(frozen=True, kw_only=True)
class Attention:
    """One self-attention of a model.

    Attributes:
        frames: T that it ran over.
        dim: D of its heads together.
        visits: (query, key) pairs that it computes, for each head.
    """

    frames: int
    dim: int
    visits: int


@dataclass(frozen=True, kw_only=True)
class OperationCounts:
    """What a forward pass did, by module name in the order of the model."""

    modules: dict[str, ModuleCount]
    attentions: dict[str, Attention]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all modules."""
        return sum(count.macs for count in self.modules.values())

    @property
    def elementwise(self) -> int:
        """Element-wise operations of all modules."""
        return sum(count.elementwise for count in self.modules.values())


def meta_model(config: HubertConfig) -> Hubert:
    """Return the model of ``config`` without storage for its weights."""
    with torch.device("meta"):
        return Hubert(config).eval()


def samples_of(seconds: float, config: HubertConfig | None = None) -> int:
    """Return the samples of so many seconds.

    Raises:
        InputError: not a positive number, or too short for one frame of ``config``.
    """
    if not 0 < seconds < float("inf"):
        raise InputError(f"--seconds is {seconds!r}; a number above 0 is needed.")
    samples = round(seconds * SAMPLE_RATE)
    shortest = config.receptive_field if config else 1
    if samples < shortest:
        raise InputError(
            f"--seconds {seconds:g} gives {samples} samples; at least {shortest} "
            f"({shortest / SAMPLE_RATE:g} s) are needed for one frame."
        )
    return samples


def count_model(model: Hubert, samples: int) -> OperationCounts:
    """Count one utterance of so many samples through ``model``, on whatever device it lies."""
    waveform = torch.zeros(samples, device=model.mask_emb.device)
    return count(model, lambda: model([waveform]))


def count(model: nn.Module, run: Callable[[], Any]) -> OperationCounts:
    """Count what the modules of ``model`` do while ``run()`` calls it."""
    counts = OperationCounts(modules={}, attentions={})
    with _hooks(model, counts), torch.no_grad():
        run()
    return counts


def sparse_visits(frames: int, *, stride: int, expressivity: int) -> int:
    """Return how many (query, key) pairs `sparse_attention`'s pattern holds.

    From window ends and running sums, so that an hour of audio needs no T × T mask.
    """
    frame = torch.arange(frames)
    boundary = ((frame + stride - 1) // stride).clamp(min=1) * stride
    is_summary = (boundary - frame <= expressivity).long()
    before = torch.cat([torch.zeros(1, dtype=torch.long), is_summary.cumsum(0)])  # (T + 1,)
    start = (frame - 1).clamp(min=0) // stride * stride
    stop = (start + stride + 1).clamp(max=frames)
    summaries_within = before[stop] - before[start]
    return int((stop - start - summaries_within).sum()) + frames * int(before[-1])


@contextmanager
def _hooks(model: nn.Module, counts: OperationCounts) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, SelfAttention):
            hook = _attention_hook(name, counts)
        elif (rule := _rule_for(module)) is None or _inside_sparse(model, name):
            continue
        else:
            hook = _module_hook(name, rule, counts)
        handles.append(module.register_forward_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _inside_sparse(model: nn.Module, name: str) -> bool:
    """Whether the module is a product of a sparse attention, which is counted as a whole."""
    parent = model.get_submodule(name.rpartition(".")[0])
    return (
        isinstance(parent, SparseSelfAttention)
        and parent.gather
        and isinstance(model.get_submodule(name), MatrixProduct)
    )


def _module_hook(name: str, rule: _Rule, counts: OperationCounts) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, named: Any, out: Tensor) -> None:
        _add(counts, name, rule(module, inputs, out))

    return hook


def _attention_hook(name: str, counts: OperationCounts) -> Callable[..., None]:
    def hook(module: SelfAttention, inputs: Any, named: dict[str, Any], out: Tensor) -> None:
        batch, frames, dim = (inputs[0] if inputs else named["x"]).shape
        visits = frames * frames
        if isinstance(module, SparseSelfAttention) and module.gather:
            visits = sparse_visits(frames, stride=module.stride, expressivity=module.expressivity)
            for child in ("score_product", "context_product"):
                macs = batch * visits * dim
                _add(counts, f"{name}.{child}", ModuleCount(kind="product", macs=macs))
        scores = batch * module.heads * visits
        _add(counts, name, ModuleCount(kind="elementwise", elementwise=scores, frames=frames))
        counts.attentions[name] = Attention(frames=frames, dim=dim, visits=visits)

    return hook


def _add(counts: OperationCounts, name: str, more: ModuleCount) -> None:
    known = counts.modules.get(name)
    if known is not None:  # called more than once in a pass
        more = ModuleCount(
            kind=more.kind,
            macs=known.macs + more.macs,
            elementwise=known.elementwise + more.elementwise,
            frames=max(known.frames, more.frames),
        )
    counts.modules[name] = more


# From a module, its inputs and its output to what that call did.
_Rule = Callable[[Any, Any, Tensor], ModuleCount]


def _linear(module: nn.Linear, inputs: Any, out: Tensor) -> ModuleCount:
    frames = out.shape[-2] if out.dim() > 1 else 1
    return ModuleCount(kind="linear", macs=out.numel() * module.in_features, frames=frames)


def _convolution(module: nn.Conv1d, inputs: Any, out: Tensor) -> ModuleCount:
    taps = module.weight.numel() // module.out_channels
    return ModuleCount(kind="convolution", macs=out.numel() * taps, frames=out.shape[-1])


def _product(module: MatrixProduct, inputs: Any, out: Tensor) -> ModuleCount:
    return ModuleCount(kind="product", macs=out.numel() * inputs[0].shape[-1], frames=out.shape[-2])


def _per_element(operations: int) -> _Rule:
    def rule(module: nn.Module, inputs: Any, out: Tensor) -> ModuleCount:
        return ModuleCount(kind="elementwise", elementwise=operations * out.numel())

    return rule


_RULES: tuple[tuple[tuple[type[nn.Module], ...], _Rule], ...] = (
    ((nn.Linear,), _linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    ((MatrixProduct,), _product),
    ((nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), _per_element(5)),
    ((nn.BatchNorm1d, nn.BatchNorm2d), _per_element(2)),
    ((nn.GELU, nn.SiLU, nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GLU, nn.Softmax), _per_element(1)),
)


def _rule_for(module: nn.Module) -> _Rule | None:
    """Return how a call of ``module`` is counted, None for a kind that does nothing of its own."""
    return next((rule for kinds, rule in _RULES if isinstance(module, kinds)), None)
