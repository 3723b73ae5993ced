"""VoxCeleb1 in its real layout, synthesized and broken, and as s3prl's SID and ASV read it."""

import csv
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import corpus_faults
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from superbit.benchmark.corpora import voxceleb1
from superbit.benchmark.corpora.audio import read_audio
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.corpora.paths import load_paths
from superbit.benchmark.corpora.voxceleb1 import dev_trials
from superbit.upstreams.errors import InputError
from superbit.upstreams.s3prl import compat

compat.apply()
from torchaudio.compliance.kaldi import fbank  # noqa: E402

only_problem = partial(corpus_faults.only_problem, voxceleb1)
refused = partial(corpus_faults.refused, voxceleb1)

STANDARD_ERRORS = 5.0


@pytest.fixture(scope="session")
def section(tiny_paths):
    return tiny_paths.voxceleb1


def speaker_of(name):
    return name.split("/")[0]


def test_layout_and_counts(section):
    report = voxceleb1.CORPUS.check(section, batch_size=32)
    assert report.problems == ()
    plan = sizes.VOXCELEB1["tiny"]
    counts = {split.name: split for split in report.splits}
    for split, (videos, utterances) in plan.splits.items():
        assert counts[split].utterances == plan.test_speakers * videos * utterances
        assert counts[split].speakers == plan.test_speakers
    assert counts["verification-dev"].speakers == plan.dev_speakers
    assert counts["trials"].speakers == plan.test_speakers
    assert [split.expected_utterances for split in report.splits[:3]] == [138_361, 6_904, 8_251]
    # SID identifies those whom ASV verifies.
    for split in plan.splits:
        folders = {file.key.split("/")[0] for file in voxceleb1.files(section).audio[split]}
        assert folders == {"test"}
    assert len(list(section.root.rglob("*.wav"))) == plan.files


def test_each_file_once_in_the_hash(tiny_paths, section, tmp_path):
    manifest = build_manifest("voxceleb1", tiny_paths, work_dir=tmp_path)
    assert manifest.files == len(list(section.root.rglob("*.wav"))) + 2
    assert manifest.kind == "synthesized"


def test_splits_share_neither_videos_nor_sentences(section):
    with open(section.root / "spoken.csv", newline="") as lines:
        spoken = {row["path"].split("wav/", 1)[1]: row["text"] for row in csv.DictReader(lines)}
    split = voxceleb1.identification_split(section)
    of_test = {
        path.relative_to(section.root / "test/wav") for path in section.root.glob("test/**/*.wav")
    }
    assert {name.as_posix() for name in of_test} == {n for names in split.values() for n in names}
    assert len(spoken) == sizes.VOXCELEB1["tiny"].files
    videos = {part: {name.rsplit("/", 1)[0] for name in names} for part, names in split.items()}
    assert not videos["train"] & videos["dev"]
    assert not (videos["train"] | videos["dev"]) & videos["test"]
    texts = Counter(spoken.values())
    assert len(texts) == len(spoken)


def test_trials_are_balanced_over_speakers_that_training_does_not_hear(section):
    trials = voxceleb1.trials(section)
    assert len(trials) == len(set(trials)) == sizes.VOXCELEB1["tiny"].trials
    assert Counter(trial.same for trial in trials) == {True: 100, False: 100}
    for trial in trials:
        assert (speaker_of(trial.first) == speaker_of(trial.second)) is trial.same
        assert trial.first.split("/")[1] != trial.second.split("/")[1]
    tested = {speaker_of(name) for trial in trials for name in trial[1:]}
    assert not tested & {path.name for path in (section.root / "dev/wav").iterdir()}
    assert tested == {path.name for path in (section.root / "test/wav").iterdir()}


def test_dev_trials(section, tmp_path):
    path = dev_trials(section, tmp_path / "a")
    lines = [line.split() for line in path.read_text().splitlines()]
    assert 200 <= len(lines) == len(set(map(tuple, lines))) <= 2_000
    assert Counter(label for label, _, _ in lines) == {
        "0": len(lines) // 2,
        "1": len(lines) // 2,
    }
    for label, first, second in lines:
        assert first != second
        assert (speaker_of(first) == speaker_of(second)) is (label == "1")
        assert (section.root / "dev/wav" / first).is_file()
        assert (section.root / "dev/wav" / second).is_file()
    again = dev_trials(section, tmp_path / "b")
    assert (again.name, again.read_text()) == (path.name, path.read_text())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("speakers", "number"), [({"id10001": 2, "id10002": 1}, 2)])
def test_dev_trials_of_the_smallest_corpus(tmp_path, speakers, number):
    for speaker, count in speakers.items():
        for index in range(count):
            corpus_faults.write_noise(tmp_path / "dev/wav" / speaker / "v" / f"{index}.wav")
    made = dev_trials(section_of(tmp_path), tmp_path / "work").read_text().splitlines()
    assert len(made) == number
    assert "1 id10001/v/0.wav id10001/v/1.wav" in made
    shutil.rmtree(tmp_path / "dev/wav/id10002")
    with pytest.raises(InputError, match="it should have two speakers or more"):
        dev_trials(section_of(tmp_path), tmp_path / "work")


def test_s3prls_sid_reads_the_same(section, tmp_path, monkeypatch):
    pytest.importorskip("s3prl", reason="the peer")
    compat.install()
    from s3prl.downstream.voxceleb1 import dataset

    monkeypatch.setattr(dataset, "CACHE_PATH", str(tmp_path / "cache"))
    split = voxceleb1.identification_split(section)
    for name, expected in split.items():
        theirs = dataset.SpeakerClassifiDataset(
            name, section.root, str(section.identification_split), None
        )
        found = ["/".join(Path(path).parts[-3:]) for path in theirs.dataset]
        assert found == list(expected)
        assert theirs.label == [voxceleb1.label_of(speaker_of(path)) for path in expected]
        wave, label, _ = theirs[0]
        assert len(wave) >= 2 * 16_000
        assert 0 <= label < theirs.speaker_num


def test_s3prls_asv_reads_the_same_and_keeps_every_utterance(section, tmp_path):
    pytest.importorskip("s3prl", reason="the peer")
    compat.install()
    from s3prl.downstream.sv_voxceleb1.dataset import EFFECTS, SpeakerVerifi_test
    from torchaudio.sox_effects import apply_effects_file

    vad = {"min_sec": 32_000}
    theirs = SpeakerVerifi_test(vad, str(section.root / "test/wav"), str(section.trials))
    files = voxceleb1.files(section)
    assert sorted(theirs.dataset) == [str(file.path) for file in files.audio["trials"]]
    assert [int(label) for label, _, _ in theirs.pair_table] == [
        trial.same for trial in voxceleb1.trials(section)
    ]
    made = dev_trials(section, tmp_path)
    dev = SpeakerVerifi_test(vad, str(section.root / "dev/wav"), str(made))
    assert set(dev.dataset) <= {str(file.path) for file in files.audio["verification-dev"]}
    for file in files.audio["verification-dev"][::4]:
        trimmed, _ = apply_effects_file(str(file.path), EFFECTS)
        assert trimmed.shape[1] > vad["min_sec"]


def pooled(path):
    """Mean and standard deviation over time of log-mel energies, shape (80,)."""
    samples = read_audio(path)[0]
    frames = fbank(
        torch.from_numpy(samples)[None] * 2**15, num_mel_bins=40, sample_frequency=16_000
    ).numpy()
    return np.concatenate([frames.mean(axis=0) - frames.mean(), frames.std(axis=0)])


@pytest.fixture(scope="module")
def features(section):
    files = voxceleb1.files(section)
    return {
        split: (
            np.array([pooled(file.path) for file in files.audio[split]]),
            np.array([file.key.split("/")[2] for file in files.audio[split]]),
        )
        for split in ("train", "test")
    }


def accuracy(features, *, seed=None):
    """Of a linear head on the test's utterances; with ``seed``, trained on shuffled labels."""
    heard, speakers = features["train"]
    if seed is not None:
        speakers = np.random.default_rng(seed).permutation(speakers)
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    return (head.fit(heard, speakers).predict(features["test"][0]) == features["test"][1]).mean()


def test_speakers_belong_to_their_utterances(features):
    chance = 1 / len(set(features["test"][1]))  # every speaker has as many test utterances
    error = np.sqrt(chance * (1 - chance) / len(features["test"][1]))
    assert accuracy(features) - chance > STANDARD_ERRORS * error
    shuffled = [accuracy(features, seed=seed) for seed in range(10)]
    assert abs(np.mean(shuffled) - chance) < 2 * error


# What is said of broken copies; a corpus of noise, as small as it can be.


def section_of(folder):
    (folder / "iden.txt").touch()
    (folder / "trials.txt").touch()
    (folder / "paths.yaml").write_text(
        "voxceleb1: {root: ., identification_split: iden.txt, trials: trials.txt}\n"
    )
    return load_paths(folder / "paths.yaml").voxceleb1


SPLIT = [
    f"{number} {speaker}/video/0000{number}.wav"
    for speaker in ("id10001", "id10002", "id10270", "id11251")
    for number in (1, 2, 3)
]
TRIALS = [
    "1 id10270/video/00001.wav id10270/video/00002.wav",
    "0 id10270/video/00001.wav id11251/video/00002.wav",
]


@pytest.fixture
def small(tmp_path):
    for line in SPLIT:
        name = line.split()[1]
        part = "dev" if name < "id10270" else "test"
        corpus_faults.write_noise(tmp_path / part / "wav" / name)
    (tmp_path / "iden.txt").write_text("\n".join(SPLIT) + "\n")
    (tmp_path / "trials.txt").write_text("\n".join(TRIALS) + "\n")
    return section_of(tmp_path)


def test_whole_corpus(small):
    report = voxceleb1.CORPUS.check(small, batch_size=4)
    assert report.problems == ()
    assert [(s.name, s.utterances, s.speakers) for s in report.splits] == [
        ("train", 4, 4),
        ("dev", 4, 4),
        ("test", 4, 4),
        ("verification-dev", 6, 2),
        ("trials", 3, 2),
    ]
    assert report.splits[0].hours == pytest.approx(0.4 / 3600)
    assert voxceleb1.label_of("id10001") == 0
    assert voxceleb1.label_of("id11251") == 1250


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 id10001/video/00009.wav", "names id10001/video/00009.wav, which is neither in"),
        ("4 id10001/video/00001.wav", "line 13, is '4 id10001/video/00001.wav'; it should be"),
        ("1", "line 13, is '1'; it should be '1|2|3 idNNNNN/<video>/NNNNN.wav'."),
        ("", "line 13, is ''; it should be"),
        ("1 id10001/00001.wav", "it should be '1|2|3 idNNNNN/<video>/NNNNN.wav'"),
        ("1 id10000/video/00001.wav", "line 13, names the speaker id10000; speakers should be"),
        ("1 id11252/video/00001.wav", "the speaker id11252; speakers should be id10001 to id11251"),
    ],
)
def test_bad_line_in_the_split(small, line, said):
    small.identification_split.write_text("\n".join([*SPLIT, line]) + "\n")
    assert said in refused(small)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "0 id10270/video/00001.wav id11251/video/00009.wav",
            "trials.txt names id11251/video/00009.wav, which is not in",
        ),
        # Trials are over test/wav, so a file of dev/wav is absent too.
        ("1 id10001/video/00001.wav id10001/video/00002.wav", "names id10001/video/00001.wav"),
        ("2 id10270/video/00001.wav id10270/video/00002.wav", "line 3, is '2 id10270"),
        ("1 id10270/video/00001.wav", "it should be '0|1 a.wav b.wav'"),
    ],
)
def test_bad_line_in_the_trials(small, line, said):
    small.trials.write_text("\n".join([*TRIALS, line]) + "\n")
    problem = voxceleb1.CORPUS.check(small).problems[0]
    assert said in problem
    with pytest.raises(InputError) as caught:
        voxceleb1.files(small)
    assert problem.startswith(str(caught.value))


def test_empty_split(small):
    small.identification_split.write_text("\n".join(x for x in SPLIT if x[0] != "2") + "\n")
    assert "has an empty split: it should have lines '2 idNNNNN/" in refused(small)


def test_one_sided_trials(small):
    small.trials.write_text(TRIALS[0] + "\n")
    assert "has no trial of different speakers" in refused(small)


def test_missing_and_empty_folders(small):
    shutil.rmtree(small.root / "test/wav/id10270")
    shutil.rmtree(small.root / "test/wav/id11251")
    assert "test/wav is empty" in refused(small)
    shutil.rmtree(small.root / "test")
    assert "test/wav is not there: it should be the test part of VoxCeleb1" in refused(small)


def test_speaker_without_training_utterances(small):
    small.identification_split.write_text("\n".join(SPLIT[1:]) + "\n")
    problem = only_problem(small)
    assert "has id10001 in dev and not in train" in problem
    assert "(1 more like it.)" in problem


def test_speaker_in_both_parts(small):
    shutil.copytree(small.root / "test/wav/id10270", small.root / "dev/wav/id10270")
    assert "has id10270 in dev/wav and in the trials on test/wav" in only_problem(small)


def test_bad_audio(small):
    (small.root / "dev/wav/id10001/video/00001.wav").write_bytes(b"")
    assert "id10001/video/00001.wav is empty" in only_problem(small)


def test_fewer_items_than_a_batch(small):
    assert "has 4 training items, fewer than a batch of 5" in only_problem(small, batch_size=5)


def test_list_that_is_not_there(small):
    small.trials.unlink()
    with pytest.raises(InputError, match=r"'voxceleb1\.trials' names .* there is no file"):
        load_paths(small.root / "paths.yaml")
