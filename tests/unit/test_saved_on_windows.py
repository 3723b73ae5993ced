"""Texts with a byte order mark and Windows' line ends say what they said before, to every reader.

The corpora's own texts are in ``test_corpora_real_life``.
"""

import json
import shutil
from codecs import BOM_UTF8
from pathlib import Path

import numpy as np
import pytest

from superbit.benchmark.claims.data import read_claims
from superbit.benchmark.corpora.paths import load_paths
from superbit.benchmark.corpora.rttm import read_rttm
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.tasks.configs import resolve
from superbit.upstreams import checkpoint
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.importing.reading import _hugging_face_facts
from superbit.upstreams.quantization.policy import read_policy
from superbit.upstreams.training.configuration import load_config
from superbit.upstreams.training.labels import Labels, sidecar_of
from superbit.upstreams.training.manifest import AudioManifest, read_manifest
from superbit.upstreams.variant import size_of

ROOT = Path(__file__).parents[2]
RESULTS_V1 = Path(__file__).parent / "data" / "results_v1"


def _paths(folder):
    (folder / "corpus").mkdir()
    file = folder / "paths.yaml"
    file.write_text("# corpora\naudio_snips:\n  root: corpus\n")
    return file, load_paths


def _overrides(folder):
    file = folder / "overrides.yaml"
    file.write_text("KS:\n  runner:\n    total_steps: 5\n")
    return file, lambda file: resolve("KS", scale="superb", overrides=file)


def _policy(folder):
    file = folder / "mine.yaml"
    shutil.copy(ROOT / "upstreams/quantization/policies/w1a2.yaml", file)
    return file, read_policy


def _preset(folder):
    file = folder / "mine.yaml"
    shutil.copy(ROOT / "upstreams/training/presets/phase1.yaml", file)
    return file, load_config


def _claims(folder):
    file = folder / "claims.yaml"
    shutil.copy(ROOT / "results/paper/claims.yaml", file)
    return file, read_claims


def _config_of_ours(folder):
    checkpoint.save(folder / "ckpt", untrained_model(size_of("vanilla_nano")))
    return folder / "ckpt" / "config.json", lambda file: checkpoint.load(file.parent).model.config


def _config_of_hugging_face(folder):
    file = folder / "config.json"
    file.write_text(json.dumps({"model_type": "hubert", "num_attention_heads": 4}, indent=1))
    return file, _hugging_face_facts


def _manifest(folder):
    file = folder / "train.tsv"
    file.write_text("/corpora/speech\na/b.flac\t16000\nc d.flac\t8000\n")

    def read(file):
        found = read_manifest(file)
        return found.root, found.paths, found.samples.tolist()

    return file, read


def _utterances():
    return AudioManifest(
        file=Path("train.tsv"), root=Path(), paths=("a", "b"), samples=np.array([1_600, 3_200])
    )


def _labels(folder):
    file = folder / "train.km"
    file.write_text("7 1 2 3 4\n1 2 3 4 5 6 7 8 9 0\n")

    def read(file):
        labels = Labels(file, _utterances(), rate=50, units=10)
        return [labels[index].tolist() for index in range(2)]

    return file, read


def _sidecar(folder):
    file, read = _labels(folder)
    sidecar_of(file).write_text(json.dumps({"units": 10, "rate": 50}, indent=1))
    return sidecar_of(file), lambda _: read(file)


def _rttm(folder):
    file = folder / "rttm"
    file.write_text("".join(f"SPEAKER rec{i} 1 0.5 2.0 <NA> <NA> spk <NA>\n" for i in range(3)))
    return file, read_rttm


def _record(folder):
    shutil.copytree(RESULTS_V1, folder / "results")
    file = sorted((folder / "results").glob("*/*.json"))[0]
    return file, lambda _: ResultStore(folder / "results").read_all()


READERS = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        _paths, _overrides, _policy, _preset, _claims, _config_of_ours, _config_of_hugging_face,
        _manifest, _labels, _sidecar, _rttm, _record,
    )
}  # fmt: skip


@pytest.mark.parametrize("what", READERS)
def test_a_mark_and_other_line_ends_change_nothing(what, tmp_path):
    file, read = READERS[what](tmp_path)
    expected = read(file)
    file.write_bytes(BOM_UTF8 + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read(file) == expected


# JSON says itself how it is encoded
@pytest.mark.parametrize("what", [name for name in READERS if name != "record"])
def test_sixteen_bits_a_letter_are_refused_in_a_sentence(what, tmp_path):
    file, read = READERS[what](tmp_path)
    file.write_text(file.read_text("utf-8"), encoding="utf-16")
    with pytest.raises(InputError) as caught:
        read(file)
    assert file.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_results_copied_by_macos_are_read(tmp_path):
    shutil.copytree(RESULTS_V1, tmp_path / "results")
    expected = ResultStore(tmp_path / "results").read_all()
    for record in list((tmp_path / "results").glob("*/*.json")):
        (record.parent / f"._{record.name}").write_bytes(b"\0\5\x16\7")
    assert ResultStore(tmp_path / "results").read_all() == expected
