"""What fixes a run of pre-training or distillation, as data: presets are YAML files of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from superbit.upstreams import files, variant
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.hubert_config import HubertConfig

PRESETS = ("phase1", "phase2", "nano")
DISTILLATION_PRESETS = ("distil", "distil_nano")

# What may differ between a run and the one that goes on with it: nothing that changes a weight.
MAY_DIFFER = ("log_every", "validate_every", "save_every", "keep_every", "workers")

_Share = Annotated[float, Field(ge=0, le=1)]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TrainingConfig(BaseModel):
    """What every run needs. Audio lengths are in samples at 16 kHz, steps in optimizer updates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    updates: PositiveInt
    warm_up_updates: Annotated[int, Field(ge=0)]
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: _Rate = 5e-4  # the peak
    betas: tuple[_Share, _Share] = (0.9, 0.98)
    epsilon: _Rate = 1e-6
    weight_decay: _Weight = 0.01  # decoupled
    gradient_clip: _Rate = 10.0  # norm of the whole gradient

    batch_samples: PositiveInt  # a rank and micro-batch, at most
    accumulate: PositiveInt = 1  # micro-batches an update
    crop_samples: PositiveInt = 250_000
    min_samples: PositiveInt = 32_000  # shorter utterances are left out
    bucket_samples: PositiveInt = 1  # lengths are told apart in such steps when batches are made

    mask_probability: _Share = 0.8
    mask_span: PositiveInt = 10  # frames
    min_masks: PositiveInt = 2
    equalize_masks: bool = True  # as many masked frames in every utterance of a batch

    # of HuBERT's objective
    unmasked_weight: _Weight = 0.0  # of the cross-entropy of frames that are not masked
    feature_penalty: _Weight = 10.0
    front_end_gradient: _Weight = 0.1
    temperature: PositiveFloat = 0.1

    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 on a GPU
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 0  # processes that read audio, a rank
    log_every: PositiveInt = 200
    validate_every: PositiveInt = 5_000
    save_every: PositiveInt = 5_000
    keep_every: PositiveInt | None = None  # checkpoints kept for good; the last and best are


class PretrainingConfig(TrainingConfig):
    """A run of HuBERT's pre-training; its weight decay is on every parameter."""

    phase: Literal[1, 2]
    models: tuple[str, ...]  # named sizes that the preset is for
    model: dict[str, Any] = {}  # fields of HubertConfig in place of the named size's, as dropout
    units: PositiveInt  # K
    label_rate: PositiveInt  # Hz, a multiple of the 50 frames a second
    layer_drop: Annotated[float, Field(ge=0, lt=1)] = 0.05

    def layer_drop_of(self, size: HubertConfig) -> float:
        """Return the probability of leaving a layer out of an update: 0 in a Squeezeformer.

        There a layer's place decides its frame rate, and the paper's recipe has none.
        """
        return self.layer_drop if getattr(size.own, "layers_can_be_dropped", True) else 0.0


class DistillationConfig(TrainingConfig):
    """A step towards a twin, by its teacher or by HuBERT's loss; no layer is left out.

    Weight decay is on weights that are binarized, or could be: not on norms, biases and shifts.
    """

    loss: Literal["kd", "hubert"] = "kd"
    units: PositiveInt | None = None  # K of the labels; None: as the teacher was trained
    label_rate: PositiveInt | None = None  # Hz, of the labels; None: as the teacher was trained
    scale_learning_rate: _Rate  # of the quantizers' scales, the peak; they do not decay
    unit_weight: _Weight = 1.0  # of the soft units beside the hidden states; loss kd
    relative: bool = False  # a layer's error is relative to the teacher's mean square; loss kd


_Config = TypeVar("_Config", bound=TrainingConfig)


def load_config(
    preset: str | Path, *, changes: Mapping[str, Any] | None = None
) -> PretrainingConfig:
    """Return a preset of superbit's for pre-training, or a YAML file's, with some keys changed.

    Raises:
        InputError: no such preset, an unknown key, or a value that it cannot have.
    """
    return _load(PretrainingConfig, preset, changes or {}, presets=PRESETS, what="pre-training")


def load_distillation_config(
    preset: str | Path, *, changes: Mapping[str, Any] | None = None
) -> DistillationConfig:
    """Return a preset of superbit's for distillation, or a YAML file's, with some keys changed.

    Raises:
        InputError: no such preset, an unknown key, or a value that it cannot have.
    """
    return _load(
        DistillationConfig, preset, changes or {}, presets=DISTILLATION_PRESETS, what="distillation"
    )


def _load(
    kind: type[_Config],
    preset: str | Path,
    changes: Mapping[str, Any],
    *,
    presets: Sequence[str],
    what: str,
) -> _Config:
    values = _read(preset, presets)
    known = set(kind.model_fields)
    for key in changes:
        if key not in known:
            raise InputError(f"{key!r} is no key of {what}.{did_you_mean(key, known)}")
    try:
        config = kind.model_validate({**values, **changes})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        hint = did_you_mean(key, known) if first["type"] == "extra_forbidden" else ""
        if first["type"] == "missing":
            raise InputError(f"preset {preset}: {key} is missing, a key of {what}.") from None
        raise InputError(
            f"preset {preset}: {key} is {first['input']!r}: {first['msg']}.{hint}"
        ) from None
    _check(config, preset)
    return config


def _read(preset: str | Path, presets: Sequence[str]) -> dict[str, Any]:
    if str(preset) in presets:
        folder = resources.files("superbit.upstreams") / "training" / "presets"
        file = folder / f"{preset}.yaml"
    elif Path(preset).is_file():
        file = Path(preset)
    else:
        raise InputError(
            f"there is no preset {str(preset)!r}: give {', '.join(presets)} or a YAML file."
            f"{did_you_mean(str(preset), list(presets))}"
        )
    values = files.read_yaml(file, "a preset, a YAML file")
    if not isinstance(values, dict):
        raise InputError(f"preset {preset} holds no mapping of keys to values.")
    return values


def _check(config: TrainingConfig, preset: str | Path) -> None:
    """Raise `InputError` where keys that are right alone do not fit together."""
    rate = getattr(config, "label_rate", None)
    if rate is not None and rate % 50:
        raise InputError(
            f"preset {preset}: label_rate is {rate}; a multiple of the 50 frames a "
            "second is needed, 100 for MFCC units and 50 for a layer's."
        )
    if config.warm_up_updates > config.updates:
        raise InputError(
            f"preset {preset}: warm_up_updates is {config.warm_up_updates}, more than the "
            f"{config.updates} updates in all."
        )
    if config.crop_samples > config.batch_samples:
        raise InputError(
            f"preset {preset}: crop_samples is {config.crop_samples}, more than the "
            f"{config.batch_samples} of a batch (batch_samples)."
        )
    if config.min_samples > config.crop_samples:
        raise InputError(
            f"preset {preset}: min_samples is {config.min_samples}, more than a crop's "
            f"{config.crop_samples} (crop_samples)."
        )


def parse_changes(words: Sequence[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` options as data; values are read as YAML.

    Raises `InputError` for an option without ``=``.
    """
    changes = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InputError(f"--set {word!r}: KEY=VALUE is needed, as in updates=1000.")
        try:
            changes[key] = files.parse_yaml(value, where="the value")
        except InputError as error:
            raise InputError(f"--set {word!r}: {error}") from None
    return changes


def model_config(config: PretrainingConfig, name: str, preset: str | Path) -> HubertConfig:
    """Return the sizes of the model ``name`` as the preset trains it.

    Raises:
        InputError: no such name, or the preset is for others.
    """
    named = variant.size_of(name)
    if name not in config.models:
        others = [other for other in PRESETS if other != str(preset)]
        fits = [other for other in others if name in load_config(other).models]
        hint = f"; for {name} there is {' or '.join(fits)}" if fits else ""
        raise InputError(f"preset {preset} is for {', '.join(config.models)}, not {name}{hint}.")
    size = HubertConfig.from_dict({**named.to_dict(), **config.model})
    if size.encoder != named.encoder:
        raise InputError(f"preset {preset}: model may not change the encoder of {name}.")
    check_min_samples(config, size, preset)
    return size


def check_min_samples(config: TrainingConfig, size: HubertConfig, preset: str | Path) -> None:
    """Raise `InputError` where the shortest crop would not have two frames."""
    if config.min_samples < size.receptive_field + size.hop:
        raise InputError(
            f"preset {preset}: min_samples is {config.min_samples}; at least "
            f"{size.receptive_field + size.hop} are needed for two frames."
        )


def learning_rate(config: TrainingConfig, update: int) -> float:
    """Return the learning rate of one update, counted from 0."""
    if update < config.warm_up_updates:
        return config.learning_rate * (update + 1) / config.warm_up_updates
    rest = config.updates - config.warm_up_updates
    return config.learning_rate * max(config.updates - update, 0) / max(rest, 1)


def make_optimizer(
    config: TrainingConfig, groups: Sequence[Mapping[str, Any]]
) -> torch.optim.Optimizer:
    """Return the optimizer of groups of parameters, as torch's take them.

    A group may have ``rate``, a factor on the learning rate, 1 by default; `set_learning_rate` is
    to be called before every update.
    """
    own = [dict(group) for group in groups]
    if config.optimizer == "sgd":
        return torch.optim.SGD(own, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.AdamW(
        own,
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=own[0]["params"][0].is_cuda,
    )


def set_learning_rate(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, update: int
) -> None:
    """Give every group its learning rate of one update, counted from 0."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, update) * group.get("rate", 1.0)
