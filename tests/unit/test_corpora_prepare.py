"""``superbit corpus prepare``: what runs derive from a corpus is there before they start."""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from verbs import run_verb

from superbit.benchmark.corpora import catalog, librispeech
from superbit.benchmark.corpora.preparing import derive_files
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.running.run import RunContext
from superbit.benchmark.tasks.binding import RunPlaces
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import resolve
from superbit.upstreams.errors import InputError

pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")


def states(folder):
    """What tells whether a file was written again."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def context(tiny_paths, tmp_path_factory):
    return RunContext(store=ResultStore(tmp_path_factory.mktemp("results")), paths=tiny_paths)


@pytest.fixture(scope="module")
def prepared(tiny_paths_file, context):
    """Tiny corpora, prepared into the folder in which a run looks."""
    assert run_verb("corpus prepare", paths=tiny_paths_file, results=context.store.root) == 0
    return context.work_dir


def lines_of(capsys):
    """The line that ends each corpus's report, by the corpus's title."""
    printed = capsys.readouterr().out.splitlines()
    ended = (line for line in printed if line.endswith(" s)"))
    return {title: rest for title, _, rest in (line.partition(": ") for line in ended)}


def items_of(kind, corpora):
    """Count a kind's items in another way than the command does: from the corpus."""
    if kind == "folds":
        files = corpora.glob("IEMOCAP/Session*/dialog/EmoEvaluation/*.txt")
        return sum(len(re.findall(r"\t(?:neu|hap|exc|ang|sad)\t", f.read_text())) for f in files)
    folder, pattern = {
        "length buckets": ("LibriSpeech", "*.flac"),
        "lengths without silence": ("VoxCeleb1/dev", "*.wav"),
        "Kaldi folders with absolute paths": ("libri2mix", "*.wav"),
    }[kind]
    return len(list((corpora / folder).rglob(pattern)))


@pytest.mark.parametrize(
    ("corpus", "whats", "folder"),
    [
        ("librispeech", ["length buckets"], "length_buckets"),
        ("iemocap", ["folds"], "folds"),
        ("libri2mix", ["Kaldi folders with absolute paths"], "libri2mix"),
        (
            "voxceleb1",
            ["lengths without silence", "verification trials over dev/wav"],
            "trimmed_lengths",
        ),
        ("speech_commands", [], None),
        ("fluent_speech_commands", [], None),
        ("quesst14", [], None),
        ("audio_snips", [], None),
    ],
)
def test_what_is_derived(prepared, tiny_paths, tiny_paths_file, corpus, whats, folder):
    derived = derive_files(corpus, tiny_paths, work_dir=prepared)
    assert [files.what for files in derived] == whats
    if derived:
        assert derived[0].path.is_relative_to(prepared / folder)
        assert derived[0].items == items_of(whats[0], tiny_paths_file.parent)
    if corpus == "voxceleb1":
        text = derived[1].path.read_text()
        assert derived[1].items == text.count(".wav") / 2


def test_one_line_a_corpus_with_place_items_and_seconds(
    prepared, tiny_paths_file, tmp_path, capsys
):
    capsys.readouterr()
    run_verb("corpus prepare", paths=tiny_paths_file, results=tmp_path)
    first = lines_of(capsys)
    run_verb("corpus prepare", paths=tiny_paths_file, results=tmp_path)
    second = lines_of(capsys)
    assert list(first) == list(second)
    assert len(first) == len(catalog.CORPORA)
    assert first["Speech Commands v0.01 (KS)"].startswith("needs no derived files (")
    buckets = first["LibriSpeech (PR, ASR)"]
    utterances = items_of("length buckets", tiny_paths_file.parent)
    assert buckets.startswith(f"length buckets, {utterances} utterances, written to ")
    assert Path(buckets.partition("written to ")[2].rpartition(" (")[0]).is_dir()
    assert second["LibriSpeech (PR, ASR)"].startswith(
        buckets.replace("written to", "reused from").rpartition(" (")[0]
    )
    assert "written" in first["VoxCeleb1 (SID, ASV)"]
    assert not [line for line in second.values() if "written" in line]


def test_a_second_call_writes_nothing(prepared, tiny_paths_file):
    before = states(prepared)
    assert len(before) > 30  # not an empty folder
    run_verb("corpus prepare", paths=tiny_paths_file, results=prepared.parent)
    assert states(prepared) == before


@pytest.mark.parametrize("scale", ["superb", "embedded"])
@pytest.mark.parametrize("task", list(TASKS))
def test_a_run_finds_what_was_prepared(prepared, context, task, scale):
    before = states(prepared)
    section = resolve(task, scale=scale)["downstream_expert"]
    TASKS[task].binding.bind(
        section,
        RunPlaces(paths=context.paths, work_dir=context.work_dir, fold=3 if task == "ER" else None),
    )
    assert states(prepared) == before


def test_asv_starts_without_cutting_silence_again(
    prepared, context, tiny_paths_file, tmp_path, monkeypatch
):
    from s3prl.downstream.sv_voxceleb1 import dataset
    from s3prl.downstream.sv_voxceleb1.expert import DownstreamExpert

    def refuse(*_arguments):
        raise AssertionError("an utterance is measured again")

    monkeypatch.setattr(dataset, "apply_effects_file", refuse)
    section = resolve("ASV", scale="embedded")["downstream_expert"]
    TASKS["ASV"].binding.bind(section, RunPlaces(paths=context.paths, work_dir=context.work_dir))
    expert = DownstreamExpert(upstream_dim=4, downstream_expert=section, expdir=str(tmp_path))
    utterances = items_of("lengths without silence", tiny_paths_file.parent)
    assert len(expert.train_dataset.dataset) == utterances


def test_progress_is_told_and_s3prls_bar_is_put_back(tiny_paths, tiny_paths_file, tmp_path):
    from s3prl.downstream.sv_voxceleb1 import dataset

    bar, told = dataset.tqdm, []
    derive_files(
        "voxceleb1",
        tiny_paths,
        work_dir=tmp_path,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert dataset.tqdm is bar
    utterances = items_of("lengths without silence", tiny_paths_file.parent)
    assert told == [(done, utterances) for done in range(1, utterances + 1)]


@pytest.fixture
def two_corpora(tiny_paths_file, tmp_path):
    """Copies of IEMOCAP, which a test may break, and of Libri2Mix."""
    for name in ("IEMOCAP", "libri2mix"):
        shutil.copytree(tiny_paths_file.parent / name, tmp_path / "corpora" / name)
    file = tmp_path / "corpora" / "paths.yaml"
    file.write_text(
        "iemocap: {root: IEMOCAP}\n"
        "libri2mix: {train_dir: libri2mix/train, dev_dir: libri2mix/dev, "
        "test_dir: libri2mix/test}\n"
    )
    return file


def test_of_an_incomplete_corpus_nothing_is_written_and_the_others_are(
    two_corpora, tmp_path, capsys
):
    shutil.rmtree(two_corpora.parent / "IEMOCAP" / "Session3")
    with pytest.raises(InputError, match=r"IEMOCAP/Session3 is not there"):
        run_verb("corpus prepare", paths=two_corpora, results=tmp_path)
    out = capsys.readouterr().out
    assert "published: Session1 to Session5: https://sail.usc.edu/iemocap/" in out
    assert "IEMOCAP (ER): not prepared" in out
    assert not (tmp_path / "work" / "folds").exists()
    assert len(list((tmp_path / "work" / "libri2mix").glob("*/*/wav.scp"))) == 3


def test_stopped_in_the_middle_leaves_whole_files_only(tiny_paths, tmp_path, monkeypatch):
    whole = derive_files("librispeech", tiny_paths, work_dir=tmp_path / "whole")[0].path
    replace, calls = os.replace, []

    def stop_at_the_second(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        derive_files("librispeech", tiny_paths, work_dir=tmp_path / "cut")
    monkeypatch.undo()
    written = sorted((tmp_path / "cut").rglob("*.csv"))
    assert [file.read_text() for file in written] == [(whole / written[0].name).read_text()]
    (again,) = derive_files("librispeech", tiny_paths, work_dir=tmp_path / "cut")
    assert again.is_new
    assert [(again.path / f"{split}.csv").read_text() for split in librispeech.SPLITS] == [
        (whole / f"{split}.csv").read_text() for split in librispeech.SPLITS
    ]


def test_a_folder_that_cannot_be_written_to(tiny_paths_file, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--results: .*file/work cannot be written to"):
        run_verb("corpus prepare", paths=tiny_paths_file, results=tmp_path / "file")


def test_without_s3prl_the_missing_package_is_named(
    tiny_paths, tiny_paths_file, tmp_path, monkeypatch
):
    for name in [name for name in sys.modules if name.startswith("s3prl")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "s3prl", None)
    with pytest.raises(InputError, match=r"s3prl is not installed, which ASV needs"):
        derive_files("voxceleb1", tiny_paths, work_dir=tmp_path)
    # What needs no s3prl is derived without it.
    (folds,) = derive_files("iemocap", tiny_paths, work_dir=tmp_path)
    assert folds.items == items_of("folds", tiny_paths_file.parent)


# --- layouts of the real size ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["voxceleb1", "librispeech", "audio_snips"])
@pytest.mark.parametrize("audio", ["empty", "one sample"])
def test_every_file_of_a_whole_layout_is_seen(corpus, audio):
    from superbit.benchmark.bench.corpus_check import make_layout

    # pytest would keep 150,000 files of each of the last sessions.
    with tempfile.TemporaryDirectory() as folder:
        paths = make_layout(Path(folder), corpus=corpus, audio=audio)
        report = catalog.find(corpus).check(paths.section(corpus))
    files = {split.name: split.utterances for split in report.splits}
    assert files == {split.name: split.expected_utterances for split in report.splits}
    if audio == "empty":
        (problem,) = report.problems
        count = {"voxceleb1": 153_516, "librispeech": 33_862, "audio_snips": 110_272}[corpus]
        assert f"is empty: it should hold audio, 16 kHz and mono. ({count - 1:,} more" in problem
    else:
        assert report.problems == ()
    if corpus == "voxceleb1":
        assert "1,251 speakers (SUPERB: 1,251)" in report.notes
        assert "37,720 trials (SUPERB: 37,720)" in report.notes
