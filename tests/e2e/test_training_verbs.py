"""manifest, units and pretrain from the command line: a thread through all, and bad input."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import ready_processes
import soundfile
import yaml

from superbit.upstreams import checkpoint

SECONDS = 1.5
PRESET = {
    "phase": 1,
    "models": ["vanilla_nano"],
    "model": {
        "layers": 1, "dim": 16, "heads": 2, "ffn_dim": 32, "position_kernel": 8,
        "position_groups": 4, "final_dim": 8,
        "conv_layers": [[8, 10, 5], *[[8, 3, 2]] * 4, *[[8, 2, 2]] * 2],
    },
    "units": 5, "label_rate": 100, "updates": 4, "warm_up_updates": 1, "learning_rate": 1e-3,
    "batch_samples": 48_000, "crop_samples": 16_000, "min_samples": 8_000, "bucket_samples": 400,
    "equalize_masks": False, "precision": "fp32", "log_every": 2, "validate_every": 2,
    "save_every": 2, "workers": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Tones, eight files of three folders."""
    folder = tmp_path_factory.mktemp("speech")
    for index in range(8):
        times = np.arange(int(SECONDS * 16_000)) / 16_000
        sound = 0.3 * np.sin(2 * np.pi * 200 * (1 + index) * times * (1 + times))
        file = folder / f"speaker{index % 3}" / f"{index}.wav"
        file.parent.mkdir(exist_ok=True)
        soundfile.write(file, sound, 16_000)
    return folder


@pytest.fixture
def trained(superbit, speech, tmp_path):
    """What a first phase needs and leaves, made by the verbs; gives a function for another run."""
    (tmp_path / "micro.yaml").write_text(yaml.safe_dump(PRESET))
    words = ["manifest", speech, "--out", tmp_path / "m", "--held-out", "0.3", "--min-samples", "1"]
    assert superbit(*words)[0] == 0
    train = tmp_path / "m" / "train.tsv"
    fit = ["units", "fit", "--clusters", "5", "--manifest", train, "--out", tmp_path / "mfcc"]
    assert superbit(*fit)[0] == 0
    for split in ("train", "valid"):
        words = ["--units", tmp_path / "mfcc", "--manifest", tmp_path / "m" / f"{split}.tsv"]
        out = tmp_path / "labels" / f"{split}.km"
        assert superbit("units", "label", *words, "--out", out)[0] == 0
    assert superbit(*pretrain(tmp_path))[0] == 0
    return tmp_path


def pretrain(folder, *more, out="run"):
    return [
        "pretrain", "--preset", folder / "micro.yaml", "--model", "vanilla_nano",
        "--manifests", folder / "m", "--labels", folder / "labels", "--out", folder / out,
        "--device", "cpu", *more,
    ]  # fmt: skip


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_labels_are_as_many_as_mfcc_frames(trained):
    lines = (trained / "labels" / "train.km").read_text().splitlines()
    manifest = (trained / "m" / "train.tsv").read_text().splitlines()
    assert len(lines) == len(manifest) - 1
    # 25 ms windows every 10 ms
    assert {len(line.split()) for line in lines} == {int((SECONDS - 0.025) / 0.01) + 1}
    assert checkpoint.load(trained / "run" / "last").training["update"] == 4


def fewer_lines(folder):
    file = folder / "labels" / "train.km"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    return pretrain(folder), "one line a file is needed"


def shorter_lines(folder):
    file = folder / "labels" / "train.km"
    file.write_text("".join(line[:20] + "\n" for line in file.read_text().splitlines()))
    return pretrain(folder), "labels, 0.10 s at 100 Hz"


def labels_of_another_rate(folder):
    return pretrain(folder, "--set", "label_rate=50"), "5 units at 50 Hz are needed"


def too_many_clusters(folder):
    words = ["--clusters", "5000", "--manifest", folder / "m" / "train.tsv"]
    return ["units", "fit", *words, "--out", folder / "many"], "5000 clusters were asked for"


def an_empty_manifest(folder):
    (folder / "m" / "train.tsv").write_text("")
    return pretrain(folder), "train.tsv is empty"


def short_audio(folder):
    short = folder / "short"
    short.mkdir()
    for split in ("train", "valid"):
        soundfile.write(short / f"{split}.wav", np.zeros(9_000), 16_000)
        (short / f"{split}.tsv").write_text(f"{short}\n{split}.wav\t9000\n")
        (short / f"{split}.km").write_text(" ".join(["0"] * 54) + "\n")
    words = ["--set", "min_samples=16000", "--manifests", short, "--labels", short]
    return pretrain(folder, *words), "no audio of at least 16000 samples"


def labels_of_one_unit(folder, split="train"):
    file = folder / "labels" / f"{split}.km"
    lines = [" ".join(["3"] * len(line.split())) for line in file.read_text().splitlines()]
    file.write_text("\n".join(lines) + "\n")
    return pretrain(folder), f"{split}.km: all of the"


def held_out_labels_of_one_unit(folder):
    return labels_of_one_unit(folder, "valid")


def twins_on_labels_of_one_unit(folder):
    labels_of_one_unit(folder)
    words = ["--teacher", folder / "run" / "last", "--policy", "w1a2", "--device", "cpu"]
    data = ["--manifests", folder / "m", "--labels", folder / "labels", "--out", folder / "twins"]
    return [
        "distil",
        "--loss",
        "hubert",
        "--set",
        "min_samples=8000",
        *words,
        *data,
    ], "are one unit"


def units_of_silence(folder):
    silence = folder / "silence"
    silence.mkdir()
    soundfile.write(silence / "a.wav", np.zeros(32_000), 16_000)
    (silence / "train.tsv").write_text(f"{silence}\na.wav\t32000\n")
    words = ["--clusters", "4", "--manifest", silence / "train.tsv", "--out", folder / "few"]
    return ["units", "fit", *words], "one unit"


def silence_labelled(folder):
    units_of_silence(folder)
    words = ["--manifest", folder / "silence" / "train.tsv", "--out", folder / "few.km"]
    return ["units", "label", "--units", folder / "mfcc", *words], "one unit"


def one_cluster(folder):
    words = ["--manifest", folder / "m" / "train.tsv", "--out", folder / "one"]
    return ["units", "fit", "--clusters", "1", *words], "at least 2 are needed"


def no_audio(folder):
    (folder / "nothing").mkdir()
    return ["manifest", folder / "nothing", "--out", folder / "m2"], "no usable flac or wav file"


def another_encoder(folder):
    return [*pretrain(folder)[:3], "--model", "conformer_nano", "--dry-run"], "not conformer_nano"


def another_phase(folder):
    words = ["--set", "phase=2", "--init", folder / "run" / "last"]
    return pretrain(folder, *words), "a run of phase 1, and phase 2 was asked for"


BAD = [
    fewer_lines, shorter_lines, labels_of_another_rate, too_many_clusters, an_empty_manifest,
    short_audio, no_audio, another_encoder, another_phase, labels_of_one_unit,
    held_out_labels_of_one_unit, twins_on_labels_of_one_unit, units_of_silence, silence_labelled,
    one_cluster,
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_bad_input_is_one_sentence_and_leaves_checkpoints_alone(superbit, trained, bad):
    before = contents(trained / "run")
    words, said = bad(trained)
    status, _, err = superbit(*words)
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
    assert contents(trained / "run") == before


def test_few_of_the_units_are_a_warning(superbit, trained):
    """Fitting, labelling and training say so, and go on."""
    audio = trained / "two-tones"
    audio.mkdir()
    sound = np.sign(np.sin(np.arange(48_000) / 5)) * np.repeat([0.3, 0.0, 0.3], 16_000)
    soundfile.write(audio / "a.wav", sound, 16_000)
    for split in ("train", "valid"):
        (audio / f"{split}.tsv").write_text(f"{audio}\na.wav\t48000\n")
    units = trained / "many"
    words = ["--clusters", "60", "--manifest", trained / "m" / "train.tsv", "--out", units]
    assert superbit("units", "fit", *words)[0] == 0
    for split in ("train", "valid"):
        words = ["--units", units, "--manifest", audio / f"{split}.tsv"]
        status, _, err = superbit("units", "label", *words, "--out", audio / f"{split}.km")
        assert (status, "of 60 units occur" in err) == (0, True)
    words = ["--manifests", audio, "--labels", audio, "--set", "units=60"]
    status, _, err = superbit(*pretrain(trained, *words, out="few"))
    assert status == 0
    for split in ("train", "valid"):
        assert f"{audio / split}.km: only " in err


def under_torchrun(words):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "superbit.benchmark.cli", *map(str, words),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow  # two ranks without the launcher are tried in tests/numerics
def test_the_command_of_the_presets_header_under_torchrun(trained):
    done = under_torchrun(pretrain(trained, out="two"))
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(trained / "two" / "last").training["update"] == 4
    # both took their share: twice the audio of one rank
    hours = [
        checkpoint.load(trained / name / "last").training["audio_hours"] for name in ("run", "two")
    ]
    assert hours[1] == pytest.approx(2 * hours[0], rel=0.2)


def test_bad_input_ends_every_rank(trained):
    """As torchrun starts them, with its variables."""
    words, said = fewer_lines(trained)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"OMP_NUM_THREADS": "1"}
    ranks = [
        ready_processes.Program(
            ready_processes.VERB, *words,
            environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    refused = [rank.finished() for rank in ranks]
    assert [each.returncode for each in refused] == [2, 2]
    assert said in "".join(each.stderr for each in refused)
