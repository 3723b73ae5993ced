"""Headers that do not tell a file's length: every reader of audio has every sample all the same."""

import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_audio import ODD, flac_of_unknown_length, noise, rf64

from superbit.benchmark.corpora.audio import read_audio, read_header, verify_audio
from superbit.benchmark.features.waves import read_samples as read_wave
from superbit.benchmark.profiling.error_flow import audio_of_folder
from superbit.upstreams import sound
from superbit.upstreams.errors import InputError
from superbit.upstreams.s3prl import compat
from superbit.upstreams.s3prl.sox_effects import apply_effects_file, read_soundfile
from superbit.upstreams.training.manifest import CorruptAudio, audio_samples
from superbit.upstreams.training.manifest import read_samples as read_for_training

START, STOP = 5_000, 21_001


def _by_torchaudio(path):
    compat.apply()
    import torchaudio

    return torchaudio.load(str(path))[0][0].numpy()


def _cut_by_torchaudio(path):
    compat.apply()
    import torchaudio

    waveform, _ = torchaudio.load(str(path), frame_offset=START, num_frames=STOP - START)
    return waveform[0].numpy()


def _cut_by_s3prl(path):
    compat.apply()
    from s3prl.downstream.diarization.dataset import KaldiData

    return KaldiData._load_wav(None, str(path), START, STOP)[0].astype(np.float32)


WHOLE = {
    "corpora": lambda path: read_audio(path)[0],
    "sox": lambda path: read_soundfile(path)[0][0].numpy(),
    "sox effects": lambda path: apply_effects_file(path, [["channels", "1"]])[0][0].numpy(),
    "torchaudio": _by_torchaudio,
    "a task that loads": lambda path: read_wave(str(path), ("load",)),
    "pre-training": lambda path: read_for_training(path, total=len(noise())),
    "error-flow": lambda path: audio_of_folder(path.parent).waveforms[0].numpy(),
}
CUT = {
    "torchaudio": _cut_by_torchaudio,
    "a task that cuts": lambda path: read_wave(str(path), ("cut", START, STOP)),
    "s3prl's diarization": _cut_by_s3prl,
    "pre-training": lambda path: read_for_training(path, start=START, count=STOP - START),
}
LENGTHS = {
    "corpora": lambda path: read_header(path).samples,
    "corpora, decoded": verify_audio,
    "pre-training": audio_samples,
}


def written(kind, folder, samples=None):
    ending, write = ODD[kind]
    path = folder / f"odd.{ending}"
    write(path, noise() if samples is None else samples)
    return path


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("reader", WHOLE)
def test_every_reader_has_every_sample(kind, reader, tmp_path):
    np.testing.assert_array_equal(WHOLE[reader](written(kind, tmp_path)), noise())


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("reader", CUT)
def test_every_reader_of_a_part_has_that_part(kind, reader, tmp_path):
    np.testing.assert_array_equal(CUT[reader](written(kind, tmp_path)), noise()[START:STOP])


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("reader", LENGTHS)
def test_every_length_is_the_number_of_samples(kind, reader, tmp_path):
    assert LENGTHS[reader](written(kind, tmp_path)) == len(noise())


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(sorted(ODD)), data=st.data())
def test_any_part_of_any_file(kind, data, tmp_path_factory):
    length = data.draw(st.sampled_from([1, 4_095, 4_096, 4_097, 70_001]))
    start = data.draw(st.integers(0, length + 5))
    stop = data.draw(st.none() | st.integers(0, length + 5))
    path = written(kind, tmp_path_factory.mktemp("odd"), noise(length))
    expected = noise(length)[start:stop]
    for source in (path, path.read_bytes()):
        samples, rate = sound.decode(source, start=start, stop=stop)
        assert (samples.dtype, samples.shape, rate) == (np.float32, (len(expected), 1), 16_000)
        np.testing.assert_array_equal(samples[:, 0], expected)
        assert sound.describe(source) == sound.Sound(samples=length, rate=16_000, channels=1)


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.2])
@pytest.mark.parametrize("kind", ["wav", "rf64", "flac", "flac of unknown length"])
@pytest.mark.parametrize("reader", [r for r in WHOLE if r != "error-flow"])
def test_a_file_cut_short_is_named_by_every_reader(kind, kept, reader, tmp_path):
    path = tmp_path / f"short.{kind[:4]}"
    if kind == "rf64":
        rf64(path, noise())
    elif kind == "flac of unknown length":
        flac_of_unknown_length(path, noise())
    else:
        soundfile.write(path, noise(), 16_000, subtype="PCM_16")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises((InputError, CorruptAudio)) as caught:
        WHOLE[reader](path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert any(word in str(caught.value) for word in ("truncated", "manifest says"))


def test_no_samples_behind_a_size_of_zero_are_none(tmp_path):
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0), 16_000)
    with pytest.raises(InputError, match="is empty"):
        read_header(path)
    # a comment behind no samples is no sound
    content = bytearray(path.read_bytes()) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is empty"):
        read_audio(path)
