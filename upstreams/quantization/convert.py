"""From an FP32 model to its twin, in place, and from audio to the twin's scales.

    model = untrained_model(size_of("vanilla_nano"))
    binarize_(model, "w1a1")
    calibrate(model, waveforms)

References: torchao's ``quantize_`` (leaf modules are swapped by a config); BiT, Liu et al., 2022,
https://arxiv.org/abs/2205.13016 (which operands are binarized, how scales start).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn as nn
from torch import Tensor

from superbit.upstreams.encoders.attention import MatrixProduct, SelfAttention
from superbit.upstreams.encoders.sparse_attention import SparseSelfAttention
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.quantization.bits.shortcuts import SHORTCUTS
from superbit.upstreams.quantization.elastic import ElasticQuantizer
from superbit.upstreams.quantization.layers import (
    BinarizedConv1d,
    BinarizedLinear,
    BinarizedProduct,
)
from superbit.upstreams.quantization.policy import Policy, Rule, load_policy
from superbit.upstreams.quantization.valid_frames import ValidFrames, watch

BINARIZED = (BinarizedLinear, BinarizedConv1d, BinarizedProduct)
_PRODUCTS = {"score_product": "scores", "context_product": "contexts"}


def binarize_(model: Hubert, policy: Policy | str) -> Hubert:
    """Turn ``model`` into its twin: swap the modules that ``policy`` names, and nothing else.

    Weights and biases stay the same parameters. The twin computes nothing before it is calibrated
    or loaded from a twin's checkpoint.

    Args:
        model: an FP32 model of any encoder, on any device, the meta device included.
        policy: one of `policy_names`, the path of a policy's file, or a policy.

    Returns:
        ``model``, whose ``policy`` names the modules that were swapped.

    Raises:
        InputError: an unknown policy, one that does not fit the model, or a model that is a twin
            already; the model is then as it was.
    """
    if isinstance(policy, str):
        policy = load_policy(policy)
    if model.policy is not None:
        raise InputError(
            f"this model is binarized already, by policy {model.policy.name!r}; binarize a model "
            "in full precision."
        )
    kind = model.config.encoder
    policy = policy.resolved(model, encoder=kind)
    rules = policy.match(model, encoder=kind)
    frames = {f"encoder.layers.{index}": ValidFrames() for index in range(model.config.layers)}
    twins = {
        name: _twin(model, name, rule, policy=policy, frames=_frames_of(frames, name))
        for name, rule in rules.items()
    }
    for name, twin in twins.items():
        model.set_submodule(name, twin.train(model.get_submodule(name).training))
    for name, shared in frames.items():
        layer = model.get_submodule(name)
        watch(layer, shared, outermost=True)
        for part in layer.children():
            if _takes_the_mask(part) and binarized_modules(part):
                watch(part, shared, outermost=False)
    for block in model.modules():
        if type(block) in SHORTCUTS:
            block.shortcut = SHORTCUTS[type(block)]  # type: ignore[assignment]
    model.policy = policy
    return model


def calibrate(model: Hubert, waveforms: Sequence[Tensor]) -> None:
    """Set the scale of every quantizer from audio, in one forward pass, layer after layer.

    Statistics are over valid frames only, and attention's as dense attention has them. Under
    `torch.distributed` they are summed over all ranks, each with audio of its own, so that all
    end with one scale. A scale that was set before is set anew.

    Args:
        model: a twin.
        waveforms: as `Hubert.forward` takes them.

    Raises:
        InputError: the model is no twin, or `Hubert.features` refuses the audio.
    """
    quantizers = [module for module in model.modules() if isinstance(module, ElasticQuantizer)]
    if model.policy is None:
        raise InputError("a model in full precision has nothing to calibrate; binarize it first.")
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_evaluating(model))
        stack.enter_context(dense_attention(model))
        stack.enter_context(quantization(model, on=True))
        for quantizer in quantizers:
            quantizer.calibrating = True
        try:
            model.encode_batch(waveforms)
        finally:
            for quantizer in quantizers:
                quantizer.calibrating = False


def is_calibrated(model: nn.Module) -> bool:
    """Return whether every quantizer of ``model`` has its scale; true if there is none."""
    return all(module.ready for module in model.modules() if isinstance(module, ElasticQuantizer))


def binarized_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return every module of ``model`` with quantized operands, by name in the model's order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BINARIZED)}


def quantizer_scales(model: nn.Module) -> list[nn.Parameter]:
    """Return the learnt scales α, which BiT gives their own learning rate and no weight decay."""
    return [module.scale for module in model.modules() if isinstance(module, ElasticQuantizer)]


def binarized_parameters(model: nn.Module) -> int:
    """Return how many parameters of ``model`` are stored in fewer bits."""
    return sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, BinarizedLinear | BinarizedConv1d)
        and module.weight_quantizer is not None
    )


@contextmanager
def quantization(model: nn.Module, *, on: bool) -> Iterator[None]:
    """Switch all quantizers of ``model``, or of one module, on or off for a while.

    Off, a layer computes what the FP32 layer would with its weights; a ReLU that took an
    activation's place stays.
    """
    layers = [module for module in model.modules() if isinstance(module, BINARIZED)]
    before = [layer.quantized for layer in layers]
    try:
        for layer in layers:
            layer.quantized = on
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.quantized = was


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in eval mode, without dropout, for a while."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def dense_attention(model: nn.Module) -> Iterator[None]:
    """Let sparse attention compute all pairs and hide some, for a while."""
    gathering = [m for m in model.modules() if isinstance(m, SparseSelfAttention) and m.gather]
    try:
        for module in gathering:
            module.gather = False
        yield
    finally:
        for module in gathering:
            module.gather = True


def _takes_the_mask(part: nn.Module) -> bool:
    """Return whether a part of a layer is called with (x, valid), so that it may have own frames.

    An attention is and a convolution module; a feed-forward sees the frames of the whole layer.
    """
    return "valid" in inspect.signature(part.forward).parameters


def _frames_of(frames: dict[str, ValidFrames], name: str) -> ValidFrames | None:
    """Return what the quantizers of the layer share that ``name`` lies in; None outside of one."""
    return frames.get(".".join(name.split(".")[:3]))


def _twin(
    model: Hubert, name: str, rule: Rule, *, policy: Policy, frames: ValidFrames | None
) -> nn.Module:
    """Return what takes the place of the module called ``name``."""
    module = model.get_submodule(name)
    if rule.replace is not None:
        return nn.ReLU()
    if rule.left is not None and rule.right is not None:
        return _twin_product(model, name, rule, policy=policy, frames=frames)
    if isinstance(module, nn.Linear):
        return BinarizedLinear(module, weight=rule.weight, input=rule.input, frames=frames)
    if isinstance(module, nn.Conv1d):
        if module.padding_mode != "zeros":
            raise InputError(f"policy {policy.name!r}: {name!r} pads by {module.padding_mode!r}.")
        return BinarizedConv1d(module, weight=rule.weight, input=rule.input, frames=frames)
    raise InputError(
        f"policy {policy.name!r}: {name!r} is a {type(module).__name__}; weight and input are for "
        "linear layers and one-dimensional convolutions."
    )


def _twin_product(
    model: Hubert, name: str, rule: Rule, *, policy: Policy, frames: ValidFrames | None
) -> BinarizedProduct:
    parent_name, _, child = name.rpartition(".")
    attention = model.get_submodule(parent_name)
    is_product = isinstance(model.get_submodule(name), MatrixProduct)
    if not (is_product and isinstance(attention, SelfAttention) and child in _PRODUCTS and frames):
        raise InputError(
            f"policy {policy.name!r}: left and right are for an attention's "
            f"{' and '.join(_PRODUCTS)}, which {name!r} is not."
        )
    assert rule.left is not None
    assert rule.right is not None
    if child == "context_product" and rule.left.shift:
        raise InputError(
            f"policy {policy.name!r}: {name!r} has probabilities on its left, which have no "
            "channels to shift."
        )
    return BinarizedProduct(
        left=rule.left,
        right=rule.right,
        of=_PRODUCTS[child],
        heads=attention.heads,
        width=attention.query.out_features // attention.heads,
        frames=frames,
        like=attention.query.weight,
    )
