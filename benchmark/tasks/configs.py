"""Resolved task configs: the full protocol of one YAML, with overrides for a scale laid over it.

A resolved config is plain data, holds no path, and is part of a run's key.
"""

from __future__ import annotations

import copy
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from superbit.benchmark.tasks.catalog import TASKS, find_task
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.files import read_yaml

Scale = Literal["superb", "embedded"]
SCALES: tuple[Scale, ...] = ("superb", "embedded")


# Sections that a config may do without, and what a value of theirs may be.
_OPTIONAL = ("scheduler", "specaug")
_PLAIN = (dict, list, str, int, float, bool, type(None))


# Of any whole number in a config: what is larger no run could ever count to.
_LARGEST = 10**15


class _ConfigSection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunnerSection(_ConfigSection):
    """How long a run trains and how often it evaluates, in optimizer steps."""

    total_steps: PositiveInt
    gradient_clipping: PositiveFloat
    gradient_accumulate_steps: PositiveInt
    log_step: PositiveInt
    eval_step: PositiveInt
    save_step: PositiveInt
    eval_dataloaders: list[str]
    # ASV: every so many steps a checkpoint that is tested after training
    test_step: PositiveInt | None = None


LearningRate = Annotated[PositiveFloat, Field(allow_inf_nan=False)]


class OptimizerSection(_ConfigSection):
    """s3prl's optimizer choice: an optimizer of torch by name, and its learning rate."""

    name: Literal["TorchOptim"]
    torch_optim_name: str
    lr: LearningRate


class Resources(_ConfigSection):
    """What one run of a task is given on a cluster; no number depends on it.

    Attributes:
        hours: after which it is begun again from its checkpoint; None: by what such runs took.
    """

    cpus: PositiveInt = 1
    gpus: NonNegativeInt = 0
    memory_gb: PositiveFloat = 8
    hours: PositiveFloat | None = None


class TaskConfig(_ConfigSection):
    """One task's protocol, with the sections that s3prl's experts read."""

    runner: RunnerSection | None = None
    optimizer: OptimizerSection | None = None
    scheduler: dict[str, Any] | None = None
    specaug: dict[str, Any] | None = None
    # what a search tries; no part of any run's config, each of which has one rate
    learning_rates: list[LearningRate] | None = Field(default=None, min_length=1, exclude=True)
    # no part of it either: where a run is made changes no number
    resources: Resources = Field(default=Resources(), exclude=True)
    downstream_expert: dict[str, Any]


def resolve(
    task: str,
    *,
    scale: Scale,
    overrides: Path | None = None,
    learning_rate: float | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Return the resolved config of one task: plain data that a run's key can hash.

    Args:
        task: name of a task.
        scale: ``"superb"`` for the YAML as it is, ``"embedded"`` for the small scale's overrides.
        overrides: a YAML file of the user's, laid out like ``embedded.yaml``.
        learning_rate: takes the place of the config's.
        limit: at most so many optimizer steps, and batches an evaluation; such a run never enters
            a table.

    Raises:
        InputError: an unknown key (the message names the nearest) or a value of the wrong kind.
    """
    resolved = _config(task, scale, overrides, learning_rate).model_dump(exclude_none=True)
    resolved["scale"] = scale
    if limit is not None:
        resolved["limit"] = limit
        _shorten(resolved.get("runner"), limit)
    return resolved


def rates_to_search(task: str, *, scale: Scale, overrides: Path | None = None) -> list[float]:
    """Return the learning rates that a search tries, by falling rate; none for QbE.

    Raises:
        InputError: as :func:`resolve`.
    """
    return sorted(set(_config(task, scale, overrides, None).learning_rates or []), reverse=True)


def resources_of(task: str, *, scale: Scale, overrides: Path | None = None) -> Resources:
    """Return what a run of a task is given on a cluster.

    Raises:
        InputError: as :func:`resolve`.
    """
    return _config(task, scale, overrides, None).resources


def total_steps(config: dict[str, Any]) -> int:
    """Optimizer steps of a resolved config; 0 for QbE, which trains nothing."""
    return int(config["runner"]["total_steps"]) if "runner" in config else 0


def _config(
    task: str, scale: Scale, overrides: Path | None, learning_rate: float | None
) -> TaskConfig:
    spec = find_task(task)
    config = {
        "scheduler": None,
        "specaug": None,
        "resources": Resources().model_dump(),
        **_packaged(f"{spec.name.lower()}.yaml"),
    }
    if scale == "embedded":
        small = _packaged("embedded.yaml").get(spec.name, {})
        config = _overlay(config, small, where=f"embedded.yaml: {spec.name}")
    if overrides is not None:
        config = _overlay(
            config, _user_overrides(overrides, spec.name), where=f"{overrides}: {spec.name}"
        )
    if learning_rate is not None and "optimizer" in config:
        config["optimizer"]["lr"] = learning_rate
    return _validate(config, where=f"{overrides or spec.name.lower() + '.yaml'}: {spec.name}")


def _shorten(runner: dict[str, Any] | None, limit: int) -> None:
    if runner is None:
        return
    steps = runner["total_steps"] = min(limit, runner["total_steps"])
    if "test_step" in runner:
        # So that a limited run still has a checkpoint to test.
        runner["test_step"] = runner["save_step"] = steps


def _packaged(name: str) -> dict[str, Any]:
    file = resources.files("superbit.downstream_configs") / name
    return dict(read_yaml(file, "a config of superbit's"))


def _user_overrides(path: Path, task: str) -> dict[str, Any]:
    data = read_yaml(path, "a YAML file of config overrides")
    if not isinstance(data, dict):
        raise InputError(f"{path}: the top level must be a mapping of keys to values.")
    for key in data:
        if key not in TASKS:
            hint = did_you_mean(str(key), list(TASKS))
            raise InputError(f"{path}: unknown task {key!r}: tasks are {', '.join(TASKS)}.{hint}")
    section = data.get(task) or {}
    if not isinstance(section, dict):
        raise InputError(f"{path}: {task} must be a mapping, not {section!r}.")
    return section


def _overlay(base: dict[str, Any], changes: dict[str, Any], *, where: str) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it; only keys that ``base`` has may change."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        if key not in base:
            hint = did_you_mean(str(key), list(base))
            raise InputError(f"{where}: unknown key {key!r}; here are {', '.join(base)}.{hint}")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise InputError(f"{where}: {key!r} must be at most {_LARGEST:,}.")
        if base[key] is None or (value is None and key in _OPTIONAL):
            if isinstance(value, _PLAIN):
                merged[key] = value
            else:
                raise InputError(f"{where}: {key!r} cannot be {value!r}.")
        elif isinstance(base[key], dict):
            if not isinstance(value, dict):
                raise InputError(f"{where}: {key!r} must be a mapping, not {value!r}.")
            merged[key] = _overlay(base[key], value, where=f"{where}.{key}")
        elif value is None:
            raise InputError(f"{where}: {key!r} is {base[key]!r} and cannot be left empty.")
        elif isinstance(base[key], bool) != isinstance(value, bool):
            raise InputError(f"{where}: {key!r} is {base[key]!r} and cannot become {value!r}.")
        elif type(base[key]) is not type(value) and not _both_numbers(base[key], value):
            kind = type(base[key]).__name__
            raise InputError(
                f"{where}: {key!r} must be of type {kind} like {base[key]!r}, not {value!r}."
            )
        else:
            merged[key] = value
    return merged


def _both_numbers(first: object, second: object) -> bool:
    return isinstance(first, int | float) and isinstance(second, int | float)


def _validate(config: dict[str, Any], *, where: str) -> TaskConfig:
    try:
        return TaskConfig.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {key}: {first['msg']}, got {first.get('input')!r}.") from error
