"""Distillation: the losses against their definitions, what is learnt, and what goes wrong."""

import copy
import math
from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.quantization.convert import (
    calibrate,
    is_calibrated,
    quantization,
    quantizer_scales,
)
from superbit.upstreams.training.distil import (
    DistillationBatch,
    distillation_losses,
    encoder_input,
    hidden_errors,
    hidden_state_loss,
    soft_unit_loss,
)
from superbit.upstreams.training.distil_training import (
    Distiller,
    distil,
    parameter_groups,
    student_of,
    warm_up_and_decay,
)
from superbit.upstreams.variant import size_of

KINDS = ("vanilla", "conformer", "squeezeformer", "squeezeformer_faithful", "sparseformer")


def _config(kind="vanilla"):
    """A small one with dropout, which distillation must not see."""
    return replace(
        size_of("vanilla_nano"),
        encoder=kind,
        layers=3,
        dim=32,
        heads=2,
        ffn_dim=48,
        position_kernel=8,
        final_dim=16,
    )


def _teacher(kind="vanilla"):
    """Random weights with which every block counts."""
    model = untrained_model(_config(kind))
    with torch.no_grad():
        for module in model.encoder.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(5)
    return model


def _speech(*samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [0.1 * torch.randn(count, generator=generator) for count in samples]


def _pair(kind="vanilla"):
    teacher = _teacher(kind).eval()
    student = student_of(teacher, "w1a1")
    calibrate(student, _speech(8000, 8000))
    return student, teacher


# ---- losses ----


def test_hidden_state_loss_by_hand():
    # two layers beside the input; the second frame is padding
    teacher = [torch.tensor([[[value, 2.0], [9.0, 9.0]]]) for value in (7.0, 1.0, 4.0)]
    student = [torch.tensor([[[value, 2.0], [-9.0, math.nan]]]) for value in (0.0, 3.0, 3.0)]
    valid = torch.tensor([[True, False]])
    # squares 2² and 1² over two channels of one frame
    assert hidden_state_loss(student, teacher, valid).item() == pytest.approx((4 / 2 + 1 / 2) / 2)
    # the same over 1² + 2² and 4² + 2²
    relative = hidden_state_loss(student, teacher, valid, relative=True)
    assert relative.item() == pytest.approx((4 / 5 + 1 / 20) / 2)
    whole = hidden_state_loss([s[:, :1] for s in student], [t[:, :1] for t in teacher], None)
    assert whole.item() == pytest.approx(1.25)


def test_soft_unit_loss_is_soft_cross_entropy_less_the_teachers_entropy():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 5, 7, generator=generator).requires_grad_()
    teacher = 3 * torch.randn(2, 5, 7, generator=generator)
    frames = torch.tensor([[True, False, True, True, False], [False, False, False, True, False]])
    loss = soft_unit_loss(student, teacher, frames)

    targets = teacher.softmax(dim=-1)[frames]
    entropy = -(targets * targets.log()).sum(dim=-1).mean()
    cross_entropy = F.cross_entropy(student[frames], targets)
    assert loss.item() == pytest.approx((cross_entropy - entropy).item(), rel=1e-5)
    gradients = [torch.autograd.grad(one, student)[0] for one in (loss, cross_entropy)]
    torch.testing.assert_close(*gradients)
    assert not gradients[0][~frames].any()
    assert soft_unit_loss(student, teacher, torch.zeros_like(frames)).item() == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_exactly_0_with_quantizers_off_on_both_sides(kind):
    student, _ = _pair(kind)
    student.eval()
    teacher = copy.deepcopy(student)
    mask = torch.zeros(2, 24, dtype=torch.bool)
    mask[:, 4:14] = True
    batch = DistillationBatch(waveforms=_speech(8000, 6000), mask=mask)
    embeddings = torch.rand(10, 16, generator=torch.Generator().manual_seed(0))
    with quantization(teacher, on=False):
        with quantization(student, on=False):
            losses = distillation_losses(student, teacher, batch, unit_embeddings=embeddings)
        assert (losses.total, losses.hidden, losses.units) == (0.0, 0.0, 0.0)
        # and are not where the student's are on
        losses = distillation_losses(student, teacher, batch, unit_embeddings=embeddings)
        assert losses.hidden > 1e-3
        assert losses.units > 1e-5
        assert losses.total == losses.hidden + losses.units


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("relative", [False, True])
def test_appended_padding_does_not_change_the_losses(kind, relative):
    student, teacher = _pair(kind)
    # in double precision, so that no value crosses a threshold by rounding
    student, teacher = student.double().eval(), teacher.double()
    long, short = _speech(16000, 8000, seed=1)
    embeddings = torch.rand(10, 16, generator=torch.Generator().manual_seed(0))

    def losses(*waveforms):
        frames = max(teacher.config.convolution_frames(len(one)) for one in waveforms)
        mask = torch.zeros(len(waveforms), frames, dtype=torch.bool)
        mask[:, 2:9] = True
        mask[:, 24:] = True  # the whole of the padding too
        return distillation_losses(
            student,
            teacher,
            DistillationBatch(waveforms=list(waveforms), mask=mask),
            unit_embeddings=embeddings,
            relative=relative,
        )

    alone = [losses(one) for one in (long, short)]
    together = losses(long, short)
    masked = np.array([7 + 49 - 24, 7])  # of 49 and 24 frames
    expected = (masked * [one.units.item() for one in alone]).sum() / masked.sum()
    assert together.units.item() == pytest.approx(expected, rel=1e-5)
    if relative:  # Σ t² of both are needed to weigh them
        weights = []
        for one in (long, short):
            mask = torch.zeros(1, teacher.config.convolution_frames(len(one)), dtype=torch.bool)
            mask[:, 2:9] = True
            mask[:, 24:] = True
            x, _, _ = encoder_input(teacher, DistillationBatch(waveforms=[one], mask=mask))
            with torch.no_grad():
                pair = student.encode(x, None)[1:], teacher.encode(x, None)[1:]
            weights.append(
                [
                    (float((own - other).square().sum()), float(other.square().sum()))
                    for own, other in zip(*pair, strict=True)
                ]
            )
        difference, norm = np.array(weights).sum(axis=0).T
        assert together.hidden.item() == pytest.approx((difference / norm).mean(), rel=1e-5)
    else:
        expected = np.average([one.hidden.item() for one in alone], weights=[49, 24])
        assert together.hidden.item() == pytest.approx(expected, rel=1e-5)


def test_both_are_given_one_input_with_masked_frames_replaced():
    teacher = _teacher().eval()
    waveforms = _speech(8000, 8000)
    mask = torch.zeros(2, 24, dtype=torch.bool)
    mask[0, 3:5] = mask[1, 20:] = True
    x, valid, masked = encoder_input(teacher, DistillationBatch(waveforms=waveforms, mask=mask))
    plain, _, none = encoder_input(teacher, DistillationBatch(waveforms=torch.stack(waveforms)))
    assert valid is None
    assert none is None
    assert torch.equal(masked, mask)
    assert (x[mask] == teacher.mask_emb).all()
    torch.testing.assert_close(x[~mask], plain[~mask])
    with pytest.raises(ValueError, match=r"\(B, T\) = \(2, 24\)"):
        encoder_input(teacher, DistillationBatch(waveforms=waveforms, mask=mask[:, :20]))
    student, teacher = _pair()
    with pytest.raises(ValueError, match="no mask"):
        distillation_losses(
            student,
            teacher,
            DistillationBatch(waveforms=waveforms),
            unit_embeddings=torch.rand(10, 16),
        )


# ---- training ----


def test_warm_up_over_a_tenth_then_linear_decay():
    factors = [warm_up_and_decay(step, 20) for step in range(20)]
    assert factors[:2] == [0.5, 1.0]
    assert factors[2:] == pytest.approx(np.arange(18, 0, -1) / 18)
    assert [warm_up_and_decay(step, 1) for step in range(1)] == [1.0]


def test_scales_have_their_own_rate_and_only_weights_decay():
    student, _ = _pair("conformer")
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    groups = {
        group["name"]: group
        for group in parameter_groups(student, lr=1e-3, scale_lr=1e-4, weight_decay=0.01)
    }
    learnt = {kind: [names[id(p)] for p in group["params"]] for kind, group in groups.items()}
    scales = {id(scale) for scale in quantizer_scales(student)}
    assert {id(p) for p in groups["scales"]["params"]} == scales
    # of each layer: 8 linear layers, 3 convolutions, 4 operands of attention's products
    assert len(scales) == 3 * (8 + 3 + 4)
    assert (groups["scales"]["lr"], groups["scales"]["weight_decay"]) == (1e-4, 0.0)
    assert (groups["weights"]["lr"], groups["weights"]["weight_decay"]) == (1e-3, 0.01)
    assert (groups["others"]["lr"], groups["others"]["weight_decay"]) == (1e-3, 0.0)
    assert "encoder.layers.0.convolution.depthwise.weight" in learnt["weights"]
    assert "encoder.layers.0.attention.query.input_quantizer.shift" in learnt["others"]
    assert all(name.endswith(".weight") for name in learnt["weights"])
    # everything from the positional convolution on, once
    everything = [name for group in learnt.values() for name in group]
    assert sorted(everything) == sorted(
        name
        for name in names.values()
        if name.startswith(("position.", "encoder_norm.", "encoder."))
    )
    with_units = parameter_groups(
        student, lr=1e-3, scale_lr=1e-4, weight_decay=0.01, with_units=True
    )
    found = {names[id(p)] for group in with_units for p in group["params"]}
    assert found - set(everything) == {"final_proj.weight", "final_proj.bias"}


def test_a_student_starts_from_an_fp32_teacher_and_from_a_twin():
    teacher = _teacher()
    first = student_of(teacher, "w1a2")
    assert not is_calibrated(first)
    calibrate(first, _speech(8000))
    shifts = {name: p for name, p in first.named_parameters() if name.endswith(".shift")}
    with torch.no_grad():
        for index, shift in enumerate(shifts.values(), 1):
            shift.fill_(0.01 * index)
        first.encoder.layers[0].feed_forward.expand.weight.mul_(2)
    second = student_of(first, "w1a1")
    own = dict(second.named_parameters())
    assert second.policy.name == "w1a1"
    assert not is_calibrated(second)  # the scales of two bits are not those of one
    for name, parameter in first.named_parameters():
        if not name.endswith(".scale"):
            assert torch.equal(parameter, own[name]), name
            assert parameter is not own[name]
    with pytest.raises(InputError, match="never calibrated"):
        Distiller(second, first, steps=1, lr=1e-3, scale_lr=1e-3).step(
            DistillationBatch(waveforms=_speech(8000))
        )


def test_distillation_lowers_the_error_and_leaves_front_end_and_teacher_alone():
    student, teacher = _pair()
    batches = repeat(DistillationBatch(waveforms=torch.stack(_speech(8000, 8000, seed=2))))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    teachers = {name: value.clone() for name, value in teacher.state_dict().items()}
    held_out = _speech(9000, 7000, seed=3)
    start = hidden_errors(student, teacher, held_out)
    seen = []
    history = distil(
        student, teacher, batches, steps=25, lr=3e-3, scale_lr=3e-3, on_step=seen.append
    )
    end = hidden_errors(student, teacher, held_out)

    assert history == seen
    assert [one.step for one in history] == list(range(1, 26))
    assert max(one.learning_rate for one in history) == 3e-3
    assert all(one.loss == one.hidden and one.units is None for one in history)
    assert len(end.layers) == 3
    assert end.mean < 0.7 * start.mean
    assert end.last < 0.7 * start.last
    assert history[-1].loss < 0.7 * history[0].loss
    changed = {
        name for name, value in student.state_dict().items() if not torch.equal(value, before[name])
    }
    for part in ("scale", "shift", "query.weight", "attention_norm.bias"):
        assert any(name.endswith(part) for name in changed), part
    assert not [n for n in changed if n.startswith(("front_end", "post_extract", "mask_emb"))]
    assert all(torch.equal(value, teachers[n]) for n, value in teacher.state_dict().items())
    assert not any(p.grad is not None for p in teacher.parameters())


def test_calibration_comes_first_and_units_are_learnt_too():
    teacher = _teacher()
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[:, 5:15] = True
    batch = DistillationBatch(waveforms=_speech(8000), mask=mask)
    embeddings = torch.rand(10, 16, generator=torch.Generator().manual_seed(0))
    runs = []
    for _ in range(2):  # the teacher's dropout is off: two runs are the same to the bit
        student = student_of(teacher.train(), "w1a1")
        projection = student.final_proj.weight.clone()
        history = distil(
            student,
            teacher,
            [batch] * 3,
            steps=3,
            lr=1e-3,
            scale_lr=1e-3,
            calibration=_speech(8000),
            unit_embeddings=embeddings,
            unit_weight=0.5,
        )
        assert all(one.loss == pytest.approx(one.hidden + 0.5 * one.units) for one in history)
        assert not torch.equal(projection, student.final_proj.weight)
        assert is_calibrated(student)
        runs.append(history)
    assert runs[0] == runs[1]
    assert not teacher.training


def test_bad_input():
    student, teacher = _pair()
    batch = DistillationBatch(waveforms=_speech(8000))
    with pytest.raises(InputError, match="batches ended after 1 of 2 steps"):
        distil(student, teacher, [batch], steps=2, lr=1e-3, scale_lr=1e-3)
    with pytest.raises(InputError, match="'vanilla' cannot learn from a teacher with encoder"):
        Distiller(student, _teacher("conformer"), steps=1, lr=1e-3, scale_lr=1e-3)
    other = untrained_model(_config(), seed=1)
    with pytest.raises(InputError, match="'mask_emb' of the student is not its teacher's"):
        Distiller(student, other, steps=1, lr=1e-3, scale_lr=1e-3)
    with torch.no_grad():
        student.encoder.layers[0].feed_forward.expand.bias.fill_(math.inf)
    with pytest.raises(InputError, match=r"step 1 of the distillation .* lower learning rate"):
        distil(student, teacher, [batch], steps=1, lr=1e-3, scale_lr=1e-3)
