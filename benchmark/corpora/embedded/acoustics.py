"""From a clean voice to a recording: resampling, a room, a microphone, noise, gain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from superbit.benchmark.corpora.audio import SAMPLE_RATE
from superbit.benchmark.corpora.embedded import espeak
from superbit.benchmark.corpora.embedded.voices import Speaker
from superbit.upstreams.s3prl import compat

# torchaudio's compiled extension may not load under today's torch; resampling does without it.
compat.apply()
from torchaudio.transforms import Resample  # noqa: E402

# The smallest and the largest of what is drawn evenly.
Range = tuple[float, float]

NOISE_KINDS = ("white", "pink", "brown", "hum", "fan", "rain", "street", "machine")
# Steps of one percent: rates with a large common divisor need short resampling filters.
_RATE_STEP_HZ = 200


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How an utterance is recorded; each of them a range, or one number.

    Attributes:
        margin_seconds: the range of what is before and after the speech.
        snr_db: see `record`, as the others.
        tilt: of the microphone.
        level_db: of the speech.
    """

    margin_seconds: Range
    snr_db: Range
    tilt: float | Range
    level_db: float | Range


def say(text: str, speaker: Speaker, synthesizer: espeak.Espeak) -> np.ndarray:
    """A clean voice at 16 kHz, float32, shape ``(samples,)``."""
    clean = synthesizer.synthesize(text, **speaker.synthesis)
    return to_16_khz(clean, vocal_tract=speaker.vocal_tract)


def to_16_khz(samples: np.ndarray, *, vocal_tract: float) -> np.ndarray:
    """From espeak-ng's rate to 16 kHz, played faster by ``vocal_tract``.

    Playing faster raises every resonance by that factor, as a shorter vocal tract does; pitch and
    rate rise with it.
    """
    source_hz = round(espeak.SAMPLE_RATE * vocal_tract / _RATE_STEP_HZ) * _RATE_STEP_HZ
    with torch.inference_mode():
        return _resampler(source_hz)(torch.from_numpy(samples)).numpy()


def noise(kind: str, samples: int, random: np.random.Generator) -> np.ndarray:
    """Noise of root mean square 1, shape ``(samples,)``; ``kind`` is one of ``NOISE_KINDS``."""
    seconds = np.arange(samples, dtype=np.float32) / np.float32(SAMPLE_RATE)
    made: np.ndarray
    match kind:
        case "white":
            made = random.standard_normal(samples, dtype=np.float32)
        case "pink":
            made = _colored(samples, -0.5, random)
        case "brown":
            made = _colored(samples, -1.0, random)
        case "hum":
            made = _harmonics(seconds, 50.0, 12, random) + 0.3 * _colored(samples, -0.5, random)
        case "fan":
            beats = 1 + 0.5 * np.sin(2 * np.pi * random.uniform(4, 9) * seconds)
            made = _colored(samples, -0.8, random) * beats
        case "rain":
            drops = random.random(samples, dtype=np.float32) < 0.02
            made = random.standard_normal(samples, dtype=np.float32) * (drops + np.float32(0.05))
        case "street":
            swell = 1 + 0.8 * np.sin(2 * np.pi * (random.uniform(0.1, 0.5) * seconds))
            made = _colored(samples, -0.7, random) * swell
        case "machine":
            beats = 1 + 0.6 * np.sin(2 * np.pi * random.uniform(8, 16) * seconds)
            tones = _harmonics(seconds, random.uniform(90, 160), 20, random)
            made = beats * tones + 0.5 * random.standard_normal(samples, dtype=np.float32)
        case _:
            raise ValueError(f"There is no kind of noise {kind!r}.")
    return (made / np.sqrt(np.mean(made**2))).astype(np.float32)


def room(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A light room: decay by 60 dB in 0.1 to 0.35 s, 6 to 20 dB below the direct sound."""
    decay_seconds = random.uniform(0.1, 0.35)
    length = int(decay_seconds * SAMPLE_RATE)
    envelope = 10 ** (-3 * np.arange(length, dtype=np.float32) / length)
    tail = random.standard_normal(length, dtype=np.float32) * envelope
    tail *= 10 ** (-random.uniform(6, 20) / 20) / np.sqrt(np.sum(tail**2))
    size = 1 << (len(samples) + length - 1).bit_length()
    echo = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)
    return (samples + echo[: len(samples)]).astype(np.float32)


def microphone(samples: np.ndarray, tilt: float) -> np.ndarray:
    """A spectral tilt by y[n] = x[n] − tilt · x[n−1]; positive favours high frequencies."""
    filtered = samples.copy()
    filtered[1:] -= tilt * samples[:-1]
    return filtered


def level(samples: np.ndarray) -> float:
    """Root mean square over the louder half of 20 ms frames: the level of the speech itself."""
    size = SAMPLE_RATE // 50
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    power = np.sort(np.mean(frames**2, axis=1))
    return float(np.sqrt(power[len(power) // 2 :].mean()))


def record(
    speech: np.ndarray,
    *,
    samples: int,
    start: int,
    snr_db: float,
    tilt: float,
    level_db: float,
    random: np.random.Generator,
) -> np.ndarray:
    """Speech in a room, over noise of a random kind, as a microphone hears it.

    Args:
        speech: 16 kHz.
        samples: length of the result; speech beyond it is cut off.
        start: sample at which speech begins.
        snr_db: level of the speech over that of the noise.
        tilt: of the microphone.
        level_db: level of the speech, full scale being 0; lowered where samples would clip.

    Returns:
        float32, shape ``(samples,)``, at most 0.99 in magnitude.
    """
    heard = room(speech, random)[: samples - start]
    kind = NOISE_KINDS[random.integers(len(NOISE_KINDS))]
    recording = noise(kind, samples, random) * level(heard) * 10 ** (-snr_db / 20)
    recording[start : start + len(heard)] += heard
    recording = microphone(recording, tilt)
    recording *= 10 ** (level_db / 20) / level(microphone(heard, tilt))
    return (recording * min(1.0, 0.99 / np.abs(recording).max())).astype(np.float32)


def record_with_margins(
    speech: np.ndarray, conditions: Conditions, random: np.random.Generator
) -> np.ndarray:
    """`record` speech of 16 kHz, with margins and with what is drawn from its conditions."""
    before, after = (random.uniform(*conditions.margin_seconds, 2) * SAMPLE_RATE).astype(int)
    return record(
        speech,
        samples=int(before) + len(speech) + int(after),
        start=int(before),
        snr_db=_drawn(conditions.snr_db, random),
        tilt=_drawn(conditions.tilt, random),
        level_db=_drawn(conditions.level_db, random),
        random=random,
    )


def _drawn(value: float | Range, random: np.random.Generator) -> float:
    return random.uniform(*value) if isinstance(value, tuple) else value


@cache
def _resampler(source_hz: int) -> Resample:
    return Resample(source_hz, SAMPLE_RATE)


def _colored(samples: int, exponent: float, random: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude spectrum falls as frequency to the power of ``exponent``."""
    size = 1 << (samples - 1).bit_length()
    spectrum = np.fft.rfft(random.standard_normal(size, dtype=np.float32))
    # Flat below 40 Hz, where a power law would put nearly all of the energy.
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 40.0).astype(np.float32)
    made = np.fft.irfft(spectrum * frequency**exponent, size)[:samples]
    return made / np.sqrt(np.mean(made**2))


def _harmonics(
    seconds: np.ndarray, base_hz: float, count: int, random: np.random.Generator
) -> np.ndarray:
    """A sum of harmonics of falling amplitude and random phase, of root mean square 1."""
    made = np.zeros_like(seconds)
    for harmonic in range(1, count + 1):
        omega = np.float32(2 * np.pi * base_hz * harmonic)
        phase = np.float32(random.uniform(0, 2 * np.pi))
        made += np.sin(omega * seconds + phase) / np.float32(harmonic)
    return made / np.sqrt(np.mean(made**2))
