"""fairseq's manifests and label files, presets, and what is said of wrong ones."""

import numpy as np
import pytest
import soundfile

from superbit.upstreams.errors import InputError
from superbit.upstreams.training.configuration import (
    PRESETS,
    load_config,
    model_config,
    parse_changes,
)
from superbit.upstreams.training.data import CropBatches
from superbit.upstreams.training.estimate import estimate, forward_macs
from superbit.upstreams.training.labels import Labels, crop_labels, labels_text
from superbit.upstreams.training.manifest import list_audio, read_manifest
from superbit.upstreams.variant import size_of, sizes


def write(folder, name, content):
    file = folder / name
    file.write_text(content)
    return file


def manifest_of(folder, samples=(16_000, 8_000)):
    rows = [str(folder), *(f"a/{index}.flac\t{count}" for index, count in enumerate(samples))]
    return read_manifest(write(folder, "train.tsv", "\n".join(rows) + "\n"))


def frames_at(samples, rate):
    return (samples - 400) // (16_000 // rate) + 1


def label_file(folder, samples=(16_000, 8_000), rate=100, name="train.km"):
    rows = [np.arange(frames_at(count, rate)) % 5 for count in samples]
    return write(folder, name, labels_text(rows))


def test_fairseq_files_round_trip(tmp_path):
    """As fairseq's own scripts write them: no line at the end of a manifest is special."""
    text = "/data/LibriSpeech\ntrain-clean-100/103/1240/103-1240-0000.flac\t225360\nb c.wav\t400\n"
    manifest = read_manifest(write(tmp_path, "train.tsv", text))
    assert manifest.paths == ("train-clean-100/103/1240/103-1240-0000.flac", "b c.wav")
    assert manifest.samples.tolist() == [225_360, 400]
    assert str(manifest.path(1)) == "/data/LibriSpeech/b c.wav"
    assert manifest.to_text() == text
    assert manifest.hours == pytest.approx(225_760 / 16_000 / 3600)
    rows = [np.array([3, 0, 4]), np.array([1])]
    assert labels_text(rows) == "3 0 4\n1\n"


def test_labels_are_read_one_line_at_a_time(tmp_path):
    labels = Labels(label_file(tmp_path), manifest_of(tmp_path), rate=100, units=5)
    assert len(labels[0]) == 98
    assert labels[1].tolist() == (np.arange(48) % 5).tolist()
    assert labels.crop(1, start=1_600, frames=4).tolist() == [0, 2, 4, 1]  # from 10, by twos


@pytest.mark.parametrize("rate", [50, 100])
def test_labels_of_a_crop_are_those_of_its_time(rate):
    """Ramps: label i stands for the time i / rate; every frame's is off by at most one."""
    random = np.random.default_rng(0)
    for _ in range(300):
        samples = int(random.integers(3_000, 40_000))
        size = int(random.integers(1_000, samples + 1))
        start = int(random.integers(samples - size + 1))
        frames = frames_at(size, 50)
        ramp = np.arange(frames_at(samples, rate))
        found = crop_labels(ramp, start=start, frames=frames, rate=rate)
        wanted = (start + 320 * np.arange(frames)) * rate / 16_000
        assert len(found) == frames
        assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: it should be a manifest"),
        ("/root\n", "lists no audio file"),
        ("/root\na.flac 400\n", r"line 2: 'a.flac 400' is not path<TAB>samples"),
        ("/root\na.flac\tlong\n", "line 2"),
        ("/root\na.flac\t0\n", "line 2"),
    ],
)
def test_a_manifest_that_is_none(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_manifest(write(tmp_path, "train.tsv", text))
    with pytest.raises(InputError, match=r"is not there: it should be a manifest"):
        read_manifest(tmp_path / "none.tsv")


def test_labels_that_do_not_match(tmp_path):
    manifest = manifest_of(tmp_path)
    short = label_file(tmp_path, samples=(16_000,), name="short.km")
    with pytest.raises(InputError, match=r"short.km has 1 lines and .*train.tsv 2 audio files"):
        Labels(short, manifest, rate=100, units=5)
    wrong = label_file(tmp_path, samples=(16_000, 16_000), name="wrong.km")
    with pytest.raises(
        InputError, match=r"wrong.km, line 2 has 98 labels, 0.98 s at 100 Hz, and a/1.flac lasts"
    ):
        Labels(wrong, manifest, rate=100, units=5)
    slow = label_file(tmp_path, rate=50, name="slow.km")
    with pytest.raises(InputError, match=r"at 50 Hz it would fit"):
        Labels(slow, manifest, rate=100, units=5)
    labels = Labels(label_file(tmp_path), manifest, rate=100, units=4)
    with pytest.raises(InputError, match=r"line 1 has the label 4; with 4 units labels are 0 to 3"):
        labels[0]
    words = write(tmp_path, "words.km", " ".join(["x"] * 98) + "\n" + " ".join(["1"] * 48) + "\n")
    with pytest.raises(InputError, match=r"words.km, line 1: labels are integers"):
        Labels(words, manifest, rate=100, units=4)[0]
    with pytest.raises(InputError, match=r"none.km cannot be read"):
        Labels(tmp_path / "none.km", manifest, rate=100, units=5)


def test_labels_of_another_phase(tmp_path):
    file = label_file(tmp_path)
    write(tmp_path, "train.km.json", '{"units": 500, "rate": 50}')
    with pytest.raises(InputError, match=r"made with 500 units at 50 Hz; 100 units at 100 Hz"):
        Labels(file, manifest_of(tmp_path), rate=100, units=100)


def test_a_folder_is_listed(tmp_path):
    random = np.random.default_rng(0)
    root = tmp_path / "speech"
    for speaker in range(8):
        (root / f"s{speaker}").mkdir(parents=True)
        for index in range(3):
            file = root / f"s{speaker}" / f"{index}.{('flac', 'wav')[index % 2]}"
            soundfile.write(file, random.uniform(-0.5, 0.5, 1_000 + index), 16_000)
    (root / "s0/0.flac").write_bytes(b"no audio")
    soundfile.write(root / "s1/0.flac", np.zeros(300), 16_000)
    soundfile.write(root / "s2/0.flac", np.zeros(900), 8_000)
    soundfile.write(root / "s3/1.wav", np.zeros((900, 2)), 16_000)
    listing = list_audio(
        root, out=tmp_path / "lists", held_out=0.3, held_out_by="folder", min_samples=400
    )
    assert listing.corrupt == ("s0/0.flac", "s2/0.flac", "s3/1.wav")
    assert listing.short == ("s1/0.flac",)
    train, valid = (read_manifest(tmp_path / f"lists/{name}.tsv") for name in ("train", "valid"))
    assert len(train) + len(valid) == 8 * 3 - 4
    assert {p[:2] for p in train.paths}.isdisjoint({p[:2] for p in valid.paths})
    assert dict(zip(train.paths, train.samples, strict=True))[train.paths[0]] in (1_000, 1_001)
    again = list_audio(root, out=tmp_path / "again", held_out=0.3, held_out_by="folder")
    assert again.train.paths == train.paths
    only = list_audio(root, out=tmp_path / "only", held_out=0, must_contain="s4/")
    assert len(only.train) == 3
    assert only.valid is None
    with pytest.raises(InputError, match="no usable flac or wav file"):
        list_audio(root, out=tmp_path / "none", must_contain="absent")
    with pytest.raises(InputError, match="there is no folder"):
        list_audio(tmp_path / "absent", out=tmp_path / "none")


def test_audio_below_the_minimum_length(tmp_path):
    manifest = manifest_of(tmp_path)
    labels = Labels(label_file(tmp_path), manifest, rate=100, units=100)
    with pytest.raises(
        InputError, match=r"has no audio of at least 32000 samples .*; its longest file has 16000"
    ):
        CropBatches(manifest, labels, load_config("phase1"), frames=lambda samples: samples // 320)


def test_presets_hold_the_papers_values():
    first, second, nano = (load_config(name) for name in PRESETS)
    assert (first.phase, first.units, first.label_rate, first.updates) == (1, 100, 100, 250_000)
    assert (second.phase, second.units, second.label_rate, second.updates) == (2, 500, 50, 600_000)
    for config in (first, second):
        assert config.batch_samples == 36.5 * 16_000
        assert config.warm_up_updates == 0.08 * config.updates
        assert (config.learning_rate, config.betas, config.epsilon) == (5e-4, (0.9, 0.98), 1e-6)
        assert (config.unmasked_weight, config.layer_drop) == (0, 0.05)
        assert (config.feature_penalty, config.front_end_gradient, config.temperature) == (
            10,
            0.1,
            0.1,
        )
        assert (config.mask_probability, config.mask_span) == (0.8, 10)
        assert (config.gradient_clip, config.weight_decay) == (10, 0.01)
        assert (config.crop_samples, config.min_samples) == (250_000, 32_000)
    assert nano.unmasked_weight == 1
    assert {*first.models, *nano.models} == set(sizes())
    differ = {
        key for key in type(first).model_fields if getattr(first, key) != getattr(second, key)
    }
    assert differ == {"phase", "units", "label_rate", "updates", "warm_up_updates"}


def test_a_preset_for_another_encoder(tmp_path):
    nano = load_config("nano")
    with pytest.raises(
        InputError,
        match=r"preset nano is for .*, not vanilla; for vanilla there is phase1 or phase2",
    ):
        model_config(nano, "vanilla", "nano")
    with pytest.raises(InputError, match=r"'vanila' is no encoder .*Did you mean 'vanilla'\?"):
        model_config(nano, "vanila", "nano")
    changed = load_config("nano", changes={"model": {"encoder": "conformer"}})
    with pytest.raises(InputError, match="may not change the encoder"):
        model_config(changed, "vanilla_nano", "nano")
    quiet = load_config("nano", changes={"model": {"dropout": 0.0}})
    assert model_config(quiet, "vanilla_nano", "nano").dropout == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": 1}, r"'learning_rat' is no key .*Did you mean 'learning_rate'\?"),
        ({"updates": 0}, "updates is 0"),
        ({"updates": 10}, "warm_up_updates is 20000, more than the 10 updates"),
        ({"label_rate": 75}, "label_rate is 75; a multiple of the 50 frames"),
        ({"batch_samples": 1000}, "crop_samples is 250000, more than the 1000 of a batch"),
        ({"min_samples": 300_000}, "min_samples is 300000, more than a crop"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_a_setting_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        load_config("phase1", changes=changes)


def test_a_preset_that_is_none(tmp_path):
    with pytest.raises(InputError, match=r"no preset 'phase3'.*Did you mean 'phase"):
        load_config("phase3")
    with pytest.raises(InputError, match=r"a\.yaml is not valid YAML at line 1"):
        load_config(write(tmp_path, "a.yaml", "a: [1"))
    with pytest.raises(InputError, match="no mapping"):
        load_config(write(tmp_path, "b.yaml", "- 1\n"))
    with pytest.raises(InputError, match="KEY=VALUE is needed"):
        parse_changes(["updates"])
    assert parse_changes(["updates=10", "betas=[0.9, 0.95]"]) == {
        "updates": 10,
        "betas": [0.9, 0.95],
    }
    short = load_config("nano", changes={"min_samples": 400})
    with pytest.raises(InputError, match="at least 720 are needed for two frames"):
        model_config(short, "vanilla_nano", "nano")


def test_an_estimate_is_the_operations_over_the_pace():
    size = size_of("vanilla")
    # by hand, for one second: 49 frames; 12 layers of 12 · 768² weights and two products of
    # attention, the projections, the positional convolution and FastConv
    frames, dim = 49, 768
    layers = 12 * (frames * 12 * dim**2 + 2 * frames**2 * dim)
    rest = frames * (512 * dim + dim * 256) + (frames + 1) * dim * (dim // 16) * 128
    front, length, channels = 0, 16_000, 1
    for width, kernel, stride in size.conv_layers:
        length = (length - kernel) // stride + 1
        front += length * width * channels * kernel
        channels = width
    assert forward_macs(size, 16_000) == layers + rest + front
    config = load_config("phase1")
    found = estimate(config, size, hardware="a100", devices=32)
    assert found.parameters == 92_212_096
    assert found.hours_at_paper_pace == pytest.approx(2.5 * 8.5)
    assert found.hours == pytest.approx(
        config.updates * found.operations / (0.2 * 312e12) / 3600, rel=1e-6
    )
    with pytest.raises(InputError, match=r"'a10' is unknown.*Did you mean 'a100'"):
        estimate(config, size, hardware="a10", devices=1)
    with pytest.raises(InputError, match="at least one"):
        estimate(config, size, hardware="a100", devices=0)
