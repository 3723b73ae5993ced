"""A twin by bits gives the states of its simulation, to the bit, and knows when not to."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from small_twins import SMALL

from superbit.upstreams.encoders.settings import ConformerSettings
from superbit.upstreams.expert import build, untrained_twin
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.bits import shortcuts
from superbit.upstreams.quantization.convert import quantization
from superbit.upstreams.quantization.kernels import choose

pytest.importorskip("numba")

from superbit.upstreams.quantization.bits import attention as bit_attention
from superbit.upstreams.quantization.bits import convolution as bit_convolution
from superbit.upstreams.quantization.bits import feed_forward as bit_feed_forward
from superbit.upstreams.quantization.bits import linear as bit_linear

NANOS = ("vanilla", "conformer", "squeeze", "sparseformer_dn", "sparseformer_sw")


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def computed(monkeypatch):
    """Counts the blocks that were computed by bits, by kind."""
    found: dict[str, int] = {}
    for module, name in (
        (bit_attention, "attend"),
        (bit_feed_forward, "contracted"),
        (bit_convolution, "convolved"),
        (bit_linear, "floats"),
    ):
        before = getattr(module, name)

        def counted(*given, before=before, name=name, **named):
            found[name] = found.get(name, 0) + 1
            return before(*given, **named)

        monkeypatch.setattr(module, name, counted)
    return found


def waveform(samples: int, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    # loud and quiet, as speech is
    return 0.1 * noise * torch.linspace(0, 9, samples).sin()


def assert_equal_to_simulation(model, waveforms) -> None:
    by_bits = model(waveforms)
    with choose.using("off"):
        simulated = model(waveforms)
    for layer, (ours, theirs) in enumerate(zip(by_bits, simulated, strict=True)):
        assert torch.equal(ours, theirs), f"state {layer}"


@cache
def _made(config: HubertConfig, policy: str):
    with torch.enable_grad():
        return untrained_twin(config, policy).eval()


def twin(config: HubertConfig, policy: str = "w1a1"):
    """A twin that a test may change: making one takes longer than copying it."""
    return copy.deepcopy(_made(config, policy))


@pytest.mark.parametrize("name", NANOS)
def test_trained_twins_give_the_same_states(name, computed):
    model = build(f"{name}_nano", policy="w1a1").model.eval()
    assert_equal_to_simulation(model, [waveform(24_000), waveform(400, 1), waveform(11_111, 2)])
    layers = model.config.layers
    assert computed["attend"] == 3 * layers
    assert computed["contracted"] >= 3 * layers
    assert computed.get("convolved", 0) == (3 * layers if name in ("conformer", "squeeze") else 0)


@pytest.mark.parametrize("encoder", ["vanilla", "conformer", "sparseformer", "squeezeformer"])
@pytest.mark.parametrize("frames", [1, 2, 3, 31, 32, 33, 34, 65, 97, 130])
def test_every_number_of_frames(encoder, frames):
    model = twin(replace(SMALL, encoder=encoder))
    x = torch.randn(1, frames, SMALL.dim, generator=torch.manual_seed(frames))
    by_bits = model.encode(x, None)
    with choose.using("off"):
        simulated = model.encode(x, None)
    assert all(map(torch.equal, by_bits, simulated))


@pytest.mark.parametrize("kernel", ["generic", "nibbles"])
@pytest.mark.parametrize("encoder", ["conformer", "sparseformer"])
def test_every_kernel(encoder, kernel):
    if next(each for each in choose.KERNELS if each.name == kernel).width() is None:
        pytest.skip(f"this processor has no instruction for {kernel}")
    model = twin(replace(SMALL, encoder=encoder))
    with choose.using(kernel):
        by_bits = model([waveform(30_000)])
    with choose.using("off"):
        assert all(map(torch.equal, by_bits, model([waveform(30_000)])))


@pytest.mark.thorough
@pytest.mark.parametrize("encoder", ["vanilla", "sparseformer"])
def test_vectors_of_more_outputs_than_a_head_has(encoder, monkeypatch):
    """As with AVX-512: 64 outputs at a time, which any machine can put together from smaller."""
    wide = choose.made("generic", 256)
    assert wide.outputs == 64
    monkeypatch.setattr(choose, "algorithm", lambda: wide)
    model = twin(replace(SMALL, encoder=encoder, heads=4))
    by_bits = model([waveform(20_000)])
    with choose.using("off"):
        assert all(map(torch.equal, by_bits, model([waveform(20_000)])))


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 12])
def test_every_width_of_a_head(heads):
    """72, 36, 24, 12 and 6 channels: none is a whole number of words."""
    model = twin(replace(SMALL, heads=heads))
    assert_equal_to_simulation(model, [waveform(12_345)])


def test_a_head_that_is_too_wide_is_simulated(computed):
    model = twin(replace(SMALL, dim=144, heads=1))
    assert_equal_to_simulation(model, [waveform(8_000)])
    assert "attend" not in computed
    assert computed["contracted"] == SMALL.layers


@pytest.mark.parametrize("expressivity", [0, 8, 31, 32])
def test_every_sparse_pattern(expressivity):
    config = replace(SMALL, encoder="sparseformer")
    model = twin(config)
    for layer in model.encoder.layers:
        layer.attention.expressivity = expressivity
    x = torch.randn(1, 100, SMALL.dim, generator=torch.manual_seed(0))
    by_bits = model.encode(x, None)
    with choose.using("off"):
        assert all(map(torch.equal, by_bits, model.encode(x, None)))


@pytest.mark.parametrize("encoder", ["vanilla", "sparseformer"])
def test_rows_that_softmax_decides(encoder, monkeypatch):
    """With an edge as wide as everything, softmax decides each row."""
    decided = []
    before = bit_attention._decide
    monkeypatch.setattr(bit_attention, "edge", lambda frames: 1e9)
    monkeypatch.setattr(
        bit_attention, "_decide", lambda *given: (decided.append(len(given[2])), before(*given))
    )
    assert_equal_to_simulation(twin(replace(SMALL, encoder=encoder)), [waveform(20_000)])
    assert sum(decided) == SMALL.layers * SMALL.heads * 62


def test_relative_attention_computes_its_layers_by_bits(computed):
    own = ConformerSettings(attention_position="relative")
    model = twin(replace(SMALL, encoder="conformer", own=own))
    assert_equal_to_simulation(model, [waveform(9_000)])
    assert "attend" not in computed
    assert computed["floats"] >= 4 * SMALL.layers  # query, key, value and output


def test_a_batch_of_equal_lengths_is_computed_one_by_one(computed):
    model = twin(SMALL)
    x = torch.randn(3, 40, SMALL.dim, generator=torch.manual_seed(0))
    by_bits = model.encode(x, None)
    assert computed["attend"] == 3 * SMALL.layers
    with choose.using("off"):
        assert all(map(torch.equal, by_bits, model.encode(x, None)))


def test_a_mask_gradients_training_and_hooks_are_left_to_the_simulation(computed):
    model = twin(SMALL)
    x = torch.randn(2, 20, SMALL.dim)
    valid = torch.arange(20)[None] < torch.tensor([[20], [11]])
    model.encode(x, valid)
    assert "attend" not in computed
    computed.clear()  # a feed-forward, which sees one frame at a time, needs no mask
    with torch.enable_grad():
        model.encode(x, None)[-1].sum().backward()
    model.train()
    model.encode(x, None)
    model.eval()
    with quantization(model, on=False):
        model.encode(x, None)
    model.double().encode(x.double(), None)
    model.float()
    assert "contracted" not in computed
    seen = []
    handle = model.encoder.layers[0].attention.query.register_forward_hook(
        lambda module, given, output: seen.append(output)
    )
    model.encode(x, None)
    handle.remove()
    assert len(seen) == 1
    assert computed["attend"] == 2 * (SMALL.layers - 1)


def test_other_bits_are_simulated(computed):
    model = twin(SMALL, "w1a2")
    model([waveform(8_000)])
    assert not computed


def test_off_computes_nothing_by_bits(computed):
    with choose.using("off"):
        twin(SMALL)([waveform(8_000)])
    assert not computed


def test_weights_that_change_are_seen():
    model = twin(SMALL)
    before = model([waveform(8_000)])[-1]
    layer = model.encoder.layers[0].feed_forward
    layer.expand.weight.neg_()
    layer.contract.input_quantizer.shift.add_(0.05)
    model.encoder.layers[1].attention.score_product.left_quantizer.scale.mul_(3)
    assert_equal_to_simulation(model, [waveform(8_000)])
    assert not torch.equal(model([waveform(8_000)])[-1], before)


def test_a_copy_has_integers_of_its_own():
    model = twin(SMALL)
    model([waveform(8_000)])
    other = copy.deepcopy(model)
    other.encoder.layers[0].feed_forward.expand.weight.neg_()
    assert_equal_to_simulation(other, [waveform(8_000)])
    assert_equal_to_simulation(model, [waveform(8_000)])


def test_a_model_made_in_inference_mode_is_simulated(computed):
    with torch.inference_mode():
        model = copy.deepcopy(twin(SMALL))
        model([waveform(8_000)])
    assert not computed


def test_an_unknown_kernel_is_refused_by_name(monkeypatch):
    monkeypatch.setenv(choose.VARIABLE, "nibles")
    with pytest.raises(choose.InputError, match=r"'nibles'.*nibbles"):
        twin(SMALL)([waveform(8_000)])


def test_shortcuts_are_a_twins_alone():
    from superbit.upstreams.hubert import untrained_model

    model = untrained_model(SMALL)
    assert not any(getattr(module, "shortcut", None) for module in model.modules())
    marked = {type(m) for m in twin(SMALL).modules() if getattr(m, "shortcut", None)}
    assert marked <= set(shortcuts.SHORTCUTS)
