"""Reads the files of a HuBERT from Hugging Face, torchaudio or fairseq: tensors, and a few facts.

Most sizes follow from the tensors' shapes. What does not (heads, dropout) is read from a
configuration where the source has one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_json
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
_WRAPPINGS = ("module.", "_orig_mod.")
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
        normalizes: whether the source's own program takes mean and loudness out of each waveform
            before the model sees it.
    """

    file: Path
    naming: Naming
    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)
    normalizes: bool = False


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
    for name, read in (("model.safetensors", _safetensors), ("pytorch_model.bin", unpickle.load)):
        file, index = path / name, path / f"{name}.index.json"
        if file.is_file():
            tensors = read(file)
        elif index.is_file():
            file, tensors = index, _shards(index, read)
        else:
            continue
        return _foreign(
            file,
            naming.HUGGING_FACE,
            tensors,
            facts,
            normalizes=_normalizes(path / "preprocessor_config.json"),
        )
    raise InputError(
        f"{path} holds neither model.safetensors nor pytorch_model.bin, nor the index.json of one "
        "that is in several files."
    )


def _safetensors(file: Path) -> Any:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{file} is no readable safetensors file, truncated or corrupt: {error}."
        ) from error


def _shards(index: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    """Read the tensors of a model that is in several files, from where its index says they are."""
    places = _json(index, "the index of a model in several files").get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{index} has no weight_map of names of tensors to names of files.")
    tensors: dict[str, Any] = {}
    for name in sorted({str(name) for name in places.values()}):
        file = index.parent / name
        if Path(name).name != name or not file.is_file():
            raise InputError(f"{index} names the file {name!r}, which does not lie beside it.")
        content = read(file)
        held = content if isinstance(content, dict) else {}
        for tensor in (key for key, place in places.items() if place == name):
            if tensor not in held:
                raise InputError(f"{file} lacks the tensor {tensor!r}, which {index.name} says.")
            tensors[tensor] = held[tensor]
    return tensors


def _normalizes(file: Path) -> bool:
    return file.is_file() and _json(file, "what is done to waveforms").get("do_normalize") is True


def _json(file: Path, what: str) -> dict[str, Any]:
    content = read_json(file, what)
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no JSON object, which {what} is.")
    return content


def _hugging_face_facts(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"there is no {file}, which a directory of Hugging Face's has.")
    config = _json(file, "a model's config")
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
    """Read a checkpoint of fairseq's HuBERT, pre-trained or fine-tuned, or s3prl's copy of one.

    Raises:
        InputError: no such file, not a checkpoint, or of a model that ours cannot compute.
    """
    content = unpickle.load(path)
    if not isinstance(content, dict) or not ("model" in content or is_converted(content)):
        looks_like = (
            "; it looks like a state dict: try --from torchaudio" if _is_state_dict(content) else ""
        )
        raise InputError(
            f"{path} is no checkpoint of fairseq: it has no key 'model', nor s3prl's "
            f"'model_weight'{looks_like}."
        )
    if is_converted(content):
        settings, tensors = [content.get("model_cfg"), content.get("task_cfg")], "model_weight"
    else:
        settings, tensors = [content.get("cfg"), content.get("args")], "model"
    if _setting(settings, "layer_norm_first") is True:
        raise InputError(f"{path} holds a large HuBERT (layer_norm_first): {BASE_ONLY}.")
    if _setting(settings, "normalize") is True:
        raise InputError(
            f"{path} was trained on normalised waveforms (normalize), which superbit's upstreams "
            f"are not given; {BASE_ONLY}."
        )
    heads = _setting(settings, "encoder_attention_heads")
    facts = {} if heads is None else {"heads": heads}
    return _foreign(path, naming.FAIRSEQ, content[tensors], facts)


def is_converted(content: Any) -> bool:
    """Whether a file's content is fairseq's checkpoint as s3prl's converters write it."""
    return isinstance(content, dict) and "model_weight" in content and "model_cfg" in content


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, dict) and any(isinstance(v, Tensor) for v in content.values())


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
            if isinstance(found, unpickle.Placeholder):
                found = vars(found).get("_val")
            # "${task.normalize}" says where the value is
            if not (isinstance(found, str) and found.startswith("${")):
                return found
        waiting.extend(values.values())
    return None


def _foreign(
    file: Path,
    names: Naming,
    tensors: Any,
    facts: Mapping[str, Any],
    *,
    normalizes: bool = False,
) -> Foreign:
    tensors = _without_wrapping(tensors)
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
    return Foreign(
        file=file, naming=names, tensors=unwrapped, facts=dict(facts), normalizes=normalizes
    )


def _without_wrapping(tensors: Any) -> Any:
    """Take off what training with several GPUs, or compiled, puts before every name."""
    while isinstance(tensors, dict) and tensors:
        for prefix in _WRAPPINGS:
            if all(str(name).startswith(prefix) for name in tensors):
                tensors = {str(name).removeprefix(prefix): t for name, t in tensors.items()}
                break
        else:
            break
    return tensors


READERS: dict[str, Callable[[Path], Foreign]] = {
    "hf": read_hugging_face,
    "torchaudio": read_torchaudio,
    "fairseq": read_fairseq,
}
