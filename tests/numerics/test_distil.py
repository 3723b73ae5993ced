"""Distillation: the losses against their definitions, what is learnt, and what goes wrong."""

import copy
import math
from dataclasses import replace

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
from superbit.upstreams.training.configuration import load_distillation_config
from superbit.upstreams.training.distil import (
    DistillationBatch,
    distillation_losses,
    encoder_input,
    hidden_errors,
    hidden_state_loss,
    soft_unit_loss,
)
from superbit.upstreams.training.distil_objective import (
    DistillationObjective,
    parameter_groups,
    student_of,
)
from superbit.upstreams.training.objective import FrameCounts
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
        assert (losses.hidden, losses.units) == (0.0, 0.0)
        # and are not where the student's are on
        losses = distillation_losses(student, teacher, batch, unit_embeddings=embeddings)
        assert losses.hidden > 1e-3
        assert losses.units > 1e-5


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
        distillation_losses(second.eval(), first.eval(), DistillationBatch(waveforms=_speech(8000)))


def test_hidden_errors_are_0_of_the_same_model_and_by_hand_of_another():
    student, teacher = _pair()
    waveforms = _speech(9000, 7000, seed=3)
    same = hidden_errors(copy.deepcopy(teacher), teacher, waveforms)
    assert same.layers == (0.0, 0.0, 0.0)
    found = hidden_errors(student.train(), teacher, waveforms)
    assert not student.training
    by_hand = []
    for waveform in waveforms:  # each counts as much as the other, whatever its length
        with torch.no_grad():
            own, other = (model.encode_batch([waveform])[0][1:] for model in (student, teacher))
        pairs = zip(own, other, strict=True)
        by_hand.append([float(((a - b) ** 2).sum() / (b**2).sum()) for a, b in pairs])
    assert found.layers == pytest.approx(np.mean(by_hand, axis=0), rel=1e-5)
    assert found.mean == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert found.last == found.layers[-1]


def _objective(student, teacher, **changes):
    config = load_distillation_config("distil_nano", changes=changes)
    embeddings = torch.rand(10, 16, generator=torch.Generator().manual_seed(0))
    return DistillationObjective(
        config, student, teacher, unit_embeddings=embeddings, units=None, record={}
    )


def test_the_loss_of_an_update_weighs_units_by_masked_frames():
    student, teacher = _pair()
    objective = _objective(student, teacher, unit_weight=0.5, relative=False)
    samples = torch.stack(_speech(8000, 8000, seed=2))
    mask = torch.zeros(2, 24, dtype=torch.bool)
    mask[0, 5:15] = mask[1, 3:7] = True
    sums = objective.module(samples, torch.zeros_like(mask, dtype=torch.long), mask)
    counts = FrameCounts(masked=2.0 * 14, unmasked=2.0 * (48 - 14))  # of two such micro-batches
    losses = distillation_losses(
        student,
        teacher,
        DistillationBatch(waveforms=samples, mask=mask),
        unit_embeddings=objective.module.unit_embeddings,
    )
    due = (losses.hidden + 0.5 * losses.units) / 2
    assert objective.loss(sums, counts).item() == pytest.approx(due.item(), rel=1e-6)


def test_what_does_not_belong_together_is_refused():
    student, _ = _pair()
    with pytest.raises(InputError, match="'vanilla' cannot learn from a teacher with encoder"):
        _objective(student, _teacher("conformer"))
    other = untrained_model(_config(), seed=1)
    with pytest.raises(InputError, match="'mask_emb' of the student is not its teacher's"):
        _objective(student, other)
