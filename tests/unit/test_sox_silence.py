"""The sox effect "silence": figures of SoX 14.4.2 itself, and its rules one by one."""

import hashlib

import numpy as np
import pytest
import torch

from superbit.upstreams import InputError
from superbit.upstreams.s3prl.sox_effects import (
    apply_effects_file,
    apply_effects_tensor,
    sound_ranges,
)

SUPERB = ["silence", "1", "0.1", "0.1%", "-1", "0.1", "0.1%"]
ASV_CHAIN = [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"], SUPERB]
RATE = 16000
LOUD = 2**29


def noise_of(samples: int, state: int) -> np.ndarray:
    """Integers in [-2**14, 2**14) by a linear congruential generator: the same everywhere."""
    values = np.empty(samples, dtype=np.int64)
    for index in range(samples):
        state = (1664525 * state + 1013904223) % 2**32
        values[index] = (state >> 17) - 2**14
    return values


def signal_of(parts: list[tuple[str, int, int]]) -> np.ndarray:
    """16-bit samples: a part is (kind, samples, level), of a kind "noise", "zeros" or "fade"."""
    pieces = []
    for index, (kind, samples, level) in enumerate(parts):
        piece = noise_of(samples, 7 + index) * level // 2**14
        if kind == "zeros":
            piece[:] = 0
        elif kind == "fade":
            piece = piece * (samples - np.arange(samples)) // samples
        pieces.append(piece)
    return np.concatenate(pieces)


# What `sox -D a.wav -t s32 b.raw channels 1 rate 16000 gain -3.0 silence 1 0.1 0.1% -1 0.1 0.1%` of
# SoX 14.4.2 made of 16-bit files: the length, and the start of
# the sha256 of its 32-bit samples, rounded to float32 as torchaudio gave them.
SOX = {
    "speech between pauses": (
        [
            ("zeros", 3000, 0),
            ("noise", 6000, 9000),
            ("zeros", 2500, 0),
            ("noise", 4000, 3000),
            ("zeros", 1000, 0),
            ("noise", 3000, 8000),
            ("zeros", 4000, 0),
        ],
        14638,
        "d41e0ff3c7cb97e9",
    ),
    "near the threshold": (
        [
            ("noise", 9000, 90),
            ("noise", 5000, 75),
            ("noise", 5000, 82),
            ("noise", 5000, 79),
            ("noise", 2500, 70),
            ("noise", 5000, 83),
        ],
        20761,
        "166a393ac5474b4c",
    ),
    "fades into silence": (
        [("fade", 16000, 20000), ("zeros", 700, 0), ("fade", 9000, 4000), ("fade", 12000, 300)],
        34653,
        "45752cfcfbe4dbc9",
    ),
    "clicks and short bursts": (
        [
            ("zeros", 2000, 0),
            ("noise", 900, 9000),
            ("zeros", 1800, 0),
            ("noise", 1250, 12000),
            ("zeros", 2100, 0),
            ("noise", 1290, 12000),
            ("zeros", 1915, 0),
            ("noise", 3000, 2000),
        ],
        6205,
        "2f2add24ddaa06f7",
    ),
    "nothing but silence": (
        [("noise", 20000, 60)],
        0,
        "e3b0c44298fc1c14",
    ),
    "longer than one scan": (
        [
            ("noise", 40000, 5000),
            ("zeros", 40000, 0),
            ("noise", 50000, 200),
            ("zeros", 1900, 0),
            ("noise", 33000, 7000),
            ("zeros", 1500, 0),
        ],
        125041,
        "d2d0a9ca41914620",
    ),
}


@pytest.mark.parametrize("name", SOX)
def test_equals_sox_sample_by_sample(name, tmp_path):
    import soundfile

    parts, length, digest = SOX[name]
    soundfile.write(tmp_path / "a.wav", signal_of(parts).astype(np.int16), RATE, subtype="PCM_16")
    waveform, rate = apply_effects_file(tmp_path / "a.wav", ASV_CHAIN)
    samples = (waveform[0].double() * 2**31).numpy().astype("<i4")
    assert (rate, waveform.shape, waveform.dtype) == (RATE, (1, length), torch.float32)
    assert hashlib.sha256(samples.tobytes()).hexdigest()[:16] == digest


def test_keeps_what_the_rules_say_of_a_square_wave():
    # 320 samples are a window; one sample of LOUD in it is far above 0.1 %.
    samples = np.zeros(20000)
    samples[3000:8000] = LOUD
    samples[12000:16000] = LOUD
    # Sound lasts until the last loud sample has left the window; then come 0.1 s of silence.
    assert sound_ranges(samples, RATE) == [(3000, 8000 + 319), (12000, 16000 + 319)]


def test_a_pause_shorter_than_a_tenth_of_a_second_stays():
    samples = np.full(12000, float(LOUD))
    samples[5000 : 5000 + 319 + 1599] = 0
    assert sound_ranges(samples, RATE) == [(0, 12000)]
    samples[5000 : 5000 + 319 + 1600] = 0
    assert sound_ranges(samples, RATE) == [(0, 5000 + 319), (5000 + 319 + 1600, 12000)]


def test_sound_shorter_than_a_tenth_of_a_second_goes():
    samples = np.zeros(8000)
    samples[2000 : 2000 + 1600 - 319 - 1] = LOUD
    assert sound_ranges(samples, RATE) == []
    samples[2000 : 2000 + 1600 - 319] = LOUD
    assert sound_ranges(samples, RATE) == [(2000, 2000 + 1600)]


def test_a_pause_at_the_very_end_stays_if_it_is_short():
    samples = np.full(9000, float(LOUD))
    samples[-(319 + 1599) :] = 0
    assert sound_ranges(samples, RATE) == [(0, 9000)]
    samples[-(319 + 1600) :] = 0
    assert sound_ranges(samples, RATE) == [(0, 9000 - 1600)]


def test_the_threshold_is_a_thousandth_of_full_scale():
    quietest_sound = 2147484  # the first integer above 0.1 % of 2**31 - 1
    assert sound_ranges(np.full(4000, float(quietest_sound - 1)), RATE) == []
    # The window's sum reaches the threshold when all of its 320 samples are in.
    assert sound_ranges(np.full(4000, float(quietest_sound)), RATE) == [(319, 4000)]


def test_scanning_in_pieces_changes_nothing():
    """Audio of many seconds is looked at piece by piece; a plain state machine is the judge."""
    rng = np.random.default_rng(0)
    pieces = []
    for _ in range(30):
        level = rng.choice([0, 0, 2**20, 2**21, 2**22, 2**27])
        pieces.append(rng.normal(size=rng.integers(200, 9000)) * level)
    samples = np.round(np.concatenate([*pieces, np.zeros(70000), np.full(90000, LOUD)]))
    expected = _ranges_one_sample_at_a_time(samples)
    assert len(expected) > 3
    assert sound_ranges(samples, RATE) == expected


def _ranges_one_sample_at_a_time(samples, window=320, duration=1600):
    ranges, begin, trimming, run, total = [], 0, True, 0, 0.0
    oldest = [0.0] * window
    for index, sample in enumerate(samples):
        total = total - oldest[index % window] + sample * sample
        oldest[index % window] = sample * sample
        above = int(np.sqrt(max(total, 0.0) / window)) / (2**31 - 1) * 100 > 0.1
        run = run + 1 if above == trimming else 0
        if run == duration and trimming:
            begin, trimming, run = index + 1 - duration, False, 0
        elif run == duration:
            ranges.append((begin, index + 1 - duration))
            trimming, run, total, oldest = True, 0, 0.0, [0.0] * window
    return ranges if trimming else [*ranges, (begin, len(samples))]


@pytest.mark.parametrize("samples", [0, 1, 44, 320, 1599])
def test_audio_too_short_to_hold_sound_gives_none(samples):
    waveform, rate = apply_effects_tensor(torch.full((1, samples), 0.5), RATE, [SUPERB])
    assert (waveform.shape, rate) == ((1, 0), RATE)


def test_gain_rounds_and_clips_as_sox_does():
    # 32-bit integers: 10**(-3/20) of 12345 << 16 and of its negative, and full scale plus 6 dB.
    waveform, _ = apply_effects_tensor(
        torch.tensor([[12345 / 32768, -12345 / 32768, -1.0]]), RATE, [["gain", "-3.0"]]
    )
    mine = (waveform[0].double() * 2**31).tolist()
    exact = 12345 * 65536 * 10 ** (-3 / 20)
    assert mine == pytest.approx([exact, -exact, -(2**31) * 10 ** (-3 / 20)], abs=64)
    clipped, _ = apply_effects_tensor(torch.tensor([[0.9, -0.9]]), RATE, [["gain", "6"]])
    assert clipped.tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize(
    "arguments", [[], ["1", "0.1", "1%"], ["1", "0.1", "0.1%", "1", "0.1", "0.1%"], ["-l", "1"]]
)
def test_other_arguments_are_refused(arguments):
    with pytest.raises(InputError, match=r"only '1 0\.1 0\.1% -1 0\.1 0\.1%' is"):
        apply_effects_tensor(torch.zeros(1, 100), RATE, [["silence", *arguments]])


def test_two_channels_are_refused():
    with pytest.raises(InputError, match=r"put \['channels', '1'\] before it"):
        apply_effects_tensor(torch.zeros(2, 100), RATE, [SUPERB])
