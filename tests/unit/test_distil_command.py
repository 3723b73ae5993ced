"""``superbit distil``: its presets, its plan, and what is said of wrong input."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from superbit.benchmark.cli import parser
from superbit.upstreams import checkpoint
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.convert import binarize_, calibrate
from superbit.upstreams.training import command, runs
from superbit.upstreams.training.configuration import (
    DISTILLATION_PRESETS,
    load_config,
    load_distillation_config,
)
from superbit.upstreams.training.estimate import estimate, forward_macs
from superbit.upstreams.training.state import STATE_FILE
from superbit.upstreams.variant import size_of

CONVOLUTIONS = [[8, 10, 5], [8, 3, 2], [8, 3, 2], [8, 3, 2], [8, 3, 2], [8, 2, 2], [8, 2, 2]]
MICRO = [
    *("updates=2", "warm_up_updates=1", "batch_samples=9600", "crop_samples=4800"),
    *("min_samples=3200", "validate_every=2", "save_every=2"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Noise, with labels of seven units at 50 Hz."""
    folder, random = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    for split in ("train", "valid"):
        for index in range(4):
            audio = random.uniform(-0.1, 0.1, 6_400)
            soundfile.write(folder / f"{split}-{index}.wav", audio, 16_000)
        rows = [str(folder), *(f"{split}-{index}.wav\t6400" for index in range(4))]
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        labels = [" ".join(map(str, random.integers(0, 7, 20))) + "\n" for _ in range(4)]
        (folder / f"{split}.km").write_text("".join(labels))
    return folder


def micro_model():
    sizes = {"layers": 2, "dim": 32, "heads": 2, "ffn_dim": 64, "final_dim": 16}
    sizes |= {"conv_layers": CONVOLUTIONS, "position_kernel": 8, "position_groups": 4}
    return untrained_model(HubertConfig.from_dict({**size_of("vanilla_nano").to_dict(), **sizes}))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """As a run of phase 2 leaves it."""
    folder = tmp_path_factory.mktemp("teacher")
    training = {"name": "vanilla_nano", "phase": 2, "units": 7, "label_rate": 50}
    checkpoint.save(folder, micro_model(), training=training)
    torch.save({"unit_embeddings": torch.rand(7, 16)}, folder / STATE_FILE)
    return folder


def run(*words, **options):
    """Run the verb with the options, as typed."""
    typed = ["distil", "--preset", "distil_nano", "--device", "cpu", *words]
    for key, value in options.items():
        typed += [f"--{key}", str(value)]
    for change in MICRO:
        typed += ["--set", change]
    arguments = parser().parse_args(typed)
    return command.distil_command(arguments)


def test_the_verb(corpus, teacher, tmp_path, capsys):
    given = {"teacher": teacher, "manifests": corpus, "labels": corpus, "out": tmp_path / "run"}
    assert run("--tensorboard", policy="w1a2,w1a1", **given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        str(tmp_path / "run" / policy / "last") for policy in ("w1a2", "w1a1")
    ]
    assert "2 updates" in lines[0]
    assert "(teacher " in lines[0]
    assert list((tmp_path / "run/w1a1/tensorboard").iterdir())
    twin = checkpoint.load(tmp_path / "run/w1a1/best", name="vanilla_nano")
    assert twin.model.policy.name == "w1a1"
    assert twin.training["teacher"] == {"name": "vanilla_nano", "phase": 2, "units": 7}
    # the same command again has nothing left to do
    before = (tmp_path / "run/w1a1/last/model.safetensors").stat().st_mtime_ns
    assert run(policy="w1a2,w1a1", **given) == 0
    assert (tmp_path / "run/w1a1/last/model.safetensors").stat().st_mtime_ns == before


def test_presets_hold_bits_values():
    full, nano = (load_distillation_config(name) for name in DISTILLATION_PRESETS)
    for config in (full, nano):
        assert config.warm_up_updates == 0.1 * config.updates
        assert (config.loss, config.unit_weight, config.weight_decay) == ("kd", 1, 0.01)
    assert (full.learning_rate, full.scale_learning_rate) == (5e-4, 1e-4)
    assert full.relative is False
    pretrained = load_config("phase2")
    for key in ("batch_samples", "crop_samples", "min_samples", "mask_probability", "mask_span"):
        assert getattr(full, key) == getattr(pretrained, key)
    for name in DISTILLATION_PRESETS:
        text = (Path(command.__file__).parent / f"presets/{name}.yaml").read_text()
        commands = [line for line in text.splitlines() if "superbit" in line and " distil " in line]
        for line in commands:
            words = line.partition(" distil ")[2].split()
            assert parser().parse_args(["distil", *words]).preset == name


def test_a_dry_run_says_how_long(teacher, capsys):
    assert run("--dry-run", teacher=teacher, policy="w1a2,w1a1", devices=8) == 0
    said = capsys.readouterr().out
    assert "w1a2 → w1a1" in said
    assert "2 updates a policy" in said
    assert "8 × a100" in said


def test_a_taught_update_is_two_encoders_over_one_front_end():
    config, size = load_distillation_config("distil"), size_of("vanilla")
    crops = config.batch_samples / config.crop_samples
    front_end = forward_macs(size, config.crop_samples, front_end_only=True)
    # 1,843,968 parameters, each used once a frame of its own rate: far from nothing, not the most
    whole = forward_macs(size, config.crop_samples)
    assert 0.05 * whole < front_end < 0.5 * whole
    taught = estimate(config, size, hardware="a100", devices=1, taught=True)
    # the student's forward and backward pass, of twice the operations, and the teacher's forward
    by_hand = 2 * crops * (front_end + (1 + 2 + 1) * (whole - front_end))
    assert taught.operations == pytest.approx(by_hand)


def twin_of(folder):
    twin = binarize_(micro_model(), "w1a2")
    calibrate(twin, [0.1 * torch.randn(8_000)])
    checkpoint.save(folder, twin)
    return folder


def test_a_teacher_that_is_none(corpus, teacher, tmp_path):
    given = {"manifests": corpus, "out": tmp_path / "run"}
    with pytest.raises(InputError, match=r"there is no checkpoint .*nowhere: no such directory"):
        run(teacher=tmp_path / "nowhere", **given)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"there is no .*config.json; a checkpoint is a directory"):
        run(teacher=tmp_path / "empty", **given)
    twin = twin_of(tmp_path / "twin")
    with pytest.raises(InputError, match=r"holds a twin of policy 'w1a2'; an FP32 model is needed"):
        run(teacher=twin, **given)
    with pytest.raises(InputError, match=r"--init .* holds a twin of policy 'w1a2'; pre-training"):
        runs._start(load_config("nano"), "vanilla_nano", size_of("vanilla_nano"), twin)
    broken = tmp_path / "broken"
    checkpoint.save(broken, micro_model())
    (broken / STATE_FILE).write_bytes(b"half")
    with pytest.raises(InputError, match=r"training_state.pt cannot be read"):
        run(teacher=broken, **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("w1a3", r"no binarization policy is called 'w1a3'.*Did you mean"),
        ("w1a2,w1a2", "has w1a2 twice"),
        (",", "--policy is empty"),
    ],
)
def test_a_policy_that_is_none(teacher, policy, message):
    with pytest.raises(InputError, match=message):
        run("--dry-run", teacher=teacher, policy=policy)


def test_labels_that_do_not_match(corpus, teacher, tmp_path):
    given = {"manifests": corpus, "policy": "w1a1", "out": tmp_path / "run"}
    with pytest.raises(InputError, match="--labels is needed for --loss hubert"):
        run(teacher=teacher, loss="hubert", **given)
    with pytest.raises(InputError, match=r"units is 9, and .* was trained on 7 units"):
        run("--set", "units=9", teacher=teacher, labels=corpus, **given)
    with pytest.raises(InputError, match=r"20 labels, 0.20 s at 100 Hz, .*; at 50 Hz it would fit"):
        run("--set", "label_rate=100", teacher=teacher, labels=corpus, **given)
    checkpoint.save(tmp_path / "other", micro_model())
    with pytest.raises(InputError, match=r"give units of .* with --set units=…"):
        run(teacher=tmp_path / "other", labels=corpus, **given)
    other = tmp_path / "labels"
    other.mkdir()
    for split in ("train", "valid"):
        (other / f"{split}.km").write_text("0 1 2\n")
    with pytest.raises(InputError, match=r"train.km, line 1 has 3 labels"):
        run(teacher=teacher, labels=other, **given)
    (other / "train.km").write_bytes((corpus / "train.km").read_bytes())
    (other / "train.km.json").write_text('{"units": 100, "rate": 100}')
    with pytest.raises(InputError, match=r"100 units at 100 Hz; 7 units .*another phase"):
        run(teacher=teacher, labels=other, **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("updates=0", "updates is 0"),
        ("layer_drop=0.1", "'layer_drop' is no key of distillation"),
        ("scale_learning_rat=1", "Did you mean 'scale_learning_rate'"),
        ("min_samples=400", "at least 720 are needed for two frames"),
        ("label_rate=75", "label_rate is 75; a multiple of the 50 frames"),
    ],
)
def test_a_setting_that_cannot_be(teacher, change, message):
    typed = ["distil", "--preset", "distil_nano", "--teacher", str(teacher), "--dry-run"]
    arguments = parser().parse_args([*typed, "--set", change])
    with pytest.raises(InputError, match=message):
        command.distil_command(arguments)


def test_a_preset_of_pretraining(teacher, tmp_path):
    given = parser().parse_args(["distil", "--teacher", str(teacher), "--preset", "nano"])
    with pytest.raises(InputError, match=r"no preset 'nano': give distil, distil_nano or a YAML"):
        command.distil_command(given)
    text = (Path(command.__file__).parent / "presets/nano.yaml").read_text()
    (tmp_path / "nano.yaml").write_text(text)
    with pytest.raises(InputError, match="scale_learning_rate is missing, a key of distil"):
        load_distillation_config(tmp_path / "nano.yaml")
    (tmp_path / "short.yaml").write_text("updates: 1\n")
    with pytest.raises(InputError, match="batch_samples is missing, a key of distillation"):
        load_distillation_config(
            tmp_path / "short.yaml", changes={"warm_up_updates": 0, "scale_learning_rate": 1e-3}
        )


def test_what_is_needed_to_train(corpus, teacher):
    with pytest.raises(InputError, match="--manifests is needed to train"):
        run(teacher=teacher)
    with pytest.raises(InputError, match="--out is needed to train"):
        run(teacher=teacher, manifests=corpus)


def test_exit_status_is_2_and_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "superbit.benchmark.cli", "distil", "--teacher", "nowhere"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "superbit: there is no checkpoint nowhere: no such directory."
    ]
