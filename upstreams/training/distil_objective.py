"""Distillation as the training loop's objective: a twin computes like its teacher.

What is compared is in `superbit.upstreams.training.distil`. The teacher is frozen and in eval
mode, the student in eval mode too: no dropout on either side, running statistics of batch norms are
the teacher's, so that what is trained is what runs later, whatever else is in the batch. What lies
before the encoder is the teacher's and stays as it is.

Reference: BiT, Liu et al., 2022, https://arxiv.org/abs/2205.13016, and its published code: the
scales have a learning rate of their own and no weight decay; W32A32 → W1A2 → W1A1, where each
student starts from, and learns from, the model before it. BiT's has dropout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.quantization.convert import binarize_, quantizer_scales
from superbit.upstreams.quantization.policy import Policy
from superbit.upstreams.training.configuration import DistillationConfig
from superbit.upstreams.training.distil import DistillationBatch, distillation_losses
from superbit.upstreams.training.objective import UNIT_EMBEDDINGS, FrameCounts

PHASE = "distillation"
# What lies before the encoder: the teacher's, and nothing is learnt in it.
_SHARED = ("mask_emb", "front_end.", "front_end_norm.", "post_extract_proj.")
_NOT_INHERITED = (".scale", ".initialized")  # they belong to a policy's number of bits


def student_of(teacher: Hubert, policy: Policy | str) -> Hubert:
    """Return a new twin with the teacher's weights, to be calibrated.

    Args:
        teacher: an FP32 model, or the twin of a step before, whose shifts it takes over too.
        policy: of the student.

    Raises:
        InputError: an unknown policy, or one that does not fit.
    """
    inherited = teacher.state_dict()
    with torch.device("meta"):
        student = Hubert(teacher.config)
    student.to_empty(device=teacher.mask_emb.device).to(teacher.mask_emb.dtype)
    student.load_state_dict({name: inherited[name] for name in student.state_dict()})
    binarize_(student, policy)
    own = student.state_dict()
    student.load_state_dict(
        {
            name: inherited[name]
            if name in inherited and not name.endswith(_NOT_INHERITED)
            else value
            for name, value in own.items()
        }
    )
    return student.train(teacher.training)


def parameter_groups(
    student: Hubert, *, lr: float, scale_lr: float, weight_decay: float, with_units: bool = False
) -> list[dict[str, Any]]:
    """Return what is learnt, for an optimizer: weights, what does not decay, scales.

    Weights of linear layers and convolutions decay (but for the positional one's, which are kept
    as direction and length); biases, norms and shifts do not. The scales α have their own learning
    rate and do not decay either.

    Args:
        student: a twin.
        lr: of all but the scales.
        scale_lr: of the scales.
        weight_decay: of the weights.
        with_units: the projection towards units is learnt too.
    """
    scales = {id(scale) for scale in quantizer_scales(student)}
    decaying = {
        id(parameter)
        for module in student.modules()
        if isinstance(module, nn.Linear | nn.Conv1d)
        for name, parameter in module.named_parameters(recurse=False)
        if name == "weight"
    }
    left_alone = _SHARED if with_units else (*_SHARED, "final_proj.")
    groups: dict[str, list[nn.Parameter]] = {"weights": [], "others": [], "scales": []}
    for name, parameter in student.named_parameters():
        if name.startswith(left_alone):
            continue
        kind = "weights" if id(parameter) in decaying else "others"
        groups["scales" if id(parameter) in scales else kind].append(parameter)
    rates = {"weights": (lr, weight_decay), "others": (lr, 0.0), "scales": (scale_lr, 0.0)}
    return [
        {"name": kind, "params": groups[kind], "lr": rate, "weight_decay": decay}
        for kind, (rate, decay) in rates.items()
    ]


@dataclass(frozen=True, kw_only=True)
class DistillationSums:
    """What one micro-batch adds up to.

    Attributes:
        hidden: error of hidden states, a mean over layers, times the frames.
        units: divergence from the teacher's units, summed over masked frames, nats; 0 without.
        last_layer: relative squared error of the encoder's output, times the frames.
        labelled: masked frames, if there are labels and units to compare with them; else 0.
        masked_loss: cross-entropy of the labels, summed over masked frames, nats.
        masked_correct: masked frames whose label has the largest logit.
        teacher_correct: the same of the teacher.
    """

    hidden: Tensor
    units: Tensor
    last_layer: Tensor
    labelled: Tensor
    masked_loss: Tensor
    masked_correct: Tensor
    teacher_correct: Tensor

    @staticmethod
    def means(total: Mapping[str, float], counts: FrameCounts) -> dict[str, float]:
        """Return means of what added up over many; of labels only where there are any."""
        frames, masked = max(counts.frames, 1.0), max(counts.masked, 1.0)
        means = {
            "hidden_loss": total["hidden"] / frames,
            "unit_loss": total["units"] / masked,
            "last_layer_error": total["last_layer"] / frames,
        }
        if labelled := total["labelled"]:
            means |= {
                "masked_loss": total["masked_loss"] / labelled,
                "masked_accuracy": total["masked_correct"] / labelled,
                "teacher_masked_accuracy": total["teacher_correct"] / labelled,
            }
        return means


class _Student(nn.Module):
    """The student, and beside it, outside of what is trained and saved, its teacher."""

    unit_embeddings: Tensor | None

    def __init__(
        self,
        student: Hubert,
        teacher: Hubert,
        *,
        unit_embeddings: Tensor | None,
        labelled: bool,
        temperature: float,
        relative: bool,
    ) -> None:
        super().__init__()
        self.student = student
        self.register_buffer("unit_embeddings", unit_embeddings)
        self.beside = (teacher,)  # a tuple: no submodule
        self.labelled, self.temperature, self.relative = labelled, temperature, relative

    def forward(self, samples: Tensor, units: Tensor, mask: Tensor) -> DistillationSums:
        """Return the sums of one micro-batch: samples (B, N), units (B, T), mask (B, T)."""
        losses = distillation_losses(
            self.student,
            self.beside[0],
            DistillationBatch(waveforms=samples, mask=mask),
            unit_embeddings=self.unit_embeddings,
            temperature=self.temperature,
            relative=self.relative,
        )
        none, masked = torch.zeros((), device=mask.device), mask.sum()
        labelled, entropy, correct, teacher_correct = none, none, none, none
        if self.labelled and losses.logits is not None and losses.teacher_logits is not None:
            logits = losses.logits.detach()
            loss = F.cross_entropy(logits.transpose(1, 2), units, reduction="none")  # (B, T)
            labelled, entropy = masked, (loss * mask).sum()
            correct = _correct(logits, units, mask)
            teacher_correct = _correct(losses.teacher_logits, units, mask)
        return DistillationSums(
            hidden=losses.hidden * mask.numel(),
            units=none if losses.units is None else losses.units * masked,
            last_layer=losses.last_layer * mask.numel(),
            labelled=labelled,
            masked_loss=entropy,
            masked_correct=correct,
            teacher_correct=teacher_correct,
        )


def _correct(logits: Tensor, units: Tensor, mask: Tensor) -> Tensor:
    return ((logits.argmax(dim=-1) == units) & mask).sum()


class DistillationObjective:
    """See the module.

    Args:
        config: the run's settings.
        student: a twin with its teacher's front end.
        teacher: the FP32 model, or the twin of the step before.
        unit_embeddings: (K, E) of the teacher's units; None for hidden states alone.
        units: K of the labels, which are only looked at; None where there are none.
        record: see `superbit.upstreams.training.objective.Objective`.

    Raises:
        InputError: the two are not of one size, or their front ends differ.
    """

    sums = DistillationSums
    phase = PHASE
    layer_drop = 0.0

    def __init__(
        self,
        config: DistillationConfig,
        student: Hubert,
        teacher: Hubert,
        *,
        unit_embeddings: Tensor | None,
        units: int | None,
        record: Mapping[str, Any],
    ) -> None:
        require_same_input(student, teacher)
        self.config, self.model, self.record = config, student, record
        self.units = units if unit_embeddings is not None else None
        self._teacher = teacher.eval().requires_grad_(False)
        self.module = _Student(
            student,
            teacher,
            unit_embeddings=unit_embeddings,
            labelled=self.units is not None,
            temperature=config.temperature,
            relative=config.relative,
        ).eval()
        learnt = {id(each) for group in self.parameter_groups() for each in group["params"]}
        for parameter in student.parameters():
            parameter.requires_grad_(id(parameter) in learnt)

    def to(self, device: torch.device) -> None:
        """Move student and teacher to a device."""
        self.module.to(device)
        self._teacher.to(device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return weights, what does not decay, and scales with a learning rate of their own."""
        config = self.config
        groups = parameter_groups(
            self.model,
            lr=1.0,
            scale_lr=config.scale_learning_rate / config.learning_rate,
            weight_decay=config.weight_decay,
            with_units=self.module.unit_embeddings is not None,
        )
        return [
            {"params": each["params"], "rate": each["lr"], "weight_decay": each["weight_decay"]}
            for each in groups
        ]

    def loss(self, sums: DistillationSums, counts: FrameCounts) -> Tensor:
        """Return one micro-batch's part of the update's loss; the parts of all add up to it."""
        hidden = sums.hidden / counts.frames
        return hidden + self.config.unit_weight * sums.units / max(counts.masked, 1.0)

    def held_out_loss(self, means: Mapping[str, float]) -> float:
        """Return the loss of means."""
        return means["hidden_loss"] + self.config.unit_weight * means["unit_loss"]

    def state(self) -> dict[str, Tensor]:
        """Return the units' embeddings, if there are any."""
        embeddings = self.module.unit_embeddings
        return {} if embeddings is None else {UNIT_EMBEDDINGS: embeddings.cpu()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the embeddings are the teacher's."""


def require_same_input(student: Hubert, teacher: Hubert) -> None:
    """Raise `InputError` unless both encoders can be given the same tensor, and states compare."""
    for key in ("encoder", "layers", "dim"):
        own, other = getattr(student.config, key), getattr(teacher.config, key)
        if own != other:
            raise InputError(
                f"a student with {key} {own!r} cannot learn from a teacher with {key} {other!r}; "
                "they must be of one size."
            )
    theirs = teacher.state_dict()
    for name, tensor in student.state_dict().items():
        if name.startswith(_SHARED) and not (
            name in theirs and torch.equal(tensor, theirs[name].to(tensor))
        ):
            raise InputError(
                f"{name!r} of the student is not its teacher's; a student starts from the "
                "teacher's weights."
            )
