"""The sox effects that s3prl's tasks ask torchaudio for, without sox.

torchaudio dropped ``torchaudio.sox_effects`` in 2.9. SUPERB's tasks use a short chain of it
(channels, rate, gain); each effect here follows the manual of SoX 14.4.2. Samples are float32 in
[-1, 1], shape ``(channels, samples)``, as torchaudio gave them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from superbit.upstreams.errors import InputError


def apply_effects_file(
    path: str | Path, effects: Sequence[Sequence[str]], **_unused: object
) -> tuple[Tensor, int]:
    """Read an audio file and apply a chain of effects to it.

    Args:
        path: any file that libsndfile reads.
        effects: names with their arguments, e.g. ``[["rate", "16000"], ["gain", "-3.0"]]``.

    Returns:
        Samples ``(channels, samples)`` and their rate in Hz.

    Raises:
        InputError: the file cannot be read, or an effect is not one of those below.
    """
    waveform, rate = read_soundfile(path)
    return apply_effects_tensor(waveform, rate, effects)


def apply_effects_tensor(
    tensor: Tensor, sample_rate: int, effects: Sequence[Sequence[str]], **_unused: object
) -> tuple[Tensor, int]:
    """Apply a chain of effects to samples ``(channels, samples)`` at ``sample_rate`` Hz."""
    for name, *arguments in effects:
        effect = EFFECTS.get(name)
        if effect is None:
            known = ", ".join(EFFECTS)
            raise InputError(f"sox effect {name!r} is not available without sox: {known} are.")
        tensor, sample_rate = effect(tensor, sample_rate, *arguments)
    return tensor, sample_rate


def read_soundfile(path: str | Path) -> tuple[Tensor, int]:
    """Return the samples of an audio file, float32 ``(channels, samples)``, and its rate in Hz.

    Raises:
        InputError: there is no such file, or libsndfile cannot decode it.
    """
    import soundfile

    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError(f"{path}: cannot be read as audio: {error}.") from error
    return torch.from_numpy(samples.T.copy()), rate


def _channels(waveform: Tensor, rate: int, count: str) -> tuple[Tensor, int]:
    wanted, present = int(count), waveform.shape[0]
    if wanted == present:
        return waveform, rate
    if wanted == 1:
        return waveform.mean(dim=0, keepdim=True), rate
    if present == 1:
        return waveform.expand(wanted, -1).clone(), rate
    raise InputError(f"sox effect 'channels': cannot make {wanted} channels of {present}.")


def _rate(waveform: Tensor, rate: int, wanted: str) -> tuple[Tensor, int]:
    if int(wanted) == rate:
        return waveform, rate
    from torchaudio.functional import resample

    return resample(waveform, rate, int(wanted)), int(wanted)


def _gain(waveform: Tensor, rate: int, decibels: str) -> tuple[Tensor, int]:
    # SoX clips at full scale, which only a positive gain can reach.
    return (waveform * 10.0 ** (float(decibels) / 20.0)).clamp_(-1.0, 1.0), rate


EFFECTS: dict[str, Callable[..., tuple[Tensor, int]]] = {
    "channels": _channels,
    "rate": _rate,
    "gain": _gain,
}
