"""A twin in one file: signs as bits, everything else as it is.

The file is one safetensors file. Of a layer with 1-bit weights it holds ``NAME.weight.bits``, eight
signs a byte, an output a row, the first input the lowest bit, and ``NAME.weight.scale``; of
a feed-forward the integers that its first layer's sums have to reach (`quantization.folded`); of
everything else of the state what a checkpoint holds, in float32 or float16. Its metadata, all text,
are ``format`` (`FORMAT`), ``version``, ``config`` and ``policy`` (JSON, as in a checkpoint's
``config.json``), ``untrained``, ``rest``, ``weights_sha256`` (of the twin that was packed) and
``checksum`` (over all of these and every tensor).

A packed twin gives the hidden states of the twin that it came from, to the bit, so it has that
twin's hash; unless float16 rounds a number of the rest. It is for inference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from superbit.upstreams.checkpoint import Checkpoint, check_tensors, require_kind, unreadable
from superbit.upstreams.errors import BrokenUpstream, InputError
from superbit.upstreams.files import replaced
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.identity.fingerprint import hash_state
from superbit.upstreams.quantization.convert import binarize_, is_calibrated
from superbit.upstreams.quantization.elastic import (
    ElasticQuantizer,
    PackedSigns,
    WeightBinarizer,
)
from superbit.upstreams.quantization.folded import (
    FoldedLinear,
    GivenLevels,
    can_be_folded,
    limits_of,
)
from superbit.upstreams.quantization.layers import BinarizedConv1d, BinarizedLinear
from superbit.upstreams.quantization.policy import policy_from_dict

FORMAT, VERSION = "superbit packed twin", "1"
RESTS = {"fp32": torch.float32, "fp16": torch.float16}
_BITS, _SCALE = "weight.bits", "weight.scale"
_LIMITS = "expand.reached"  # of a feed-forward: what its first layer's sums have to reach
_FOLDED_AWAY = ("expand.bias", "contract.input_quantizer.shift")  # what they stand for
_FLAG = "initialized"  # of a quantizer: true in every twin that can be packed


@dataclass(frozen=True, kw_only=True)
class PackedSize:
    """What a packed file takes, in bytes.

    Attributes:
        file: the whole file.
        signs: weights of one bit.
        rest: everything else that is computed with.
        unused: of the rest, what only pre-training computes with (``final_proj``, ``mask_emb``).
        exact: the rest is what it was, in its precision.
    """

    file: int
    signs: int
    rest: int
    unused: int
    exact: bool


def pack(
    model: Hubert,
    file: str | Path,
    *,
    weights: str,
    rest: str = "fp32",
    untrained: bool = False,
) -> PackedSize:
    """Write a twin to one file, which is replaced in one step.

    Args:
        model: a calibrated twin whose layers have weights of one bit, in float32.
        file: where it goes.
        weights: the hash of the upstream that it is of, `weights_sha256` of its expert.
        rest: ``fp32`` or ``fp16``, the precision of everything but signs.
        untrained: the weights are random, which whoever loads the file has to know.

    Raises:
        InputError: no twin, one that is packed, one that was never calibrated, or weights of more
            bits.
    """
    if rest not in RESTS:
        raise InputError(f"rest is {rest!r}; it is one of {', '.join(RESTS)}.")
    if model.policy is None:
        raise InputError("an FP32 model has no signs to pack; pack its twin, bq_NAME.")
    if model.packed_weights_sha256 is not None:
        raise InputError("this twin is packed already; copy its file.")
    if not is_calibrated(model):
        raise InputError("this twin was never calibrated; calibrate it on audio before packing.")
    tensors, signs, exact = {}, 0, True
    layers = _layers(model)
    folded = {name: block for name, block in model.named_modules() if can_be_folded(block)}
    for name, block in folded.items():
        tensors[f"{name}.{_LIMITS}"] = limits_of(block)
    left_out = {f"{name}.{part}" for name in folded for part in _FOLDED_AWAY}
    for name, layer in layers.items():
        levels, scale = layer.weight_quantizer.levels(layer.weight)
        bits = (levels.flatten(1) > 0).cpu().numpy()
        tensors[f"{name}.{_BITS}"] = torch.from_numpy(np.packbits(bits, axis=1, bitorder="little"))
        tensors[f"{name}.{_SCALE}"] = scale.detach().cpu().float()
        signs += tensors[f"{name}.{_BITS}"].numel()
    for name, tensor in model.state_dict().items():
        owner, _, last = name.rpartition(".")
        if last == _FLAG or (last == "weight" and owner in layers) or name in left_out:
            continue
        whole = tensor.detach().cpu()
        kept = whole.to(RESTS[rest]) if whole.is_floating_point() else whole
        exact = exact and bool(torch.equal(kept.to(whole.dtype), whole))
        tensors[name] = kept.contiguous()
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "config": json.dumps(model.config.to_dict()),
        "policy": json.dumps(model.policy.to_dict()),
        "untrained": json.dumps(untrained),
        "rest": rest,
        "weights_sha256": weights if exact else _rounded(weights),
    }
    metadata["checksum"] = _checksum(metadata, tensors)
    with replaced(Path(file)) as partial:
        save_file(tensors, partial, metadata=metadata)
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    return PackedSize(
        file=Path(file).stat().st_size,
        signs=signs,
        rest=sum(sizes.values()) - signs,
        unused=sum(size for n, size in sizes.items() if n.startswith(("final_proj", "mask_emb"))),
        exact=exact,
    )


def load(file: str | Path, *, name: str | None = None, encoder: str | None = None) -> Checkpoint:
    """Read a packed twin: a model in eval mode, for inference, which trains no more.

    Args:
        file: as `pack` wrote it.
        name, encoder: as for `superbit.upstreams.checkpoint.load`.

    Raises:
        InputError: no packed twin, of another version, or what it holds does not fit together.
        BrokenUpstream: cut short or altered, or a number that no twin can have.
    """
    file = Path(file)
    metadata, tensors = _read(file)
    try:
        config = HubertConfig.from_dict(json.loads(metadata["config"]))
        policy = policy_from_dict(json.loads(metadata["policy"]), where="policy")
        untrained = json.loads(metadata["untrained"]) is True
    except (ValueError, KeyError) as error:
        raise BrokenUpstream(f"{file}: its metadata cannot be read: {error}.") from error
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    require_kind(config, name=name, encoder=encoder, where=file)
    with torch.device("meta"):
        model = binarize_(Hubert(config), policy)
    for layer in _layers(model).values():
        shape = layer.weight.shape
        layer.weight_quantizer = PackedSigns(shape, per_channel=layer.weight_quantizer.per_channel)
        layer.register_parameter("weight", None)
    blocks: list[Any] = [module for module in model.modules() if can_be_folded(module)]
    for block in blocks:
        expand, contract = block.expand, block.contract
        kind = next((t.dtype for n, t in tensors.items() if n.endswith(_LIMITS)), torch.int16)
        limits = torch.empty(expand.out_features, dtype=kind, device="meta")
        block.expand = FoldedLinear(expand.weight_quantizer, expand.input_quantizer, limits)
        contract.input_quantizer = GivenLevels(contract.input_quantizer.scale.detach())
    needed = {_name_in_file(name): tensor for name, tensor in model.state_dict().items()}
    flags = [name for name in needed if name.rpartition(".")[2] == _FLAG]
    found = {name: _restored(tensor) for name, tensor in tensors.items()}
    found |= {name: torch.tensor(True) for name in flags}
    check_tensors(f"{file} does not fit the config in it", found=found, needed=needed)
    _check_numbers(file, found)
    model.load_state_dict({_name_in_model(n): t for n, t in found.items()}, assign=True)
    model.packed_weights_sha256 = metadata["weights_sha256"]
    return Checkpoint(model=model.eval().requires_grad_(False), training={"untrained": untrained})


def is_packed(file: str | Path) -> bool:
    """Whether a file is a packed twin, of whatever version."""
    try:
        with safe_open(file, framework="pt") as opened:
            return (opened.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError):
        return False


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            # copied: tensors as read are views of the file
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise unreadable(file, error) from error
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{file} is no packed twin; 'superbit pack' writes one, and a checkpoint is a folder."
        )
    if metadata.get("version") != VERSION:
        raise InputError(
            f"{file} is a packed twin of version {metadata.get('version')!r}; this superbit reads "
            f"{VERSION}: pack the twin again."
        )
    if metadata.pop("checksum", None) != _checksum(metadata, tensors):
        raise BrokenUpstream(f"{file} was altered after it was packed: its checksum is another's.")
    return metadata, tensors


def _layers(model: nn.Module) -> dict[str, Any]:
    """Layers with 1-bit weights, by name.

    Raises:
        InputError: a layer has weights of more bits.
    """
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, BinarizedLinear | BinarizedConv1d):
            if isinstance(module.weight_quantizer, ElasticQuantizer):
                raise InputError(
                    f"{name} has weights of {module.weight_quantizer.bits} bits; only weights of "
                    "one bit are packed."
                )
            if isinstance(module.weight_quantizer, WeightBinarizer):
                found[name] = module
    return found


def _name_in_file(name: str) -> str:
    return name.replace(".weight_quantizer.signs", f".{_BITS}").replace(
        ".weight_quantizer.scale", f".{_SCALE}"
    )


def _name_in_model(name: str) -> str:
    return name.replace(f".{_BITS}", ".weight_quantizer.signs").replace(
        f".{_SCALE}", ".weight_quantizer.scale"
    )


def _restored(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _check_numbers(file: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BrokenUpstream(f"{file}: {name} holds a number that is not finite.")
        if name.endswith(f".{_SCALE}") and not bool((tensor > 0).all()):
            raise BrokenUpstream(f"{file}: {name} is not above 0, which a scale of weights is.")


def _checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    hash_state(digest, tensors)
    return digest.hexdigest()


def _rounded(weights: str) -> str:
    """Return another hash for a twin whose rest was rounded: it is another model."""
    return hashlib.sha256(f"{weights} rest fp16".encode()).hexdigest()
