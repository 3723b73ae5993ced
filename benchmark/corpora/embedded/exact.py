"""Arithmetic on samples whose result is the same to the bit on every processor.

Libraries choose other instructions on other processors: sums run in another order, and sines,
powers and Fourier transforms differ in their last bits. One sample in some hundred then falls on
the other side of a step of 16 bits, and every hash of a corpus with it. So:

- Signals and filters are multiples of `STEP`. Their products are multiples of its square, and a
  sum of them has no rounding as long as it fits into the 53 bits of a float64: any order will do.
- A convolution by Fourier transforms errs by some 1e-14, and the right result is a multiple of
  ``STEP ** 2``, 1.5e-11: rounding to that gives the right result.
- Sines and powers come from tables and gains that are rounded far above their error.
- What is left is one operation a sample, which IEEE 754 defines to the last bit.
- What is drawn evenly is drawn as an integer.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from superbit.benchmark.corpora.audio import SAMPLE_RATE

STEP = 2.0**-18

# The smallest and the largest of what is drawn evenly.
Range = tuple[float, float]

_DRAWS = 10_000
_SINES = 4096
_PHASE_BITS = 32
_GAIN_DIGITS = 7


def draw(random: np.random.Generator, low: float, high: float) -> float:
    """A number from ``low`` to ``high``, evenly, in ten thousand steps."""
    return low + (high - low) * (int(random.integers(_DRAWS, endpoint=True)) / _DRAWS)


def draw_normal(random: np.random.Generator) -> float:
    """About a standard normal number: the sum of twelve even ones."""
    return int(random.integers(_DRAWS, size=12, endpoint=True).sum()) / _DRAWS - 6


def white(samples: int, random: np.random.Generator) -> np.ndarray:
    """White noise of root mean square about 1 and at most 3.5, multiples of `STEP`."""
    drawn = random.integers(0, 2**16, size=(4, samples), dtype=np.uint16)
    made = drawn.sum(axis=0, dtype=np.int64) - 2 * (2**16 - 1)
    # The standard deviation of the sum is 2^16 / √3.
    return to_steps(made * (math.sqrt(3) / 2**16))


def to_steps(samples: np.ndarray) -> np.ndarray:
    """The nearest multiples of `STEP`, float64."""
    return np.rint(np.asarray(samples, dtype=np.float64) / STEP) * STEP


def gain(decibels: float) -> float:
    """The factor on an amplitude."""
    return round(10 ** (decibels / 20), _GAIN_DIGITS)


def root_mean_square(samples: np.ndarray) -> float:
    """Of multiples of `STEP`."""
    return math.sqrt(math.fsum(_energies(samples)) / len(samples))


def energy(samples: np.ndarray) -> float:
    """Sum of squares of multiples of `STEP`."""
    return math.fsum(_energies(samples))


def frame_energies(samples: np.ndarray, size: int) -> np.ndarray:
    """Sums of squares of multiples of `STEP` over whole frames, at most 1,000 samples each."""
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    return np.asarray((frames**2).sum(axis=1))


def convolve(samples: np.ndarray, filter_: np.ndarray) -> np.ndarray:
    """All of the convolution of multiples of `STEP`, itself such multiples."""
    length = len(samples) + len(filter_) - 1
    size = 1 << (length - 1).bit_length()
    product = np.fft.rfft(samples, size) * np.fft.rfft(filter_, size)
    near = np.fft.irfft(product, size)[:length]
    return to_steps(np.rint(near / STEP**2) * STEP**2)


def sine(hertz: float, samples: int, *, phase: float = 0.0) -> np.ndarray:
    """A tone of amplitude 1 that starts at ``phase`` of its period, 0 to 1; multiples of `STEP`."""
    period = 1 << _PHASE_BITS
    step = round(hertz / SAMPLE_RATE * period)
    phases = np.arange(samples, dtype=np.int64) * step + round(phase * period)
    shift = _PHASE_BITS - (_SINES.bit_length() - 1)
    return _sine_table()[(phases % period) >> shift]


def write(path: Path, samples: np.ndarray) -> None:
    """Write samples of -1 to 1 at 16 kHz as 16 bits, into a folder that is made if need be.

    FLAC's lowest level has predictors of integers only; what higher ones find by floats is the same
    sound in other bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    integers = np.rint(np.asarray(samples, dtype=np.float64) * 32767).astype(np.int16)
    level = 0.0 if path.suffix == ".flac" else None
    soundfile.write(path, integers, SAMPLE_RATE, subtype="PCM_16", compression_level=level)


def _energies(samples: np.ndarray) -> np.ndarray:
    """Sums of squares over up to 1,000 samples each, so that each sum has no rounding."""
    whole = len(samples) // 1000 * 1000
    return np.append(frame_energies(samples, 1000), (samples[whole:] ** 2).sum())


@cache
def _sine_table() -> np.ndarray:
    return to_steps(np.sin(2 * np.pi * np.arange(_SINES) / _SINES))
