"""Weights on disk: a directory with ``model.safetensors`` and ``config.json``.

``config.json`` holds ``format`` (an integer, raised when the meaning of the others changes),
``model`` (the fields of `HubertConfig`), ``training`` (free: how the weights came about) and, of a
twin, ``policy`` (the whole of it, as in its YAML). Neither file can run code when it is read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from superbit.upstreams import variant
from superbit.upstreams.errors import BrokenUpstream, InputError, did_you_mean
from superbit.upstreams.files import read_json, replaced, write_text
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.convert import binarize_, is_calibrated
from superbit.upstreams.quantization.policy import Policy, policy_from_dict

FORMAT = 1
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
_NAMED_AT_MOST = 10  # tensors that an error message lists


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint directory holds.

    Attributes:
        model: on the CPU, in float32, in training mode, whatever precision was stored; a twin if
            the config has a policy.
        training: how the weights came about, as it was saved.
    """

    model: Hubert
    training: dict[str, Any] = field(default_factory=dict)


def save(
    directory: str | Path,
    model: Hubert,
    *,
    dtype: torch.dtype = torch.float32,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write ``model`` to ``directory``, which is made if it is missing.

    Each file is replaced in one step, the config last: a reader never sees half of one.

    Args:
        directory: where `model.safetensors` and `config.json` go.
        model: a model on any device, a twin included.
        dtype: the precision to store, `torch.float16` for half the bytes.
        training: JSON data about how the weights came about.
    """
    directory = Path(directory)
    config = {"format": FORMAT, "model": model.config.to_dict(), "training": dict(training or {})}
    if model.policy is not None:
        config["policy"] = model.policy.to_dict()
    text = json.dumps(config, indent=1, allow_nan=False) + "\n"
    tensors = {
        # counts (a batch norm has one) stay integers, and flags what they are
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in model.state_dict().items()
    }
    with replaced(directory / WEIGHTS_FILE) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    write_text(directory / CONFIG_FILE, text)


def load(
    directory: str | Path, *, name: str | None = None, encoder: str | None = None
) -> Checkpoint:
    """Read the checkpoint in ``directory``.

    Args:
        directory: as `save` wrote it.
        name: a named size whose encoder kind the checkpoint must have; its own sizes and front end
            may differ.
        encoder: that kind, where ``name`` is of somebody's own file.

    Raises:
        InputError: something is missing, unreadable, of another encoder kind, the tensors are not
            those that the config describes, or a twin was never calibrated.
    """
    directory = Path(directory)
    if not directory.exists():
        raise InputError(f"there is no checkpoint {directory}: no such directory.")
    if not directory.is_dir():
        raise InputError(
            f"{directory} is a file and no packed twin; a checkpoint is a directory with "
            f"{WEIGHTS_FILE} and {CONFIG_FILE}."
        )
    config, policy, training = _read_config(directory / CONFIG_FILE)
    require_kind(config, name=name, encoder=encoder, where=directory)
    tensors = _read_tensors(directory / WEIGHTS_FILE)
    # without storage: the tensors read become the parameters, and no weight is drawn in vain
    with torch.device("meta"):
        model = Hubert(config)
        if policy is not None:
            binarize_(model, policy)
    check_tensors(
        f"{directory / WEIGHTS_FILE} does not fit the {CONFIG_FILE} beside it",
        found=tensors,
        needed=model.state_dict(),
    )
    # copied: tensors as read are views of the file
    weights = {
        key: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for key, tensor in tensors.items()
    }
    model.load_state_dict(weights, assign=True)
    if not is_calibrated(model):
        raise InputError(
            f"{directory / WEIGHTS_FILE} holds a twin that was never calibrated; calibrate it on "
            "audio before it is saved."
        )
    return Checkpoint(model=model, training=training)


def require_kind(
    config: HubertConfig, *, name: str | None, encoder: str | None, where: Path
) -> None:
    """Raise `InputError` unless a checkpoint's config is of the encoder kind that was asked for.

    Args:
        config: what the checkpoint ``where`` holds.
        name: a named size; None where any kind will do.
        encoder: its kind, where ``name`` is of somebody's own file.
    """
    if name is not None and encoder is None:
        encoder = variant.size_of(name).encoder
    if encoder not in (None, config.encoder):
        article = "an" if config.encoder[0] in "aeiou" else "a"
        raise InputError(
            f"{where} holds {article} {config.encoder} encoder, but {name!r} was asked for, "
            f"which is of kind {encoder!r}."
        )


def _read_config(file: Path) -> tuple[HubertConfig, Policy | None, dict[str, Any]]:
    """Return the model's config, a twin's policy and the free training data of ``config.json``."""
    try:
        content = read_json(_existing(file), "a checkpoint's config")
    except InputError as error:
        raise BrokenUpstream(str(error)) from error
    if not isinstance(content, dict):
        raise BrokenUpstream(f"{file} holds no JSON object, which a checkpoint's config is.")
    known = ("format", "model", "policy", "training")
    for key in content:
        if key not in known:
            raise InputError(f"{file}: unknown key {key!r}.{did_you_mean(key, known)}")
    if content.get("format") != FORMAT:
        raise InputError(
            f"{file} has format {content.get('format')!r}; this version of superbit reads {FORMAT}."
        )
    training = content.get("training", {})
    if not isinstance(training, dict):
        raise InputError(f"{file}: training is {training!r}; a JSON object is needed.")
    try:
        config = HubertConfig.from_dict(content.get("model", {}))
    except InputError as error:  # or its kind's package is broken, which is of this upstream alone
        raise type(error)(f"{file}: {error}") from error
    policy = content.get("policy")
    if policy is not None:
        policy = policy_from_dict(policy, where=f"{file}, policy")
    return config, policy, training


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(_existing(file))
    except (OSError, SafetensorError) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> BrokenUpstream:
    """Return what to raise for a safetensors file that cannot be read."""
    return BrokenUpstream(f"{file} is no readable safetensors file, truncated or corrupt: {error}.")


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise InputError(
            f"there is no {file}; a checkpoint is a directory with {WEIGHTS_FILE} and "
            f"{CONFIG_FILE}."
        )
    return file


def check_tensors(
    complaint: str, *, found: Mapping[str, Tensor], needed: Mapping[str, Tensor]
) -> None:
    """Raise `InputError` unless both have the same names and shapes.

    The message is ``complaint`` and at most ten lines that name what differs.
    """
    differences = [f"missing: {name}" for name in needed if name not in found]
    differences += [f"not part of the model: {name}" for name in found if name not in needed]
    for name in needed.keys() & found.keys():
        if found[name].shape != needed[name].shape:
            differences.append(
                f"{name} has shape {tuple(found[name].shape)}, "
                f"where the config needs {tuple(needed[name].shape)}"
            )
        elif found[name].is_floating_point() != needed[name].is_floating_point():
            kind = "a float" if needed[name].is_floating_point() else f"{needed[name].dtype}"
            differences.append(f"{name} holds {found[name].dtype}, where {kind} is needed")
    if not differences:
        return
    lines = sorted(differences)
    if len(lines) > _NAMED_AT_MOST:
        rest = len(lines) - _NAMED_AT_MOST + 1
        lines = [*lines[: _NAMED_AT_MOST - 1], f"and {rest} more"]
    raise BrokenUpstream(f"{complaint}:" + "".join(f"\n  {line}" for line in lines))
