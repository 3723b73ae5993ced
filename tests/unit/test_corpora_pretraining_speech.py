"""Speech for pre-training: apart from the task corpora, the same from the same seed."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from superbit.benchmark.corpora.embedded import audio_snips, fluent_speech_commands, texts
from superbit.benchmark.corpora.embedded.pretraining_speech import (
    CONJUNCTIONS,
    draw_sentence,
    make_pretraining_speech,
)
from superbit.benchmark.corpora.embedded.voices import (
    ACCENTS,
    PRETRAINING_VOICES,
    TASK_VOICES,
    VARIANTS,
    draw_speakers,
)
from superbit.upstreams import vanilla
from superbit.upstreams.errors import InputError
from superbit.upstreams.training.manifest import read_manifest, read_samples


def words(value):
    if isinstance(value, str):
        return set(re.findall(r"[a-z']+", value.lower()))
    if isinstance(value, dict):
        return words([*value, *value.values()])
    return set().union(*map(words, value)) if isinstance(value, tuple | list) else set()


def test_every_sentence_has_a_word_that_no_task_says():
    said = words(
        [
            texts.READ.vocabulary,
            texts.TOLD.vocabulary,
            texts.UNKNOWN_WORDS,
            fluent_speech_commands.PHRASINGS,
        ]
    )
    said |= words([audio_snips.SLOT_VALUES, audio_snips._PATTERNS])
    said |= words("yes no up down left right on off stop go")
    assert said.isdisjoint(CONJUNCTIONS)
    random = np.random.default_rng(0)
    drawn = [draw_sentence(random) for _ in range(500)]
    assert len(set(drawn)) > 495
    assert all(words(sentence) & set(CONJUNCTIONS) for sentence in drawn)
    lengths = [len(sentence.split()) for sentence in drawn]
    assert 6 <= min(lengths) <= 9
    assert 15 <= max(lengths) <= 25


def test_voices_are_for_tasks_or_for_pretraining():
    drawn = {}
    for name, among in (("task", TASK_VOICES), ("pre-training", PRETRAINING_VOICES)):
        names = [str(index) for index in range(len(among))]
        speakers = draw_speakers(names, np.random.default_rng(0), among=among)
        drawn[name] = {(speaker.accent, speaker.variant) for speaker in speakers}
        assert drawn[name] == among
        with pytest.raises(ValueError, match="distinct voices"):
            draw_speakers([*names, "one more"], np.random.default_rng(0), among=among)
    assert not drawn["task"] & drawn["pre-training"]
    assert len(drawn["task"] | drawn["pre-training"]) == len(ACCENTS) * len(VARIANTS) == 480
    # Of every kind of voice there is something in both.
    for part in (0, 1):
        assert {v[part] for v in drawn["task"]} == {v[part] for v in drawn["pre-training"]}


@pytest.mark.parametrize("name", ["vanilla_nano", "bq_vanilla_nano"])
def test_shipped_encoders_heard_the_voices_for_pretraining(name):
    """Their config says the hash over the voices of recipe 3, apart from which theirs were drawn.

    That the draw gave `PRETRAINING_VOICES` was computed by that recipe's code; the table holds
    two accents of each variant, which is what was left for 120 speakers.
    """
    config = json.loads((Path(vanilla.__file__).parent / name / "config.json").read_text())
    assert '"apart_from": "4b0b28cbeb4f7323"' in json.dumps(config)
    variants = Counter(variant for _, variant in PRETRAINING_VOICES)
    assert sorted(variants.values()) == [1] + [2] * 58 + [3]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    pytest.importorskip("espeakng_loader", reason="synthesis needs the extra 'embedded'")
    out = tmp_path_factory.mktemp("speech")
    return make(out / "speech")


def make(out, **changes):
    options = {"hours": 0.02, "speakers": 6}
    return make_pretraining_speech(out, **{**options, **changes})


def test_no_voice_and_no_sentence_of_the_task_corpora(speech, tiny_paths_file):
    with open(speech / "speakers.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    ours = {(row["accent"], row["variant"]) for row in rows}
    assert len(ours) == 6
    tables = list(tiny_paths_file.parent.rglob("speakers.csv"))
    assert len(tables) == 8
    for table in tables:
        with open(table, newline="") as lines:
            theirs = {(row["accent"], row["variant"]) for row in csv.DictReader(lines)}
        assert len(theirs) >= 6
        assert ours.isdisjoint(theirs)
    with open(speech / "spoken.csv", newline="") as lines:
        said = {row["text"] for row in csv.DictReader(lines)}
    transcripts = [
        line.partition(" ")[2].lower().strip()
        for file in tiny_paths_file.parent.rglob("*.trans.txt")
        for line in file.read_text().splitlines()
    ]
    assert len(transcripts) > 50
    assert said.isdisjoint(transcripts)


def test_manifests_of_train_and_valid(speech):
    train, valid = (read_manifest(speech / f"{name}.tsv") for name in ("train", "valid"))
    assert 0.02 * 0.9 < train.hours + valid.hours < 0.04
    assert {path.split("/")[1] for path in valid.paths} == {"p00000", "p00001"}
    assert {path.split("/")[1] for path in train.paths} == {f"p{i:05d}" for i in range(2, 6)}
    for index in range(len(valid)):
        samples = read_samples(valid.path(index), total=int(valid.samples[index]))
        assert 0.001 < float(np.sqrt(np.mean(samples**2))) < 0.5
        assert 1.5 * 16_000 < len(samples) < 12 * 16_000


def test_the_same_seed_gives_the_same_audio(speech, tmp_path):
    again = make(tmp_path / "again")
    train = read_manifest(speech / "train.tsv")
    for path in train.paths:
        assert (again / path).read_bytes() == (speech / path).read_bytes()
    # what is complete is not made again
    first = again / train.paths[0]
    first.write_bytes(b"")
    assert make(tmp_path / "again") == again
    assert first.read_bytes() == b""


def test_folders_that_cannot_be_used(speech, tmp_path):
    with pytest.raises(InputError, match="with seed 0, not 1"):
        make(speech, seed=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(InputError, match="superbit did not make"):
        make(tmp_path / "other")
    with pytest.raises(InputError, match="distinct voices"):
        make(tmp_path / "new", speakers=10_000)
    with pytest.raises(InputError, match="at least 4"):
        make(tmp_path / "new", speakers=1)
