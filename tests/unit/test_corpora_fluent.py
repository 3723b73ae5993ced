"""Fluent Speech Commands in its real layout, synthesized and broken, and as s3prl's IC reads it."""

import csv
import shutil
from collections import Counter
from functools import partial
from types import SimpleNamespace

import corpus_faults
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from superbit.benchmark.corpora import fluent_speech_commands
from superbit.benchmark.corpora.audio import read_audio
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.embedded.fluent_speech_commands import PHRASINGS
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.corpora.paths import load_paths
from superbit.upstreams.errors import InputError
from superbit.upstreams.s3prl import compat

compat.apply()
from torchaudio.compliance.kaldi import fbank  # noqa: E402

only_problem = partial(corpus_faults.only_problem, fluent_speech_commands)
refused = partial(corpus_faults.refused, fluent_speech_commands)

STANDARD_ERRORS = 5.0
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="session")
def section(tiny_paths):
    return tiny_paths.fluent_speech_commands


def read_table(section, split):
    with open(section.root / "data" / f"{split}_data.csv", newline="") as lines:
        return list(csv.DictReader(lines))


def test_layout_and_counts(section):
    report = fluent_speech_commands.CORPUS.check(section, batch_size=32)
    assert report.problems == ()
    plan = sizes.FLUENT_SPEECH_COMMANDS["tiny"]
    assert [(s.name, s.utterances, s.speakers, s.expected_utterances) for s in report.splits] == [
        ("train", plan["train"] * 15, plan["train"], 23_132),
        ("valid", plan["valid"] * 15, plan["valid"], 3_118),
        ("test", plan["test"] * 15, plan["test"], 3_793),
    ]
    assert report.notes == ("24 speakers (SUPERB: 97)", "15 intents (SUPERB: 31)")
    header = (section.root / "data/train_data.csv").read_text().splitlines()[0]
    assert header == ",path,speakerId,transcription,action,object,location"
    assert sum(plan.values()) * 15 == len(list(section.root.glob("wavs/speakers/*/*.wav")))


def test_every_file_is_in_the_hash(tiny_paths, section, tmp_path):
    manifest = build_manifest("fluent_speech_commands", tiny_paths, work_dir=tmp_path)
    assert manifest.files == len(list(section.root.rglob("*.wav"))) + 3
    assert manifest.kind == "synthesized"


def test_speakers_are_disjoint_and_their_voices_too(section):
    speakers = {s: {row["speakerId"] for row in read_table(section, s)} for s in SPLITS}
    assert len(set.union(*speakers.values())) == sum(map(len, speakers.values()))
    for split in SPLITS:
        for row in read_table(section, split):
            assert row["path"].split("/")[2] == row["speakerId"]
    with open(section.root / "speakers.csv", newline="") as lines:
        voices = [(row["accent"], row["variant"]) for row in csv.DictReader(lines)]
    assert len(set(voices)) == len(voices) == sum(map(len, speakers.values()))


def test_intents_and_phrasings_are_all_in_train(section):
    said = {
        split: {
            (row["action"], row["object"], row["location"]): set()
            for row in read_table(section, split)
        }
        for split in SPLITS
    }
    for split in SPLITS:
        for row in read_table(section, split):
            said[split][row["action"], row["object"], row["location"]].add(row["transcription"])
    assert set(said["train"]) == set(said["valid"]) == set(said["test"]) == set(PHRASINGS)
    assert len(PHRASINGS) == sizes.INTENTS == 15
    for intent, texts in said["train"].items():
        assert texts == {text.capitalize() for text in PHRASINGS[intent]}
        assert said["test"][intent] <= texts
    # A phrasing says one intent.
    every = Counter(text for texts in PHRASINGS.values() for text in texts)
    assert set(every.values()) == {1}
    assert len({action for action, _, _ in PHRASINGS}) == 6


def s3prls(section):
    pytest.importorskip("s3prl", reason="the peer")
    compat.install()
    from s3prl.downstream.fluent_commands.expert import DownstreamExpert

    theirs = SimpleNamespace(datarc={"file_path": str(section.root)})
    DownstreamExpert.get_dataset(theirs)
    return theirs


def test_s3prls_ic_reads_the_same(section):
    from s3prl.downstream.fluent_commands.dataset import FluentCommandsDataset

    theirs = s3prls(section)
    assert theirs.values_per_slot == [6, 8, 3]
    for split, frame in zip(
        SPLITS, (theirs.train_df, theirs.valid_df, theirs.test_df), strict=True
    ):
        dataset = FluentCommandsDataset(frame, theirs.base_path, theirs.Sy_intent)
        ours = fluent_speech_commands.utterances(section, split)
        assert len(dataset) == len(ours)
        for index in range(0, len(ours), 7):
            wave, label, name = dataset[index]
            assert ours[index].path.endswith(f"/{name}.wav")
            values = [
                theirs.Sy_intent[slot][number]
                for slot, number in zip(fluent_speech_commands.SLOTS, label, strict=True)
            ]
            assert tuple(values) == ours[index].intent
            assert len(wave) > 0.4 * 16_000


def pooled(path):
    """Log-mel energies of a command's fifths, less its mean: shape (200,)."""
    samples = torch.from_numpy(read_audio(path)[0])
    frames = fbank(samples[None] * 2**15, num_mel_bins=40, sample_frequency=16_000).numpy()
    # The margins differ: only what is loud is the command.
    energy = frames.mean(axis=1)
    loud = np.flatnonzero(energy > (energy.min() + energy.max()) / 2)
    frames = frames[loud[0] : loud[-1] + 1]
    fifths = [part.mean(axis=0) for part in np.array_split(frames, 5)]
    return np.concatenate(fifths - frames.mean(axis=0))


@pytest.fixture(scope="module")
def features(section):
    rows = {s: fluent_speech_commands.utterances(section, s) for s in ("train", "test")}
    return {
        split: (
            np.array([pooled(section.root / row.path) for row in of_split]),
            np.array([" ".join(row.intent) for row in of_split]),
        )
        for split, of_split in rows.items()
    }


def accuracy(features, *, seed=None):
    """Of a linear head on the test's commands; with ``seed``, trained on shuffled intents."""
    heard, intents = features["train"]
    if seed is not None:
        intents = np.random.default_rng(seed).permutation(intents)
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    return (head.fit(heard, intents).predict(features["test"][0]) == features["test"][1]).mean()


def test_intents_belong_to_their_commands(features):
    chance = 1 / 15  # every speaker says every intent once
    error = np.sqrt(chance * (1 - chance) / len(features["test"][1]))
    assert accuracy(features) - chance > STANDARD_ERRORS * error
    shuffled = [accuracy(features, seed=seed) for seed in range(10)]
    assert abs(np.mean(shuffled) - chance) < 2 * error


# What is said of broken copies; a corpus of noise, as small as it can be.

ROWS = {
    "train": ["a,activate,lights,none", "a,bring,juice,none", "b,activate,lights,kitchen"],
    "valid": ["c,activate,lights,kitchen"],
    "test": ["d,bring,juice,none"],
}
HEADER = ",path,speakerId,transcription,action,object,location"


@pytest.fixture
def small(tmp_path):
    (tmp_path / "data").mkdir()
    for split, rows in ROWS.items():
        lines = [HEADER]
        for index, row in enumerate(rows):
            speaker, _, intent = row.partition(",")
            path = f"wavs/speakers/{speaker}/{split}-{index}.wav"
            corpus_faults.write_noise(tmp_path / path)
            lines.append(f'{index},{path},{speaker},"Well, what is said",{intent}')
        (tmp_path / "data" / f"{split}_data.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "paths.yaml").write_text("fluent_speech_commands: {root: .}\n")
    return load_paths(tmp_path / "paths.yaml").fluent_speech_commands


def replace(section, split, old, new):
    table = section.root / "data" / f"{split}_data.csv"
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, new))


def test_whole_corpus(small):
    report = fluent_speech_commands.CORPUS.check(small, batch_size=3)
    assert report.problems == ()
    assert [(s.utterances, s.speakers) for s in report.splits] == [(3, 2), (1, 1), (1, 1)]
    assert report.splits[0].hours == pytest.approx(0.3 / 3600)
    assert fluent_speech_commands.utterances(small, "test")[0].intent == ("bring", "juice", "none")
    files = fluent_speech_commands.files(small)
    assert [file.key for file in files.audio["test"]] == ["wavs/speakers/d/test-0.wav"]
    assert [file.key for file in files.text] == [
        "data/test_data.csv",
        "data/train_data.csv",
        "data/valid_data.csv",
    ]


def test_missing_table(small):
    (small.root / "data/valid_data.csv").unlink()
    assert "data/valid_data.csv is not there" in refused(small)


def test_missing_folder_of_tables(small):
    shutil.rmtree(small.root / "data")
    problem = fluent_speech_commands.CORPUS.check(small).problems[0]
    assert "data is not there: it should be the folder of the tables" in problem


@pytest.mark.parametrize("column", ["path", "action", "object", "location", "speakerId"])
def test_missing_column(small, column):
    replace(small, "test", column, "other")
    assert f"test_data.csv has no column '{column}'; it should have path, spe" in refused(small)


def test_row_of_an_absent_file(small):
    (small.root / "wavs/speakers/a/train-1.wav").unlink()
    assert "train_data.csv names wavs/speakers/a/train-1.wav, which is not in" in refused(small)


@pytest.mark.parametrize(
    ("split", "old", "new", "said"),
    [
        ("valid", "kitchen", "garden", "valid_data.csv has the location 'garden', which does not"),
        ("test", "bring", "fetch", "test_data.csv has the action 'fetch', which does not occur in"),
        ("test", "juice", "Juice", "test_data.csv has the object 'Juice'"),
    ],
)
def test_value_unseen_in_train(small, split, old, new, said):
    replace(small, split, old, new)
    assert said in refused(small)


@pytest.mark.parametrize("value", ["", "None", "NA", "null"])
def test_value_that_s3prl_reads_as_missing(small, value):
    replace(small, "train", "juice,none", f"juice,{value}")
    problem = fluent_speech_commands.CORPUS.check(small).problems[0]
    assert "train_data.csv, line 3, has no value in the column 'location'" in problem


def test_pandas_and_we_agree_on_missing_values():
    pandas = pytest.importorskip("pandas")
    from io import StringIO

    for value in [*fluent_speech_commands._NO_VALUE, "none", "nil", "0", "-"]:
        read = pandas.read_csv(StringIO(f"a,b\n1,{value}\n"))["b"]
        assert read.isna()[0] == (value in fluent_speech_commands._NO_VALUE), value


def test_empty_table(small):
    (small.root / "data/test_data.csv").write_text(HEADER + "\n")
    assert "test_data.csv has no utterance" in refused(small)


def test_bad_audio(small):
    (small.root / "wavs/speakers/d/test-0.wav").write_bytes(b"RIFF")
    assert "test-0.wav cannot be decoded as audio" in only_problem(small)


def test_fewer_items_than_a_batch(small):
    assert "has 3 utterances, fewer than a batch of 4" in only_problem(small, batch_size=4)


def test_unknown_split(small):
    with pytest.raises(InputError, match="has no split 'dev': it has train, valid, test"):
        fluent_speech_commands.utterances(small, "dev")
