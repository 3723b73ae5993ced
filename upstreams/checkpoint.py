"""Weights on disk: a directory with ``model.safetensors`` and ``config.json``.

``config.json`` holds three keys: ``format`` (an integer, raised when the meaning of the others
changes), ``model`` (the fields of `HubertConfig`) and ``training`` (free: how the weights came
about). Neither file can run code when it is read.
"""

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.hubert_config import NAMED_SIZES, HubertConfig

FORMAT = 1
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
_NAMED_AT_MOST = 10  # tensors that an error message lists


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint directory holds.

    Attributes:
        model: on the CPU, in float32, in training mode, whatever precision was stored.
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
        model: an FP32 model on any device.
        dtype: the precision to store, `torch.float16` for half the bytes.
        training: JSON data about how the weights came about.
    """
    directory = Path(directory)
    config = {"format": FORMAT, "model": model.config.to_dict(), "training": dict(training or {})}
    text = json.dumps(config, indent=1, allow_nan=False) + "\n"
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    directory.mkdir(parents=True, exist_ok=True)
    with _replaced(directory / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    with _replaced(directory / CONFIG_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load(directory: str | Path, *, name: str | None = None) -> Checkpoint:
    """Read the checkpoint in ``directory``.

    Args:
        directory: as `save` wrote it.
        name: a named size whose encoder kind the checkpoint must have; its own sizes and front end
            may differ.

    Raises:
        InputError: something is missing, unreadable, of another encoder kind, or the tensors are
            not those that the config describes.
    """
    directory = Path(directory)
    if not directory.exists():
        raise InputError(f"there is no checkpoint {directory}: no such directory.")
    if not directory.is_dir():
        raise InputError(
            f"{directory} is a file; a checkpoint is a directory with {WEIGHTS_FILE} and "
            f"{CONFIG_FILE}."
        )
    config, training = _read_config(directory / CONFIG_FILE)
    if name is not None and config.encoder != NAMED_SIZES[name].encoder:
        article = "an" if config.encoder[0] in "aeiou" else "a"
        raise InputError(
            f"{directory} holds {article} {config.encoder} encoder, but {name!r} was asked for, "
            f"which is of kind {NAMED_SIZES[name].encoder!r}."
        )
    tensors = _read_tensors(directory / WEIGHTS_FILE)
    # without storage: the tensors read become the parameters, and no weight is drawn in vain
    with torch.device("meta"):
        model = Hubert(config)
    _check_tensors(directory / WEIGHTS_FILE, found=tensors, needed=model.state_dict())
    # copied: tensors as read are views of the file
    weights = {key: tensor.to(torch.float32, copy=True) for key, tensor in tensors.items()}
    model.load_state_dict(weights, assign=True)
    return Checkpoint(model=model, training=training)


def _read_config(file: Path) -> tuple[HubertConfig, dict[str, Any]]:
    """Return the model's config and the free training data of one ``config.json``."""
    try:
        content = json.loads(_existing(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is not readable JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no JSON object, which a checkpoint's config is.")
    known = ("format", "model", "training")
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
        return HubertConfig.from_dict(content.get("model", {})), training
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(_existing(file))
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{file} is no readable safetensors file, truncated or corrupt: {error}."
        ) from error


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise InputError(
            f"there is no {file}; a checkpoint is a directory with {WEIGHTS_FILE} and "
            f"{CONFIG_FILE}."
        )
    return file


def _check_tensors(
    file: Path, *, found: Mapping[str, Tensor], needed: Mapping[str, Tensor]
) -> None:
    """Raise `InputError` unless both have the same names and shapes, naming what differs."""
    differences = [f"missing: {name}" for name in needed if name not in found]
    differences += [f"not part of the model: {name}" for name in found if name not in needed]
    for name in needed.keys() & found.keys():
        if found[name].shape != needed[name].shape:
            differences.append(
                f"{name} has shape {tuple(found[name].shape)}, "
                f"where the config needs {tuple(needed[name].shape)}"
            )
        elif not found[name].is_floating_point():
            differences.append(f"{name} holds {found[name].dtype}, where a float is needed")
    if not differences:
        return
    lines = sorted(differences)
    if len(lines) > _NAMED_AT_MOST:
        rest = len(lines) - _NAMED_AT_MOST + 1
        lines = [*lines[: _NAMED_AT_MOST - 1], f"and {rest} more"]
    raise InputError(
        f"{file} does not fit the {CONFIG_FILE} beside it:" + "".join(f"\n  {x}" for x in lines)
    )


@contextmanager
def _replaced(file: Path) -> Iterator[Path]:
    """Yield a file to write to, which takes the place of ``file`` when all went well."""
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
