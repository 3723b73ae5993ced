"""Binarized layers: integers first, padding that counts for nothing, dense and sparse alike."""

import numpy as np
import pytest
import torch
from tiny_settings import TINY_SETTINGS
from torch import nn

from superbit.upstreams.encoder_kinds import ENCODERS
from superbit.upstreams.encoders.settings import SparseformerSettings
from superbit.upstreams.encoders.sparse_attention import SparseSelfAttention
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.convert import (
    binarize_,
    calibrate,
    quantization,
    quantizer_scales,
)
from superbit.upstreams.quantization.elastic import ElasticQuantizer, WeightBinarizer
from superbit.upstreams.quantization.layers import (
    BinarizedConv1d,
    BinarizedLinear,
    BinarizedProduct,
)
from superbit.upstreams.quantization.policy import Binarization
from superbit.upstreams.quantization.valid_frames import ValidFrames

SIGNED = Binarization(bits=1, set="signed", shift=True)
UNSIGNED = Binarization(bits=1, set="unsigned", shift=True)
WEIGHT = Binarization(bits=1, set="signed")
PER_CHANNEL = Binarization(bits=1, set="signed", per_channel=True)


def tiny(encoder, **changes):
    return HubertConfig(
        **{
            "encoder": encoder,
            "layers": 2,
            "dim": 32,
            "heads": 2,
            "ffn_dim": 48,
            "conv_layers": ((16, 10, 5), (32, 8, 4)),
            "position_kernel": 16,
            "own": TINY_SETTINGS.get(encoder),
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "input_dropout": 0.0,
            **changes,
        }
    )


def audio(*lengths, dtype=torch.float64):
    generator = torch.Generator().manual_seed(len(lengths))
    return [torch.randn(length, generator=generator).to(dtype) for length in lengths]


def twin(encoder, *, policy="w1a1", dtype=torch.float64, **changes):
    """A calibrated twin whose attention is peaked and whose shifts are not 0."""
    model = untrained_model(tiny(encoder, **changes)).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention.query" in name or "attention.key" in name:
                parameter.mul_(30.0)
    binarize_(model, policy)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".shift"):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    calibrate(model, audio(700, 500, dtype=dtype))
    return model


def randomized(layer, *, seed=0):
    """``layer`` with calibrated quantizers of random scales and shifts."""
    generator = torch.Generator().manual_seed(seed)
    for module in layer.modules():
        if isinstance(module, ElasticQuantizer):
            module.calibrate(torch.ones(1) if module.shift is None else module.shift)
            with torch.no_grad():
                module.scale.fill_(0.3 + torch.rand((), generator=generator).item())
                if module.shift is not None:
                    module.shift.copy_(0.2 * torch.randn(module.shift.shape, generator=generator))
    return layer.eval()


def integers(quantizer, x, shift):
    """Levels by NumPy: ±1 by the sign of the shifted value, or 0/1 by half a scale."""
    moved = (x + shift).detach().numpy()
    if quantizer.signed:
        return np.where(moved >= 0, 1, -1)
    return (moved / np.float32(quantizer.scale.item()) > 0.5).astype(np.int64)


def signs_of(weight):
    return np.where(weight.detach().numpy() >= weight.detach().mean().item(), 1, -1)


def rescaled(total, x_scale, w_scale, bias):
    """The one expression, in NumPy's float32."""
    scale = np.float32(x_scale) * np.asarray(w_scale, dtype=np.float32)
    y = total.astype(np.float32) * scale
    return y if bias is None else y + bias.detach().numpy()


@pytest.mark.parametrize("weight", [WEIGHT, PER_CHANNEL])
@pytest.mark.parametrize("input", [SIGNED, UNSIGNED])
def test_a_linear_layer_is_integers_times_one_scale(weight, input):
    torch.manual_seed(0)
    linear = nn.Linear(37, 5)
    layer = randomized(BinarizedLinear(linear, weight=weight, input=input))
    x = torch.randn(3, 11, 37)
    quantizer = layer.input_quantizer
    total = integers(quantizer, x, quantizer.shift) @ signs_of(linear.weight).T
    magnitude = linear.weight.detach().abs()
    magnitude = magnitude.mean(dim=1) if weight.per_channel else magnitude.mean()
    expected = rescaled(total, quantizer.scale.item(), magnitude.numpy(), linear.bias)
    assert np.array_equal(layer(x).detach().numpy(), expected)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(6, 8, 1, bias=False),
        nn.Conv1d(6, 6, 5, padding=2, groups=6, bias=False),
        nn.Conv1d(6, 6, 5, padding=2, groups=6),
    ],
)
def test_a_convolution_is_integers_times_one_scale_and_its_padding_is_zero(conv, per_channel):
    weight = PER_CHANNEL if per_channel else WEIGHT
    layer = randomized(BinarizedConv1d(conv, weight=weight, input=SIGNED))
    x = torch.randn(2, 6, 9)
    levels = integers(layer.input_quantizer, x, layer.input_quantizer.shift)
    pads = conv.padding[0]
    levels = np.pad(levels, ((0, 0), (0, 0), (pads, pads)))  # with 0, which is neither level
    signs = signs_of(conv.weight)
    total = np.zeros((2, conv.out_channels, 9), dtype=np.int64)
    for out in range(conv.out_channels):
        for t in range(9):
            window = levels[:, :, t : t + conv.kernel_size[0]]
            if conv.groups > 1:
                window = window[:, out : out + 1]
            total[:, out, t] = (window * signs[out]).sum(axis=(1, 2))
    magnitude = conv.weight.detach().abs()
    magnitude = magnitude.mean(dim=(1, 2))[:, None] if per_channel else magnitude.mean()
    bias = None if conv.bias is None else conv.bias[:, None]
    expected = rescaled(total, layer.input_quantizer.scale.item(), magnitude.numpy(), bias)
    assert np.array_equal(layer(x).detach().numpy(), expected)


@pytest.mark.parametrize("of", ["scores", "contexts"])
def test_a_product_is_integers_times_one_scale(of):
    layer = randomized(
        BinarizedProduct(
            left=SIGNED if of == "scores" else Binarization(bits=1, set="unsigned"),
            right=SIGNED,
            of=of,
            heads=2,
            width=8,
            frames=ValidFrames(),
            like=torch.zeros(1),
        )
    )
    rows = torch.randn(3, 2, 7, 8) if of == "scores" else torch.rand(3, 2, 7, 7)
    others = torch.randn(3, 2, 7, 8)
    if of == "scores":
        others = others.transpose(-1, -2)
    left, right = layer.left_quantizer, layer.right_quantizer
    total = integers(left, rows, 0.0 if left.shift is None else left.shift) @ integers(
        right, others, right.shift
    )
    expected = rescaled(total, left.scale.item(), right.scale.item(), None)
    assert np.array_equal(layer(rows, others).detach().numpy(), expected)


def test_a_weight_s_magnitude_counts_only_through_its_sign_and_its_mean():
    weight = torch.tensor([[1.0, 2.0, -3.0, -1.0], [0.5, -0.5, 3.0, -2.0]])  # mean 0
    other = torch.tensor([[2.0, 1.0, -1.0, -3.0], [3.0, -2.0, 0.5, -0.5]])  # same signs and mean
    assert torch.equal(weight.abs().mean(), other.abs().mean())
    x = torch.randn(2, 3, 4)
    results = []
    for values in (weight, other, 2 * weight):
        linear = nn.Linear(4, 2)
        with torch.no_grad():
            linear.weight.copy_(values)
            linear.bias.copy_(torch.tensor([0.1, -0.7]))
        results.append(randomized(BinarizedLinear(linear, weight=WEIGHT, input=SIGNED))(x))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_frames_of_zeros_have_two_levels_at_most():
    layer = randomized(BinarizedLinear(nn.Linear(4, 4), weight=WEIGHT, input=SIGNED))
    with torch.no_grad():
        layer.input_quantizer.shift.zero_()
    x = torch.cat([torch.zeros(1, 3, 4), torch.randn(1, 3, 4)], dim=1)
    assert set(layer.input_quantizer.levels(x)[0].unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(("stride", "expressivity"), [(4, 1), (4, 3), (4, 4), (5, 2)])
@pytest.mark.parametrize("policy", ["w1a1", "w1a2"])
def test_sparse_attention_is_the_dense_masked_one_with_its_gradients(policy, stride, expressivity):
    own = SparseformerSettings(sparse_stride=stride, sparse_expressivity=expressivity)
    model = twin("sparseformer", policy=policy, own=own)
    attention = model.encoder.layers[0].attention
    assert isinstance(attention, SparseSelfAttention)
    generator = torch.Generator().manual_seed(5)
    for lengths in ([23], [2], [14, 23], [5, 4]):
        x = torch.randn(len(lengths), max(lengths), 32, generator=generator).double()
        valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        weights = torch.randn(x.shape, generator=generator).double() * valid[:, :, None]
        found = []
        for gather in (True, False):
            attention.gather = gather
            model.zero_grad()
            y = attention(x, None if len(lengths) == 1 else valid)
            (y * weights).sum().backward()
            found.append([y[valid]] + [p.grad for p in attention.parameters()])
        for gathered, dense in zip(*found, strict=True):
            assert torch.allclose(gathered, dense, rtol=1e-9, atol=1e-12)
        assert attention.context_product.left_quantizer.scale.grad.item() != 0.0


@pytest.mark.parametrize("policy", ["w1a1", "w1a2"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_appended_padding_changes_neither_scales_nor_frames_nor_gradients(encoder, policy):
    model = twin(encoder, policy=policy)
    waveforms = audio(640, 410)
    plain = model.features

    def padded(waveforms):
        features, frames = plain(waveforms)
        junk = torch.full((len(waveforms), 7, features.shape[2]), 3.0, dtype=features.dtype)
        return torch.cat([features, junk], dim=1), frames

    # in train mode the norms' running statistics move; a fixed start for both
    start = {key: value.clone() for key, value in model.state_dict().items()}
    found = []
    for features in (plain, padded):
        model.load_state_dict(start)
        model.features = features
        calibrate(model, waveforms)
        scales = torch.stack(quantizer_scales(model)).detach()
        model.train().zero_grad()
        states, frames = model.encode_batch(waveforms)
        valid = torch.arange(states[-1].shape[1]) < torch.tensor(frames)[:, None]
        losses = [state[valid].square().mean() for state in states]
        loss = torch.stack([*losses, states[-1][valid][:, 0].mean()]).sum()
        loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((scales, loss.detach(), states[-1][valid].detach(), gradients))
    model.features = plain
    for one, other in zip(found[0][:3], found[1][:3], strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
    for name, gradient in found[0][3].items():
        # the batch norm of training computes in float32
        largest = float(gradient.abs().max())
        assert torch.allclose(gradient, found[1][3][name], rtol=0, atol=1e-5 * largest + 1e-7), name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_utterance_s_statistics_are_its_own_in_a_batch(encoder):
    """Of a batch padded to its longest, each frame and each pair of frames counts once."""
    model = untrained_model(tiny(encoder)).double()
    binarize_(model, "w1a1")
    short, long = audio(420, 900)
    scales = []
    for batch in ([short, long], [short], [long]):
        calibrate(model, batch)
        first = model.encoder.layers[0]
        scales.append([first.attention.query.input_quantizer.scale.item()])
    frames = [len(model.features([wave])[0][0]) for wave in (short, long)]
    if encoder in ("vanilla", "sparseformer"):  # whose first quantizer no other precedes
        pooled = (scales[1][0] * frames[0] + scales[2][0] * frames[1]) / sum(frames)
        assert scales[0][0] == pytest.approx(pooled, rel=1e-12)
    assert scales[0] != scales[2]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_shift_and_every_scale_gets_a_gradient(encoder):
    model = twin(encoder).train()
    states = model(audio(900, 640))
    generator = torch.Generator().manual_seed(0)
    sum((s * torch.randn(s.shape, generator=generator)).sum() for s in states[1:]).backward()
    for name, parameter in model.named_parameters():
        if name.endswith((".shift", "_quantizer.scale")):
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_forward_pass_binarizes_each_weight_once_and_for_itself_alone(encoder, monkeypatch):
    model = twin(encoder, dtype=torch.float32).eval()
    waveforms = audio(900, 640, 410)
    calls = []
    levels = WeightBinarizer.levels
    monkeypatch.setattr(
        WeightBinarizer, "levels", lambda self, weight: calls.append(1) or levels(self, weight)
    )
    quantizers = [m for m in model.modules() if isinstance(m, WeightBinarizer)]
    with torch.no_grad():
        before = model(waveforms)
        assert len(calls) == len(quantizers)
        for name, parameter in model.named_parameters():
            if name.endswith("weight"):  # not seen by torch's counter of versions
                parameter.data.neg_()
        after = model(waveforms)
        alone = [model([waveform]) for waveform in waveforms]
    assert not torch.equal(before[-1], after[-1])
    for one, states in enumerate(alone):
        frames = states[-1].shape[1]
        assert all(torch.equal(a[one, :frames], b[0]) for a, b in zip(after, states, strict=True))


def test_probabilities_have_two_levels_with_dropout_too():
    model = twin("vanilla", attention_dropout=0.3, dtype=torch.float32)
    product = model.encoder.layers[0].attention.context_product
    seen = []
    original = product.left_quantizer.levels
    product.left_quantizer.levels = lambda *args, **kwargs: (
        seen.append(original(*args, **kwargs)) or seen[-1]
    )
    for training in (True, False):
        model.train(training)
        model(audio(900, dtype=torch.float32))
    assert len(seen) == 2
    for levels, _ in seen:
        assert set(levels.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("encoder", ["sparseformer", "squeezeformer"])
def test_in_eval_mode_an_utterance_gives_the_same_bits_in_any_batch(encoder):
    model = twin(encoder, dtype=torch.float32).eval()
    waveforms = audio(900, 420, 900, 640, dtype=torch.float32)
    with torch.no_grad():
        together = model(waveforms)
        for row, waveform in enumerate(waveforms):
            for one, many in zip(model([waveform]), together, strict=True):
                frames = one.shape[1]
                assert torch.equal(one[0], many[row, :frames])
                # beyond, its own last frame again
                assert torch.equal(many[row, frames:], one[0, -1:].expand_as(many[row, frames:]))


@pytest.mark.parametrize(
    ("encoder", "policy"),
    [
        pytest.param("conformer", "w1a1", marks=pytest.mark.slow),
        ("sparseformer", "w1a1"),
        ("vanilla", "w2a2"),
    ],
)
def test_a_twin_compiles_in_one_graph(encoder, policy):
    model = twin(encoder, policy=policy, dtype=torch.float32, layers=1)
    x = torch.randn(2, 11, 32)
    valid = torch.arange(11) < torch.tensor([[11], [6]])
    compiled = torch.compile(model.encode, fullgraph=True, backend="eager")
    model.eval()
    with torch.no_grad():
        assert torch.equal(compiled(x, None)[-1], model.encode(x, None)[-1])
    model.train()
    gradients = []
    for encode in (compiled, model.encode):
        model.zero_grad()
        encode(x, valid)[-1][valid][:, 0].sum().backward()
        gradients.append([p.grad.clone() for p in quantizer_scales(model)])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    torch._dynamo.reset()


@pytest.mark.parametrize(("frames", "kept"), [(49, 1.0), (51, 0.0), (100, 0.0), (1000, 0.0)])
def test_even_attention_over_half_the_frames_of_calibration_and_more_is_all_zero(frames, kept):
    """BiT's start, α = 4 / T for rows that sum to 1 over T: what is above 2 / T survives."""
    quantizer = ElasticQuantizer(bits=1, signed=False)
    quantizer.calibrate(torch.full((1, 1, 100, 100), 0.01))
    rows = torch.full((1, 1, frames, frames), 1 / frames)
    assert quantizer.levels(rows)[0].mean().item() == kept


def test_more_bits_come_closer_to_the_same_weights_in_full_precision():
    errors = {}
    for policy in ("w1a1", "w2a2", "w8a8"):
        model = untrained_model(tiny("conformer")).double().eval()
        binarize_(model, policy)
        calibrate(model, audio(2000))
        with torch.no_grad():
            quantized = model(audio(2000))[-1]
            with quantization(model, on=False):
                full = model(audio(2000))[-1]
        errors[policy] = float((quantized - full).norm() / full.norm())
    assert errors["w8a8"] < 0.02
    assert errors["w8a8"] < 0.1 * errors["w2a2"] < 0.1 * errors["w1a1"], errors
