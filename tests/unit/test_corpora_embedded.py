"""Embedded corpora: the same from the same seed, in the real layouts, disjoint in speakers."""

import csv
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict

import numpy as np
import pytest

from superbit.benchmark.corpora import librispeech, speech_commands
from superbit.benchmark.corpora.audio import read_audio
from superbit.benchmark.corpora.embedded import make, recipe, sizes, texts, voices
from superbit.benchmark.corpora.embedded.espeak import Espeak
from superbit.benchmark.corpora.embedded.make import make_corpora
from superbit.benchmark.corpora.librispeech import phone_inventory
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.upstreams.errors import InputError

pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")


@pytest.fixture
def copy(tiny_paths_file, tmp_path):
    return shutil.copytree(tiny_paths_file.parent, tmp_path / "copy")


@pytest.fixture
def no_workers(monkeypatch):
    def refuse(*_arguments):
        raise AssertionError("corpora were made again")

    monkeypatch.setattr(make, "_run_workers", refuse)


def speaker_table(file):
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.slow
def test_same_seed_same_files_elsewhere(tiny_paths_file, tmp_path):
    again = make_corpora(tmp_path / "again", size="tiny").parent
    theirs, ours = contents(again), contents(tiny_paths_file.parent)
    assert theirs == ours
    assert len(ours) > 500


@pytest.mark.parametrize(
    ("corpus", "folder"), [("speech_commands", "speech_commands"), ("quesst14", "quesst14Database")]
)
def test_same_seed_same_corpus_elsewhere(tiny_paths_file, tmp_path, corpus, folder):
    worker = [sys.executable, "-m", "superbit.benchmark.corpora.embedded.worker"]
    subprocess.run([*worker, corpus, str(tmp_path), "tiny", "0"], check=True, capture_output=True)
    ours = contents(tiny_paths_file.parent / folder)
    assert contents(tmp_path / folder) == ours
    assert len(ours) > 30


def test_corpora_know_how_they_were_made(tiny_paths, tmp_path):
    for name in ("librispeech", "voxceleb1"):
        manifest = build_manifest(name, tiny_paths, work_dir=tmp_path / "work")
        assert manifest.kind == "synthesized"
        assert manifest.recipe == f"embedded v{recipe.VERSION}, tiny, seed 0"


def contents(root):
    """Every file that is not a report of the making, by its path and hash."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_layout_and_counts(tiny_paths_file, tiny_paths):
    report = librispeech.CORPUS.check(tiny_paths.librispeech, batch_size=32)
    assert report.problems == ()
    for split in report.splits:
        plan = sizes.LIBRISPEECH["tiny"][split.name]
        assert split.utterances == plan.speakers * plan.utterances >= 24
        assert split.speakers == plan.speakers
        seconds = split.hours * 3600 / split.utterances
        assert 1.2 < seconds < 3
    report = speech_commands.CORPUS.check(tiny_paths.speech_commands, batch_size=32)
    assert report.problems == ()
    audio = [p for p in tiny_paths_file.parent.rglob("*") if p.suffix in (".wav", ".flac")]
    assert len(audio) == sizes.audio_files("tiny")


def test_at_least_eight_items_a_class_in_every_split(tiny_paths):
    files = speech_commands.files(tiny_paths.speech_commands)
    for split in ("train", "dev", "test"):
        folders = [file.key.split("/")[1] for file in files.audio[split]]
        if split != "test":
            folders += [speech_commands.NOISE] * len(files.audio["noise"])
            folders = [speech_commands.class_of(folder) for folder in folders]
        counts = Counter(folders)
        assert set(counts) == set(speech_commands.CLASSES)
        assert min(counts.values()) >= 8, (split, counts)


def test_clips_last_a_second_and_noises_several(tiny_paths):
    files = speech_commands.files(tiny_paths.speech_commands)
    for split in ("train", "dev", "test"):
        assert {len(read_audio(file.path)[0]) for file in files.audio[split]} == {16_000}
    assert all(len(read_audio(file.path)[0]) >= 3 * 16_000 for file in files.audio["noise"])


@pytest.mark.parametrize("corpus", [librispeech, speech_commands])
def test_levels_are_those_of_recordings(tiny_paths, corpus):
    files = corpus.files(tiny_paths.section(corpus.__name__.rpartition(".")[2]))
    dev = files.audio["dev-clean" if corpus is librispeech else "dev"]
    peaks = [np.abs(read_audio(file.path)[0]).max() for file in dev]
    assert max(peaks) < 1
    assert min(peaks) > 0.01
    assert max(peaks) / min(peaks) > 3  # gain varies


def test_words_stand_at_many_places(tiny_paths):
    files = speech_commands.files(tiny_paths.speech_commands)
    centers = []
    for file in files.audio["train"]:
        power = read_audio(file.path)[0].reshape(50, -1).var(axis=1)
        loud = power > 0.25 * power.max()
        centers.append(np.flatnonzero(loud).mean() / 50)
    assert np.percentile(centers, 10) < 0.4
    assert np.percentile(centers, 90) > 0.6


def test_speakers_of_librispeech_are_disjoint(tiny_paths_file, tiny_paths):
    speakers = {
        split: {path.parts[-3] for path, _ in librispeech.utterances(tiny_paths.librispeech, split)}
        for split in librispeech.SPLITS
    }
    table = speaker_table(tiny_paths_file.parent / "LibriSpeech/speakers.csv")
    assert {split: {r["speaker"] for r in table if r["split"] == split} for split in speakers} == (
        speakers
    )
    assert len({r["speaker"] for r in table}) == len(table) == sum(map(len, speakers.values()))
    # Not in name only: no voice is heard in two splits.
    splits_of_voice = defaultdict(set)
    for row in table:
        splits_of_voice[row["variant"]].add(row["split"])
    assert all(len(splits) == 1 for splits in splits_of_voice.values())


def test_speakers_of_speech_commands_are_disjoint(tiny_paths_file, tiny_paths):
    files = speech_commands.files(tiny_paths.speech_commands)
    names = {
        split: {speech_commands.speaker_of(f.path.name) for f in files.audio[split]}
        for split in ("train", "dev")
    }
    test = [f for f in files.audio["test"] if speech_commands.SILENCE not in f.key]
    names["test"] = {speech_commands.speaker_of(f.path.name) for f in test}
    assert len(set.union(*names.values())) == sum(map(len, names.values()))
    # Speakers of the test are of the tenth that the rule keeps out of train and dev.
    assert {speech_commands.split_of(f"{name}_nohash_0.wav") for name in names["test"]} == {None}
    table = speaker_table(tiny_paths_file.parent / "speech_commands/speakers.csv")
    assert {split: {r["speaker"] for r in table if r["split"] == split} for split in names} == names
    voices = [(row["accent"], row["variant"]) for row in table]
    assert len(set(voices)) == len(voices)


def test_transcripts_are_upper_case_and_the_lexicon_covers_them(tiny_paths):
    lexicon = librispeech.read_lexicon(tiny_paths.librispeech)
    words = Counter()
    for split in librispeech.SPLITS:
        spoken = Counter()
        for audio, text in librispeech.utterances(tiny_paths.librispeech, split):
            assert text == text.upper()
            assert librispeech.to_phones(audio, text, lexicon)
            spoken.update(text.split())
        words += spoken
    assert set(words) == set(lexicon.phones) == {w.upper() for w in texts.READ.vocabulary}
    train = librispeech.utterances(tiny_paths.librispeech, librispeech.TRAIN)
    assert {word for _, text in train for word in text.split()} == set(words)
    assert 27 <= len(words) <= 40
    assert {letter for word in words for letter in word} == set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_lexicon_knows_english(tiny_paths):
    # By hand, after the CMU dictionary, with stress folded to 1.
    phones = librispeech.read_lexicon(tiny_paths.librispeech).phones
    by_hand = {
        "THE": "DH AH1",
        "JUDGE": "JH AH1 JH",
        "MEASURED": "M EH1 ZH ER1 D",
        "QUIET": "K W AY1 AH1 T",
        "THROUGH": "TH R UW1",
        "BOY": "B OY1",
        "YOUNG": "Y AH1 NG",
        "HORSE": "HH AO1 R S",
        "PUSHED": "P UH1 SH T",
        "CHURCH": "CH ER1 CH",
        "FOUND": "F AW1 N D",
    }
    assert {word: " ".join(phones[word]) for word in by_hand} == by_hand
    used = {phone for word in phones.values() for phone in word}
    assert used <= phone_inventory()
    assert len(used) == 39  # every phone of English
    assert all(phone[-1] == "1" for phone in used if phone[-1].isdigit())


@pytest.mark.parametrize(
    ("grammar", "lengths", "different"),
    [(texts.READ, {3, 4, 5}, 300), (texts.TOLD, {6, 7, 8}, 590)],
)
def test_sentences_differ_and_use_words_evenly(grammar, lengths, different):
    sentences = texts.Sentences(np.random.default_rng(0), grammar)
    drawn = [sentences.draw() for _ in range(600)]
    assert len(set(drawn)) > different
    counts = Counter(word for sentence in drawn for word in sentence.split())
    assert set(counts) == set(grammar.vocabulary)
    assert {len(sentence.split()) for sentence in drawn} <= lengths
    assert min(counts.values()) >= 20
    assert {letter for word in counts for letter in word} == set("abcdefghijklmnopqrstuvwxyz")


def test_another_seed_gives_other_corpora():
    drawn = [
        voices.draw_speakers([str(i) for i in range(73)], np.random.default_rng(seed))
        for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]
    with pytest.raises(ValueError, match="distinct voices"):
        voices.draw_speakers([str(i) for i in range(361)], np.random.default_rng(0))


def test_complete_corpora_are_used_again_at_once(tiny_paths_file, no_workers):
    start = time.perf_counter()
    assert make_corpora(tiny_paths_file.parent, size="tiny") == tiny_paths_file
    assert time.perf_counter() - start < 1


def test_complete_corpora_are_only_read(copy, no_workers):
    (copy / ".superbit-corpora.lock").write_text("as it was")
    make_corpora(copy, size="tiny")
    assert (copy / ".superbit-corpora.lock").read_text() == "as it was"


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/out cannot be written to: Not a directory\."):
        make_corpora(tmp_path / "file/out", size="tiny")


def test_two_at_once_make_one(tmp_path, monkeypatch):
    made = []

    def slow_workers(out, size, seed, on_progress):
        made.append(size)
        time.sleep(0.3)
        (out / "LibriSpeech").mkdir()

    monkeypatch.setattr(make, "_run_workers", slow_workers)
    calls = [
        threading.Thread(target=make_corpora, args=(tmp_path / "out",), kwargs={"size": "tiny"})
        for _ in range(3)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert made == ["tiny"]


@pytest.mark.parametrize("lost", ["recipe.json", "paths.yaml", "LibriSpeech/dev-clean"])
def test_incomplete_corpora_are_made_again(copy, monkeypatch, lost):
    path = copy / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    (copy / "notes.txt").write_text("mine")
    called = []

    def fake_workers(out, size, seed, on_progress):
        # Nothing of ours is left by then, and nothing else has been touched.
        called.append(sorted(p.name for p in out.iterdir()))
        (out / "LibriSpeech").mkdir()

    monkeypatch.setattr(make, "_run_workers", fake_workers)
    make_corpora(copy, size="tiny")
    assert called == [[".superbit-corpora.lock", "notes.txt"]]
    assert json.loads((copy / "recipe.json").read_text())["size"] == "tiny"


def test_an_older_recipe_is_made_again(copy, monkeypatch):
    called = []
    monkeypatch.setattr(recipe, "VERSION", recipe.VERSION + 1)
    monkeypatch.setattr(make, "_run_workers", lambda *arguments: called.append(arguments))
    make_corpora(copy, size="tiny")
    assert called


@pytest.mark.parametrize(("size", "seed"), [("demo", 0), ("tiny", 1)])
def test_complete_corpora_of_another_size_or_seed_are_kept(copy, no_workers, size, seed):
    with pytest.raises(InputError, match=r"size tiny and seed 0, not .*give another folder"):
        make_corpora(copy, size=size, seed=seed)
    assert (copy / "LibriSpeech").is_dir()


def test_folder_that_is_not_ours(tmp_path, no_workers):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something that superbit did not make"):
        make_corpora(tmp_path, size="tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="is a file"):
        make_corpora(tmp_path / "thesis.txt", size="tiny")
    with pytest.raises(InputError, match="Did you mean 'tiny'"):
        make_corpora(tmp_path / "new", size="tinny")


def test_killed_making_leaves_corpora_that_are_known_to_be_incomplete(tmp_path):
    out = tmp_path / "out"
    code = (
        "from superbit.benchmark.corpora.embedded.make import make_corpora; "
        f"make_corpora({str(out)!r}, size='demo')"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 60
        while not any(out.rglob("*.wav")) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert any(out.rglob("*.wav"))
    assert recipe.read(out) is None
    # The workers notice that nobody listens and stop writing.
    deadline = time.monotonic() + 20
    last, count = -1, 0
    while last != count and time.monotonic() < deadline:
        last = count
        time.sleep(0.5)
        count = sum(1 for _ in out.rglob("*"))
    assert last == count
    assert count < sizes.audio_files("demo")


@pytest.mark.parametrize(
    ("last_line", "raised"),
    [
        (
            "ValueError: no sound",
            "RuntimeError: Making the embedded corpora failed: ValueError: no",
        ),
        ("superbit.upstreams.errors.InputError: Disk: full.", "InputError: Disk: full."),
    ],
)
def test_failing_worker_is_reported(tmp_path, monkeypatch, last_line, raised):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho 'Traceback\n{last_line}' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises((RuntimeError, InputError)) as caught:
        make_corpora(tmp_path / "out", size="tiny")
    assert f"{caught.type.__name__}: {caught.value}".startswith(raised)
    assert recipe.read(tmp_path / "out") is None


def test_workers_run_two_at_a_time(tmp_path, monkeypatch):
    python = tmp_path / "python"
    # A worker notes how many run beside it, then says that it has made one file.
    python.write_text(
        "#!/bin/sh\n"
        f"touch {tmp_path}/running.$$; ls {tmp_path} | grep -c running >> {tmp_path}/seen\n"
        f"echo .; sleep 0.2; rm {tmp_path}/running.$$\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    made = []
    make._run_workers(tmp_path / "out", "tiny", 0, lambda done, total: made.append(done))
    assert made == list(range(1, len(make._CORPORA) + 1))
    seen = [int(line) for line in (tmp_path / "seen").read_text().split()]
    assert len(seen) == len(make._CORPORA)
    assert max(seen) == 2


def test_missing_synthesizer_is_the_users_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"need the package espeakng-loader; install it with"):
        make_corpora(tmp_path / "out", size="tiny")
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match=r'pip install "superbit\[embedded\]"'):
        Espeak(0)


def test_tests_of_the_demo_are_large_enough():
    """A standard error of two points at most, where it is largest, or as many items as named."""
    words = sizes.SPEECH_COMMANDS["demo"]["test"]
    voices_ = sizes.VOXCELEB1["demo"]
    videos, utterances = voices_.splits["test"]
    items = {
        "KS": words.speakers * (sizes.KEYWORDS + words.unknown_words + 1),
        "SID": voices_.test_speakers * videos * utterances,
        "IC": sizes.INTENTS * sizes.FLUENT_SPEECH_COMMANDS["demo"]["test"],
        "ER": sizes.SESSIONS * 2 * sizes.EMOTIONS * sizes.IEMOCAP["demo"].sentences,
    }
    assert {
        task: 100 * (0.25 / count) ** 0.5 <= 2 for task, count in items.items()
    } == dict.fromkeys(items, True)
    assert voices_.test_speakers >= 40
    assert sizes.LIBRI2MIX["demo"]["test"].recordings >= 60
    queries = sizes.QUESST14["demo"].splits["eval"]
    assert queries.present + queries.absent >= 60
