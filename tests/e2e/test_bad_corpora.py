"""A broken copy of each corpus: one clear sentence from ``corpus check`` and from starting a run.

Both end with status 2; the run leaves no result. Broken audio is in test_bad_input.py.
"""

import csv
import shutil

import pytest

SECTIONS = {
    "ASR": ("LibriSpeech", "librispeech: {root: LibriSpeech, lexicon: [librispeech-lexicon.txt]}"),
    "KS": (
        "speech_commands",
        "speech_commands: {root: speech_commands/train, test_root: speech_commands/test}",
    ),
    "ASV": (
        "VoxCeleb1",
        "voxceleb1: {root: VoxCeleb1, identification_split: VoxCeleb1/iden_split.txt, "
        "trials: VoxCeleb1/voxceleb1_test_v2.txt}",
    ),
    "IC": ("fluent_speech_commands", "fluent_speech_commands: {root: fluent_speech_commands}"),
    "ER": ("IEMOCAP", "iemocap: {root: IEMOCAP}"),
    "SD": (
        "libri2mix",
        "libri2mix: {train_dir: libri2mix/train, dev_dir: libri2mix/dev, test_dir: libri2mix/test}",
    ),
    "QbE": ("quesst14Database", "quesst14: {root: quesst14Database}"),
    "SF": ("audio_snips", "audio_snips: {root: audio_snips}"),
}


@pytest.fixture
def corpus(tiny_paths_file, tmp_path):
    """Copy the corpus of a task; give its folder and a paths file that names nothing else."""

    def copy(task):
        name, section = SECTIONS[task]
        shutil.copytree(tiny_paths_file.parent / name, tmp_path / name)
        shutil.copy(tiny_paths_file.parent / "librispeech-lexicon.txt", tmp_path)
        (tmp_path / "paths.yaml").write_text(section + "\n")
        return tmp_path / name, tmp_path / "paths.yaml"

    return copy


@pytest.fixture
def refused(superbit, tmp_path):
    """Check the corpora and start a run on them; return the sentence with which both end."""

    def call(task, paths):
        results = tmp_path / "results"
        status, out, checked = superbit("corpus", "check", "--paths", paths, "--results", results)
        assert status == 2
        started = superbit(
            "sweep", "--upstreams", "fbank", "--tasks", task, "--scale", "embedded",
            "--paths", paths, "--results", results,
        )  # fmt: skip
        assert started == (2, "", checked)
        assert not list(results.glob("*/*.json"))
        assert checked.startswith("superbit: ")
        assert checked.endswith(".\n")
        assert checked.count("\n") == 1
        sentence = checked.removeprefix("superbit: ").rstrip("\n")
        assert f"problem: {sentence}" in out
        assert "published: " in out
        assert "https://" in out
        return sentence

    return call


def test_the_copies_are_whole_before_they_are_broken(corpus, superbit, tmp_path):
    _, paths = corpus("SD")
    assert superbit("corpus", "check", "--paths", paths, "--results", tmp_path / "r")[0] == 0


def test_librispeech_utterance_without_transcript(corpus, refused):
    folder, paths = corpus("ASR")
    file = sorted(folder.glob("dev-clean/*/*/*.trans.txt"))[0]
    first, *others = file.read_text().splitlines()
    file.write_text("\n".join(others) + "\n")
    name = first.split()[0]
    assert refused("ASR", paths) == (
        f"{file.parent / name}.flac has no transcript: {file.name} beside it should have a line "
        f"'{name} THE WORDS'."
    )


def test_speech_commands_without_its_noise(corpus, refused):
    folder, paths = corpus("KS")
    shutil.rmtree(folder / "train" / "_background_noise_")
    assert refused("KS", paths) == (
        f"{folder / 'train' / '_background_noise_'} has no wav file: it should hold recordings of "
        "noise of at least a second, from which the silence class is cropped."
    )


def test_voxceleb1_trial_of_an_absent_file(corpus, refused):
    folder, paths = corpus("ASV")
    with (folder / "voxceleb1_test_v2.txt").open("a") as trials:
        first = sorted((folder / "test" / "wav").glob("*/*/*.wav"))[0]
        known = first.relative_to(folder / "test" / "wav").as_posix()
        trials.write(f"0 {known} id10270/video/99999.wav\n")
    assert refused("ASV", paths) == (
        f"{folder / 'voxceleb1_test_v2.txt'} names id10270/video/99999.wav, which is not in "
        f"{folder / 'test' / 'wav'}."
    )


def test_voxceleb1_split_of_an_absent_file(corpus, refused):
    folder, paths = corpus("ASV")
    line = (folder / "iden_split.txt").read_text().splitlines()[0].split()[1]
    for part in ("dev", "test"):
        (folder / part / "wav" / line).unlink(missing_ok=True)
    said = refused("SID", paths)
    assert said.startswith(f"{folder / 'iden_split.txt'} names {line}, which is neither in ")


def test_fluent_table_without_a_column(corpus, refused):
    folder, paths = corpus("IC")
    table = folder / "data" / "valid_data.csv"
    table.write_text(table.read_text().replace("location", "place", 1))
    assert refused("IC", paths) == (
        f"{table} has no column 'location'; it should have path, speakerId, transcription, action, "
        "object, location."
    )


def test_fluent_intent_unseen_in_train(corpus, refused):
    folder, paths = corpus("IC")
    table = folder / "data" / "test_data.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["action"] = "explode"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    assert refused("IC", paths) == (
        f"{table} has the action 'explode', which does not occur in train_data.csv; every value "
        "should."
    )


def test_iemocap_without_a_session(corpus, refused):
    folder, paths = corpus("ER")
    shutil.rmtree(folder / "Session3")
    assert refused("ER", paths) == (
        f"{folder / 'Session3'} is not there: it should be Session3 of IEMOCAP, with "
        "sentences/wav and dialog/EmoEvaluation."
    )


def test_libri2mix_rttm_without_its_wav(corpus, refused):
    folder, paths = corpus("SD")
    with (folder / "test" / "rttm").open("a") as rttm:
        rttm.write("SPEAKER mix_99999 1 0.0 1.0 <NA> <NA> someone <NA> <NA>\n")
    assert refused("SD", paths) == (
        f"{folder / 'test' / 'rttm'} has turns of the recording mix_99999, which "
        f"{folder / 'test' / 'wav.scp'} does not name; it should have a line for it."
    )


def test_libri2mix_recording_that_is_not_there(corpus, refused):
    folder, paths = corpus("SD")
    wav = sorted(folder.rglob("*.wav"))[0]
    wav.unlink()
    said = refused("SD", paths)
    assert said.endswith(f"/wav.scp: {wav} is not there: it should be an audio file.")


def test_quesst_query_that_is_not_there(corpus, refused):
    folder, paths = corpus("QbE")
    source = folder / "scoring" / "language_key_dev.lst"
    name = source.read_text().splitlines()[0].split()[0].partition("/")[2]
    (folder / name).unlink()
    assert refused("QbE", paths) == f"{source} lists {folder / name}, which is not there."


def test_snips_utterance_without_transcript(corpus, refused):
    folder, paths = corpus("SF")
    victim = sorted((folder / "valid").rglob("*.wav"))[0]
    file = folder / "all.iob.snips.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(x for x in lines if x.split()[0] != victim.stem) + "\n")
    assert refused("SF", paths) == (
        f"{victim} has no transcript: {file} should have a line '{victim.stem} BOS … EOS'."
    )
