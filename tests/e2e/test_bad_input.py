"""What a user gets wrong: one clear sentence (file, what, what would be right), exit status 2."""

import json
import shutil

import numpy as np
import pytest
import soundfile

SWEEP = ("sweep", "--scale", "embedded", "--dry-run")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """What a command writes where no folder is named lands in the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(superbit):
    """Call the command line, expect a refusal in one sentence, return that sentence."""

    def call(*words):
        status, out, err = superbit(*words)
        assert status == 2, out + err
        assert err.startswith("superbit: ")
        assert err.count("\n") == 1
        return err

    return call


def sweep(paths, *more, upstreams="fbank", tasks="KS", results="nowhere"):
    return [*SWEEP, "--upstreams", upstreams, "--tasks", tasks, "--paths", paths,
            "--results", results, *more]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"upstreams": "vanila_nano"}, "Did you mean 'vanilla_nano'"),
        ({"upstreams": "fbank,fbank,"}, None),
        ({"upstreams": ","}, "--upstreams: name at least one"),
        ({"tasks": "KSS"}, "unknown task 'KSS': the tasks are ASR, KS"),
        ({"upstreams": "vanilla,vanilla+untrained"}, "name it once"),
        ({"upstreams": "no/hubconf.py:model"}, "there is no file 'no/hubconf.py'"),
    ],
)
def test_names(superbit, tiny_paths_file, tmp_path, changes, said):
    status, out, err = superbit(*sweep(tiny_paths_file, results=tmp_path / "r", **changes))
    if said is None:
        assert status == 0, err
        assert "1 run: 1 to run" in out
    else:
        assert status == 2
        assert said in err


def test_an_unknown_key_of_a_config(refused, tiny_paths_file, tmp_path):
    (tmp_path / "o.yaml").write_text("KS:\n  runner: {totl_steps: 3}\n")
    said = refused(*sweep(tiny_paths_file, "--overrides", tmp_path / "o.yaml"))
    assert "o.yaml: KS.runner: unknown key 'totl_steps'" in said
    assert "Did you mean 'total_steps'" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("librispeach: {root: x}", "unknown key 'librispeach'"),
        ("speech_commands: {root: gone, test_root: gone}", "gone"),
        ("[", "is not valid YAML"),
    ],
)
def test_a_wrong_paths_file(refused, tmp_path, text, said):
    (tmp_path / "paths.yaml").write_text(text)
    answer = refused(*sweep(tmp_path / "paths.yaml"))
    assert "paths.yaml" in answer
    assert said in answer


def test_a_missing_paths_file(refused, tmp_path):
    assert "nowhere.yaml" in refused(*sweep(tmp_path / "nowhere.yaml"))


def test_a_corpus_that_the_paths_file_does_not_name(refused, corpora):
    corpora.write_text("speech_commands:\n  root: speech_commands/train\n"
                       "  test_root: speech_commands/test\n")  # fmt: skip
    assert "has no section 'librispeech'" in refused(*sweep(corpora, tasks="PR"))


def spoil(kind: str, file) -> None:
    samples, rate = soundfile.read(file, dtype="float32")
    if kind == "missing":
        file.unlink()
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif kind == "8 kHz":
        soundfile.write(file, samples[::2], 8000)
    elif kind == "stereo":
        soundfile.write(file, np.stack([samples, samples], axis=1), rate)
    elif kind == "NaN":
        soundfile.write(file, np.where(samples > 0, np.nan, samples), rate, subtype="FLOAT")


@pytest.mark.parametrize("kind", ["empty", "truncated", "8 kHz", "stereo", "NaN"])
def test_bad_audio_is_found_before_any_run(refused, corpora, tmp_path, kind):
    clip = sorted(corpora.parent.glob("speech_commands/test/yes/*.wav"))[0]
    spoil(kind, clip)
    said = refused(*sweep(corpora, results=tmp_path / "r"))
    assert str(clip) in said


def test_a_truncated_flac_is_named(refused, corpora, tmp_path):
    victim = sorted(corpora.parent.glob("LibriSpeech/test-clean/*/*/*.flac"))[0]
    spoil("truncated", victim)
    assert str(victim) in refused(*sweep(corpora, tasks="PR", results=tmp_path / "r"))


def test_missing_audio_is_named(refused, corpora, tmp_path):
    victim = sorted(corpora.parent.glob("LibriSpeech/test-clean/*/*/*.flac"))[0]
    spoil("missing", victim)
    assert victim.stem in refused(*sweep(corpora, tasks="PR", results=tmp_path / "r"))


def test_a_word_without_lexicon_entry(refused, corpora, tmp_path):
    transcript = sorted(corpora.parent.glob("LibriSpeech/train-clean-100/*/*/*.trans.txt"))[0]
    first, *rest = transcript.read_text().splitlines()
    transcript.write_text("\n".join([f"{first} XYLOPHONIST", *rest]) + "\n")
    said = refused(*sweep(corpora, tasks="PR", results=tmp_path / "r"))
    assert "XYLOPHONIST" in said
    assert "lexicon" in said


def test_an_empty_split(refused, corpora, tmp_path):
    shutil.rmtree(corpora.parent / "LibriSpeech" / "dev-clean")
    (corpora.parent / "LibriSpeech" / "dev-clean").mkdir()
    assert "dev-clean" in refused(*sweep(corpora, tasks="ASR", results=tmp_path / "r"))


def test_a_batch_larger_than_the_train_split(refused, tiny_paths_file, tmp_path):
    (tmp_path / "o.yaml").write_text("KS:\n  downstream_expert: {datarc: {batch_size: 99999}}\n")
    said = refused(*sweep(tiny_paths_file, "--overrides", tmp_path / "o.yaml",
                          results=tmp_path / "r"))  # fmt: skip
    assert "batch" in said


def test_checkpoints(refused, tiny_paths_file, tmp_path):
    from superbit.upstreams import checkpoint
    from superbit.upstreams.hubert import untrained_model
    from superbit.upstreams.variant import size_of

    folder = tmp_path / "weights"
    checkpoint.save(folder, untrained_model(size_of("sparseformer_dn_nano")))
    other = refused(*sweep(tiny_paths_file, upstreams=f"vanilla_nano@{folder}"))
    assert "sparseformer" in other
    assert "vanilla" in other

    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    said = refused(*sweep(tiny_paths_file, upstreams=f"sparseformer_dn_nano@{folder}"))
    assert "model.safetensors" in said


def test_a_corrupt_result_is_named(
    refused, superbit, hubconf, tiny_paths_file, overrides, tmp_path
):
    results = tmp_path / "r"
    run = [w for w in sweep(tiny_paths_file, "--overrides", overrides, results=results,
                            upstreams=f"{hubconf}:energies") if w != "--dry-run"]  # fmt: skip
    assert superbit(*run)[0] == 0
    (file,) = results.glob("KS/*.json")
    record = json.loads(file.read_text())
    record["value"] = 100.0
    record["identity"]["seed"] = 7
    file.write_text(json.dumps(record))
    for command in (["status"], ["table", "2"]):
        assert str(file) in refused(*command, "--results", results)
    file.write_text("{")
    assert str(file) in refused(*run)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--limit", "0"], "--limit"),
        (["--jobs", "0"], "--jobs"),
        (["--device", "tpu"], "--device"),
        (["--lr", "-1"], "--lr"),
        (["--lr", "inf"], "--lr"),
        (["--seed", "-1"], "--seed"),
        (["--device", "cpu:foo"], "--device"),
    ],
)
def test_option_values(refused, tiny_paths_file, more, said, tmp_path):
    words = [w for w in sweep(tiny_paths_file, *more, results=tmp_path / "r") if w != "--dry-run"]
    assert said in refused(*words)


def test_a_results_folder_that_cannot_be(refused, tiny_paths_file, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "cannot be written to" in refused(*sweep(tiny_paths_file, results=folder))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("KS: 3", "must be a mapping"),
        ("KS: {downstream_expert: {datarc: null}}", "must be a mapping"),
        ("KS: {runner: {total_steps: null}}", "cannot be left empty"),
        ("KS: {optimizer: {lr: .inf}}", "finite"),
        ("KS: {scheduler: 2026-01-01}", "'scheduler' cannot be"),
    ],
)
def test_overrides_of_the_wrong_kind(refused, tiny_paths_file, tmp_path, text, said):
    (tmp_path / "o.yaml").write_text(text)
    assert said in refused(*sweep(tiny_paths_file, "--overrides", tmp_path / "o.yaml"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import not_there", "ModuleNotFoundError"),
        ("return None", "returned NoneType"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_builders_that_fail_are_the_users_mistake(refused, tmp_path, body, said):
    (tmp_path / "hubconf.py").write_text(f"def model(ckpt=None, **kwargs):\n    {body}\n")
    assert said in refused("check", f"{tmp_path / 'hubconf.py'}:model")


def test_check_cannot_load(refused):
    assert "unknown upstream" in refused("check", "nope_nano")


@pytest.mark.parametrize("name", ["fbank", "hubert", "hubconf.py:model"])
@pytest.mark.parametrize("verb", ["check", "profile"])
def test_a_checkpoint_that_would_not_run(refused, tmp_path, verb, name):
    (tmp_path / "hubconf.py").write_text(
        "import torch\ndef model(ckpt=None, **kwargs):\n    return torch.nn.Identity()\n"
    )
    (tmp_path / "w.pt").write_text("")
    assert f"{name}@w.pt" in refused(verb, f"{name}@w.pt")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["profile", "vanilla_nano", "--threads", "2"], "add --measure"),
        (["table", "2", "--source", "paper", "--where", "seed=1"], "leave out --where"),
        (["table", "2", "--source", "paper", "--show-lr"], "leave out --where"),
        ([*SWEEP, "--no-cache", "--cache-budget", "1GB"], "--cache-budget has no effect"),
        ([*SWEEP, "--no-cache", "--cache-dir", "x"], "--cache-dir has no effect"),
        ([*SWEEP, "--no-cache", "--cache-any-upstream"], "--cache-any-upstream has no effect"),
        ([*SWEEP, "--assume", "superb-sizes", "--limit", "3"], "--limit has no effect"),
        ([*SWEEP, "--assume", "superb-sizes", "--lr", "search"], "--lr has no effect"),
    ],
)
def test_an_option_that_would_be_dropped(refused, words, said):
    if words[0] == "sweep":
        words = [*words, "--upstreams", "fbank", "--tasks", "KS"]
        words += [] if "--assume" in words else ["--paths", "paths.yaml"]
    assert said in refused(*words)


def test_check_exits_1_on_a_failed_rule(superbit):
    from pathlib import Path

    mocks = Path(__file__).parents[1] / "contract" / "mocks" / "hubconf.py"
    status, out, _ = superbit("check", f"{mocks}:wrong_rate")
    assert status == 1
    assert "frame-count" in out
