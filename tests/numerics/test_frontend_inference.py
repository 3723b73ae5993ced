"""The front end's faster ways in inference against torch's convolutions, in double precision."""

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from superbit.upstreams.encoders import frontend_kernels, position
from superbit.upstreams.encoders.frontend import FastConv
from superbit.upstreams.encoders.frozen import as_trained
from superbit.upstreams.encoders.position import PositionalConvolution, Spectrum
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import FASTCONV, FASTCONV_NANO, fastconv_layers
from superbit.upstreams.registry import load_upstream
from superbit.upstreams.variant import size_of

pytest.importorskip("numba")

from superbit.upstreams.quantization.kernels import float_products
from superbit.upstreams.quantization.kernels.float_products import Tile, arranged, product_of

NANOS = ("vanilla_nano", "conformer_nano", "squeeze_nano", "sparseformer_dn_nano")
ODD = fastconv_layers(24, *(40,) * 4, *(20,) * 4, *(36,) * 4)  # no whole panels


def speechlike(samples, seed=0):
    """Noise in bursts: in the pauses, the norms amplify every rounding error."""
    generator = torch.Generator().manual_seed(seed)
    waveform = 1e-4 * torch.randn(samples, generator=generator)
    for start in range(0, samples, 6000):
        waveform[start : start + 2500] *= 2000
    return waveform


def front_end(layers):
    torch.manual_seed(1)
    made = FastConv(layers).eval()
    for parameter in made.parameters():
        if parameter.dim() == 3:
            torch.nn.init.kaiming_normal_(parameter)
        else:
            torch.nn.init.normal_(parameter)
    return made.requires_grad_(False)


FRONT_ENDS = {"nano": FASTCONV_NANO, "odd": ODD, "one": FASTCONV_NANO[:1]}


@pytest.fixture(scope="module", params=FRONT_ENDS)
def fast(request):
    made = front_end(FRONT_ENDS[request.param])
    return made, copy.deepcopy(made).double()


@pytest.fixture
def computed(monkeypatch):
    """Count what is computed by the faster ways."""
    seen = []
    features, convolved = frontend_kernels.features, Spectrum.convolved
    monkeypatch.setattr(
        frontend_kernels, "features", lambda *given: (seen.append("features"), features(*given))[1]
    )
    monkeypatch.setattr(
        Spectrum, "convolved", lambda *given: (seen.append("convolved"), convolved(*given))[1]
    )
    return seen


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(st.integers(400, 40_000), st.floats(1e-3, 10), st.floats(-2, 2))
def test_features_are_those_of_torchs_convolutions_in_double(fast, samples, loud, offset):
    made, exact = fast
    waveform = loud * speechlike(samples, seed=samples) + offset * loud
    with as_trained():
        before = made.alone(waveform)
    features = made.alone(waveform)
    expected = exact.alone(waveform.double())
    assert features.shape == expected.shape
    error, before_error = ((each - expected).abs().max() for each in (features, before))
    assert error <= 2 * before_error + 2e-6 * expected.abs().max().clamp(min=1)


@torch.no_grad()
def test_the_true_size(computed):
    made = front_end(FASTCONV)
    waveform = speechlike(16_001)
    features = made.alone(waveform)
    expected = copy.deepcopy(made).double().alone(waveform.double())
    assert computed == ["features"]
    assert (features - expected).abs().max() <= 2e-6 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("then", ["plain", "gelu", "scaled"])
@pytest.mark.parametrize(("rows", "depth", "outputs"), [(1, 1, 1), (11, 149, 45)])
def test_products_of_another_tile(then, rows, depth, outputs):
    of = Tile(rows=3, vectors=2, lanes=16)
    random = np.random.RandomState(0)
    step = 3
    x = (4 * random.randn(step * rows + depth)).astype(np.float32)
    weight = random.randn(outputs, depth).astype(np.float32)
    laid_out = arranged(weight, of)
    width = len(laid_out) * of.outputs
    scale, shift = (random.randn(width).astype(np.float32) for _ in range(2))
    out = np.full((rows, width), np.nan, np.float32)
    product_of(of, then)(
        x.ctypes.data, 4 * step, rows, laid_out.ctypes.data, depth, len(laid_out),
        scale.ctypes.data, shift.ctypes.data, out.ctypes.data, out.strides[0],
    )  # fmt: skip
    windows = np.lib.stride_tricks.sliding_window_view(x, depth)[::step][:rows].astype(np.float64)
    expected = torch.from_numpy(windows @ weight.T.astype(np.float64))
    if then == "scaled":
        expected = expected * scale[:outputs] + shift[:outputs]
    if then != "plain":
        expected = F.gelu(expected)
    found = torch.from_numpy(out[:, :outputs]).double()
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=5e-5)


def test_gelu_is_as_exact_as_torchs():
    """Over all magnitudes, through a product with 1."""
    x = np.concatenate([np.linspace(-12, 12, 100_001), 10.0 ** np.arange(-30, 30)])
    x = np.concatenate([x, -x]).astype(np.float32)
    of = float_products.tile()
    one = arranged(np.ones((1, 1), np.float32), of)
    out = np.zeros((len(x), of.outputs), np.float32)
    product_of(of, "gelu")(
        x.ctypes.data, 4, len(x), one.ctypes.data, 1, 1, 0, 0, out.ctypes.data, out.strides[0]
    )
    exact = F.gelu(torch.from_numpy(x).double())
    bound = 4e-7 * torch.from_numpy(x).abs().double() + 1e-38
    assert ((torch.from_numpy(out[:, 0]).double() - exact).abs() <= bound).all()


@torch.no_grad()
def test_frames_do_not_depend_on_threads_or_on_what_lies_before_them_in_memory(fast):
    made, _ = fast
    waveform = speechlike(30_000)
    alone = made.alone(waveform)
    batch = torch.zeros(3, 30_001)
    batch[2, 1:] = waveform
    assert torch.equal(made.alone(batch[2, 1:]), alone)
    assert torch.equal(made(batch[1:, 1:])[1], alone)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 2)
        assert torch.equal(made.alone(waveform), alone)
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 3),
    st.sampled_from([(32, 128), (48, 32), (24, 33), (24, 100)]),
)
def test_positional_convolution_is_torchs_in_double(frames, batch, size):
    dim, kernel = size
    layer = positional(dim, kernel)
    exact = copy.deepcopy(layer).double()
    x = torch.randn(batch, frames, dim, generator=torch.Generator().manual_seed(frames))
    assert position.is_front_end_inference(layer, x)
    torch.testing.assert_close(layer(x).double(), exact(x.double()), rtol=0, atol=5e-6)


@torch.no_grad()
def test_padding_that_sees_nothing_is_nothing():
    layer = positional(32)
    layer.conv.bias.zero_()
    x = torch.randn(2, 400, 32)
    x[1, 70:] = 0
    found = layer(x)
    with as_trained():
        expected = layer(x)
    assert torch.equal(found[1] != 0, expected[1] != 0)
    assert not found[1, 70 + 64 :].any()
    assert found[1, 70 + 63].any()


def positional(dim, kernel=128):
    torch.manual_seed(3)
    layer = PositionalConvolution(dim, kernel=kernel, groups=8).eval()
    layer.reset_parameters()
    layer.conv.bias.data.normal_()
    return layer


@torch.no_grad()
@pytest.mark.parametrize("padding", ["independent", "fairseq"])
@pytest.mark.parametrize("name", NANOS)
def test_every_hidden_state_of_a_batch_is_near_that_in_double(name, padding, computed):
    """And as near as torch's convolutions come; padding of fairseq's means nothing."""
    model = untrained_model(replace(size_of(name), padding=padding)).eval()
    waveforms = [speechlike(samples, seed=samples) for samples in (400, 16_000, 40_123)]
    exact = copy.deepcopy(model).double()([waveform.double() for waveform in waveforms])
    assert not computed
    states, frames = model(waveforms), [round(len(waveform) / 320) for waveform in waveforms]
    assert computed == ["features"] * 3 + ["convolved"]
    with as_trained():
        before = model(waveforms)
    assert len(computed) == 4
    for row, count in enumerate(frames):
        for one, old, expected in zip(states, before, exact, strict=True):
            error, old_error = (
                (each[row, :count] - expected[row, :count]).abs().max() for each in (one, old)
            )
            assert error <= 1e-5
            assert error <= 3 * old_error + 2e-6


@torch.no_grad()
@pytest.mark.parametrize("name", NANOS)
def test_trained_weights_give_the_hidden_states_of_the_way_of_training(name):
    model = load_upstream(name).expert.model.eval()
    for samples in (400, 719, 24_000):
        waveform = [speechlike(samples)]
        with as_trained():
            before = model(waveform)
        for one, other in zip(model(waveform), before, strict=True):
            assert (one - other).abs().max() <= 1e-5


@torch.no_grad()
def test_changed_weights_are_seen(computed):
    model = untrained_model(size_of("vanilla_nano")).eval()
    waveform = speechlike(8_000)

    def states():
        found = model([waveform])
        with as_trained():
            expected = model([waveform])
        for one, other in zip(found, expected, strict=True):
            assert (one - other).abs().max() <= 1e-5
        return found[-1]

    seen = [states()]
    for change in (
        lambda: model.front_end.blocks[3].conv.weight.neg_(),
        lambda: model.front_end.blocks[0].norm.weight.data.mul_(-2),  # torch counts no such change
        lambda: model.position.conv.parametrizations.weight.original0.mul_(3),
        lambda: model.position.conv.bias.add_(1),
        lambda: model.load_state_dict(untrained_model(model.config, seed=1).state_dict()),
    ):
        change()
        seen.append(states())
    assert len(computed) == 2 * len(seen)
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in pairwise(seen))


@torch.no_grad()
def test_weights_are_arranged_once(monkeypatch):
    model = untrained_model(size_of("vanilla_nano")).eval()
    made = []
    prepared, of = frontend_kernels.prepared, Spectrum.of
    monkeypatch.setattr(frontend_kernels, "prepared", lambda b: (made.append("p"), prepared(b))[1])
    monkeypatch.setattr(Spectrum, "of", lambda conv: (made.append("s"), of(conv))[1])
    for samples in (8_000, 9_000, 8_000):
        model([speechlike(samples)])
    assert sorted(made) == ["p", "s"]


def test_what_else_is_computed_as_in_training(computed):
    model = untrained_model(size_of("vanilla_nano")).eval()
    waveform = speechlike(4_000)
    model([waveform])[-1].sum().backward()
    assert model.front_end.blocks[0].conv.weight.grad.abs().sum() > 0
    with torch.no_grad():
        model.train()
        model([waveform])
        model.eval()
        copy.deepcopy(model).double()([waveform])
        copy.deepcopy(model).bfloat16()([waveform])
        with torch.autocast("cpu", torch.bfloat16):
            model([waveform])
        with as_trained():
            model([waveform])
        copy.deepcopy(model).to("meta").encode(torch.empty(1, 20, 128, device="meta"), None)
        seen = []
        hooks = [
            module.register_forward_hook(lambda *given: seen.append(given))
            for module in (model.front_end.blocks[4].conv, model.position.conv)
        ]
        model([waveform])
        assert len(seen) == 2
        for hook in hooks:
            hook.remove()
        assert not computed
        model([waveform])
    assert computed == ["features", "convolved"]


@torch.no_grad()
def test_another_front_end_and_no_numba_are_left_to_torch(computed, monkeypatch):
    waveform = speechlike(4_000)
    made = front_end(FASTCONV_NANO)
    made.blocks[0].norm = torch.nn.Identity()
    made.alone(waveform)
    assert not computed
    made = front_end(FASTCONV_NANO)
    monkeypatch.setattr(frontend_kernels.choose, "available", lambda: False)
    made.alone(waveform)
    assert not computed
    with pytest.raises(RuntimeError):
        made(torch.zeros(1, 399))
