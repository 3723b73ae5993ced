"""Acoustics of the embedded corpora, against the physics that each function promises."""

from fractions import Fraction

import numpy as np
import pytest

from superbit.benchmark.corpora.embedded import acoustics, exact

RATE = 16_000


@pytest.fixture
def random():
    return np.random.default_rng(0)


def decibels(ratio):
    return 20 * np.log10(ratio)


def band_level(samples, low_hz, high_hz):
    power = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    return np.sqrt(power[(hertz >= low_hz) & (hertz < high_hz)].mean())


@pytest.mark.parametrize("factor", [0.89, 1.0, 1.13])
def test_vocal_tract_raises_frequencies_and_shortens(factor):
    second = np.arange(22_050) / 22_050
    tone = exact.to_steps(np.sin(2 * np.pi * 1_000 * second))
    made = acoustics.to_16_khz(tone, vocal_tract=factor)
    np.testing.assert_array_equal(made, exact.to_steps(made))
    assert len(made) == pytest.approx(RATE / factor, rel=0.005)
    spectrum = np.abs(np.fft.rfft(made * np.hanning(len(made))))
    assert spectrum.argmax() * RATE / len(made) == pytest.approx(1_000 * factor, rel=0.01)
    assert np.abs(made[1000:-1000]).max() == pytest.approx(1, abs=0.03)


def test_resampling_suppresses_what_16_khz_cannot_hold():
    tone = exact.to_steps(np.sin(2 * np.pi * 9_500 * np.arange(22_050) / 22_050))
    made = acoustics.to_16_khz(tone, vocal_tract=1.0)
    assert decibels(np.sqrt(np.mean(made[500:-500] ** 2)) / np.sqrt(0.5)) < -20


@pytest.mark.parametrize("kind", acoustics.NOISE_KINDS)
def test_noise_has_unit_level_and_differs_at_every_draw(kind, random):
    made = [acoustics.noise(kind, 32_001, random) for _ in range(2)]
    for samples in made:
        assert samples.shape == (32_001,)
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(1, rel=1e-4)
    assert not np.allclose(made[0], made[1])


@pytest.mark.parametrize(("kind", "fall"), [("white", 0), ("pink", 3.01), ("brown", 6.02)])
def test_colored_noise_falls_by_the_decibels_an_octave_that_its_name_means(kind, fall, random):
    samples = acoustics.noise(kind, 10 * RATE, random)
    octaves = [band_level(samples, hz * 0.95, hz * 1.05) for hz in (250, 500, 1_000, 2_000, 4_000)]
    np.testing.assert_allclose(-np.diff(decibels(octaves)), fall, atol=1)


def test_unknown_noise(random):
    with pytest.raises(ValueError, match="no kind of noise 'purple'"):
        acoustics.noise("purple", 10, random)


def test_room_is_the_sound_itself_and_a_tail_that_decays(random):
    impulse = np.zeros(RATE)
    impulse[100] = 1
    for echo_db in [acoustics.ECHO_DB] * 5 + [(12, 13)] * 5:
        heard = acoustics.room(impulse, random, echo_db=echo_db)
        assert not np.abs(heard[:99]).max() > 1e-4
        tail = heard[101:]
        below = -decibels(np.sqrt(np.sum(tail**2)))
        assert echo_db[0] - 0.5 < below < echo_db[1] + 0.5
        # Over after 0.35 s.
        assert np.abs(tail[int(0.35 * RATE) :]).max() < 1e-4
        half = len(tail) // 16
        assert np.sum(tail[:half] ** 2) > 5 * np.sum(tail[half : 2 * half] ** 2)


def test_microphone_tilts_the_spectrum(random):
    white = exact.white(RATE, random)
    tilts = {t: acoustics.microphone(white, t) for t in (-0.4, 0.0, 0.6)}
    np.testing.assert_array_equal(tilts[0.0], white)
    # |1 − t e^(−jω)| at ω = 0 and ω = π.
    for tilt, heard in tilts.items():
        low, high = band_level(heard, 0, 200), band_level(heard, 7_800, 8_000)
        assert high / low == pytest.approx((1 + tilt) / (1 - tilt), rel=0.25)


@pytest.mark.parametrize("snr_db", [4.0, 15.0, 30.0])
def test_recording_has_the_levels_that_were_asked_for(random, snr_db, monkeypatch):
    monkeypatch.setattr(acoustics, "room", lambda samples, random, echo_db: samples)
    monkeypatch.setattr(acoustics, "NOISE_KINDS", ("white",))
    speech = exact.sine(300, RATE)
    made = acoustics.record(
        speech, samples=3 * RATE, start=RATE, snr_db=snr_db, tilt=0.0, level_db=-25, random=random
    )
    assert made.shape == (3 * RATE,)
    noise = np.sqrt(np.mean(made[:RATE] ** 2))
    assert decibels(noise) == pytest.approx(-25 - snr_db, abs=0.2)
    both = np.sqrt(np.mean(made[RATE : 2 * RATE] ** 2))
    assert decibels(np.sqrt(both**2 - noise**2)) == pytest.approx(-25, abs=0.2)


def test_recording_never_clips_and_cuts_speech_that_is_too_long(random):
    speech = exact.white(2 * RATE, random)
    made = acoustics.record(
        speech, samples=RATE, start=RATE // 2, snr_db=20, tilt=0.3, level_db=-1, random=random
    )
    assert made.shape == (RATE,)
    assert np.abs(made).max() == pytest.approx(0.99)


def test_convolution_is_that_of_integers(random):
    """Of Python's integers, which have no rounding at all."""
    samples, taps = (exact.white(count, random) for count in (300, 40))
    long, short = ([round(x / exact.STEP) for x in of] for of in (samples, taps))
    by_hand = [
        sum(short[j] * long[i - j] for j in range(40) if 0 <= i - j < 300) for i in range(339)
    ]
    # Python rounds ties of integers to even, too.
    wanted = [round(Fraction(value) * Fraction(exact.STEP)) for value in by_hand]
    made = exact.convolve(samples, taps)
    assert [round(x / exact.STEP) for x in made] == wanted
    energy = Fraction(sum(x * x for x in long)) * Fraction(exact.STEP) ** 2
    assert exact.energy(samples) == float(energy)


def test_draws_are_even_and_near_normal(random):
    drawn = np.array([exact.draw(random, -2, 5) for _ in range(4000)])
    assert -2 <= drawn.min() < -1.98
    assert 4.98 < drawn.max() <= 5
    assert drawn.mean() == pytest.approx(1.5, abs=0.15)
    normal = np.array([exact.draw_normal(random) for _ in range(4000)])
    assert normal.mean() == pytest.approx(0, abs=0.07)
    assert normal.std() == pytest.approx(1, abs=0.05)
    white = exact.white(50_000, random)
    assert np.abs(np.fft.rfft(white)[1:]).max() < 4.5 * np.sqrt(50_000)
    assert white.std() == pytest.approx(1, abs=0.02)
