"""Folders of audio that macOS and notebooks have been in: what is listed, by whom."""

import real_life
import soundfile
from odd_audio import noise

from superbit.benchmark.profiling.error_flow import audio_of_folder
from superbit.upstreams.training.manifest import list_audio
from superbit.upstreams.visible import below_hidden, visible


def speech(root):
    for number, name in enumerate(("a/1.flac", "a/2.wav", "b/c/3.wav", "4.flac")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, noise(8_000 + number), 16_000, subtype="PCM_16")
    return root


def test_a_manifest_lists_what_was_put_there(tmp_path):
    root = speech(tmp_path / ".hidden" / "speech")  # the folder itself may be hidden
    expected = list_audio(root, out=tmp_path / "before", held_out=0)
    assert len(expected.train) == 4
    real_life.leave_hidden_files(root)
    found = list_audio(root, out=tmp_path / "after", held_out=0)
    assert found.train.to_text() == expected.train.to_text()
    assert (found.corrupt, found.short) == ((), ())


def test_error_flow_reads_what_was_put_there(tmp_path):
    root = speech(tmp_path / ".hidden" / "speech")
    expected = audio_of_folder(root)
    assert len(expected.waveforms) == 4
    real_life.leave_hidden_files(root)
    found = audio_of_folder(root)
    assert found.meaning == expected.meaning
    assert all(map(lambda a, b: a.equal(b), found.waveforms, expected.waveforms))


def test_what_is_hidden_is_so_below_the_folder_only(tmp_path, monkeypatch):
    root = speech(tmp_path / ".cache" / "speech")
    real_life.leave_hidden_files(root)
    listed = visible(root, "**/*.wav") + visible(root, "**/*.flac")
    every = [path for path in root.rglob("*") if path.suffix in (".wav", ".flac")]
    assert len(every) > len(listed) == 4
    assert {path for path in every if not below_hidden(path, root)} == set(listed)
    monkeypatch.chdir(root.parent)
    assert {p for p in every if not below_hidden(p, "speech")} == set(listed)
