"""Table 1 as the paper counted it, decoded from its cells; not a description of the models.

`RULES` says how each cell comes about and how sure that is. Parameters and shapes are those of an
instantiated model that runs on the meta device; the config only says which kind of encoder it is.
The rules hold for what the paper has, in any size: `covers` says for what.

Notation: T frames, D width, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from superbit.benchmark.profiling.counting import OperationCounts, count, count_model, meta_model
from superbit.benchmark.profiling.honest_accounting import fp32_parameters
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.convert import binarized_modules
from superbit.upstreams.quantization.policy import Policy, load_policy
from superbit.upstreams.spec import TWIN_POLICY

# The two kinds that are transformers; the others have convolutions in their layers.
TRANSFORMERS = ("vanilla", "sparseformer")
# The kinds of the paper's rows; of Squeezeformer it has the build of Conformer's layers.
KINDS = (*TRANSFORMERS, "conformer", "squeezeformer")

# (columns, how sure, the rule): pinned by several cells without freedom; inferred, one rule that
# explains several cells; fitted after the fact, no derivation.
RULES = (
    ("all", "pinned", "10 s of audio give 499 frames, padded to 500 in the encoder"),
    ("storage", "pinned", "bytes × parameters / 10^6 with 4 bytes; of 1-bit weights 1/8 byte"),
    ("storage", "pinned", "2 bytes (FP16) for both vanilla rows, although labelled FP32"),
    (
        "storage",
        "fitted",
        "a twin has 3·D·L parameters more (transformers) or D·L fewer (Conformer, Squeezeformer)",
    ),
    (
        "FLOP",
        "inferred",
        "transformers: 2 × MAC + element-wise operations, with one matrix product of attention "
        "too many, and sparse attention as if it were dense",
    ),
    (
        "FLOP",
        "fitted",
        "Conformer, Squeezeformer: one of each layer's two feed-forwards, and no attention",
    ),
    (
        "FLOP",
        "fitted",
        "twins, full-precision part: 2 × MAC of front end, positional convolution, reduction and "
        "recovery, 1 × MAC of the projection; transformers: plus norms and activations",
    ),
    (
        "FLOP",
        "fitted",
        "twins, the rest: 4 operations for each binarized activation (Conformer, Squeezeformer: "
        "plus one for each inner feed-forward activation)",
    ),
    ("BOP_NonQ", "pinned", "FLOP × 16 / 2^30; for twins of the full-precision part alone"),
    (
        "BOP_NonQ",
        "inferred",
        "full-precision vanilla: without attention's four projections in every layer",
    ),
    (
        "BOP_NonQ",
        "fitted",
        "Conformer, Squeezeformer twins: the layers' convolutions once more, with D frames "
        "in place of T",
    ),
    (
        "BOP_BQ",
        "pinned",
        "1-bit MACs / 2^30, query, key and value three times each, attention dense; convolutions "
        "with D frames in place of T",
    ),
    (
        "time",
        "pinned",
        "BOP_NonQ / (312 × 1024) + BOP_BQ / (4992 × 1024) seconds: an estimate, nothing was timed",
    ),
)

_GIGA, _GIBI = 1e9, 2.0**30
_FULL_RATE, _ONE_BIT_RATE = 312 * 1024.0, 4992 * 1024.0  # Gi bit operations a second


@dataclass(frozen=True, kw_only=True)
class PaperCells:
    """The cells of one row, in the units of the paper; ``bop_bq_g`` is None for FP32."""

    storage_mb: float
    flop_g: float
    bop_nonq_g: float
    bop_bq_g: float | None
    time_1e4s: float


@lru_cache(maxsize=64)
def covers(config: HubertConfig, policy: Policy | None) -> bool:
    """Return whether the rules say anything of a model: only of the kinds and bits of the paper.

    They know neither another kind of encoder nor relative positions, and of twins only those whose
    layers are all of 1 bit.
    """
    if config.encoder not in KINDS or getattr(config.own, "attention_position", "none") != "none":
        return False
    if policy is None:
        return True
    model = meta_model(config)
    papers = load_policy(TWIN_POLICY).effect(model, encoder=config.encoder)
    return policy.effect(model, encoder=config.encoder) == papers


def paper_cells(
    model: Hubert, samples: int, *, counts: OperationCounts | None = None
) -> PaperCells:
    """Return the row of ``model`` for so many samples.

    Args:
        model: an FP32 model or a twin that the rules cover, on the meta device.
        samples: of the one utterance, at 16 kHz.
        counts: `count_model` of both, where somebody has it.
    """
    front, encoder = _two_parts(model, samples, counts or count_model(model, samples))
    if model.policy is None:
        flop: float = _full_precision_flop(model, front, encoder)
        # 8·D² a frame and layer, out of the published bit operations only
        absent = 2 * _projection_macs(model, encoder) if model.config.encoder == "vanilla" else 0
        nonq, bq = (flop - absent) * 16 / _GIBI, None
    else:
        base = _full_precision_part(model, front, encoder)
        flop = base + _activation_flop(model, encoder)
        nonq, bq = base * 16 / _GIBI, _one_bit_macs(model, encoder) / _GIBI
    return PaperCells(
        storage_mb=_storage_bytes(model, encoder) / 1e6,
        flop_g=flop / _GIGA,
        bop_nonq_g=nonq,
        bop_bq_g=bq,
        time_1e4s=1e4 * (nonq / _FULL_RATE + (bq or 0.0) / _ONE_BIT_RATE),
    )


def _two_parts(
    model: Hubert, samples: int, whole: OperationCounts
) -> tuple[OperationCounts, OperationCounts]:
    """Count the front end, and the encoder on frames padded to an even number."""
    front = OperationCounts(
        modules={
            name: done
            for name, done in whole.modules.items()
            if not name.startswith(("encoder", "position"))
        },
        attentions={},
    )
    frames = model.config.convolution_frames(samples)
    frames += frames % 2
    x = torch.zeros(1, frames, model.config.dim, device=model.mask_emb.device)
    encoder = count(model, lambda: model.encode(x, None))
    # an even kernel gives one frame more, which is dropped and which the paper does not count
    position = encoder.modules["position.conv"]
    encoder.modules["position.conv"] = replace(
        position, macs=position.macs // position.frames * frames
    )
    return front, encoder


def _storage_bytes(model: Hubert, encoder: OperationCounts) -> float:
    width = 2 if model.config.encoder == "vanilla" else 4
    parameters = fp32_parameters(model)
    if model.policy is None:
        return width * parameters
    binarized = sum(_weight(model, name) for name in _with_weights(model))
    widths = sum(attention.dim for attention in encoder.attentions.values())  # D·L
    extra = 3 * widths if model.config.encoder in TRANSFORMERS else -widths
    return binarized / 8 + width * (parameters - binarized + extra)


def _full_precision_flop(model: Hubert, front: OperationCounts, encoder: OperationCounts) -> int:
    flop = 2 * front.macs + front.elementwise
    if model.config.encoder in TRANSFORMERS:
        dense = sum(each.dim * each.frames**2 for each in encoder.attentions.values())
        for done in encoder.modules.values():
            if done.kind != "product":
                flop += 2 * done.macs + done.elementwise
        return flop + 3 * 2 * dense
    left_out = set(_second_feed_forwards(model)) | set(encoder.attentions)
    for name, done in encoder.modules.items():
        if name.rpartition(".")[0] not in left_out and name not in left_out:
            flop += 2 * done.macs + done.elementwise
    return flop


def _second_feed_forwards(model: Hubert) -> list[str]:
    """The last of the feed-forward blocks of every layer, by name."""
    last: dict[str, str] = {}
    for name, _ in model.named_modules():
        layer, _, child = name.rpartition(".")
        if child.startswith("feed_forward") and not child.endswith(("_norm", "_scale")):
            last[layer] = name
    return list(last.values())


def _projection_macs(model: Hubert, encoder: OperationCounts) -> int:
    return sum(
        done.macs
        for name, done in encoder.modules.items()
        if done.kind == "linear" and name.rpartition(".")[0] in encoder.attentions
    )


def _full_precision_part(model: Hubert, front: OperationCounts, encoder: OperationCounts) -> float:
    """FLOP of what the twin leaves in full precision, products and softmax of attention aside."""
    flop = 2 * front.macs
    if (projection := front.modules.get("post_extract_proj")) is not None:
        flop -= projection.macs
    binarized = binarized_modules(model)
    for name, done in encoder.modules.items():
        if done.kind in ("linear", "convolution") and name not in binarized:
            flop += 2 * done.macs
    if model.config.encoder in TRANSFORMERS:
        scores = sum(encoder.modules[name].elementwise for name in encoder.attentions)
        flop += front.elementwise + encoder.elementwise - scores
    return flop + _convolution_macs(model)


def _convolution_macs(model: Hubert) -> int:
    """MACs of the binarized convolutions as the paper has them: over D frames, at full rate."""
    return sum(
        _weight(model, name) * model.config.dim
        for name in _with_weights(model)
        if isinstance(model.get_submodule(name), torch.nn.Conv1d)
    )


def _activation_flop(model: Hubert, encoder: OperationCounts) -> int:
    """4 for each element of a binarized linear's input and of the queries, keys and values."""
    flop = sum(4 * 3 * each.dim * each.frames for each in encoder.attentions.values())
    for name in _with_weights(model):
        module = model.get_submodule(name)
        if not isinstance(module, torch.nn.Linear):
            continue
        frames = encoder.modules[name].frames
        flop += 4 * module.in_features * frames
        if model.config.encoder not in TRANSFORMERS and name.endswith(".contract"):
            flop += module.in_features * frames
    return flop


def _one_bit_macs(model: Hubert, encoder: OperationCounts) -> int:
    macs = sum(2 * each.dim * each.frames**2 for each in encoder.attentions.values())
    for name in _with_weights(model):
        if isinstance(model.get_submodule(name), torch.nn.Linear):
            times = 3 if name.endswith((".query", ".key", ".value")) else 1
            macs += times * encoder.modules[name].macs
    return macs + _convolution_macs(model)


def _weight(model: Hubert, name: str) -> int:
    return model.get_parameter(f"{name}.weight").numel()


def _with_weights(model: Hubert) -> list[str]:
    """Names of the layers whose weights are binarized."""
    return [
        name
        for name, module in binarized_modules(model).items()
        if getattr(module, "weight_quantizer", None) is not None
    ]
