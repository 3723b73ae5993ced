"""s3prl's own data sets read our corpora and agree with what we say of them."""

import os
from collections import Counter
from pathlib import Path

import pytest

from superbit.benchmark.corpora import librispeech, speech_commands
from superbit.upstreams.s3prl import compat

pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")
pytest.importorskip("s3prl", reason="the peer")
compat.install()


def test_split_of_speech_commands_is_s3prls(tiny_paths):
    from s3prl.downstream.speech_commands.expert import split_dataset

    train, dev = split_dataset(tiny_paths.speech_commands.root)
    files = speech_commands.files(tiny_paths.speech_commands)
    for theirs, split in ((train, "train"), (dev, "dev")):
        assert sorted(Path(path) for _, path in theirs) == sorted(
            file.path for file in files.audio[split]
        )


@pytest.mark.parametrize("seed", range(3))
def test_split_rule_on_names_of_every_kind(tmp_path, seed):
    from s3prl.downstream.speech_commands.expert import split_dataset

    (tmp_path / "bed").mkdir()
    names = [f"{os.urandom(4).hex()}_nohash_{number % 5}.wav" for number in range(200)]
    names += ["plain.wav", "0_nohash_.wav", "a_nohash_b_nohash_1.wav"]
    for name in names:
        (tmp_path / "bed" / name).touch()
    train, dev = ({Path(path).name for _, path in split} for split in split_dataset(tmp_path))
    assert {name for name in names if speech_commands.split_of(name) == "train"} == train
    assert {name for name in names if speech_commands.split_of(name) == "dev"} == dev


def test_class_counts_are_those_that_s3prl_sees(tiny_paths):
    from s3prl.downstream.speech_commands.dataset import (
        CLASSES,
        SpeechCommandsDataset,
        SpeechCommandsTestingDataset,
    )
    from s3prl.downstream.speech_commands.expert import split_dataset

    section = tiny_paths.speech_commands
    rc = {
        "speech_commands_root": str(section.root),
        "speech_commands_test_root": str(section.test_root),
    }
    assert set(speech_commands.CLASSES) == set(CLASSES)
    train, dev = (SpeechCommandsDataset(split, **rc) for split in split_dataset(section.root))
    test = SpeechCommandsTestingDataset(**rc)
    reported = speech_commands.CORPUS.check(section).splits
    for dataset, report in zip((train, dev, test), reported, strict=True):
        assert len(dataset) == report.utterances
        counts = Counter(class_name for class_name, _ in dataset.data)
        assert set(counts) == set(CLASSES)
        assert min(counts.values()) >= 8
    # Every item can be drawn; the silence class is cropped to a second of its own accord.
    assert {len(train[index][0]) for index in range(0, len(train), 5)} == {16_000}
    silence = [i for i, (class_name, _) in enumerate(dev.data) if class_name == "_silence_"]
    assert {len(dev[index][0]) for index in silence} == {16_000}


def test_s3prls_asr_takes_every_utterance_from_the_length_buckets(tiny_paths, tmp_path):
    from s3prl.downstream.asr.dataset import SequenceDataset
    from s3prl.downstream.asr.dictionary import Dictionary

    section = tiny_paths.librispeech
    buckets = librispeech.write_length_buckets(section, librispeech.SPLITS, tmp_path)
    dictionary = Dictionary()
    for letter in "|ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        dictionary.add_symbol(letter)
    dataset = SequenceDataset(
        "train", 4, dictionary, str(section.root), str(buckets), train=[librispeech.TRAIN]
    )
    spoken = {
        audio.relative_to(section.root).as_posix(): text
        for audio, text in librispeech.utterances(section, librispeech.TRAIN)
    }
    drawn = [name for batch in dataset.X for name in batch]
    assert sorted(drawn) == sorted(spoken)
    lengths = []
    for batch in dataset.X:
        for name in batch:
            assert dictionary.string(dataset.Y[Path(name).stem]).replace(" ", "").strip("|") == (
                spoken[name].replace(" ", "|")
            )
    for index in (0, len(dataset) // 2, len(dataset) - 1):
        waves, labels, names = dataset[index]
        assert len(waves) == len(labels) == len(names)
        lengths += [len(wave) for wave in waves]
    assert lengths == sorted(lengths, reverse=True)
