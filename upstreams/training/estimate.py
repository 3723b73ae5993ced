"""How long a run takes, from the operations of its model: an estimate, said to be one.

Reference points: dense bfloat16 peaks of the makers' data sheets, and the paper's own pace: 100,000
updates of 36.5 s a GPU in 8.5 hours on 32 A100s, taken as that of its largest model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from superbit.upstreams import variant
from superbit.upstreams.encoders.attention import MatrixProduct
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.training.configuration import TrainingConfig
from superbit.upstreams.training.manifest import SAMPLE_RATE

# Operations a second that training reaches on one device, in 10¹² (a multiplication and an addition
# are two). GPUs: the guess of a fifth of the dense bfloat16 peak. Two CPU cores with bfloat16
# instructions: what the nano models reach.
HARDWARE = {
    "v100": 0.2 * 125.0,
    "l4": 0.2 * 121.0,
    "a100": 0.2 * 312.0,
    "h100": 0.2 * 989.0,
    "h200": 0.2 * 989.0,
    "two_cores": 0.15,
}
BACKWARD = 2.0  # operations of the backward pass for one of the forward pass
PAPER_SECONDS_PER_UPDATE = 8.5 * 3600 / 100_000
PAPER_BATCH_SAMPLES = 584_000


def forward_macs(config: HubertConfig, samples: int, *, front_end_only: bool = False) -> int:
    """Return the multiply-accumulates of one forward pass over one utterance.

    Linear layers, convolutions and the products of attention are counted; norms and activations,
    well under a hundredth of the whole, are not.
    """
    with torch.device("meta"):
        model = Hubert(config).eval()
        total = 0

        def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal total
            if isinstance(module, MatrixProduct):
                total += output.numel() * inputs[0].shape[-1]
            elif isinstance(module, nn.Conv1d):
                inside = module.in_channels // module.groups * module.kernel_size[0]
                total += output.numel() * inside
            elif isinstance(module, nn.Linear):
                total += output.numel() * module.in_features

        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | MatrixProduct):
                module.register_forward_hook(count)
        with torch.no_grad():
            features = model.front_end(torch.empty(1, samples))
            if front_end_only:
                return total
            x = model.project(features)
            model.final_proj(model.encode(x, None)[-1])
    return total


@dataclass(frozen=True, kw_only=True)
class TrainingEstimate:
    """What a run takes.

    Attributes:
        parameters: of the model, embeddings of units not among them.
        operations: of one rank's part of an update, forward and backward.
        seconds_of_audio: of all ranks, an update, at most.
        hours: on the hardware, at the pace of `HARDWARE`.
        hours_at_paper_pace: on A100s, at the pace of the paper's cluster.
    """

    parameters: int
    operations: float
    seconds_of_audio: float
    hours: float
    hours_at_paper_pace: float


def estimate(
    config: TrainingConfig, size: HubertConfig, *, hardware: str, devices: int, taught: bool = False
) -> TrainingEstimate:
    """Return what a run takes on so many devices of one kind, a rank on each.

    Args:
        config: the run's settings.
        size: of the model.
        hardware: a key of `HARDWARE`.
        devices: how many.
        taught: the model learns from a teacher of its size: two encoders over one front end, which
            has no backward pass. A twin is counted as if it computed in full precision, as its
            training does.

    Raises `InputError` for unknown hardware or no device.
    """
    if hardware not in HARDWARE:
        raise InputError(
            f"hardware {hardware!r} is unknown; there are {', '.join(HARDWARE)}."
            f"{did_you_mean(hardware, set(HARDWARE))}"
        )
    if devices < 1:
        raise InputError(f"{devices} devices: at least one is needed.")
    crops = config.accumulate * config.batch_samples / config.crop_samples
    operations = _training_operations(size, config.crop_samples, taught=taught) * crops
    paper_crops = PAPER_BATCH_SAMPLES / 250_000
    paper_operations = _training_operations(variant.size_of("vanilla"), 250_000) * paper_crops
    pace = paper_operations / PAPER_SECONDS_PER_UPDATE
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in Hubert(size).parameters())
    return TrainingEstimate(
        parameters=parameters,
        operations=operations,
        seconds_of_audio=devices * config.accumulate * config.batch_samples / SAMPLE_RATE,
        hours=config.updates * operations / (HARDWARE[hardware] * 1e12) / 3600,
        hours_at_paper_pace=config.updates * operations / pace / 3600,
    )


def _training_operations(size: HubertConfig, samples: int, *, taught: bool = False) -> float:
    whole = forward_macs(size, samples)
    if not taught:
        return 2.0 * (1.0 + BACKWARD) * whole
    front_end = forward_macs(size, samples, front_end_only=True)
    return 2.0 * (front_end + (2.0 + BACKWARD) * (whole - front_end))
