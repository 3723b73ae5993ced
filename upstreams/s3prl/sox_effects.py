"""The sox effects that s3prl's tasks ask torchaudio for, without sox.

torchaudio dropped ``torchaudio.sox_effects`` in 2.9. SUPERB's tasks use a short chain of it
(channels, rate, gain, silence), and each effect here does what SoX 14.4.2 does: samples pass from
one effect to the next as 32-bit integers, rounded half away from zero and clipped at full scale.
``rate`` alone differs where it has to resample: torchaudio's filter is not SoX's.

Samples go in and come out as torchaudio gave them: float32 in [-1, 1], ``(channels, samples)``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superbit.upstreams.errors import InputError

# Inside a chain: integers of 32 bits, held in doubles, (channels, samples).
_Samples = NDArray[np.float64]

_FULL_SCALE = 2.0**31
_LARGEST = 2.0**31 - 1

# The one way SUPERB calls "silence": drop what comes before the first 0.1 s of sound, and every
# pause from its first sample on once it has lasted 0.1 s; 0.1 % of full scale is silence.
_SILENCE_ARGUMENTS = ("1", "0.1", "0.1%", "-1", "0.1", "0.1%")
_SILENCE_SECONDS = 0.1
_SILENCE_PERCENT = 0.1
_LOUDNESS_WINDOWS_A_SECOND = 50
_FIRST_SCAN_SECONDS = 2


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
    samples = _to_integers(tensor.detach().cpu().numpy().astype(np.float64))
    for name, *arguments in effects:
        effect = EFFECTS.get(name)
        if effect is None:
            known = ", ".join(EFFECTS)
            raise InputError(f"sox effect {name!r} is not available without sox: {known} are.")
        samples, sample_rate = effect(samples, sample_rate, *arguments)
    # Rounded to float32 before it is scaled by a power of two, which is exact.
    return torch.from_numpy(samples.astype(np.float32) / np.float32(_FULL_SCALE)), sample_rate


def read_soundfile(
    path: str | Path, *, start: int = 0, stop: int | None = None
) -> tuple[Tensor, int]:
    """Return samples of an audio file, float32 ``(channels, samples)``, and its rate in Hz.

    Args:
        path: any file that libsndfile reads.
        start: the first sample.
        stop: the one after the last; None: to the end.

    Raises:
        InputError: there is no such file, or libsndfile cannot decode all of it.
    """
    from superbit.upstreams import sound

    try:
        samples, rate = sound.decode(path, start=start, stop=stop)
    except OSError as error:
        raise InputError(f"{path} cannot be read as audio: {error.strerror or error}.") from error
    except sound.UnreadableAudio as error:
        raise InputError(f"{path} {error}.") from error
    return torch.from_numpy(samples.T.copy()), rate


def _to_integers(waveform: NDArray[np.float64]) -> _Samples:
    return _rounded(waveform * _FULL_SCALE)


def _rounded(samples: NDArray[np.float64]) -> _Samples:
    """Round half away from zero and clip, as SoX does after each effect."""
    rounded = np.copysign(0.5, samples)
    rounded += samples
    np.trunc(rounded, out=rounded)
    return np.clip(rounded, -_FULL_SCALE, _LARGEST, out=rounded)


def _channels(samples: _Samples, rate: int, count: str) -> tuple[_Samples, int]:
    wanted, present = int(count), samples.shape[0]
    if wanted == present:
        return samples, rate
    if wanted == 1:
        return _rounded(samples.mean(axis=0, keepdims=True)), rate
    if present == 1:
        return np.repeat(samples, wanted, axis=0), rate
    raise InputError(f"sox effect 'channels': cannot make {wanted} channels of {present}.")


def _rate(samples: _Samples, rate: int, wanted: str) -> tuple[_Samples, int]:
    if int(wanted) == rate:
        return samples, rate
    from torchaudio.functional import resample

    waveform = torch.from_numpy((samples / _FULL_SCALE).astype(np.float32))
    resampled = resample(waveform, rate, int(wanted)).numpy()
    return _to_integers(resampled.astype(np.float64)), int(wanted)


def _gain(samples: _Samples, rate: int, decibels: str) -> tuple[_Samples, int]:
    return _rounded(samples * math.exp(float(decibels) * math.log(10.0) * 0.05)), rate


def _silence(samples: _Samples, rate: int, *arguments: str) -> tuple[_Samples, int]:
    if arguments != _SILENCE_ARGUMENTS:
        raise InputError(
            f"sox effect 'silence' with {' '.join(arguments) or 'no arguments'!r} is not available "
            f"without sox: only {' '.join(_SILENCE_ARGUMENTS)!r} is."
        )
    if samples.shape[0] != 1:
        raise InputError(
            f"sox effect 'silence' is available for one channel only, and here are "
            f"{samples.shape[0]}: put ['channels', '1'] before it."
        )
    kept = [samples[:, first:end] for first, end in sound_ranges(samples[0], rate)]
    return np.concatenate([samples[:, :0], *kept], axis=1), rate


def sound_ranges(samples: NDArray[Any], rate: int) -> list[tuple[int, int]]:
    """Return the (first, end) indices of what SUPERB's "silence" keeps of one channel.

    Loudness is the root mean square of the last 1/50 s, counted from zero at the start and after
    every pause that was dropped. Sound begins with the first of 0.1 s of samples above 0.1 % of
    full scale; it ends before the first of 0.1 s of samples that are not above it. A pause that
    the end of the audio cuts short is kept, and sound that it cuts short is dropped. All 32 bits
    count, as in SoX after "gain".

    Args:
        samples: 32-bit integer values, ``(samples,)``.
        rate: in Hz.
    """
    window = rate // _LOUDNESS_WINDOWS_A_SECOND
    duration = int(_SILENCE_SECONDS * rate + 0.5)
    energy = np.square(samples, dtype=np.float64)
    total = len(energy)
    ranges: list[tuple[int, int]] = []
    start, length = 0, _FIRST_SCAN_SECONDS * rate
    while start < total:
        above = _above_threshold(energy[start : start + length], window)
        whole = start + len(above) == total
        first = _first_run(above, 0, duration, of=True)
        last = None if first is None else _first_run(above, first + duration, duration, of=False)
        if last is None and not whole:
            # Undecided: look further. Doubling keeps the work linear in the audio's length.
            length *= 2
            continue
        if first is None:
            break
        if last is None:
            ranges.append((start + first, total))
            break
        ranges.append((start + first, start + last))
        start, length = start + last + duration, _FIRST_SCAN_SECONDS * rate
    return ranges


def _above_threshold(energy: NDArray[np.float64], window: int) -> NDArray[np.bool_]:
    """Whether the loudness at each sample is above the threshold; zeros come before the first."""
    # SoX keeps a running sum of doubles: minus the oldest, plus the newest. The same additions in
    # the same order give the same rounding, which near the threshold decides.
    changes = np.zeros((len(energy), 2))
    np.negative(energy[:-window], out=changes[window:, 0])
    changes[:, 1] = energy
    return np.asarray(np.add.accumulate(changes.ravel())[1::2] >= _least_sum_above(window))


@functools.cache
def _least_sum_above(window: int) -> float:
    """The least sum of ``window`` squares that SoX calls above the threshold.

    SoX takes the root of the mean, drops its fraction, and compares percents of full scale. All
    of it grows with the sum, so one number found by bisection decides as it does, bit for bit.
    """

    def above(total: float) -> bool:
        return math.trunc(math.sqrt(total / window)) / _LARGEST * 100.0 > _SILENCE_PERCENT

    below, least = 0.0, _LARGEST**2 * window
    while (middle := below + (least - below) / 2) not in (below, least):
        below, least = (below, middle) if above(middle) else (middle, least)
    return least


def _first_run(values: NDArray[np.bool_], begin: int, length: int, *, of: bool) -> int | None:
    """Index of the first of ``length`` equal values ``of`` in a row, from ``begin`` on."""
    matching = np.concatenate([[False], values[begin:] == of, [False]])
    changes = np.flatnonzero(matching[1:] != matching[:-1])
    starts, ends = changes[::2], changes[1::2]
    long_enough = np.flatnonzero(ends - starts >= length)
    return int(begin + starts[long_enough[0]]) if len(long_enough) else None


EFFECTS: dict[str, Callable[..., tuple[_Samples, int]]] = {
    "channels": _channels,
    "rate": _rate,
    "gain": _gain,
    "silence": _silence,
}
