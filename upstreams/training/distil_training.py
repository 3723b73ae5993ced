"""Quantization-aware training of a twin by distillation: calibrate, then lower the losses.

    teacher = untrained_model(size_of("vanilla_nano"))
    student = student_of(teacher, "w1a1")
    distil(student, teacher, batches, steps=300, lr=1e-3, scale_lr=1e-3, calibration=waveforms)

References:
- BiT, Liu et al., 2022, https://arxiv.org/abs/2205.13016, and its published code: linear warm-up
  over a tenth of the steps, linear decay, the scales with a learning rate of their own and without
  weight decay; W32A32 → W1A2 → W1A1, where each student starts from, and learns from, the model
  before it.

Unlike BiT's, teacher and student have no dropout, no layer is left out, and a batch norm keeps the
teacher's running statistics: what is trained is what runs later, whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.quantization.convert import binarize_, calibrate, quantizer_scales
from superbit.upstreams.quantization.policy import Policy
from superbit.upstreams.training.distil import (
    TEMPERATURE,
    DistillationBatch,
    Losses,
    distillation_losses,
)

WARM_UP = 0.1  # of the steps
# What lies before the encoder: the teacher's, and nothing is learnt in it.
_SHARED = ("mask_emb", "front_end.", "front_end_norm.", "post_extract_proj.")
_NOT_INHERITED = (".scale", ".initialized")  # they belong to a policy's number of bits


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step of a distillation.

    Attributes:
        step: from 1.
        learning_rate: of the weights in this step.
        loss: of its batch, before the step.
        hidden: the part of the hidden states.
        units: the part of the soft units; None without unit embeddings.
    """

    step: int
    learning_rate: float
    loss: float
    hidden: float
    units: float | None


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


def warm_up_and_decay(step: int, steps: int) -> float:
    """Return the factor on a learning rate at ``step``, from 0: up to 1, then down towards 0."""
    rising = max(1, round(WARM_UP * steps))
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / (steps - rising)


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


class Distiller:
    """A student that learns from its teacher, step by step; both are put in eval mode.

    ``optimizer.state_dict()`` and ``step_count`` are what a checkpoint needs beside the student.

    Args:
        student: a calibrated twin with the teacher's front end, see `student_of`.
        teacher: what it should compute like.
        steps: in all, which the learning rates' schedule follows.
        lr: highest learning rate of weights, biases, norms and shifts.
        scale_lr: highest learning rate of the scales.
        weight_decay: of weights.
        gradient_clip: highest norm of a step's gradient.
        unit_embeddings: (K, E) of the teacher's units; None for hidden states alone.
        temperature: of the logits.
        unit_weight: of the soft units.
        relative: hidden states' errors are relative to each layer's mean square.

    Raises:
        InputError: the two are not of one size, or their front ends differ.
    """

    def __init__(
        self,
        student: Hubert,
        teacher: Hubert,
        *,
        steps: int,
        lr: float,
        scale_lr: float,
        weight_decay: float = 0.01,
        gradient_clip: float = 1.0,
        unit_embeddings: Tensor | None = None,
        temperature: float = TEMPERATURE,
        unit_weight: float = 1.0,
        relative: bool = False,
    ) -> None:
        require_same_input(student, teacher)
        self.student, self.teacher = student.eval(), teacher.eval()
        self.steps, self.step_count = steps, 0
        self.gradient_clip = gradient_clip
        self.unit_embeddings, self.temperature = unit_embeddings, temperature
        self.unit_weight, self.relative = unit_weight, relative
        groups = parameter_groups(
            student,
            lr=lr,
            scale_lr=scale_lr,
            weight_decay=weight_decay,
            with_units=unit_embeddings is not None,
        )
        self._highest = [group["lr"] for group in groups]
        self.optimizer = torch.optim.AdamW(groups)

    def losses(self, batch: DistillationBatch) -> Losses:
        """Return the losses of one batch as things stand."""
        return distillation_losses(
            self.student,
            self.teacher,
            batch,
            unit_embeddings=self.unit_embeddings,
            temperature=self.temperature,
            unit_weight=self.unit_weight,
            relative=self.relative,
        )

    def step(self, batch: DistillationBatch) -> Progress:
        """Do one step.

        Raises:
            InputError: the gradient is not finite; or as `Hubert.forward`.
        """
        factor = warm_up_and_decay(self.step_count, self.steps)
        for group, highest in zip(self.optimizer.param_groups, self._highest, strict=True):
            group["lr"] = factor * highest
        losses = self.losses(batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        learnt = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(nn.utils.clip_grad_norm_(learnt, self.gradient_clip))
        if not norm < float("inf"):
            raise InputError(
                f"step {self.step_count + 1} of the distillation has a gradient of norm {norm}; a "
                f"lower learning rate than {self._highest[0]:g} is needed."
            )
        self.optimizer.step()
        self.step_count += 1
        return Progress(
            step=self.step_count,
            learning_rate=factor * self._highest[0],
            loss=losses.total.item(),
            hidden=losses.hidden.item(),
            units=None if losses.units is None else losses.units.item(),
        )


def distil(
    student: Hubert,
    teacher: Hubert,
    batches: Iterable[DistillationBatch],
    *,
    steps: int,
    lr: float,
    scale_lr: float,
    calibration: Sequence[Tensor] | None = None,
    on_step: Callable[[Progress], None] | None = None,
    **options: Any,
) -> list[Progress]:
    """Train a twin to compute like its teacher, and return how it went, step by step.

    Args:
        student: a twin with the teacher's front end, see `student_of`; changed in place.
        teacher: an FP32 model, or a twin of more bits.
        batches: at least ``steps`` of them; what is left over is not taken.
        steps: how many.
        lr: highest learning rate of weights, biases, norms and shifts.
        scale_lr: highest learning rate of the scales.
        calibration: waveforms that the student's scales are set from first; None where they are
            set already.
        on_step: called after each step.
        options: as for `Distiller`.

    Raises:
        InputError: as `Distiller`; or the batches end before the last step.
    """
    if calibration is not None:
        calibrate(student, calibration)
    distiller = Distiller(student, teacher, steps=steps, lr=lr, scale_lr=scale_lr, **options)
    history: list[Progress] = []
    source = iter(batches)
    while len(history) < steps:
        batch = next(source, None)
        if batch is None:
            raise InputError(
                f"the batches ended after {len(history)} of {steps} steps of distillation."
            )
        history.append(distiller.step(batch))
        if on_step is not None:
            on_step(history[-1])
    return history


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
