"""Reads the files of a HuBERT from Hugging Face, torchaudio or fairseq: tensors, and a few facts.

Most sizes follow from the tensors' shapes. What does not (heads, dropout) is read from a
configuration where the source has one.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from superbit.upstreams.errors import InputError
from superbit.upstreams.importing import naming, unpickle
from superbit.upstreams.importing.naming import Naming

BASE_ONLY = (
    "only HuBERT base, which has one norm in its front end and a norm after each residual sum, "
    "can be imported"
)

# What Hugging Face's config must say, where it says it, for a model to compute what ours does.
_HF_NEEDED: dict[str, Any] = {
    "model_type": "hubert",
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "feat_proj_layer_norm": True,
    "conv_bias": False,
    "conv_pos_batch_norm": False,
    "layer_norm_eps": 1e-5,
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
}
_HF_FACTS = {
    "num_attention_heads": "heads",
    "hidden_dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "feat_proj_dropout": "input_dropout",
}


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Somebody else's HuBERT as it was stored.

    Attributes:
        file: the file of the weights, which messages name.
        naming: how its tensors are called.
        tensors: by the names that the file gives them, without a larger model's prefix.
        facts: fields of `HubertConfig` that no shape tells.
    """

    file: Path
    naming: Naming
    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


def read_hugging_face(path: Path) -> Foreign:
    """Read a directory of ``save_pretrained``: config.json and the weights.

    Raises:
        InputError: a file is missing, unreadable, or of another kind of model.
    """
    if not path.is_dir():
        raise InputError(
            f"{path} is no directory; Hugging Face's models are directories with config.json and "
            "model.safetensors or pytorch_model.bin."
        )
    facts = _hugging_face_facts(path / "config.json")
    file = path / "model.safetensors"
    if file.is_file():
        try:
            tensors: Any = load_file(file)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{file} is no readable safetensors file, truncated or corrupt: {error}."
            ) from error
    else:
        file = path / "pytorch_model.bin"
        if not file.is_file():
            raise InputError(f"{path} holds neither model.safetensors nor pytorch_model.bin.")
        tensors = unpickle.load(file)
    return _foreign(file, naming.HUGGING_FACE, tensors, facts)


def _hugging_face_facts(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"there is no {file}, which a directory of Hugging Face's has.")
    try:
        config = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is not readable JSON: {error}.") from error
    if not isinstance(config, dict):
        raise InputError(f"{file} holds no JSON object, which a model's config is.")
    if config.get("feat_extract_norm", "group") != "group" or config.get("do_stable_layer_norm"):
        raise InputError(f"{file} describes a large HuBERT: {BASE_ONLY}.")
    for key, needed in _HF_NEEDED.items():
        if config.get(key, needed) != needed:
            raise InputError(
                f"{file}: {key} is {config[key]!r}, where HuBERT base has {needed!r}; {BASE_ONLY}."
            )
    return {ours: config[key] for key, ours in _HF_FACTS.items() if key in config}


def read_torchaudio(path: Path) -> Foreign:
    """Read a saved ``state_dict()`` of torchaudio's ``hubert_base`` or ``hubert_pretrain_base``.

    Raises:
        InputError: no such file, or not a state dict.
    """
    return _foreign(path, naming.TORCHAUDIO, unpickle.load(path), {})


def read_fairseq(path: Path) -> Foreign:
    """Read a checkpoint of fairseq's HuBERT pre-training.

    Raises:
        InputError: no such file, not a checkpoint, or of a model that ours cannot compute.
    """
    content = unpickle.load(path)
    if not isinstance(content, dict) or "model" not in content:
        raise InputError(f"{path} is no checkpoint of fairseq: it has no key 'model'.")
    settings = [content.get("cfg"), content.get("args")]
    if _setting(settings, "layer_norm_first") is True:
        raise InputError(f"{path} holds a large HuBERT (layer_norm_first): {BASE_ONLY}.")
    if _setting(settings, "normalize") is True:
        raise InputError(
            f"{path} was trained on normalised waveforms (normalize), which superbit's upstreams "
            f"are not given; {BASE_ONLY}."
        )
    heads = _setting(settings, "encoder_attention_heads")
    facts = {} if heads is None else {"heads": heads}
    return _foreign(path, naming.FAIRSEQ, content["model"], facts)


def _setting(tree: Any, key: str) -> Any:
    """Return the first value called ``key`` in a config of dicts and placeholders, None if absent.

    A value of omegaconf is a placeholder that holds the plain one as ``_val`` and knows its parent,
    so the tree has cycles.
    """
    seen: set[int] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, list | tuple):
            waiting.extend(node)
            continue
        values = vars(node) if isinstance(node, unpickle.Placeholder) else node
        if not isinstance(values, dict):
            continue
        if key in values:
            found = values[key]
            return vars(found).get("_val") if isinstance(found, unpickle.Placeholder) else found
        waiting.extend(values.values())
    return None


def _foreign(file: Path, names: Naming, tensors: Any, facts: Mapping[str, Any]) -> Foreign:
    if not isinstance(tensors, dict) or not tensors:
        raise InputError(f"{file} holds no state dict: names with a tensor each are needed.")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(
                f"{file} holds no state dict: {name!r} is {type(tensor).__name__}, where a tensor "
                "is needed."
            )
    unwrapped = {names.unwrapped(name): tensor for name, tensor in tensors.items()}
    if any(name.startswith(names.of_large_only) for name in unwrapped):
        raise InputError(
            f"{file} holds a large HuBERT (a norm or a bias in every convolution): {BASE_ONLY}."
        )
    return Foreign(file=file, naming=names, tensors=unwrapped, facts=dict(facts))


READERS: dict[str, Callable[[Path], Foreign]] = {
    "hf": read_hugging_face,
    "torchaudio": read_torchaudio,
    "fairseq": read_fairseq,
}
