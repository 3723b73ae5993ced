"""FastConv and the positional convolution against closed forms and plain functions."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from superbit.upstreams.encoders.frontend import FastConv
from superbit.upstreams.encoders.position import PositionalConvolution
from superbit.upstreams.hubert_config import FASTCONV, FASTCONV_NANO
from superbit.upstreams.variant import size_of


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def nano():
    torch.manual_seed(0)
    return FastConv(FASTCONV_NANO)


def test_fastconv_has_the_parameters_of_the_table():
    with torch.device("meta"):
        model = FastConv(FASTCONV)
        assert count(model) == 1_843_968
        assert model(torch.empty(1, 160_000)).shape == (1, 499, 512)


def test_nano_fastconv_has_a_hand_counted_number_of_parameters(nano):
    # kernel 10, the norm, 3/1 twice over 64, 3/1 twice over 128, 2/1 twice over 128
    first = 10 * 32 + 2 * 32
    over_64 = 3 * 32 * 64 + 64 * 64 + 3 * 64 * 64 + 64 * 64
    over_128 = 3 * 64 * 128 + 128 * 128 + 3 * 128 * 128 + 128 * 128 + 2 * (2 + 1) * 128 * 128
    assert count(nano) == first + over_64 + over_128 == 231_808


@pytest.mark.parametrize("samples", [400, 719, 720, 800, 1040, 5003, 16_000])
def test_frames_are_those_the_config_foretells(nano, samples):
    frames = size_of("vanilla_nano").convolution_frames(samples)
    assert nano(torch.randn(1, samples)).shape == (1, frames, 128)


def test_fastconv_equals_the_same_layers_written_out(nano):
    samples = torch.randn(2, 3000)
    x = samples[:, None]
    for index, (block, (_, _, stride)) in enumerate(zip(nano.blocks, FASTCONV_NANO, strict=True)):
        x = F.conv1d(x, block.conv.weight, stride=stride)
        if index == 0:
            mean = x.mean(dim=-1, keepdim=True)
            deviation = (x.var(dim=-1, keepdim=True, correction=0) + 1e-5).sqrt()
            x = (x - mean) / deviation * block.norm.weight[:, None] + block.norm.bias[:, None]
        x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    torch.testing.assert_close(nano(samples), x.transpose(1, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [400, 401, 719, 720, 2560, 2561, 5003, 16_000])
def test_a_waveform_alone_has_the_features_of_a_batch_of_one(nano, samples):
    front_end = copy.deepcopy(nano).double()
    waveform = torch.randn(samples, dtype=torch.float64, requires_grad=True)
    alone, batch = front_end.alone(waveform), front_end(waveform[None])[0]
    torch.testing.assert_close(alone, batch, rtol=0, atol=1e-12)
    weights = torch.randn_like(batch)
    (of_alone,) = torch.autograd.grad((alone * weights).sum(), waveform)
    (of_batch,) = torch.autograd.grad((batch * weights).sum(), waveform)
    torch.testing.assert_close(of_alone, of_batch, rtol=0, atol=1e-11)


def test_a_frame_sees_its_own_400_samples_only_but_for_the_norm(nano):
    frozen = FastConv(FASTCONV_NANO)
    frozen.load_state_dict(nano.state_dict())
    frozen.blocks[0].norm = torch.nn.Identity()
    samples = torch.randn(1, 4000, requires_grad=True)
    frame = 5
    frozen(samples)[0, frame].pow(2).sum().backward()
    touched = samples.grad[0].nonzero().flatten()
    assert touched.min() >= frame * 320
    assert touched.max() < frame * 320 + 400


@pytest.mark.parametrize("kernel", [128, 5])
def test_positional_convolution_keeps_length_and_adds_zeros_at_the_ends(kernel):
    torch.manual_seed(0)
    layer = PositionalConvolution(32, kernel=kernel, groups=16)
    layer.reset_parameters()
    x = torch.randn(1, 40, 32)
    padded = F.pad(x, (0, 0, 100, 100))
    inside = layer(padded)[:, 100:140]
    assert layer(x).shape == x.shape
    torch.testing.assert_close(layer(x), inside, rtol=1e-5, atol=1e-6)


def test_positional_weight_norm_is_one_length_a_tap():
    torch.manual_seed(0)
    layer = PositionalConvolution(768, kernel=128, groups=16)
    layer.reset_parameters()
    length = layer.conv.parametrizations.weight.original0
    assert length.shape == (1, 1, 128)
    norms = layer.conv.weight.detach().norm(dim=(0, 1))
    torch.testing.assert_close(norms, length.detach().flatten(), rtol=1e-5, atol=1e-6)
    # 128 · 48 · 768 draws: their standard deviation is known to a part in 3,000
    assert layer.conv.weight.std().item() == pytest.approx(math.sqrt(4 / (128 * 768)), rel=2e-3)
    assert count(layer) == 768 * 48 * 128 + 128 + 768
