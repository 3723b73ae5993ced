"""LibriSpeech and Speech Commands in their real layouts, whole and broken, on corpora made here."""

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from superbit.benchmark.corpora import catalog, librispeech, speech_commands
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.corpora.paths import load_paths
from superbit.upstreams.errors import InputError

SPLITS = ("train-clean-100", "dev-clean", "test-clean")


def write_noise(path, seconds, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * 16_000))
    soundfile.write(path, samples, 16_000, subtype="PCM_16")


def names_of(split, count):
    """File names whose speaker the corpus's rule puts into ``split``, found by trying."""
    found = []
    for number in range(10_000):
        speaker = hashlib.md5(str(number).encode()).hexdigest()[:8]
        hashed = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % 2**27 / (2**27 - 1)
        is_in = hashed < 0.1 if split == "dev" else hashed >= 0.2
        if is_in:
            found.append(f"{speaker}_nohash_0.wav")
        if len(found) == count:
            return found
    raise AssertionError(split)


@pytest.fixture
def paths_file(tmp_path):
    """Both corpora, as small as they can be."""
    libri = tmp_path / "LibriSpeech"
    for index, split in enumerate(SPLITS):
        for speaker in (10 + index, 20 + index):
            chapter = libri / split / str(speaker) / "7"
            for number in range(3):
                name = f"{speaker}-7-{number:04d}"
                write_noise(chapter / f"{name}.flac", 0.5 + 0.1 * number)
            lines = [f"{speaker}-7-{number:04d} THE OLD HORSE\n" for number in range(3)]
            (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))
    (tmp_path / "words.txt").write_text("THE DH AH0\nOLD OW1 L D\nHORSE HH AO1 R S\nTHE DH IY0\n")
    commands = tmp_path / "commands"
    for word in (*speech_commands.KEYWORDS, "bed"):
        for name in names_of("train", 2) + names_of("dev", 1):
            write_noise(commands / "train" / word / name, 1)
    write_noise(commands / "train" / "_background_noise_" / "hum.wav", 2)
    for class_name in speech_commands.CLASSES:
        write_noise(commands / "test" / class_name / "0.wav", 1)
    file = tmp_path / "paths.yaml"
    file.write_text(
        "librispeech:\n  root: LibriSpeech\n  lexicon: [words.txt]\n"
        "speech_commands:\n  root: commands/train\n  test_root: commands/test\n"
    )
    return file


@pytest.fixture
def paths(paths_file):
    return load_paths(paths_file)


def only_problem(report):
    assert len(report.problems) == 1, report.problems
    with pytest.raises(InputError) as caught:
        report.raise_for_problems()
    assert str(caught.value) == report.problems[0]
    return report.problems[0]


def test_librispeech_report(paths):
    report = librispeech.CORPUS.check(paths.librispeech, batch_size=6)
    assert report.problems == ()
    report.raise_for_problems()
    assert [(s.name, s.utterances, s.speakers) for s in report.splits] == [
        (split, 6, 2) for split in SPLITS
    ]
    # Two speakers of 0.5 + 0.6 + 0.7 s.
    assert report.splits[0].hours == pytest.approx(3.6 / 3600)
    assert [s.expected_utterances for s in report.splits] == [28_539, 2_703, 2_620]
    assert report.notes == ("lexicon: 3 words",)


def test_librispeech_files_are_sorted_and_complete(paths):
    files = librispeech.files(paths.librispeech)
    keys = [file.key for file in files.audio["dev-clean"]]
    assert keys == sorted(keys)
    assert keys[0] == "dev-clean/11/7/11-7-0000.flac"
    assert [file.key for file in files.text if file.key.startswith("lexicon")] == ["lexicon/0"]
    assert sum(file.key.endswith(".trans.txt") for file in files.text) == 6


def test_transcripts_and_lexicon(paths):
    spoken = dict(librispeech.utterances(paths.librispeech, "test-clean"))
    audio = paths.librispeech.root / "test-clean/12/7/12-7-0001.flac"
    assert spoken[audio] == "THE OLD HORSE"
    lexicon = librispeech.read_lexicon(paths.librispeech)
    # The first pronunciation of THE wins.
    phones = librispeech.to_phones(audio, "THE HORSE", lexicon)
    assert phones == ["DH", "AH0", "HH", "AO1", "R", "S"]
    with pytest.raises(InputError, match=r"'CAT' of utterance 12-7-0001 .*words.txt"):
        librispeech.to_phones(audio, "THE CAT", lexicon)


def test_librispeech_missing_split(paths):
    shutil.rmtree(paths.librispeech.root / "dev-clean")
    message = only_problem(librispeech.CORPUS.check(paths.librispeech))
    assert str(paths.librispeech.root / "dev-clean") in message
    with pytest.raises(InputError, match="dev-clean is not there"):
        librispeech.files(paths.librispeech)


def test_librispeech_empty_split(paths):
    for file in (paths.librispeech.root / "test-clean").rglob("*.flac"):
        file.unlink()
    assert "test-clean is an empty split" in only_problem(
        librispeech.CORPUS.check(paths.librispeech)
    )
    with pytest.raises(InputError, match="is an empty split"):
        librispeech.files(paths.librispeech)
    with pytest.raises(InputError, match="is an empty split"):
        list(librispeech.utterances(paths.librispeech, "test-clean"))


@pytest.mark.parametrize(
    ("line", "found"), [("", "no transcript"), ("11-7-0001\n", "an empty transcript")]
)
def test_utterance_without_words(paths, line, found):
    file = paths.librispeech.root / "dev-clean/11/7/11-7.trans.txt"
    file.write_text("11-7-0000 THE\n11-7-0002 OLD\n" + line)
    message = only_problem(librispeech.CORPUS.check(paths.librispeech))
    assert f"11-7-0001.flac has {found}" in message
    with pytest.raises(InputError, match=found):
        list(librispeech.utterances(paths.librispeech, "dev-clean"))


def test_transcript_under_a_name_that_s3prl_does_not_look_for(paths):
    folder = paths.librispeech.root / "dev-clean/11/7"
    (folder / "11-7.trans.txt").rename(folder / "other.trans.txt")
    message = only_problem(librispeech.CORPUS.check(paths.librispeech))
    assert "11-7-0000.flac has no transcript: 11-7.trans.txt" in message
    assert "2 more like it" in message


def test_word_without_lexicon_entry(paths):
    file = paths.librispeech.root / "test-clean/12/7/12-7.trans.txt"
    file.write_text(file.read_text().replace("12-7-0001 THE OLD HORSE", "12-7-0001 THE OLD CAT"))
    message = only_problem(librispeech.CORPUS.check(paths.librispeech))
    assert "'CAT' of utterance 12-7-0001" in message
    assert str(paths.librispeech.lexicon[0]) in message


def test_lexicon_phone_outside_the_inventory(paths):
    lexicon = paths.librispeech.lexicon[0]
    lexicon.write_text(lexicon.read_text() + "CAT K AE T\n")
    message = only_problem(librispeech.CORPUS.check(paths.librispeech))
    assert f"{lexicon}, line 5: the phone 'AE' of 'CAT'" in message
    lexicon.write_text(lexicon.read_text().replace("CAT K AE T", "CAT"))
    assert "'CAT' has no phones" in only_problem(librispeech.CORPUS.check(paths.librispeech))


def test_lexicon_that_is_not_text(paths):
    paths.librispeech.lexicon[0].write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as UTF-8" in only_problem(librispeech.CORPUS.check(paths.librispeech))


def test_librispeech_smaller_than_a_batch(paths):
    message = only_problem(librispeech.CORPUS.check(paths.librispeech, batch_size=7))
    assert "has 6 utterances, fewer than a batch of 7" in message


def test_bad_header_is_found_without_decoding(paths):
    write_noise(paths.librispeech.root / "bad.wav", 0.2)
    soundfile.write(
        paths.librispeech.root / "dev-clean/11/7/11-7-0001.flac", np.zeros((99, 2)), 16_000
    )
    assert "11-7-0001.flac has 2 channels" in only_problem(
        librispeech.CORPUS.check(paths.librispeech)
    )


def test_several_faults_are_all_reported(paths):
    shutil.rmtree(paths.librispeech.root / "dev-clean")
    (paths.librispeech.root / "test-clean/12/7/12-7-0000.flac").write_bytes(b"")
    paths.librispeech.lexicon[0].write_text("THE DH AH0\nOLD OW1 L D\n")
    problems = " ".join(librispeech.CORPUS.check(paths.librispeech).problems)
    for expected in ("dev-clean is not there", "12-7-0000.flac is empty", "'HORSE'"):
        assert expected in problems


def test_length_buckets(paths, tmp_path):
    work = tmp_path / "work"
    folder = librispeech.write_length_buckets(paths.librispeech, SPLITS, work)
    assert work in folder.parents
    assert sorted(path.name for path in folder.glob("*.csv")) == sorted(f"{s}.csv" for s in SPLITS)
    with open(folder / "train-clean-100.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "file_path": "train-clean-100/10/7/10-7-0002.flac",
        "length": "11200",
        "label": "",
    }
    # Longest first, equal lengths by name.
    assert [int(row["length"]) for row in rows] == [11200, 11200, 9600, 9600, 8000, 8000]
    assert [r["file_path"].split("/")[1] for r in rows] == ["10", "20"] * 3


def test_length_buckets_of_another_corpus_or_of_a_changed_one_are_others(paths, tmp_path):
    section, work = paths.librispeech, tmp_path / "work"
    first = librispeech.write_length_buckets(section, SPLITS, work)
    assert librispeech.write_length_buckets(section, SPLITS, work) == first
    copy = shutil.copytree(section.root, tmp_path / "copy")
    other = section.model_copy(update={"root": copy})
    assert librispeech.write_length_buckets(other, SPLITS, work) != first
    write_noise(section.root / "dev-clean/11/7/11-7-0001.flac", 2)
    changed = librispeech.write_length_buckets(section, SPLITS, work)
    assert "32000" in (changed / "dev-clean.csv").read_text().splitlines()[1]
    with pytest.raises(InputError, match="no split 'dev'"):
        librispeech.write_length_buckets(section, ["dev"], work)


def test_speech_commands_report(paths):
    report = speech_commands.CORPUS.check(paths.speech_commands, batch_size=23)
    assert report.problems == ()
    # Eleven words by two or one speakers, and the noise as an item of silence.
    assert [(s.name, s.utterances, s.speakers) for s in report.splits] == [
        ("train", 23, 2),
        ("dev", 12, 1),
        ("test", 12, None),
    ]
    assert report.splits[0].hours == pytest.approx(24 / 3600)
    # SUPERB's own counts: 51,088 words and 6 noises, 6,798 words and 6 noises.
    assert [s.expected_utterances for s in report.splits] == [51_094, 6_804, 3_081]


def test_speech_commands_files(paths):
    files = speech_commands.files(paths.speech_commands)
    counts = {split: len(audio) for split, audio in files.audio.items()}
    assert counts == {"train": 22, "dev": 11, "test": 12, "noise": 1}
    for audio in files.audio.values():
        keys = [file.key for file in audio]
        assert keys == sorted(keys)
    assert files.audio["noise"][0].key == "train/_background_noise_/hum.wav"


def test_no_background_noise(paths):
    shutil.rmtree(paths.speech_commands.root / "_background_noise_")
    message = only_problem(speech_commands.CORPUS.check(paths.speech_commands))
    assert "_background_noise_ has no wav file" in message
    with pytest.raises(InputError, match="_background_noise_"):
        speech_commands.files(paths.speech_commands)


def test_background_noise_shorter_than_a_second(paths):
    path = paths.speech_commands.root / "_background_noise_/short.wav"
    write_noise(path, 0.99)
    message = only_problem(speech_commands.CORPUS.check(paths.speech_commands))
    assert f"{path} has 15,840 samples" in message
    assert "at least 16,000" in message


def test_class_without_items(paths):
    shutil.rmtree(paths.speech_commands.test_root / "stop")
    message = only_problem(speech_commands.CORPUS.check(paths.speech_commands))
    assert "'stop' in the split test" in message


def test_class_without_items_in_dev_only(paths):
    (paths.speech_commands.root / "yes" / names_of("dev", 1)[0]).unlink()
    message = only_problem(speech_commands.CORPUS.check(paths.speech_commands))
    assert "'yes' in the split dev" in message


def test_folder_that_is_no_class_of_the_test(paths):
    (paths.speech_commands.test_root / "stop").rename(paths.speech_commands.test_root / "halt")
    assert (
        "halt is none of the 12 classes"
        in speech_commands.CORPUS.check(paths.speech_commands).problems[0]
    )


def test_empty_split_of_speech_commands(paths):
    for path in paths.speech_commands.root.rglob(names_of("dev", 1)[0]):
        path.unlink()
    message = speech_commands.CORPUS.check(paths.speech_commands).problems[0]
    assert "'yes' in the split dev" in message
    with pytest.raises(InputError, match="is an empty split: no file of it belongs to dev"):
        speech_commands.files(paths.speech_commands)


def test_speech_commands_smaller_than_a_batch(paths):
    message = only_problem(speech_commands.CORPUS.check(paths.speech_commands, batch_size=24))
    assert "has 23 training items, fewer than a batch of 24" in message


def test_unknown_corpus():
    with pytest.raises(InputError, match="Did you mean 'librispeech'"):
        catalog.find("librispech")


def test_nothing_is_written_into_a_corpus(paths, paths_file, tmp_path):
    def snapshot():
        return {
            path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
            for path in sorted(tmp_path.rglob("*"))
            if work not in (path, *path.parents)
        }

    work = tmp_path / "work"
    work.mkdir()
    before = snapshot()
    for name in paths.present:
        catalog.find(name).check(paths.section(name))
        build_manifest(name, paths, work_dir=work)
    librispeech.write_length_buckets(paths.librispeech, SPLITS, work)
    assert snapshot() == before
    assert any(Path(work).rglob("*.csv"))
