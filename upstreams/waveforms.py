"""What a person hands an upstream, as the list of tensors that upstreams take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from superbit.upstreams.errors import InputError

Waveform = Tensor | NDArray[np.floating[Any]]


def as_tensors(
    waveforms: Sequence[Waveform] | Waveform, *, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Return waveforms as tensors: arrays as float32 on ``device``, tensors as they are.

    Args:
        waveforms: a list of 1-D arrays or tensors of 16 kHz samples; one alone is a batch of one.
        device: where arrays go.

    Raises:
        InputError: something else than arrays and tensors, samples that are not floating-point, or
            an array that is not 1-D.
    """
    if isinstance(waveforms, Tensor | np.ndarray) and waveforms.ndim == 1:
        waveforms = [waveforms]
    if not isinstance(waveforms, Sequence | Tensor | np.ndarray) or isinstance(waveforms, str):
        raise InputError(
            f"the waveforms are {type(waveforms).__name__}; a list of 1-D float arrays or tensors "
            "of samples at 16 kHz is needed."
        )
    return [
        _tensor(waveform, f"waveform {index} of {len(waveforms)}", device)
        for index, waveform in enumerate(waveforms)
    ]


def _tensor(waveform: object, name: str, device: torch.device | str) -> Tensor:
    if isinstance(waveform, Tensor):
        if not waveform.is_floating_point():
            raise _no_floats(name, str(waveform.dtype).removeprefix("torch."))
        return waveform
    if not isinstance(waveform, np.ndarray):
        raise InputError(
            f"{name} is {type(waveform).__name__}; a 1-D float array or tensor of samples at "
            "16 kHz is needed."
        )
    if waveform.ndim != 1:
        raise InputError(
            f"{name} has shape {waveform.shape}; one channel of shape (samples,) is needed."
        )
    if not np.issubdtype(waveform.dtype, np.floating):
        raise _no_floats(name, str(waveform.dtype))
    return torch.tensor(waveform.astype(np.float32), device=device)


def _no_floats(name: str, kind: str) -> InputError:
    scale = ": divide 16-bit samples by 32768" if kind == "int16" else ""
    return InputError(
        f"{name} holds {kind} samples; floating point, full scale 1.0, is needed{scale}."
    )


def take_arrays(expert: nn.Module) -> None:
    """Let somebody else's upstream take arrays, and one waveform alone, as superbit's own do.

    What is neither reaches it as it was given.
    """
    expert.register_forward_pre_hook(_arrays_to_tensors, with_kwargs=True)


def _arrays_to_tensors(
    expert: nn.Module, arguments: tuple[Any, ...], by_name: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if arguments:
        tensors = _taken(expert, arguments[0])
        return None if tensors is None else ((tensors, *arguments[1:]), by_name)
    if "wavs" not in by_name:
        return None
    tensors = _taken(expert, by_name["wavs"])
    return None if tensors is None else (arguments, {**by_name, "wavs": tensors})


def _taken(expert: nn.Module, given: Any) -> list[Tensor] | None:
    """Return the tensors to give in place of ``given``, None where it stays as it is."""
    alone = isinstance(given, Tensor | np.ndarray) and given.ndim == 1
    several = isinstance(given, list | tuple | np.ndarray)
    if several and not len(given):
        raise InputError("the list of waveforms is empty; at least one is needed.")
    if not alone and not (several and any(_is_for_us(each) for each in given)):
        return None
    first = next(expert.parameters(), None)
    return as_tensors(given, device="cpu" if first is None else first.device)


def _is_for_us(waveform: object) -> bool:
    """Whether no upstream takes it as it is: an array, or a tensor of integers."""
    if isinstance(waveform, Tensor):
        return not waveform.is_floating_point()
    return isinstance(waveform, np.ndarray)
