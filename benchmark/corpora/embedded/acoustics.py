"""From a clean voice to a recording: resampling, a room, a microphone, noise, gain.

Signals are float64 in -1…1, and everything is the same to the bit on every processor: see `exact`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from superbit.benchmark.corpora.audio import SAMPLE_RATE
from superbit.benchmark.corpora.embedded import espeak, exact
from superbit.benchmark.corpora.embedded.exact import Range, draw, to_steps, white
from superbit.benchmark.corpora.embedded.voices import Speaker

ECHO_DB: Range = (6, 20)
NOISE_KINDS = ("white", "pink", "brown", "hum", "fan", "rain", "street", "machine")
# Steps of one percent: rates with a large common divisor need short resampling filters.
_RATE_STEP_HZ = 200
# The resampling filter: zero crossings on each side, and its cut-off in Nyquist frequencies.
_ZERO_CROSSINGS = 6
_ROLL_OFF = 0.99
# A filter that colors noise, and where it stops rising: a power law would put nearly all of the
# energy below that.
_COLOR_TAPS = 4096
_FLAT_BELOW_HZ = 40.0
_DECAYS = 4096  # entries of the table of a room's decay


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How an utterance is recorded; each of them a range, or one number.

    Attributes:
        margin_seconds: the range of what is before and after the speech.
        snr_db: see `record`, as the others.
        tilt: of the microphone.
        level_db: of the speech.
        echo_db: see `room`.
    """

    margin_seconds: Range
    snr_db: Range
    tilt: float | Range
    level_db: float | Range
    echo_db: Range = ECHO_DB


def say(text: str, speaker: Speaker, synthesizer: espeak.Espeak) -> np.ndarray:
    """A clean voice at 16 kHz, shape ``(samples,)``."""
    clean = synthesizer.synthesize(text, **speaker.synthesis)
    return to_16_khz(clean, vocal_tract=speaker.vocal_tract)


def to_16_khz(samples: np.ndarray, *, vocal_tract: float) -> np.ndarray:
    """From espeak-ng's rate to 16 kHz, played faster by ``vocal_tract``.

    Playing faster raises every resonance by that factor, as a shorter vocal tract does; pitch and
    rate rise with it.

    Args:
        samples: multiples of `exact.STEP`, as espeak-ng's are.
    """
    source_hz = round(espeak.SAMPLE_RATE * vocal_tract / _RATE_STEP_HZ) * _RATE_STEP_HZ
    filters, margin, step = _resampler(source_hz)
    phases, taps = filters.shape
    wanted = math.ceil(len(samples) * SAMPLE_RATE / source_hz)
    windows = math.ceil(wanted / phases)
    padded = np.zeros(windows * step + taps)
    padded[margin : margin + len(samples)] = samples
    seen = np.lib.stride_tricks.sliding_window_view(padded, taps)[: windows * step : step]
    return to_steps(seen @ filters.T).reshape(-1)[:wanted]


def noise(kind: str, samples: int, random: np.random.Generator) -> np.ndarray:
    """Noise of root mean square 1, shape ``(samples,)``; ``kind`` is one of ``NOISE_KINDS``."""
    made: np.ndarray
    match kind:
        case "white":
            made = white(samples, random)
        case "pink":
            made = _colored(samples, -0.5, random)
        case "brown":
            made = _colored(samples, -1.0, random)
        case "hum":
            made = _harmonics(samples, 50.0, 12, random) + 0.3 * _colored(samples, -0.5, random)
        case "fan":
            beats = 1 + 0.5 * exact.sine(draw(random, 4, 9), samples)
            made = _colored(samples, -0.8, random) * beats
        case "rain":
            drops = random.integers(0, 256, samples, dtype=np.uint8) < 5
            made = white(samples, random) * (drops + 0.05)
        case "street":
            swell = 1 + 0.8 * exact.sine(draw(random, 0.1, 0.5), samples)
            made = _colored(samples, -0.7, random) * swell
        case "machine":
            beats = 1 + 0.6 * exact.sine(draw(random, 8, 16), samples)
            tones = _harmonics(samples, draw(random, 90, 160), 20, random)
            made = beats * tones + 0.5 * white(samples, random)
        case _:
            raise ValueError(f"There is no kind of noise {kind!r}.")
    return _of_unit_level(made)


def room(
    samples: np.ndarray, random: np.random.Generator, *, echo_db: Range = ECHO_DB
) -> np.ndarray:
    """A light room, whose echo decays by 60 dB in 0.1 to 0.35 s.

    Args:
        samples: multiples of `exact.STEP`.
        echo_db: how far the echo is below the direct sound.
    """
    length = int(draw(random, 0.1, 0.35) * SAMPLE_RATE)
    envelope = _decay_table()[np.arange(length) * _DECAYS // length]
    tail = to_steps(white(length, random) * envelope)
    below = exact.gain(-draw(random, *echo_db))
    tail = to_steps(tail * (below / math.sqrt(exact.energy(tail))))
    return samples + exact.convolve(samples, tail)[: len(samples)]


def microphone(samples: np.ndarray, tilt: float) -> np.ndarray:
    """A spectral tilt by y[n] = x[n] − tilt · x[n−1]; positive favours high frequencies."""
    filtered = samples.copy()
    filtered[1:] -= tilt * samples[:-1]
    return filtered


def level(samples: np.ndarray) -> float:
    """Root mean square over the louder half of 20 ms frames: the level of the speech itself."""
    size = SAMPLE_RATE // 50
    energies = np.sort(exact.frame_energies(to_steps(samples), size))
    louder = energies[len(energies) // 2 :]
    return math.sqrt(math.fsum(louder) / (len(louder) * size))


def record(
    speech: np.ndarray,
    *,
    samples: int,
    start: int,
    snr_db: float,
    tilt: float,
    level_db: float,
    random: np.random.Generator,
    echo_db: Range = ECHO_DB,
) -> np.ndarray:
    """Speech in a room, over noise of a random kind, as a microphone hears it.

    Args:
        speech: 16 kHz, multiples of `exact.STEP`.
        samples: length of the result; speech beyond it is cut off.
        start: sample at which speech begins.
        snr_db: level of the speech over that of the noise.
        tilt: of the microphone.
        level_db: level of the speech, full scale being 0; lowered where samples would clip.
        echo_db: see `room`.

    Returns:
        Shape ``(samples,)``, at most 0.99 in magnitude.
    """
    heard = room(speech, random, echo_db=echo_db)[: samples - start]
    kind = NOISE_KINDS[random.integers(len(NOISE_KINDS))]
    recording = noise(kind, samples, random) * (level(heard) * exact.gain(-snr_db))
    recording[start : start + len(heard)] += heard
    recording = microphone(recording, tilt)
    recording *= exact.gain(level_db) / level(microphone(heard, tilt))
    return recording * min(1.0, 0.99 / float(np.abs(recording).max()))


def record_with_margins(
    speech: np.ndarray, conditions: Conditions, random: np.random.Generator
) -> np.ndarray:
    """`record` speech of 16 kHz, with margins and with what is drawn from its conditions."""
    before, after = (
        int(draw(random, *conditions.margin_seconds) * SAMPLE_RATE) for _ in ("before", "after")
    )
    return record(
        speech,
        samples=before + len(speech) + after,
        start=before,
        snr_db=_drawn(conditions.snr_db, random),
        tilt=_drawn(conditions.tilt, random),
        level_db=_drawn(conditions.level_db, random),
        random=random,
        echo_db=conditions.echo_db,
    )


def _drawn(value: float | Range, random: np.random.Generator) -> float:
    return draw(random, *value) if isinstance(value, tuple) else value


def _of_unit_level(samples: np.ndarray) -> np.ndarray:
    """Samples whose level is neither far below nor far above 1, scaled to 1."""
    return samples / exact.root_mean_square(to_steps(samples))


@cache
def _resampler(source_hz: int) -> tuple[np.ndarray, int, int]:
    """A windowed sinc for each phase of the output, (phases, taps).

    Also how many samples before the first one they begin, and how many samples lie between one
    output of a phase and its next.
    """
    common = math.gcd(source_hz, SAMPLE_RATE)
    source, target = source_hz // common, SAMPLE_RATE // common
    cutoff = min(source, target) * _ROLL_OFF  # of both, in periods of the common divisor
    margin = math.ceil(_ZERO_CROSSINGS * source / cutoff)
    taps = np.arange(-margin, source + margin) / source
    phases = np.arange(target)[:, None] / target
    crossings = np.clip((taps - phases) * cutoff, -_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    window = np.cos(np.pi / 2 * crossings / _ZERO_CROSSINGS) ** 2
    return to_steps(np.sinc(crossings) * window * (cutoff / source)), margin, source


@cache
def _decay_table() -> np.ndarray:
    """From 1 to a thousandth: 60 dB."""
    return to_steps(10 ** (-3 * np.arange(_DECAYS) / _DECAYS))


def _colored(samples: int, exponent: float, random: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude spectrum falls as frequency to the power of ``exponent``."""
    # As many samples as the filter has taps go before, so that it is never half filled.
    drawn = white(samples + _COLOR_TAPS, random)
    made = exact.convolve(drawn, _color_filter(exponent))[_COLOR_TAPS : _COLOR_TAPS + samples]
    return _of_unit_level(made)


@cache
def _color_filter(exponent: float) -> np.ndarray:
    """Symmetric, of energy 1."""
    hertz = np.maximum(np.fft.rfftfreq(_COLOR_TAPS, 1 / SAMPLE_RATE), _FLAT_BELOW_HZ)
    taps = np.fft.fftshift(np.fft.irfft(hertz**exponent, _COLOR_TAPS))
    return to_steps(taps / math.sqrt(math.fsum(taps**2)))


def _harmonics(samples: int, base_hz: float, count: int, random: np.random.Generator) -> np.ndarray:
    """A sum of harmonics of falling amplitude and random phase, of root mean square 1."""
    made = np.zeros(samples)
    for harmonic in range(1, count + 1):
        made += exact.sine(base_hz * harmonic, samples, phase=draw(random, 0, 1)) / harmonic
    return _of_unit_level(made)
