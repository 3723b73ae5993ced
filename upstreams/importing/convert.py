"""Turns somebody else's HuBERT base into a model of ours with the same hidden states.

Reference: HuBERT, Hsu et al., 2021, https://arxiv.org/abs/2106.07447.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from superbit.upstreams.checkpoint import check_tensors
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert, untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.importing.naming import spelled_alike
from superbit.upstreams.importing.reading import Foreign
from superbit.upstreams.sound import SAMPLE_RATE

# Strides are in no tensor; those of wav2vec 2.0's front end go with its kernels.
KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
SIGNAL_RMS = 0.05  # about the level of speech in recordings of full scale 1
HEAD_WIDTH = 64  # of every HuBERT base, where the source does not tell its heads
# Parts that serve pre-training only: a source without them still has every hidden state.
_OPTIONAL = ("mask_emb", "final_proj.")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A model with the source's weights.

    Attributes:
        model: pads as fairseq does, which is how the weights were trained.
        dropped: names of the source's tensors that ours has no place for.
        drawn: names of our tensors that the source lacks, drawn at random from a fixed seed.
        fine_tuned: whether a head that transcribes was dropped, so the weights are not those of
            pre-training alone.
        normalization_error: how far hidden states are, on a fixed signal, from those of the
            source's program, which normalizes waveforms where ours does not: root mean square of
            the difference over that of the states; None where it does not either.
    """

    model: Hubert
    dropped: tuple[str, ...]
    drawn: tuple[str, ...]
    fine_tuned: bool = False
    normalization_error: float | None = None


def convert(foreign: Foreign) -> Imported:
    """Return a model of ours with the weights of ``foreign``.

    Raises:
        InputError: tensors are missing, superfluous or misshapen (named by the source's names, at
            most ten), or the model is not laid out as HuBERT base.
    """
    names = foreign.naming
    tensors = {spelled_alike(name): tensor for name, tensor in foreign.tensors.items()}
    config = _config(foreign, tensors)
    with torch.device("meta"):
        ours = Hubert(config).state_dict()
    theirs = {name: spelled_alike(names.theirs(name)) for name in ours}
    drawn = tuple(
        name
        for name, other in theirs.items()
        if name.startswith(_OPTIONAL) and other not in tensors
    )
    dropped = tuple(name for name in tensors if name.startswith(names.dropped))
    check_tensors(
        f"{foreign.file} is not laid out as a HuBERT base of {names.label}",
        found={name: tensor for name, tensor in tensors.items() if name not in dropped},
        needed={theirs[name]: tensor for name, tensor in ours.items() if name not in drawn},
    )
    model = untrained_model(config)
    weights = {name: tensors[theirs[name]] for name in ours if name not in drawn}
    model.load_state_dict(weights, strict=False)  # what it lacks is what was drawn
    return Imported(
        model=model,
        dropped=dropped,
        drawn=drawn,
        fine_tuned=any(name.startswith(names.ctc) for name in dropped),
        normalization_error=_normalization_error(model) if foreign.normalizes else None,
    )


def _normalization_error(model: Hubert) -> float:
    """How much it matters that waveforms are not normalized, in parts of the hidden states."""
    noise = torch.randn(2 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    signal = SIGNAL_RMS * noise
    normalized = (signal - signal.mean()) / (signal.var(correction=0) + 1e-7).sqrt()
    was_training = model.training
    with torch.no_grad():
        ours, theirs = (model.eval()([wave]) for wave in (signal, normalized))
    model.train(was_training)
    pairs = list(zip(ours, theirs, strict=True))
    difference = sum(float((a - b).square().sum()) for a, b in pairs)
    return (difference / sum(float(b.square().sum()) for _, b in pairs)) ** 0.5


def _config(foreign: Foreign, tensors: dict[str, Tensor]) -> HubertConfig:
    """Return the sizes that the shapes tell, with the facts that they do not."""

    def shape(ours: str, dimensions: int) -> torch.Size:
        name = spelled_alike(foreign.naming.theirs(ours))
        if name not in tensors:
            raise InputError(
                f"{foreign.file} is not laid out as a HuBERT base of {foreign.naming.label}: it "
                f"lacks {name}{_hint(foreign)}."
            )
        if tensors[name].dim() != dimensions:
            raise InputError(
                f"{foreign.file}: {name} has shape {tuple(tensors[name].shape)}; {dimensions} "
                "dimensions are needed."
            )
        return tensors[name].shape

    convolutions = [
        shape(f"front_end.blocks.{index}.conv.weight", 3) for index in range(len(KERNELS))
    ]
    kernels = tuple(kernel for _, _, kernel in convolutions)
    if kernels != KERNELS:
        raise InputError(
            f"{foreign.file}: the convolutions of the front end have kernels {list(kernels)}, "
            f"where HuBERT base has {list(KERNELS)}."
        )
    dim, dim_of_group, position_kernel = shape("position.conv.parametrizations.weight.original1", 3)
    facts = dict(foreign.facts)
    if "heads" not in facts:
        if dim % HEAD_WIDTH:
            raise InputError(
                f"{foreign.file}: the width is {dim}, which heads of {HEAD_WIDTH}, as HuBERT base "
                "has them, do not divide, and the file does not tell its heads."
            )
        facts["heads"] = dim // HEAD_WIDTH
    final = tensors.get(spelled_alike(foreign.naming.theirs("final_proj.weight")))
    if final is not None:
        facts["final_dim"] = len(final)
    try:
        return HubertConfig(
            encoder="vanilla",
            layers=_layers(foreign),
            dim=dim,
            ffn_dim=shape("encoder.layers.0.feed_forward.expand.weight", 2)[0],
            conv_layers=tuple(
                (channels, kernel, stride)
                for (channels, _, kernel), stride in zip(convolutions, STRIDES, strict=True)
            ),
            position_kernel=position_kernel,
            position_groups=dim // max(1, dim_of_group),
            padding="fairseq",
            **facts,
        )
    except InputError as error:
        raise InputError(f"{foreign.file}: {error}") from error


def _layers(foreign: Foreign) -> int:
    """Return one more than the highest number of a layer, so that a gap is a missing layer."""
    prefix = re.escape(foreign.naming.theirs("encoder.layers."))
    found = (re.match(rf"{prefix}(\d+)\.", name) for name in foreign.tensors)
    return 1 + max((int(match[1]) for match in found if match), default=0)


def _hint(foreign: Foreign) -> str:
    """Say which names there are, where they look like those of something else."""
    return f"; its first tensor is {next(iter(foreign.tensors))!r}" if foreign.tensors else ""
