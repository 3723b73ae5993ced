"""The manifest hash: what it depends on, what it finds, how fast it is the second time."""

import hashlib
import json
import os
import shutil
import threading
import time

import numpy as np
import pytest
import soundfile

from superbit.benchmark.corpora import audio, manifest
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.corpora.paths import load_paths
from superbit.upstreams.errors import InputError

SPLITS = ("train-clean-100", "dev-clean", "test-clean")


def make_corpus(folder, utterances=2):
    """LibriSpeech with one speaker a split; the same audio whenever it is made."""
    random = np.random.default_rng(0)
    for split in SPLITS:
        chapter = folder / "libri" / split / "1" / "2"
        chapter.mkdir(parents=True)
        for number in range(utterances):
            samples = 0.1 * random.standard_normal(1_600)
            soundfile.write(chapter / f"1-2-{number:04d}.flac", samples, 16_000)
        lines = [f"1-2-{number:04d} A\n" for number in range(utterances)]
        (chapter / "1-2.trans.txt").write_text("".join(lines))
    (folder / "words.txt").write_text("A AH0\n")
    (folder / "paths.yaml").write_text(
        "librispeech:\n  root: libri\n  lexicon: [words.txt]\n", encoding="utf-8"
    )
    return load_paths(folder / "paths.yaml")


@pytest.fixture
def paths(tmp_path):
    return make_corpus(tmp_path / "corpus")


@pytest.fixture
def build(tmp_path):
    return lambda paths, **more: build_manifest(
        "librispeech", paths, work_dir=tmp_path / "work", **more
    )


@pytest.fixture
def decoded(monkeypatch):
    """Files that were decoded, in order."""
    seen = []

    def decode(content, path, rate):
        seen.append(path)
        return audio.decode_audio(content, path, rate)

    monkeypatch.setattr(manifest, "decode_audio", decode)
    return seen


def test_hash_is_what_its_definition_says(paths, build):
    root = paths.librispeech.root
    files = {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}
    files["lexicon/0"] = paths.librispeech.lexicon[0]
    expected = hashlib.sha256()
    for key in sorted(files):
        content = hashlib.sha256(files[key].read_bytes()).hexdigest()
        expected.update(f"{key}\0{content}\n".encode())
    built = build(paths)
    assert built.sha256 == expected.hexdigest()
    assert (built.corpus, built.kind, built.recipe) == ("librispeech", "external", None)
    assert (built.files, built.splits) == (10, dict.fromkeys(SPLITS, 2))
    assert built.bytes == sum(path.stat().st_size for path in files.values())
    assert built.seconds == pytest.approx(0.6)


def test_neither_place_nor_dates_count(paths, build, tmp_path):
    first = build(paths)
    shutil.copytree(tmp_path / "corpus", tmp_path / "elsewhere/deeper")
    for path in (tmp_path / "elsewhere").rglob("*"):
        os.utime(path, (1, 1))
    assert build(load_paths(tmp_path / "elsewhere/deeper/paths.yaml")) == first


@pytest.mark.parametrize(
    "change", ["sample", "transcript", "lexicon", "name", "fewer", "split", "lexicon order"]
)
def test_every_content_counts(tmp_path, build, change):
    folder = tmp_path / "corpus"
    paths = make_corpus(folder)
    first = build(paths).sha256
    chapter = folder / "libri/dev-clean/1/2"
    match change:
        case "sample":
            samples, _ = soundfile.read(chapter / "1-2-0000.flac", dtype="int16")
            samples[100] += 1
            soundfile.write(chapter / "1-2-0000.flac", samples, 16_000)
        case "transcript":
            (chapter / "1-2.trans.txt").write_text("1-2-0000 A\n1-2-0001 A A\n")
        case "lexicon":
            (folder / "words.txt").write_text("A EY0\n")
        case "name":
            (chapter / "1-2-0001.flac").rename(chapter / "1-2-0002.flac")
        case "fewer":
            (chapter / "1-2-0001.flac").unlink()
        case "split":
            shutil.move(chapter / "1-2-0001.flac", folder / "libri/test-clean/1/2/1-2-0003.flac")
        case "lexicon order":
            (folder / "more.txt").write_text("A EY0\n")
            hashes = []
            for order in ("words.txt, more.txt", "more.txt, words.txt"):
                (folder / "paths.yaml").write_text(
                    f"librispeech:\n  root: libri\n  lexicon: [{order}]\n"
                )
                hashes.append(build(load_paths(folder / "paths.yaml")).sha256)
            assert hashes[0] != hashes[1]
    assert build(load_paths(folder / "paths.yaml")).sha256 != first


def test_second_time_nothing_is_read(paths, build, decoded):
    first = build(paths)
    assert len(decoded) == 6
    assert build(paths) == first
    assert len(decoded) == 6


def test_only_the_changed_file_is_read_again(paths, build, decoded):
    first = build(paths)
    path = paths.librispeech.root / "dev-clean/1/2/1-2-0001.flac"
    decoded.clear()
    os.utime(path, (1, 1))
    assert build(paths) == first
    assert decoded == [path]


def test_change_of_equal_size_and_date_is_noticed(paths, build):
    first = build(paths)
    lexicon = paths.librispeech.lexicon[0]
    status = lexicon.stat()
    time.sleep(0.05)
    lexicon.write_text("A AH1\n")
    os.utime(lexicon, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (lexicon.stat().st_size, lexicon.stat().st_mtime_ns) == (
        status.st_size,
        status.st_mtime_ns,
    )
    assert build(paths).sha256 != first.sha256


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 0}', '{"version": 1, "files": 3}'])
def test_damaged_memory_is_made_again(paths, build, tmp_path, decoded, damage):
    first = build(paths)
    (memory,) = (tmp_path / "work/manifests").iterdir()
    memory.write_text(damage)
    decoded.clear()
    assert build(paths) == first
    assert len(decoded) == 6
    assert json.loads(memory.read_text())["version"] == 1


def test_lexicon_listed_twice(tmp_path, build):
    make_corpus(tmp_path / "corpus")
    file = tmp_path / "corpus/paths.yaml"
    file.write_text("librispeech:\n  root: libri\n  lexicon: [words.txt, words.txt]\n")
    first = build(load_paths(file))
    assert first.files == 11
    assert build(load_paths(file)) == first


def test_bad_audio_is_found_and_named_and_the_rest_is_remembered(paths, build, decoded):
    good = build(paths).sha256
    root = paths.librispeech.root
    intact = (root / "dev-clean/1/2/1-2-0001.flac").read_bytes()
    (root / "dev-clean/1/2/1-2-0001.flac").write_bytes(intact[:-200])
    soundfile.write(root / "test-clean/1/2/1-2-0000.flac", np.zeros(99), 8_000)
    with pytest.raises(InputError, match=r"dev-clean/1/2/1-2-0001.flac .*1 more such file"):
        build(paths)
    (root / "dev-clean/1/2/1-2-0001.flac").write_bytes(intact)
    with pytest.raises(InputError, match=r"test-clean/1/2/1-2-0000.flac is sampled at 8,000 Hz"):
        build(paths)
    make_corpus(root.parent / "again")
    shutil.copy(root.parent / "again/libri/test-clean/1/2/1-2-0000.flac", root / "test-clean/1/2")
    decoded.clear()
    assert build(paths).sha256 == good
    assert len(decoded) == 1


def test_dangling_link_in_a_corpus(paths, build):
    path = paths.librispeech.root / "dev-clean/1/2/1-2-0001.flac"
    path.unlink()
    path.symlink_to("nowhere.flac")
    with pytest.raises(InputError, match=r"1-2-0001.flac is not there"):
        build(paths)


def test_progress_counts_every_file(paths, build):
    seen = []
    build(paths, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 10) for done in range(1, 11)]


def test_several_at_once_agree(tmp_path, build):
    paths = make_corpus(tmp_path / "corpus", utterances=20)
    results = []
    threads = [threading.Thread(target=lambda: results.append(build(paths))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(map(repr, results))) == 1
    assert not [p for p in (tmp_path / "work").rglob("*") if p.name.endswith(".partial")]


def test_second_time_is_fast_for_thousands_of_files(tmp_path, build):
    paths = make_corpus(tmp_path / "corpus", utterances=1)
    for split in SPLITS:
        source = paths.librispeech.root / split / "1/2/1-2-0000.flac"
        for number in range(1, 1_000):
            os.link(source, source.with_name(f"1-2-{number:04d}.flac"))
    first = build(paths)
    start = time.perf_counter()
    assert build(paths) == first
    # Well under a second on an idle machine; the rest is room for a busy one.
    assert time.perf_counter() - start < 2


def test_a_name_is_in_the_manifest_and_changes_no_hash(paths, build, decoded):
    before = build(paths)
    file = paths.librispeech.root.parent / "paths.yaml"
    file.write_text("name: mine\n" + file.read_text())
    decoded.clear()
    named = build(load_paths(file))
    assert (before.label, named.label) == (None, "mine")
    assert named.sha256 == before.sha256
    assert decoded == []
