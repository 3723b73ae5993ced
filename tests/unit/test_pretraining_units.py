"""Units: MFCC against their definition, k-means, label files in parts that survive a kill."""

import argparse
import json
import multiprocessing

import numpy as np
import pytest
import soundfile
import torch
from scipy.fftpack import dct

from superbit.upstreams import checkpoint
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.training import command, units
from superbit.upstreams.training.features import hidden_source, mfcc, mfcc_source
from superbit.upstreams.training.labels import Labels
from superbit.upstreams.training.manifest import read_manifest
from superbit.upstreams.training.units import (
    LabelJob,
    fit_units,
    label_manifest,
    load_units,
    save_units,
)

CONVOLUTIONS = ((8, 10, 5), *((8, 3, 2),) * 4, *((8, 2, 2),) * 2)


def kaldi_mfcc(samples):
    """Kaldi's MFCC in numpy: 25/10 ms, Povey's window, 23 mel bands, 13 liftered coefficients."""

    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    count = (len(samples) - 400) // 160 + 1
    frames = np.stack([samples[160 * i : 160 * i + 400] for i in range(count)]).astype(np.float64)
    frames -= frames.mean(axis=1, keepdims=True)
    frames -= 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames *= (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft(frames, 512)) ** 2
    edges = np.linspace(mel(20), mel(8_000), 25)
    bins = mel(np.arange(256) * 16_000 / 512)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    energies = np.log(power[:, :256] @ np.maximum(np.minimum(up, down), 0).T)
    lifter = 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    return dct(energies, norm="ortho")[:, :13] * lifter


def deltas(x):
    padded = np.pad(x, ((2, 2), (0, 0)), mode="edge")
    rows = [padded[2 + n : len(padded) - 2 + n or None] for n in (-2, -1, 1, 2)]
    return (-2 * rows[0] - rows[1] + rows[2] + 2 * rows[3]) / 10


def test_mfcc_are_kaldis_with_two_differences():
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 4_321).astype(np.float32)
    found = mfcc(torch.from_numpy(samples)).numpy()
    expected = kaldi_mfcc(samples)
    assert found.shape == (25, 39)
    np.testing.assert_allclose(found[:, :13], expected, atol=2e-2)
    np.testing.assert_allclose(found[:, 13:26], deltas(found[:, :13]), atol=1e-4)
    np.testing.assert_allclose(found[:, 26:], deltas(deltas(found[:, :13])), atol=1e-4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Nine files, each a row of tones out of three."""
    folder = tmp_path_factory.mktemp("tones")
    random = np.random.default_rng(0)
    rows = [str(folder)]
    for index in range(9):
        tones = random.integers(0, 3, 5)
        hertz = (300.0 * 3.0**tones).repeat(1_600)
        audio = 0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / 16_000)
        audio += random.normal(0, 0.003, len(audio))
        soundfile.write(folder / f"{index}.flac", audio, 16_000)
        rows.append(f"{index}.flac\t{len(audio)}")
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def units_file(corpus):
    units, _ = fit_units(read_manifest(corpus / "train.tsv"), mfcc_source(), clusters=5)
    save_units(corpus / "units.safetensors", units)
    return corpus / "units.safetensors"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    config = HubertConfig(
        **{"encoder": "vanilla", "layers": 2, "dim": 16, "heads": 2, "ffn_dim": 32},
        **{"conv_layers": CONVOLUTIONS, "position_kernel": 8, "position_groups": 4},
    )
    folder = tmp_path_factory.mktemp("model")
    checkpoint.save(folder, untrained_model(config))
    return folder


def job(corpus, units_file, out, **changes):
    values = {"manifest": corpus / "train.tsv", "units": units_file, "checkpoint": None}
    return LabelJob(**{**values, "out": out, **changes})


def test_units_survive_the_file_and_assign_the_nearest(corpus, units_file):
    units = load_units(units_file)
    assert units.centroids.shape == (5, 39)
    assert (units.info.kind, units.info.rate, units.info.frames) == ("mfcc", 100, 9 * 48)
    assert b"pickle" not in units_file.read_bytes()
    frames = np.random.default_rng(0).normal(0, 20, (50, 39)).astype(np.float32)
    distances = ((frames[:, None] - units.centroids[None]) ** 2).sum(axis=2)
    assert (units.assign(frames) == distances.argmin(axis=1)).all()
    again, _ = fit_units(read_manifest(corpus / "train.tsv"), mfcc_source(), clusters=5)
    assert (again.centroids == units.centroids).all()


def test_units_find_what_is_said(corpus, units_file, tmp_path):
    complete, skipped = label_manifest(job(corpus, units_file, tmp_path / "train.km"))
    assert (complete, skipped) == (True, ())
    manifest = read_manifest(corpus / "train.tsv")
    labels = Labels(tmp_path / "train.km", manifest, rate=100, units=5)
    random = np.random.default_rng(0)
    seen = {0: set(), 1: set(), 2: set()}
    for index in range(9):
        tones = random.integers(0, 3, 5)
        random.normal(0, 0.003, 8_000)
        for position, tone in enumerate(tones):
            middle = labels[index][10 * position + 3 : 10 * position + 6]
            seen[int(tone)] |= set(middle.tolist())
    assert all(seen.values())
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert seen[one].isdisjoint(seen[other])


def test_shards_and_a_kill_give_the_same_file(corpus, units_file, tmp_path, monkeypatch):
    monkeypatch.setattr(units, "PART_UTTERANCES", 2)
    whole = job(corpus, units_file, tmp_path / "whole.km")
    assert label_manifest(whole)[0]
    shared = job(corpus, units_file, tmp_path / "shared.km")
    assert not label_manifest(shared, shard=0, shards=3)[0]
    parts = next(tmp_path.glob("shared.km.parts-*"))
    assert len(list(parts.iterdir())) == 2
    # a kill may leave the beginning of a part under another name
    (parts / ".000001.km.abc").write_text("1 2")
    assert not label_manifest(shared, shard=1, shards=3)[0]
    done = {file: file.stat().st_mtime_ns for file in parts.glob("0*.km")}
    seen = []
    monkeypatch.setattr(
        units,
        "label_utterance",
        lambda m, i, **kw: seen.append(i) or original(m, i, **kw),
    )
    assert not label_manifest(shared, shard=0, shards=3)[0]
    assert seen == []  # what is done is not done again
    assert {file: file.stat().st_mtime_ns for file in parts.glob("0*.km")} == done
    assert label_manifest(shared, shard=2, shards=3)[0]
    assert seen == [4, 5]
    assert (tmp_path / "shared.km").read_bytes() == (tmp_path / "whole.km").read_bytes()
    assert not parts.exists()
    assert label_manifest(shared)[0]
    assert seen == [4, 5]
    with pytest.raises(InputError, match="shards are 0 to 2"):
        label_manifest(shared, shard=3, shards=3)


original = units.label_utterance


def test_processes_give_the_same_file(corpus, units_file, tmp_path, monkeypatch):
    assert label_manifest(job(corpus, units_file, tmp_path / "one.km"))[0]
    # forked, so that the shorter parts are known to the children
    monkeypatch.setattr(units, "PART_UTTERANCES", 4)
    monkeypatch.setattr(units, "get_context", lambda _: multiprocessing.get_context("fork"))
    assert label_manifest(job(corpus, units_file, tmp_path / "two.km"), jobs=2)[0]
    assert (tmp_path / "one.km").read_bytes() == (tmp_path / "two.km").read_bytes()


def test_units_of_a_layer(corpus, model_folder, tmp_path):
    manifest = read_manifest(corpus / "train.tsv")
    source = hidden_source(model_folder, layer=2, device="cpu")
    units, _ = fit_units(manifest, source, clusters=3, fraction=0.5)
    assert (units.info.kind, units.info.layer, units.info.rate) == ("hidden", 2, 50)
    save_units(tmp_path / "layer.safetensors", units)
    made = job(
        corpus, tmp_path / "layer.safetensors", tmp_path / "train.km", checkpoint=model_folder
    )
    assert label_manifest(made)[0]
    labels = Labels(tmp_path / "train.km", manifest, rate=50, units=3)
    audio, _ = soundfile.read(corpus / "4.flac", dtype="float32")
    model = checkpoint.load(model_folder).model.eval()
    with torch.no_grad():
        state = model([torch.from_numpy(audio)])[2][0, :24].numpy()
    assert labels[4].tolist() == units.assign(state).tolist()
    with pytest.raises(InputError, match=r"layer 3: .* has 2 layers"):
        hidden_source(model_folder, layer=3)
    with pytest.raises(InputError, match="--checkpoint must name the model"):
        label_manifest(job(corpus, tmp_path / "layer.safetensors", tmp_path / "b.km"))
    other = tmp_path / "other"
    checkpoint.save(other, untrained_model(model.config, seed=1))
    with pytest.raises(InputError, match="fitted on another checkpoint"):
        label_manifest(
            job(corpus, tmp_path / "layer.safetensors", tmp_path / "b.km", checkpoint=other)
        )


def test_units_of_mfcc_have_no_use_for_a_checkpoint(corpus, units_file, model_folder, tmp_path):
    with pytest.raises(InputError, match="for which --checkpoint has no use"):
        label_manifest(job(corpus, units_file, tmp_path / "a.km", checkpoint=model_folder))


def test_what_k_means_cannot_have(corpus):
    manifest = read_manifest(corpus / "train.tsv")
    with pytest.raises(InputError, match="gives 48 frames and 100 clusters were asked for"):
        fit_units(manifest, mfcc_source(), clusters=100, fraction=0.1)
    with pytest.raises(InputError, match=r"fraction is 1.5"):
        fit_units(manifest, mfcc_source(), clusters=5, fraction=1.5)
    with pytest.raises(InputError, match="0 clusters"):
        fit_units(manifest, mfcc_source(), clusters=0)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(InputError, match="make it with: superbit units fit"):
        load_units(tmp_path / "none")
    (tmp_path / "text").write_text("units")
    with pytest.raises(InputError, match="is no file of units"):
        load_units(tmp_path / "text")


def test_corrupt_and_short_audio(corpus, units_file, tmp_path):
    lines = (corpus / "train.tsv").read_text().splitlines()
    for file in corpus.glob("*.flac"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    lines[0] = str(tmp_path)
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "3.flac").write_bytes(b"")
    _, skipped = fit_units(read_manifest(tmp_path / "train.tsv"), mfcc_source(), clusters=5)
    assert len(skipped) == 1
    complete, skipped = label_manifest(job(tmp_path, units_file, tmp_path / "train.km"))
    assert complete
    assert len(skipped) == 1
    assert "3.flac" in skipped[0]
    manifest = read_manifest(tmp_path / "train.tsv")
    assert len(Labels(tmp_path / "train.km", manifest, rate=100, units=5)[3]) == 50
    soundfile.write(tmp_path / "0.flac", np.zeros(300), 16_000)
    (tmp_path / "train.tsv").write_text("\n".join([lines[0], "0.flac\t300", *lines[2:]]) + "\n")
    with pytest.raises(InputError, match=r"0.flac has 300 samples; at least 400 are needed"):
        label_manifest(job(tmp_path, units_file, tmp_path / "short.km"))


def test_the_verbs(corpus, tmp_path, capsys):
    manifest = argparse.Namespace(
        **{"root": corpus, "out": tmp_path, "held_out": 0.3, "held_out_by": "file"},
        **{"must_contain": "", "min_samples": 400, "seed": 0},
    )
    assert command.manifest_command(manifest) == 0
    fit = argparse.Namespace(
        **{"manifest": tmp_path / "train.tsv", "out": tmp_path / "u.safetensors", "clusters": 4},
        **{"checkpoint": None, "layer": None, "fraction": 1.0, "seed": 0, "device": None},
    )
    assert command.units_fit_command(fit) == 0
    label = argparse.Namespace(
        **{"manifest": tmp_path / "valid.tsv", "units": tmp_path / "u.safetensors"},
        **{"checkpoint": None, "out": tmp_path / "valid.km", "device": None},
        **{"shard": 0, "shards": 1, "jobs": 1},
    )
    assert command.units_label_command(label) == 0
    said = capsys.readouterr().out
    assert "train.tsv" in said
    assert "4 units of 39-d MFCC, 100 Hz" in said
    assert "valid.km: complete" in said
    assert json.loads((tmp_path / "valid.km.json").read_text())["units"] == 4
    fit.layer = 2
    with pytest.raises(InputError, match="--checkpoint and --layer go together"):
        command.units_fit_command(fit)
