"""HuBERT's objective against its definition, written out by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.training.configuration import learning_rate, load_config
from superbit.upstreams.training.evaluation import chance
from superbit.upstreams.training.objective import (
    FrameCounts,
    Pretrainer,
    Sums,
    dropped_layers,
    scale_gradient,
    unit_logits,
    update_loss,
)

K = 7
CONVOLUTIONS = ((8, 10, 5), *((8, 3, 2),) * 4, *((8, 2, 2),) * 2)
ENCODERS = ("vanilla", "conformer", "squeezeformer", "squeezeformer_faithful", "sparseformer")


def config(encoder="vanilla", **changes):
    values = {
        "encoder": encoder,
        "layers": 3,
        "dim": 32,
        "heads": 2,
        "ffn_dim": 64,
        "conv_layers": CONVOLUTIONS,
        "position_kernel": 8,
        "position_groups": 4,
        "final_dim": 16,
        **dict.fromkeys(("dropout", "attention_dropout", "input_dropout"), 0.0),
    }
    return HubertConfig(**{**values, **changes})


def make(encoder="vanilla", **changes):
    torch.manual_seed(0)
    return Pretrainer(untrained_model(config(encoder)), units=K, **changes)


def batch(frames=12, size=3):
    torch.manual_seed(1)
    samples = torch.randn(size, 400 + 320 * (frames - 1))
    units = torch.randint(K, (size, frames))
    mask = torch.zeros(size, frames, dtype=torch.bool)
    mask[:, 3:7] = True
    mask[0, 8] = True
    return samples, units, mask


def loss_of(sums, mask, **weights):
    masked = int(mask.sum())
    counts = FrameCounts(masked=masked, unmasked=mask.numel() - masked)
    return update_loss(sums, counts, **{"unmasked_weight": 0.0, "feature_penalty": 10.0, **weights})


def test_logits_are_cosines_over_the_temperature():
    frames = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.bfloat16)
    units = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-5.0, 0.0]])
    logits = unit_logits(frames, units, 0.1)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, torch.tensor([[6.0, 8.0, -6.0], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.25])
def test_the_loss_written_out(weight):
    """Means over frames in float64, one frame after the other."""
    pretrainer = make().double()
    samples, units, mask = batch()
    samples = samples.double()
    sums = pretrainer(samples, units, mask)
    features, states = pretrainer.states(samples, mask)
    projected = pretrainer.model.final_proj(states[-1])
    hidden, seen, correct = [], [], 0
    for b in range(units.shape[0]):
        for t in range(units.shape[1]):
            cosines = [
                float(F.cosine_similarity(projected[b, t], row, dim=0))
                for row in pretrainer.unit_embeddings
            ]
            scores = [cosine / 0.1 for cosine in cosines]
            norm = math.log(sum(math.exp(score) for score in scores))
            (hidden if mask[b, t] else seen).append(norm - scores[units[b, t]])
            correct += bool(mask[b, t]) and int(np.argmax(scores)) == int(units[b, t])
    frames = len(hidden) + (len(seen) if weight else 0)
    penalty = float((features**2).mean())
    expected = (sum(hidden) + weight * sum(seen)) / frames + 10 * penalty
    found = float(loss_of(sums, mask, unmasked_weight=weight))
    assert found == pytest.approx(expected, rel=1e-5)
    assert int(sums.masked_correct) == correct


def test_parts_of_an_update_add_up():
    pretrainer = make()
    samples, units, mask = batch(size=4)
    whole = loss_of(pretrainer(samples, units, mask), mask, unmasked_weight=0.5)
    masked = int(mask.sum())
    counts = FrameCounts(masked=masked, unmasked=mask.numel() - masked)
    parts = [
        update_loss(
            pretrainer(samples[part], units[part], mask[part]),
            counts,
            unmasked_weight=0.5,
            feature_penalty=10.0,
        )
        for part in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_loss_at_the_start_is_that_of_chance(encoder):
    pretrainer = make(encoder)
    samples, units, mask = batch()
    near = pretrainer(samples, units, mask)
    assert float(near.masked_loss) / int(mask.sum()) == pytest.approx(math.log(K), abs=0.8)
    # without a scale every unit is as likely as any other
    torch.nn.init.zeros_(pretrainer.model.final_proj.weight)
    even = pretrainer(samples, units, mask)
    frames = int(mask.sum())
    assert float(even.masked_loss) / frames == pytest.approx(math.log(K), abs=1e-5)
    assert float(even.unmasked_loss) / (mask.numel() - frames) == pytest.approx(
        math.log(K), abs=1e-5
    )


def test_the_penalty_is_taken_before_the_layer_norm():
    pretrainer = make()
    samples, units, mask = batch()
    expected = pretrainer.model.front_end(samples).square().mean(dim=-1).sum()
    torch.testing.assert_close(pretrainer(samples, units, mask).penalty, expected)
    # a norm's scale and shift change what the encoder gets, and not the penalty
    with torch.no_grad():
        pretrainer.model.front_end_norm.weight.fill_(7.0)
        pretrainer.model.front_end_norm.bias.fill_(3.0)
    torch.testing.assert_close(pretrainer(samples, units, mask).penalty, expected)


@pytest.mark.parametrize("encoder", ["vanilla", "conformer"])
def test_the_front_end_gets_a_tenth_of_its_gradient_exactly(encoder):
    gradients = {}
    samples, units, mask = batch()
    # a power of two scales floating point without rounding; a tenth is compared to rounding
    for factor in (1.0, 0.125, 0.1):
        pretrainer = make(encoder, front_end_gradient=factor)
        loss_of(pretrainer(samples, units, mask), mask).backward()
        gradients[factor] = {
            name: parameter.grad.clone() for name, parameter in pretrainer.named_parameters()
        }
    for name, whole in gradients[1.0].items():
        if ".front_end." in name:
            assert whole.abs().max() > 0
            assert torch.equal(gradients[0.125][name], whole * 0.125), name
            torch.testing.assert_close(gradients[0.1][name], whole * 0.1, rtol=1e-4, atol=1e-7)
        else:
            assert torch.equal(gradients[0.1][name], whole), name


def test_scaling_a_gradient_leaves_the_value():
    x = torch.randn(5, requires_grad=True)
    y = scale_gradient(x, 0.1)
    assert torch.equal(y, x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.full((5,), 0.1))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_masked_frames_are_replaced_before_the_positional_convolution(encoder):
    pretrainer = make(encoder).eval()
    seen = []
    pretrainer.model.position.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    samples, _, mask = batch()
    _, states = pretrainer.states(samples, mask)
    emb = pretrainer.model.mask_emb
    assert torch.equal(seen[0][mask], emb.expand(int(mask.sum()), -1))
    # and the others are what the front end gave
    pretrainer.states(samples, None)
    assert torch.equal(seen[0][~mask], seen[1][~mask])
    assert len(states) == 4
    assert all(state.shape == (3, 12, 32) for state in states)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_parameter_learns(encoder):
    pretrainer = make(encoder)
    samples, units, mask = batch()
    loss_of(pretrainer(samples, units, mask), mask).backward()
    # a key's bias shifts all scores of a query alike, and softmax does not see it
    still = [
        name
        for name, parameter in pretrainer.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert [name for name in still if not name.endswith("key.bias")] == []


def test_a_dropped_layer_returns_its_input():
    pretrainer = make().eval()
    samples, _, mask = batch()
    layers = pretrainer.model.encoder.layers
    before = {name for name, _ in pretrainer.named_parameters()}
    with dropped_layers(layers, [False, True, False]):
        _, states = pretrainer.states(samples, mask)
        assert {name for name, _ in pretrainer.named_parameters()} == before
    assert torch.equal(states[2], states[1])
    assert torch.equal(states[3], layers[2](states[1]))
    _, states = pretrainer.states(samples, mask)
    assert not torch.equal(states[2], states[1])


def test_chance_is_the_best_constant_guess():
    found = chance(torch.tensor([50.0, 25.0, 25.0, 0.0]))
    assert found["chance_accuracy"] == 0.5
    assert found["chance_loss"] == pytest.approx(1.5 * math.log(2))


def test_the_learning_rate_of_phase_1():
    """Values of HuBERT's schedule: warm-up to the peak, then straight to 0."""
    config = load_config("phase1")
    rates = [learning_rate(config, update) for update in range(0, 250_001, 250)]
    assert rates[0] == pytest.approx(5e-4 / 20_000)
    assert learning_rate(config, 19_999) == pytest.approx(5e-4)
    assert learning_rate(config, 20_000) == pytest.approx(5e-4)
    assert learning_rate(config, 135_000) == pytest.approx(2.5e-4)
    assert rates[-1] == 0
    assert max(rates) == pytest.approx(5e-4)


def test_sums_are_all_that_a_forward_pass_returns():
    samples, units, mask = batch()
    sums = make()(samples, units, mask)
    assert isinstance(sums, Sums)
    assert int(sums.masked_correct) <= int(mask.sum())
    assert int(sums.unmasked_correct) <= int((~mask).sum())
