"""Elastic binarization against its hand-computed vectors and a NumPy float64 implementation."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superbit.upstreams.errors import InputError
from superbit.upstreams.quantization.elastic import ElasticQuantizer, WeightBinarizer

# of BiT's quantizers at scale 1; the third value of the signed one is 0, which is +1 here
VECTOR = [-1.5, -0.4, 0.0, 0.3, 0.6, 2.0]


def ready(quantizer, scale, dtype=torch.float64):
    """``quantizer`` as if calibrated to ``scale``."""
    quantizer.to(dtype)
    quantizer.load_state_dict(
        {
            **quantizer.state_dict(),
            "scale": torch.tensor(scale, dtype=dtype),
            "initialized": torch.tensor(True),
        }
    )
    return quantizer


def gradients(quantizer, x, upstream):
    x = x.clone().requires_grad_()
    quantizer.zero_grad()
    y = quantizer(x)
    (y * upstream).sum().backward()
    return y.detach(), x.grad, quantizer.scale.grad


def numpy_quantizer(x, scale, shift, g, *, bits, signed):
    """BiT's and LSQ's formulas, one element at a time: y and the gradients of x, scale, shift."""
    moved = x + shift
    step = max(scale, 1e-5)
    lowest = 0.0
    if not signed and bits > 1:
        lowest = moved.min()
    y, to_x, to_scale = np.empty_like(x), np.empty_like(x), 0.0
    for index in np.ndindex(*x.shape):
        q = (moved[index] - lowest) / step
        if signed and bits == 1:
            level, low, high = (1.0 if q >= 0 else -1.0), -1.0, 1.0
            to_scale += level * g[index]
        else:
            low = -(2.0 ** (bits - 1)) if signed else 0.0
            high = 2.0 ** (bits - 1) - 1 if signed else 2.0**bits - 1
            level = min(max(float(np.rint(q)), low), high)
            inside = low <= q <= high
            to_scale += (np.rint(q) - q if inside else level) * g[index]
        y[index] = step * level + lowest
        to_x[index] = g[index] if low <= q <= high else 0.0
    most = 1.0 if bits == 1 else high
    to_shift = to_x.reshape(-1, x.shape[-1]).sum(axis=0)
    return y, to_x, to_scale / math.sqrt(x.size * most), to_shift


def test_the_signed_vector():
    y, to_x, to_scale = gradients(
        ready(ElasticQuantizer(bits=1, signed=True), 1.0),
        torch.tensor(VECTOR, dtype=torch.float64),
        1.0,
    )
    assert y.tolist() == [-1, -1, 1, 1, 1, 1]
    assert to_x.tolist() == [0, 1, 1, 1, 1, 0]
    assert to_scale.item() == pytest.approx(2 / math.sqrt(6), abs=1e-12)  # 0.8165


def test_the_unsigned_vector():
    y, to_x, to_scale = gradients(
        ready(ElasticQuantizer(bits=1, signed=False), 1.0),
        torch.tensor(VECTOR, dtype=torch.float64),
        1.0,
    )
    assert y.tolist() == [0, 0, 0, 0, 1, 1]
    assert to_x.tolist() == [0, 0, 1, 1, 1, 0]
    assert to_scale.item() == pytest.approx(1.1 / math.sqrt(6), abs=1e-12)  # 0.4491


def test_half_a_step_rounds_to_even_and_zero_is_plus_one():
    halves = torch.tensor([0.25, 0.75, -0.0])
    unsigned = ready(ElasticQuantizer(bits=1, signed=False), 0.5, torch.float32)
    assert unsigned.levels(halves)[0].tolist() == [0, 1, 0]  # q = 0.5, 1.5 (clipped), -0
    signed = ready(ElasticQuantizer(bits=1, signed=True), 0.5, torch.float32)
    assert signed.levels(torch.tensor([0.0, -0.0, -1e-38]))[0].tolist() == [1, 1, -1]
    two = ready(ElasticQuantizer(bits=2, signed=True), 1.0, torch.float32)
    assert two.levels(torch.tensor([-9.0, -1.5, -0.5, 0.5, 9.0]))[0].tolist() == [-2, -2, 0, 0, 1]


@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    bits=st.sampled_from([1, 2, 4, 8]),
    signed=st.booleans(),
    scale=st.floats(0.01, 3.0),
    seed=st.integers(0, 2**31),
)
def test_values_and_gradients_are_the_closed_forms(shape, bits, signed, scale, seed):
    random = np.random.default_rng(seed)
    x, g = random.normal(size=shape), random.normal(size=shape)
    x[random.random(shape) < 0.2] = 0.0
    shift = random.normal(size=shape[-1]) * (random.random() < 0.7)
    quantizer = ready(ElasticQuantizer(bits=bits, signed=signed, shift_shape=shape[-1:]), scale)
    with torch.no_grad():
        quantizer.shift.copy_(torch.from_numpy(shift))
    y, to_x, to_scale = gradients(quantizer, torch.from_numpy(x), torch.from_numpy(g))
    expected = numpy_quantizer(x, scale, shift, g, bits=bits, signed=signed)
    np.testing.assert_allclose(y.numpy(), expected[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(to_x.numpy(), expected[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(to_scale.numpy(), expected[2], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(quantizer.shift.grad.numpy(), expected[3], rtol=1e-12, atol=1e-12)
    assert len(np.unique(y.numpy().round(9))) <= 2**bits


def test_a_scale_below_the_smallest_is_that_and_still_gets_its_gradient():
    quantizer = ready(ElasticQuantizer(bits=1, signed=True), -3.0)
    y, to_x, to_scale = gradients(quantizer, torch.tensor([0.5, -0.5]).double(), 1.0)
    assert y.tolist() == [1e-5, -1e-5]
    assert to_x.tolist() == [0, 0]
    assert to_scale.item() == 0.0
    _, _, to_scale = gradients(quantizer, torch.tensor([0.5, 0.5]).double(), 1.0)
    assert to_scale.item() == pytest.approx(2 / math.sqrt(2))


def test_a_count_given_takes_the_place_of_the_elements():
    quantizer = ready(ElasticQuantizer(bits=1, signed=True), 1.0)
    levels, scale = quantizer.levels(torch.ones(4).double(), count=64)
    (levels * scale).sum().backward()
    assert quantizer.scale.grad.item() == pytest.approx(4 / 8)


@pytest.mark.parametrize(
    ("bits", "signed", "factor"),
    [
        (1, True, 2.0),
        (1, False, 4.0),
        (2, True, 2.0),
        (2, False, 4 / math.sqrt(3)),
        (4, True, 2 / math.sqrt(7)),
        (8, False, 4 / math.sqrt(255)),
    ],
)
def test_scales_start_at_a_multiple_of_the_mean_magnitude(bits, signed, factor):
    x = torch.tensor([[3.0, -1.0, 100.0], [0.0, 2.0, 100.0]])
    quantizer = ElasticQuantizer(bits=bits, signed=signed, shift_shape=(3,))
    with torch.no_grad():
        quantizer.shift[0] = 1.0
    mask = torch.tensor([[True, True, False]])
    quantizer.calibrate(x, mask=mask, count=4)
    assert quantizer.scale.item() == pytest.approx(factor * (4 + 1 + 1 + 2) / 4)
    assert bool(quantizer.initialized)


def test_nothing_is_quantized_before_the_scale_is_set():
    quantizer = ElasticQuantizer(bits=1, signed=True)
    with pytest.raises(InputError, match="never calibrated"):
        quantizer(torch.ones(2))
    assert quantizer.initialized.dtype == torch.bool
    assert not bool(quantizer.initialized)


def test_saved_loaded_and_copied_it_gives_the_same_and_is_not_set_anew():
    quantizer = ElasticQuantizer(bits=1, signed=True, shift_shape=(3,))
    quantizer.calibrate(torch.randn(7, 3))
    other_data = 100 * torch.randn(5, 3)
    expected = quantizer(other_data)
    loaded = ElasticQuantizer(bits=1, signed=True, shift_shape=(3,))
    loaded.load_state_dict(quantizer.state_dict())
    for again in (loaded, copy.deepcopy(quantizer)):
        assert torch.equal(again(other_data), expected)
        assert torch.equal(again.scale, quantizer.scale)
    fresh = ElasticQuantizer(bits=1, signed=True, shift_shape=(3,))
    loaded.load_state_dict(fresh.state_dict())  # the flag is what the state says, off as well as on
    with pytest.raises(InputError, match="never calibrated"):
        loaded(other_data)


def test_the_smallest_value_of_a_multi_bit_unsigned_set_is_taken_over_valid_frames():
    x = torch.tensor([[1.0, 2.0, -50.0]])
    mask = torch.tensor([[True, True, False]])
    y, scale = ready(ElasticQuantizer(bits=2, signed=False), 0.5, torch.float32).levels(
        x, mask=mask
    )
    assert scale is None
    assert y[0, :2].tolist() == [1.0, 2.0]  # 1 + 0 × 0.5, 1 + 2 × 0.5
    from_zero = ready(ElasticQuantizer(bits=2, signed=False, from_zero=True), 0.5, torch.float32)
    levels, scale = from_zero.levels(x)
    assert (levels.tolist(), scale.item()) == ([[2, 3, 0]], 0.5)


def test_the_weight_matrix_of_the_published_binarizer():
    weight = torch.tensor([[1.0, 2.0, -3.0], [0.5, -0.5, 3.0]])
    signs, scale = WeightBinarizer().levels(weight)
    # the mean of all is 0.5: the entry that equals it is +1
    assert signs.tolist() == [[1, 1, -1], [1, -1, 1]]
    assert scale.item() == pytest.approx(10 / 6)
    rows, scales = WeightBinarizer(per_channel=True).levels(weight)
    assert torch.equal(rows, signs)  # around the mean of the whole, row by row as well
    assert scales.tolist() == [[2.0], [pytest.approx(4 / 3)]]


@pytest.mark.parametrize("per_channel", [False, True])
@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(1, 5), min_size=2, max_size=3), seed=st.integers(0, 2**31))
def test_a_weight_is_its_signs_times_its_mean_magnitude_and_its_gradient_passes(
    per_channel, shape, seed
):
    random = np.random.default_rng(seed)
    w, g = random.normal(size=shape), random.normal(size=shape)
    weight = torch.from_numpy(w).requires_grad_()
    y = WeightBinarizer(per_channel=per_channel)(weight)
    y.backward(torch.from_numpy(g))
    magnitude = (
        np.abs(w).reshape(shape[0], -1).mean(axis=1).reshape(-1, *[1] * (len(shape) - 1))
        if per_channel
        else np.abs(w).mean()
    )
    expected = np.where(w - w.mean() >= 0, 1.0, -1.0) * magnitude
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(weight.grad.numpy(), g, rtol=1e-12)


def test_weights_of_zeros_have_one_level_and_a_gradient():
    weight = torch.zeros(2, 3, requires_grad=True)
    y = WeightBinarizer()(weight)
    assert y.unique().numel() == 1
    y.sum().backward()
    assert torch.allclose(weight.grad, torch.ones(2, 3))
