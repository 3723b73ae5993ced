"""IEMOCAP in its real layout, synthesized and broken, its folds, and as s3prl's ER reads it."""

import csv
import json
import shutil
from collections import Counter, defaultdict
from functools import partial

import corpus_faults
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from superbit.benchmark.corpora import iemocap
from superbit.benchmark.corpora.audio import read_audio
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.corpora.paths import load_paths
from superbit.upstreams.errors import InputError
from superbit.upstreams.s3prl import compat

compat.apply()
from torchaudio.compliance.kaldi import fbank  # noqa: E402
from torchaudio.functional import detect_pitch_frequency  # noqa: E402

only_problem = partial(corpus_faults.only_problem, iemocap)

STANDARD_ERRORS = 5.0
SESSIONS = tuple(f"Session{number}" for number in range(1, 6))


@pytest.fixture(scope="session")
def section(tiny_paths):
    return tiny_paths.iemocap


def test_layout_and_counts(section):
    report = iemocap.CORPUS.check(section, batch_size=4)
    assert report.problems == ()
    plan = sizes.IEMOCAP["tiny"]
    assert [(s.name, s.utterances, s.speakers) for s in report.splits] == [
        (session, 8 * plan.sentences, 2) for session in SESSIONS
    ]
    assert sum(s.expected_utterances for s in report.splits) == 5_531
    assert sum(iemocap.EXPECTED_ITEMS.values()) == 5_531
    for session in SESSIONS:
        counts = Counter(item.emotion for item in iemocap.utterances(section, session))
        assert set(counts) == {"neu", "hap", "ang", "sad"}
        assert set(counts.values()) == {2 * plan.sentences}
        assert 2 * plan.sentences >= 8
    # Other emotions are there and left out.
    wavs = len(list(section.root.glob("Session*/sentences/wav/*/*.wav")))
    assert wavs == 5 * (8 * plan.sentences + plan.others)


def test_other_emotions_are_not_in_the_hash(tiny_paths, section, tmp_path):
    manifest = build_manifest("iemocap", tiny_paths, work_dir=tmp_path)
    assert manifest.files == 5 * 8 * sizes.IEMOCAP["tiny"].sentences + 10
    assert manifest.kind == "synthesized"


def test_actors_are_a_woman_and_a_man_a_session_and_no_voice_comes_twice(section):
    with open(section.root / "speakers.csv", newline="") as lines:
        table = list(csv.DictReader(lines))
    assert [row["speaker"] for row in table] == [f"Ses0{k}{g}" for k in range(1, 6) for g in "FM"]
    assert len({row["variant"] for row in table}) == 10
    for session in SESSIONS:
        heard = {item.speaker for item in iemocap.utterances(section, session)}
        assert heard == {f"Ses0{session[-1]}F", f"Ses0{session[-1]}M"}


def test_folds_are_sessions(section, tmp_path):
    folder = iemocap.write_folds(section, tmp_path / "a")
    everything = {item.path for s in SESSIONS for item in iemocap.utterances(section, s)}
    for session in SESSIONS:
        train, test = (
            json.loads((folder / session / f"{part}_meta_data.json").read_text())
            for part in ("train", "test")
        )
        # s3prl's own lists number the classes so.
        assert train["labels"] == test["labels"] == {"neu": 0, "hap": 1, "ang": 2, "sad": 3}
        of_train, of_test = ([row["path"] for row in x["meta_data"]] for x in (train, test))
        assert of_train == sorted(set(of_train))
        assert of_test == sorted(set(of_test))
        assert {path.split("/")[0] for path in of_test} == {session}
        assert set(of_train) == everything - set(of_test)
        assert all(row["speaker"] in row["path"] for row in train["meta_data"])
    again = iemocap.write_folds(section, tmp_path / "b")
    assert again.name == folder.name
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    assert iemocap.write_folds(section, tmp_path / "a") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")} == before
    assert len(before) == 10


def test_s3prls_er_reads_the_folds(section, tmp_path):
    pytest.importorskip("s3prl", reason="the peer")
    compat.install()
    from s3prl.downstream.emotion.dataset import IEMOCAPDataset

    folder = iemocap.write_folds(section, tmp_path)
    for session in SESSIONS:
        theirs = IEMOCAPDataset(
            str(section.root), str(folder / session / "test_meta_data.json"), pre_load=False
        )
        ours = iemocap.utterances(section, session)
        assert len(theirs) == len(ours)
        assert theirs.class_num == 4
        wave, label, name = theirs[3]
        assert ours[3].path.endswith(f"/{name}.wav")
        assert theirs.idx2emotion[label] == ours[3].emotion
        np.testing.assert_allclose(wave, read_audio(section.root / ours[3].path)[0])


def prosody(path):
    """Energy, its spread over frequencies and time, pitch and its spread, duration: shape (14,)."""
    samples = torch.from_numpy(read_audio(path)[0])
    frames = fbank(samples[None] * 2**15, num_mel_bins=8, sample_frequency=16_000).numpy()
    pitch = np.log(detect_pitch_frequency(samples[None], 16_000, freq_low=60).numpy()[0])
    return np.array(
        [
            *frames.mean(axis=0),
            frames.mean(axis=1).std(),
            *np.percentile(pitch, (25, 50, 75)),
            pitch.std(),
            np.log(len(samples)),
        ]
    )


@pytest.fixture(scope="module")
def features(section):
    items = [item for session in SESSIONS for item in iemocap.utterances(section, session)]
    heard = np.array([prosody(section.root / item.path) for item in items])
    emotions = np.array([item.emotion for item in items])
    return heard, emotions, np.array([item.path.split("/")[0] for item in items])


def accuracy(features, *, seed=None):
    """Of a linear head over the five folds; with ``seed``, trained on shuffled emotions."""
    heard, truth, sessions = features
    emotions = truth if seed is None else np.random.default_rng(seed).permutation(truth)
    correct = []
    for session in SESSIONS:
        held_out = sessions == session
        head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        head.fit(heard[~held_out], emotions[~held_out])
        correct += list(head.predict(heard[held_out]) == truth[held_out])
    return np.mean(correct)


def test_emotions_belong_to_their_utterances(features):
    chance = 1 / 4  # as many items of each class in each session
    error = np.sqrt(chance * (1 - chance) / len(features[0]))
    assert accuracy(features) - chance > STANDARD_ERRORS * error
    shuffled = [accuracy(features, seed=seed) for seed in range(10)]
    assert abs(np.mean(shuffled) - chance) < 2 * error


def test_a_sentence_lasts_longest_in_sadness_and_shortest_in_anger(section):
    seconds = defaultdict(list)
    for session in SESSIONS:
        for item in iemocap.utterances(section, session):
            seconds[item.emotion].append(len(read_audio(section.root / item.path)[0]) / 16_000)
    means = {emotion: np.mean(of_emotion) for emotion, of_emotion in seconds.items()}
    assert means["sad"] > 1.2 * means["neu"]
    assert means["ang"] < 0.9 * means["neu"]


# What is said of broken copies; a corpus of noise, as small as it can be.

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
EMOTIONS = ("neu", "hap", "exc", "ang", "sad", "fru", "xxx")


@pytest.fixture
def small(tmp_path):
    for session in SESSIONS:
        dialog = f"Ses0{session[-1]}F_script01_1"
        text = HEADER
        for number, emotion in enumerate(EMOTIONS):
            utterance = f"{dialog}_{'FM'[number % 2]}{number:03d}"
            corpus_faults.write_noise(
                tmp_path / session / f"sentences/wav/{dialog}/{utterance}.wav"
            )
            text += f"[{number}.0000 - {number}.5000]\t{utterance}\t{emotion}\t[2.5, 2.5, 2.5]\n"
            text += "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom 3;\t()\n\n"
        labels = tmp_path / session / "dialog/EmoEvaluation"
        (labels / "Categorical").mkdir(parents=True)
        (labels / "Categorical" / "other.txt").write_text("[not such a line\n")
        (labels / f"{dialog}.txt").write_text(text)
        (labels / f"._{dialog}.txt").write_bytes(b"\x00\x05\xff")
    (tmp_path / "paths.yaml").write_text("iemocap: {root: .}\n")
    return load_paths(tmp_path / "paths.yaml").iemocap


def labels_of(section, session):
    return next((section.root / session / "dialog/EmoEvaluation").glob("Ses*.txt"))


def refused(section, tmp_path):
    """The one problem of the report, which is also what stops a run."""
    problem = only_problem(section)
    for attempt in (iemocap.files, lambda s: iemocap.write_folds(s, tmp_path / "work")):
        with pytest.raises(InputError) as caught:
            attempt(section)
        assert str(caught.value) == problem
    assert not (tmp_path / "work").exists()
    return problem


def test_whole_corpus(small):
    report = iemocap.CORPUS.check(small, batch_size=20)
    assert report.problems == ()
    assert [(s.utterances, s.speakers) for s in report.splits] == [(5, 2)] * 5
    assert report.splits[0].hours == pytest.approx(0.5 / 3600)
    assert report.notes == (
        "neu 5 (SUPERB: 1,708), hap 10 (SUPERB: 1,636), ang 5 (SUPERB: 1,103), "
        "sad 5 (SUPERB: 1,084)",
    )
    items = iemocap.utterances(small, "Session2")
    assert [item.emotion for item in items] == ["neu", "hap", "sad", "hap", "ang"]
    folder = "Session2/sentences/wav/Ses02F_script01_1"
    assert items[-1].path == f"{folder}/Ses02F_script01_1_M003.wav"
    assert (items[-1].speaker, items[-1].recording) == ("Ses02M", "Ses02F")


def test_missing_session(small, tmp_path):
    shutil.rmtree(small.root / "Session3")
    assert "Session3 is not there: it should be Session3 of IEMOCAP" in refused(small, tmp_path)


def test_session_without_its_audio(small, tmp_path):
    shutil.rmtree(small.root / "Session3/sentences")
    assert "Session3/sentences/wav is not there" in refused(small, tmp_path)


def test_session_without_its_emotions(small, tmp_path):
    shutil.rmtree(small.root / "Session5/dialog")
    assert "Session5/dialog/EmoEvaluation is not there" in refused(small, tmp_path)


def test_utterance_without_its_wav(small, tmp_path):
    labels = labels_of(small, "Session1")
    labels.write_text(labels.read_text() + "[9.0 - 9.5]\tSes01F_gone_F001\tneu\t[1, 1, 1]\n")
    said = "Ses01F_script01_1.txt, line 31, names Ses01F_gone_F001, of which there is no wav file"
    assert said in refused(small, tmp_path)


def test_malformed_line(small, tmp_path):
    labels = labels_of(small, "Session1")
    labels.write_text(labels.read_text() + "[9.0 - 9.5]\tSes01F_script01_1_F000\n")
    assert "line 31, is '[9.0 - 9.5]\\tSes01F" in refused(small, tmp_path)


def test_class_without_items(small, tmp_path):
    labels = labels_of(small, "Session4")
    labels.write_text(labels.read_text().replace("\tang\t", "\tfru\t"))
    assert "Session4 has no utterance of the class 'ang'" in refused(small, tmp_path)


def test_bad_audio(small):
    next((small.root / "Session2").rglob("*_F000.wav")).write_bytes(b"")
    assert "_F000.wav is empty" in only_problem(small)


def test_fewer_items_than_a_batch(small):
    problem = only_problem(small, batch_size=21)
    assert "has 20 utterances to train on in a fold, fewer than a batch of 21" in problem


def test_unknown_session(small):
    with pytest.raises(InputError, match="has no session 'Session6': it has Session1,"):
        iemocap.utterances(small, "Session6")
