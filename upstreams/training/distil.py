"""What a twin learns from its teacher: hidden states of valid frames, soft units of masked ones.

    waveforms -> teacher's front end and projection -> masked frames replaced -> x
    x -> teacher's encoder -> states, logits of units      (no gradient, eval mode)
    x -> student's encoder -> states, logits of units

Both encoders are given the same tensor x. A twin's front end and projection are its teacher's,
in full precision: there is nothing to distil in them, and they are passed once.

References:
- BiT, Liu et al., 2022, https://arxiv.org/abs/2205.13016: soft labels and each layer's output, with
  equal weight. Here the teacher has no dropout, and a layer's error is a mean over valid frames.
- HuBERT, Hsu et al., 2021, https://arxiv.org/abs/2106.07447, equation 3: the logits.

Where both sides compute the same, every loss here is exactly 0: BiT's soft cross-entropy is
reported without the teacher's entropy, a constant that has no gradient.

Notation: B batch, N samples, T frames, D width, L layers, K units.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from superbit.upstreams.hubert import Hubert, frame_mask
from superbit.upstreams.training.objective import unit_logits

TEMPERATURE = 0.1  # of HuBERT's logits


@dataclass(frozen=True, kw_only=True)
class DistillationBatch:
    """Audio, and what both encoders do not see of it.

    Attributes:
        waveforms: (B, N) crops of one length, or 1-D tensors of any lengths, at 16 kHz.
        mask: (B, T) bool, frames that the mask embedding replaces; None for none.
    """

    waveforms: Tensor | Sequence[Tensor]
    mask: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Of one batch, scalars.

    Attributes:
        hidden: see `hidden_state_loss`.
        units: see `soft_unit_loss`; None where there are no unit embeddings.
        last_layer: relative squared error of the encoder's output, without gradient.
        logits: of the student, (B, T, K); None where there are no unit embeddings.
        teacher_logits: the same of the teacher.
    """

    hidden: Tensor
    units: Tensor | None
    last_layer: Tensor
    logits: Tensor | None = None
    teacher_logits: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class HiddenErrors:
    """How far a student's hidden states are from its teacher's: Σ (s − t)² / Σ t² over frames.

    Attributes:
        layers: of each layer's output, a mean over utterances.
    """

    layers: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the layers."""
        return sum(self.layers) / len(self.layers)

    @property
    def last(self) -> float:
        """Of the encoder's output."""
        return self.layers[-1]


def layer_errors(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    valid: Tensor | None,
    *,
    relative: bool = False,
) -> Tensor:
    """Return the squared error of each state over valid frames: (states,), float32.

    Args:
        student: states (B, T, D).
        teacher: as many, of that shape.
        valid: (B, T) bool; None where no frame is padding.
        relative: Σ (s − t)² / Σ t² in place of the mean of (s − t)².
    """
    errors = []
    for own, target in zip(student, teacher, strict=True):
        difference, target = (own - target).float(), target.float()
        if valid is not None:
            difference = difference.masked_fill(~valid[:, :, None], 0.0)
            target = target.masked_fill(~valid[:, :, None], 0.0)
        if relative:
            norm = target.square().sum().clamp(min=torch.finfo(torch.float32).tiny)
            errors.append(difference.square().sum() / norm)
        else:
            frames = own.shape[0] * own.shape[1] if valid is None else valid.sum()
            errors.append(difference.square().sum() / (frames * own.shape[2]))
    return torch.stack(errors)


def hidden_state_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    valid: Tensor | None,
    *,
    relative: bool = False,
) -> Tensor:
    """Return (1 / L) Σ of the layers' errors, a scalar.

    Args:
        student: L + 1 states (B, T, D), the first of which, the layers' input, does not count.
        teacher: the same of the teacher.
        valid: (B, T) bool; None where no frame is padding.
        relative: of each layer's mean square, so that layers of any scale count alike.
    """
    return layer_errors(student[1:], teacher[1:], valid, relative=relative).mean()


def soft_unit_loss(student: Tensor, teacher: Tensor, frames: Tensor) -> Tensor:
    """Return the mean over ``frames`` of KL(teacher ‖ student) in nats, at temperature 1.

    It is the soft cross-entropy −Σ p_teacher · log p_student less the teacher's entropy.

    Args:
        student: logits (B, T, K).
        teacher: the same of the teacher.
        frames: (B, T) bool, those that count: masked and valid. Without any, the loss is 0.
    """
    own = F.log_softmax(student.float(), dim=-1)
    target = F.log_softmax(teacher.float(), dim=-1)
    divergence = (target.exp() * (target - own)).sum(dim=-1)  # (B, T)
    return divergence.masked_fill(~frames, 0.0).sum() / frames.sum().clamp(min=1)


@torch.no_grad()
def encoder_input(
    teacher: Hubert, batch: DistillationBatch
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return what both encoders are given: x (B, T, D), its valid frames, its masked valid frames.

    The last two are (B, T) bool; None where no frame is padding, and where none is masked.

    Raises:
        InputError: as `Hubert.forward`.
        ValueError: the mask is not of the frames that the audio has.
    """
    if isinstance(batch.waveforms, Tensor):
        features = teacher.front_end(batch.waveforms.to(teacher.mask_emb))
        valid = None
    else:
        features, frames = teacher.features(batch.waveforms)
        valid = frame_mask(frames, features.shape[1], features.device)
    x = teacher.project(features)
    if batch.mask is None:
        return x, valid, None
    mask = batch.mask.to(x.device)
    if mask.shape != x.shape[:2]:
        raise ValueError(f"a mask of {tuple(mask.shape)} for (B, T) = {tuple(x.shape[:2])}")
    x = torch.where(mask[:, :, None], teacher.mask_emb.to(x.dtype), x)
    return x, valid, mask if valid is None else mask & valid


def distillation_losses(
    student: Hubert,
    teacher: Hubert,
    batch: DistillationBatch,
    *,
    unit_embeddings: Tensor | None = None,
    temperature: float = TEMPERATURE,
    relative: bool = False,
) -> Losses:
    """Return the losses of one batch; they have a gradient to the student only.

    Args:
        student: a twin with the teacher's front end; in eval mode it learns without dropout.
        teacher: the model that it should compute like, in eval mode.
        batch: audio and mask.
        unit_embeddings: (K, E) of the teacher's units, for soft units over masked frames.
        temperature: of the teacher's logits in its pre-training, 0.1 in HuBERT's.
        relative: see `hidden_state_loss`.

    Raises:
        InputError: as `Hubert.forward`.
        ValueError: unit embeddings without a mask, or a mask that does not fit.
    """
    if unit_embeddings is not None and batch.mask is None:
        raise ValueError("soft units are over masked frames; the batch has no mask")
    x, valid, masked = encoder_input(teacher, batch)
    with torch.no_grad():
        target = teacher.encode(x, valid)
    own = student.encode(x, valid)
    hidden = hidden_state_loss(own, target, valid, relative=relative)
    last_layer = layer_errors(own[-1:], target[-1:], valid, relative=True)[0].detach()
    if unit_embeddings is None or masked is None:
        return Losses(hidden=hidden, units=None, last_layer=last_layer)
    with torch.no_grad():
        target_logits = unit_logits(teacher.final_proj(target[-1]), unit_embeddings, temperature)
    logits = unit_logits(student.final_proj(own[-1]), unit_embeddings, temperature)
    units = soft_unit_loss(logits, target_logits, masked)
    return Losses(
        hidden=hidden,
        units=units,
        last_layer=last_layer,
        logits=logits,
        teacher_logits=target_logits,
    )


@torch.no_grad()
def hidden_errors(student: Hubert, teacher: Hubert, waveforms: Iterable[Tensor]) -> HiddenErrors:
    """Return the relative squared error of every layer's output, nothing masked.

    Each utterance passes alone, and counts as much as any other. Both models are left in eval mode.
    """
    student.eval()
    teacher.eval()
    rows = []
    for waveform in waveforms:
        x, _, _ = encoder_input(teacher, DistillationBatch(waveforms=[waveform]))
        states = student.encode(x, None), teacher.encode(x, None)
        rows.append(layer_errors(states[0][1:], states[1][1:], None, relative=True))
    return HiddenErrors(layers=tuple(torch.stack(rows).mean(dim=0).tolist()))
