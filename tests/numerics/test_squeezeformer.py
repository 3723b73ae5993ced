"""The Squeezeformer's two builds: their rates, their blocks, their padding and their sizes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from superbit.upstreams.encoders.attention import SelfAttention
from superbit.upstreams.encoders.conformer import ConformerLayer, ConvolutionModule
from superbit.upstreams.encoders.settings import SqueezeformerSettings
from superbit.upstreams.encoders.squeezeformer import (
    ScaleAndBias,
    SqueezeformerEncoder,
    SqueezeformerLayer,
    TimeReduction,
)
from superbit.upstreams.hubert import Hubert, untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.variant import size_of

SQUEEZEFORMERS = ("squeezeformer", "squeezeformer_faithful")
DIM = 32
LENGTHS = [1, 2, 3, 4, 7, 49, 50]  # frames
VALID = torch.arange(50) < torch.tensor(LENGTHS)[:, None]  # (B, T)


def squeezeformer(kind, *, layers=16, **changes):
    """An encoder with every weight and statistic off its start."""
    config = HubertConfig(
        encoder=kind,
        layers=layers,
        dim=DIM,
        heads=4,
        ffn_dim=48,
        own=SqueezeformerSettings(depthwise_kernel=5, **changes),
        dropout=0.0,
        attention_dropout=0.0,
    )
    torch.manual_seed(0)
    encoder = SqueezeformerEncoder(config)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
        if isinstance(module, nn.LayerNorm | nn.BatchNorm1d | ScaleAndBias):
            for parameter in module.parameters():
                parameter.data.add_(0.2 * torch.randn(parameter.shape))
    return encoder.eval()


# rates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SQUEEZEFORMERS)
@pytest.mark.parametrize("frames", [1, 2, 3, 49])
def test_eight_of_sixteen_layers_run_at_half_the_rate_and_their_states_come_back(kind, frames):
    encoder = squeezeformer(kind)
    seen = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda _module, _given, result: seen.append(result))
    x = torch.randn(2, frames, DIM)
    with torch.no_grad():
        states = encoder(x)
    half = (frames + 1) // 2
    assert [y.shape[1] for y in seen] == [frames] * 7 + [half] * 8 + [frames]
    assert [state.shape for state in states] == [(2, frames, DIM)] * 17
    assert torch.equal(states[0], x)
    for index, (state, output) in enumerate(zip(states[1:], seen, strict=True)):
        for frame in range(frames):
            source = frame // 2 if 7 <= index <= 14 else frame
            assert torch.equal(state[:, frame], output[:, source])
        if frames > 1:
            pairs_agree = torch.equal(state[:, 0], state[:, 1])
            assert pairs_agree == (7 <= index <= 14)


@pytest.mark.parametrize("kind", SQUEEZEFORMERS)
def test_recovery_adds_what_was_there_before_the_reduction(kind):
    encoder = squeezeformer(kind)
    recovered = []
    encoder.layers[15].register_forward_pre_hook(lambda _module, given: recovered.append(given[0]))
    with torch.no_grad():
        states = encoder(torch.randn(2, 9, DIM))
        # states 7 and 15 are the outputs of the seventh layer and of the last at half the rate
        assert torch.equal(states[15][:, 2], states[15][:, 3])
        torch.testing.assert_close(recovered[0], states[7] + encoder.recovery(states[15]))


@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 9])
def test_reduction_by_loops(kernel, frames):
    torch.manual_seed(0)
    reduction = TimeReduction(DIM, kernel=kernel)
    x = torch.randn(2, frames, DIM)
    valid = torch.ones(2, frames, dtype=torch.bool)
    with torch.no_grad():
        y, kept = reduction(x, valid)
        assert y.shape == (2, -(-frames // 2), DIM)
        assert kept.shape == y.shape[:2]
        assert kept.all()
        for row in range(2):
            for t in range(y.shape[1]):
                total = reduction.depthwise.bias.clone()
                for tap in range(kernel):
                    if 2 * t + tap < frames:
                        total += reduction.depthwise.weight[:, 0, tap] * x[row, 2 * t + tap]
                expected = reduction.pointwise.weight[:, :, 0] @ total + reduction.pointwise.bias
                torch.testing.assert_close(y[row, t], expected, rtol=1e-5, atol=1e-5)


def test_which_layers_run_at_half_the_rate_is_a_choice_of_the_config():
    encoder = squeezeformer("squeezeformer", layers=5, reduce_before=0, recover_before=4)
    lengths = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda _module, _given, y: lengths.append(y.shape[1]))
    encoder(torch.randn(1, 10, DIM))
    assert lengths == [5, 5, 5, 5, 10]


# padding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("kind", SQUEEZEFORMERS)
def test_a_row_is_the_same_alone_and_in_a_batch_whatever_padding_holds(kind, kernel):
    encoder = squeezeformer(kind, reduction_kernel=kernel)
    x = torch.randn(len(LENGTHS), 50, DIM)
    with torch.no_grad():
        batched = encoder(x, VALID)
        other = encoder(x.where(VALID[:, :, None], 50 * torch.randn(x.shape)), VALID)
        for one, another in zip(batched, other, strict=True):
            assert torch.equal(one[VALID], another[VALID])
        for row, frames in enumerate(LENGTHS):
            alone = encoder(x[row : row + 1, :frames])
            for one, many in zip(alone, batched, strict=True):
                assert (one[0] - many[row, :frames]).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", SQUEEZEFORMERS)
def test_in_training_padding_changes_neither_outputs_nor_statistics(kind):
    x = torch.randn(len(LENGTHS), 50, DIM)
    outcomes = []
    for filling in (torch.zeros_like(x), 50 * torch.randn(x.shape)):
        encoder = squeezeformer(kind, layers=4).train()
        states = encoder(x.where(VALID[:, :, None], filling), VALID)
        buffers = [b for name, b in encoder.named_buffers() if "running" in name]
        assert len(buffers) == 2 * 4
        outcomes.append([*(state[VALID] for state in states), *buffers])
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# blocks -----------------------------------------------------------------------------------------


def test_the_seed_matched_build_has_conformer_layers_and_the_faithful_one_its_own():
    for kind, layer in zip(SQUEEZEFORMERS, (ConformerLayer, SqueezeformerLayer), strict=True):
        assert {type(each) for each in squeezeformer(kind, layers=4).layers} == {layer}


def test_the_faithful_block_by_its_formulas():
    torch.manual_seed(0)
    attention = SelfAttention(DIM, 4)
    convolution = ConvolutionModule(DIM, kernel=5, gated=False, bias=True)
    layer = SqueezeformerLayer(attention, convolution, dim=DIM, ffn_dim=48).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    convolution.norm.running_mean.normal_()
    convolution.norm.running_var.uniform_(0.5, 2.0)
    weights = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"].flatten(1), weights[f"{name}.bias"])

    def swish(x):
        return x * torch.sigmoid(x)

    def feed_forward(x, name):
        return linear(swish(linear(x, f"{name}.expand")), f"{name}.contract")

    def convolve(x):
        # Swish keeps all 2 D channels, where a Conformer's gate would leave D
        x = swish(linear(x, "convolution.pointwise_in"))  # (B, T, 2 D)
        padded = F.pad(x, (0, 0, 2, 2))
        taps = weights["convolution.depthwise.weight"][:, 0]  # (2 D, 5)
        x = sum(padded[:, k : k + x.shape[1]] * taps[:, k] for k in range(5))
        x = x + weights["convolution.depthwise.bias"]
        deviation = (weights["convolution.norm.running_var"] + 1e-5).sqrt()
        x = (x - weights["convolution.norm.running_mean"]) / deviation
        x = x * weights["convolution.norm.weight"] + weights["convolution.norm.bias"]
        return linear(swish(x), "convolution.pointwise_out")

    def step(x, name, function):
        y = function(x * weights[f"{name}_scale.scale"] + weights[f"{name}_scale.bias"])
        mean, variance = (x + y).mean(-1, keepdim=True), (x + y).var(-1, keepdim=True, correction=0)
        normal = (x + y - mean) / (variance + 1e-5).sqrt()
        return normal * weights[f"{name}_norm.weight"] + weights[f"{name}_norm.bias"]

    x = torch.randn(2, 9, DIM)
    with torch.no_grad():
        expected = step(x, "attention", attention)
        expected = step(expected, "feed_forward_1", lambda y: feed_forward(y, "feed_forward_1"))
        expected = step(expected, "convolution", convolve)
        expected = step(expected, "feed_forward_2", lambda y: feed_forward(y, "feed_forward_2"))
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


# the whole models -------------------------------------------------------------------------------


def feed_forward_parameters(dim, ffn):
    return 2 * dim * ffn + ffn + dim


def seed_matched_layer(dim, ffn):
    attention = 4 * (dim * dim + dim)
    convolution = 2 * dim * dim + 31 * dim + 2 * dim + dim * dim
    return 2 * feed_forward_parameters(dim, ffn) + attention + convolution + 5 * 2 * dim


def faithful_layer(dim, ffn):
    attention = 4 * (dim * dim + dim)
    pointwise = (2 * dim * dim + 2 * dim) + (2 * dim * dim + dim)
    convolution = pointwise + (31 + 1) * 2 * dim + 2 * 2 * dim
    norms_and_scales = 4 * (2 * dim + 2 * dim)
    return 2 * feed_forward_parameters(dim, ffn) + attention + convolution + norms_and_scales


def reduction_and_recovery(dim, kernel):
    return (dim * kernel + dim) + 2 * (dim * dim + dim)


# FastConv; norm and projection to 144; positional convolution; norm; mask; final projection
WRAPPER = 1_843_968 + (1_024 + 512 * 144 + 144) + (144 * 9 * 128 + 128 + 144) + 288
WRAPPER += 144 + (144 * 256 + 256)
WRAPPER_NANO = 231_808 + 256 + (128 * 8 * 128 + 128 + 128) + 256 + 128 + (128 * 256 + 256)
FAITHFUL_3072 = replace(size_of("squeeze_xs_faithful"), ffn_dim=3072)


@pytest.mark.parametrize(
    ("config", "by_hand", "total"),
    [
        (
            size_of("squeeze_xs"),
            WRAPPER + 16 * seed_matched_layer(144, 3072) + reduction_and_recovery(144, 3),
            33_010_096,
        ),
        (
            size_of("squeeze_xs_fair"),
            WRAPPER + 16 * seed_matched_layer(144, 576) + reduction_and_recovery(144, 3),
            9_927_088,
        ),
        (
            replace(size_of("squeeze_xs"), own=SqueezeformerSettings(reduction_kernel=5)),
            WRAPPER + 16 * seed_matched_layer(144, 3072) + reduction_and_recovery(144, 5),
            33_010_384,
        ),
        (
            size_of("squeeze_xs_faithful"),
            WRAPPER + 16 * faithful_layer(144, 576) + reduction_and_recovery(144, 5),
            10_360_528,
        ),
        (
            FAITHFUL_3072,
            WRAPPER + 16 * faithful_layer(144, 3072) + reduction_and_recovery(144, 5),
            33_443_536,
        ),
        (
            size_of("squeeze_nano"),
            WRAPPER_NANO + 4 * seed_matched_layer(128, 256) + reduction_and_recovery(128, 3),
            1_440_512,
        ),
    ],
)
def test_parameters_counted_by_hand(config, by_hand, total):
    with torch.device("meta"):
        model = Hubert(config)
    assert sum(p.numel() for p in model.parameters()) == by_hand == total


def test_the_faithful_build_starts_with_scales_of_1_and_passes_gradients_everywhere():
    config = replace(
        size_of("squeeze_nano"),
        encoder="squeezeformer_faithful",
        own=SqueezeformerSettings(attention_position="relative"),
    )
    model = untrained_model(config)
    scales = [module for module in model.modules() if isinstance(module, ScaleAndBias)]
    assert len(scales) == 4 * 4
    for module in scales:
        assert torch.equal(module.scale, torch.ones(128))
        assert not module.bias.any()
    torch.manual_seed(0)
    states = model([torch.randn(8_000), torch.randn(800)])
    sum((state * torch.randn_like(state)).sum() for state in states).backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("mask_emb", "final_proj")):  # pre-training's
            continue
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
