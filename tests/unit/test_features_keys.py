"""Features are shared by what gives the same features, and by nothing else."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from superbit.benchmark.features.costs import TOLERANCE, batch_deviation, deviation_of
from superbit.benchmark.features.store import CacheSettings, locked
from superbit.benchmark.features.waves import AudioFile, Wave, length_without_decoding, wave_key
from superbit.upstreams.entry import UpstreamEntry
from superbit.upstreams.expert import UpstreamExpert
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.identity.fingerprint import weights_sha256
from superbit.upstreams.quantization.policy import load_policy
from superbit.upstreams.registry import LoadedUpstream, load_upstream
from superbit.upstreams.spec import UpstreamSpec

CONFIG = HubertConfig(
    encoder="vanilla", layers=1, dim=16, heads=2, ffn_dim=32, position_groups=4,
    position_kernel=16, conv_layers=((8, 10, 5), *[(8, 3, 2)] * 4, *[(16, 2, 2)] * 2),
)  # fmt: skip
SILENCE = ("effects", ("channels", "1"), ("silence", "1", "0.1"))


def loaded(config=CONFIG, *, seed=0, revision="1", name="small", origin="superbit", policy=None):
    expert = UpstreamExpert(untrained_model(config, seed=seed), untrained=True)
    expert.model.policy = policy
    entry = UpstreamEntry(name=name, build=lambda **_: expert, origin=origin, revision=revision)
    return LoadedUpstream(
        spec=UpstreamSpec(name=name, untrained=True), entry=entry, expert=expert,
        weights_sha256=weights_sha256(expert),
    )  # fmt: skip


def test_two_names_of_one_model_share_a_folder(tmp_path):
    settings = CacheSettings(folder=tmp_path)
    assert settings.upstream_folder(loaded()) == settings.upstream_folder(loaded(name="other"))


@pytest.mark.parametrize(
    "other",
    [
        loaded(seed=1),
        loaded(replace(CONFIG, padding="fairseq")),
        loaded(replace(CONFIG, heads=4)),  # the same weights, read in another way
        loaded(revision="2"),
        loaded(origin="elsewhere"),
        loaded(policy=load_policy("w1a2")),  # the same tensors, read with other bits
    ],
    ids=["weights", "padding", "config", "revision", "origin", "policy"],
)
def test_whatever_changes_features_changes_the_folder(other, tmp_path):
    settings = CacheSettings(folder=tmp_path)
    assert settings.upstream_folder(other) != settings.upstream_folder(loaded())


def test_policies_do_not_share(tmp_path):
    folders = {CacheSettings(folder=tmp_path).upstream_folder(loaded(policy=load_policy(name)))
               for name in ("w1a1", "w1a2")}  # fmt: skip
    assert len(folders) == 2


@pytest.mark.parametrize("origin", ["superbit", "path"])
def test_two_policies_of_one_name_do_not_share(origin, tmp_path):
    """A policy's file was edited, and neither the spec nor the weights tell."""
    first = load_policy("w1a1")
    second = replace(first, rules=load_policy("w1a2").rules)
    assert first.name == second.name
    folders = {CacheSettings(folder=tmp_path).upstream_folder(loaded(policy=each, origin=origin))
               for each in (first, second)}  # fmt: skip
    assert len(folders) == 2


def test_who_waits_for_a_folder_that_is_pruned_locks_the_new_one(tmp_path):
    folder = tmp_path / "upstream"
    waits = ThreadPoolExecutor(1)

    def wait():
        with locked(folder, stop=lambda: False) as ours:
            assert ours
            with locked(folder, stop=lambda: True) as another:
                return another

    with locked(folder, stop=lambda: True):
        waiting = waits.submit(wait)
        time.sleep(0.5)
        shutil.rmtree(folder)
    assert waiting.result(timeout=30) is False


def test_foreign_upstreams_of_other_names_share_nothing(tmp_path):
    # fbank and fbank_no_cmvn have no weights at all.
    settings = CacheSettings(folder=tmp_path)
    one, two = (loaded(name=name, origin="s3prl") for name in ("fbank", "fbank_no_cmvn"))
    assert settings.upstream_folder(one) != settings.upstream_folder(two)


def test_deviation_tells_padding_that_leaks_from_padding_that_does_not():
    assert batch_deviation(loaded().expert.eval(), 320) <= TOLERANCE
    leaking = loaded(replace(CONFIG, padding="fairseq"))
    assert deviation_of(leaking, 320)[0] > 1e-3
    assert not deviation_of(leaking, 320)[1]


def test_frames_that_only_a_batch_has_are_a_deviation():
    class Rows(torch.nn.Module):
        """One frame less than s3prl's Featurizer expects, as a filter bank gives."""

        def forward(self, wavs):
            rows = [wav[: len(wav) // 320 * 320].view(-1, 320)[:-1] for wav in wavs]
            return {"hidden_states": [torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)]}

    assert batch_deviation(Rows(), 320) == float("inf")
    assert batch_deviation(Rows(), 320, zeros_follow=True) == 0.0


def test_a_batch_that_takes_frames_away_is_no_batch_that_adds_zeros():
    class Shorter(torch.nn.Module):
        """A batch has one frame less of each than the utterance alone."""

        def forward(self, wavs):
            frames = min(len(wav) for wav in wavs) // 320 - (len(wavs) > 1)
            return {"hidden_states": [torch.ones(len(wavs), frames, 4)]}

    assert batch_deviation(Shorter(), 320, zeros_follow=True) == float("inf")


@pytest.mark.parametrize("name", ["fbank", "mfcc", "fbank_no_cmvn"])
def test_filter_banks_of_s3prl_are_their_own_but_for_zeros_that_follow(name):
    upstream = load_upstream(name)
    assert deviation_of(upstream, 160) == (0.0, True)


@pytest.fixture
def file(tmp_path):
    samples = (np.sin(np.arange(20_000) / 9) * 9000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    return AudioFile(path=str(tmp_path / "a.wav"), sha256="ab", samples=20_000, rate=16_000)


def test_a_wave_is_named_by_bytes_and_transform(file):
    keys = {
        wave_key(file, ("load",)),
        wave_key(replace(file, sha256="cd"), ("load",)),
        wave_key(file, SILENCE),
        wave_key(file, ("cut", 0, 320)),
        wave_key(file, ("cut", 320, 640)),
    }
    assert len(keys) == 5
    assert wave_key(replace(file, path="elsewhere"), ("load",)) in keys


def test_a_wave_is_read_only_when_it_is_cut(file):
    wave = Wave(file=file, transform=("load",), samples=20_000)
    assert wave.shape == (1, 20_000)
    flat = wave.squeeze(0)
    assert len(flat) == flat.shape[0] == flat.size(0) == len(flat.numpy()) == 20_000
    whole = soundfile.read(file.path, dtype="float32")[0]
    np.testing.assert_array_equal(flat.decode().numpy(), whole)
    assert isinstance(flat[5:9], torch.Tensor)
    np.testing.assert_array_equal(flat.numpy()[100:200], whole[100:200])
    cut = Wave(file=file, transform=("cut", 50, 70), samples=20)
    np.testing.assert_array_equal(cut.decode().numpy(), whole[50:70])


def test_lengths_that_need_no_decoding(file):
    assert length_without_decoding(file, ("load",)) == 20_000
    assert length_without_decoding(file, ("effects", ("gain", "-3.0"))) == 20_000
    assert length_without_decoding(file, ("cut", 16_000, 32_000)) == 4_000
    assert length_without_decoding(file, ("cut", 16_000, None)) == 4_000
    assert length_without_decoding(file, SILENCE) is None
    assert length_without_decoding(replace(file, rate=8_000), ("load",)) is None
