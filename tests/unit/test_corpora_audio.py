"""Audio files: what is read, and each way in which a file can be bad."""

import shutil
import struct

import numpy as np
import pytest
import soundfile

from superbit.benchmark.corpora.audio import read_audio, read_header, verify_audio
from superbit.upstreams.errors import InputError


def tone(seconds=0.5, rate=16_000):
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype("float32")


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), 16_000, subtype="PCM_16")
    return path


@pytest.fixture
def flac(tmp_path):
    path = tmp_path / "tone.flac"
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    soundfile.write(path, noise, 16_000, subtype="PCM_16")
    return path


def refused(path):
    """What read_audio and verify_audio both say of a bad file: one sentence that names it."""
    messages = []
    for function in (read_audio, verify_audio):
        with pytest.raises(InputError) as caught:
            function(path)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert str(path) in messages[0]
    assert "\n" not in messages[0]
    assert messages[0].endswith(".")
    return messages[0]


def test_samples_are_those_of_a_hand_written_wav(tmp_path):
    values = [0, 16384, -32768, 32767]
    data = struct.pack("<4h", *values)
    header = struct.pack("<4sI4s", b"RIFF", 36 + len(data), b"WAVE")
    header += struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    path = tmp_path / "four.wav"
    path.write_bytes(header + struct.pack("<4sI", b"data", len(data)) + data)
    samples, rate = read_audio(path)
    assert (samples.dtype, samples.shape, rate) == (np.float32, (4,), 16_000)
    np.testing.assert_array_equal(samples, np.array(values, dtype=np.float32) / 32768)
    assert verify_audio(path) == read_header(path).samples == 4


def test_wav_and_flac_of_the_same_samples_read_the_same(tmp_path, wav):
    path = tmp_path / "same.flac"
    soundfile.write(path, soundfile.read(wav, dtype="int16")[0], 16_000)
    np.testing.assert_array_equal(read_audio(path)[0], read_audio(wav)[0])


def test_missing(tmp_path):
    assert "is not there" in refused(tmp_path / "none.wav")
    with pytest.raises(InputError, match="is not there"):
        read_header(tmp_path / "none.wav")


def test_folder_instead_of_file(tmp_path):
    assert "cannot be read" in refused(tmp_path)


def test_empty_file(tmp_path):
    path = tmp_path / "empty.wav"
    path.touch()
    assert "is empty" in refused(path)
    with pytest.raises(InputError, match="is empty"):
        read_header(path)


def test_no_samples(tmp_path):
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(0), 16_000)
    assert "is empty" in refused(path)


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.1])
def test_truncated_wav_that_the_decoder_would_clip_silently(wav, kept):
    content = wav.read_bytes()
    wav.write_bytes(content[: int(len(content) * kept)])
    assert len(soundfile.read(wav)[0]) < 8_000  # the decoder itself does not complain
    message = refused(wav)
    assert "is truncated" in message
    assert "16,000 bytes" in message  # what the header promises: 8,000 samples of two bytes


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1])
def test_truncated_flac(flac, kept):
    content = flac.read_bytes()
    flac.write_bytes(content[: int(len(content) * kept)])
    assert "truncated" in refused(flac)


def test_truncated_within_the_header(wav):
    wav.write_bytes(wav.read_bytes()[:30])
    refused(wav)


def test_text_under_an_audio_name(tmp_path):
    path = tmp_path / "text.flac"
    path.write_text("not audio")
    assert "cannot be decoded" in refused(path)


def test_8_khz(tmp_path):
    path = tmp_path / "low.wav"
    soundfile.write(path, tone(rate=8_000), 8_000)
    assert "8,000 Hz; it should be 16,000 Hz" in refused(path)
    with pytest.raises(InputError, match="8,000 Hz"):
        read_header(path)


def test_stereo(tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(), tone()], axis=1), 16_000)
    assert "2 channels; it should be mono" in refused(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path, bad):
    samples = tone()
    samples[[10, 20, 30]] = bad
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    assert "3 samples that are NaN or infinite" in refused(path)


def test_plus_and_minus_infinity_do_not_cancel(tmp_path):
    samples = tone()
    samples[10], samples[20] = np.inf, -np.inf
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    assert "2 samples" in refused(path)


def test_wav_of_unknown_length_and_with_a_trailing_chunk_are_fine(tmp_path, wav):
    content = bytearray(wav.read_bytes())
    position = content.index(b"data") + 4
    trailing = tmp_path / "trailing.wav"
    trailing.write_bytes(bytes(content) + b"LIST" + struct.pack("<I", 4) + b"abcd")
    assert verify_audio(trailing) == 8_000
    content[position : position + 4] = b"\xff\xff\xff\xff"
    piped = shutil.copy(wav, tmp_path / "piped.wav")
    piped.write_bytes(content)
    assert verify_audio(piped) == 8_000
