"""Training: resumed to the bit, the same on two ranks as on one, whole whatever happens."""

import argparse
import json
import re
import signal
import socket
import textwrap
from pathlib import Path

import numpy as np
import pytest
import ready_processes
import soundfile
import torch
import yaml

from superbit.upstreams import checkpoint
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.training import command, runs, train
from superbit.upstreams.training.configuration import load_config, model_config
from superbit.upstreams.training.distributed import World
from superbit.upstreams.training.evaluation import Meter

pytestmark = pytest.mark.thorough

ONE = World(rank=0, size=1, device=torch.device("cpu"))
CONVOLUTIONS = [[8, 10, 5], [8, 3, 2], [8, 3, 2], [8, 3, 2], [8, 3, 2], [8, 2, 2], [8, 2, 2]]
MICRO = {
    "phase": 1,
    "models": [
        "vanilla_nano",
        "conformer_nano",
        "squeeze_nano",
        "sparseformer_dn_nano",
        "sparseformer_sw_nano",
    ],
    "model": {
        "layers": 2,
        "dim": 32,
        "heads": 2,
        "ffn_dim": 64,
        "conv_layers": CONVOLUTIONS,
        "position_kernel": 8,
        "position_groups": 4,
        "final_dim": 16,
    },
    "units": 7,
    "label_rate": 100,
    "updates": 20,
    "warm_up_updates": 4,
    "learning_rate": 1e-3,
    "batch_samples": 19_200,  # four crops of 0.3 s
    "crop_samples": 4_800,
    "min_samples": 3_200,
    "bucket_samples": 400,
    "equalize_masks": False,
    "layer_drop": 0.3,
    "precision": "fp32",
    "log_every": 5,
    "validate_every": 10,
    "save_every": 10,
}
EQUAL = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "batch_samples": 19_200,
    "layer_drop": 0.5,
    "updates": 3,
    "warm_up_updates": 0,
    "weight_decay": 0.0,
    "unmasked_weight": 0.5,
}
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "input_dropout": 0.0}


def write_corpus(folder: Path, *, lengths=(4_800, 6_000, 7_777, 5_000), copies=4):
    """Tones whose frequency tells their unit, in a little noise, as fairseq's files."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid"):
        rows, lines = [str(folder)], []
        for index in range(len(lengths) * copies):
            samples = lengths[index % len(lengths)]
            count = (samples - 400) // 160 + 1
            labels = random.integers(0, 7, count).repeat(12)[:count]  # 0.12 s each
            hertz = np.pad((200.0 * 1.6**labels).repeat(160), (0, samples), mode="edge")[:samples]
            audio = 0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / 16_000)
            audio += random.uniform(-0.05, 0.05, samples)
            name = f"{split}-{index}.wav"
            soundfile.write(folder / name, audio, 16_000)
            rows.append(f"{name}\t{samples}")
            lines.append(" ".join(map(str, labels)))
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        (folder / f"{split}.km").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def preset(tmp_path):
    def write(**changes):
        file = tmp_path / "micro.yaml"
        values = {**MICRO, **changes}
        values["warm_up_updates"] = min(values["warm_up_updates"], values["updates"] // 2)
        file.write_text(yaml.safe_dump(values))
        return file

    return write


def run(corpus, out, file, *, name="vanilla_nano", say=lambda line: None, **kwargs):
    config = load_config(file)
    return runs.run_pretraining(
        config,
        name=name,
        size=model_config(config, name, file),
        manifests=corpus,
        labels=corpus,
        out=out,
        world=ONE,
        say=say,
        **kwargs,
    )


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def in_process(code, **environment):
    program = f"import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    program += "from test_pretraining_training import *\n" + textwrap.dedent(code)
    return ready_processes.Program(program, environment={"OMP_NUM_THREADS": "1", **environment})


def test_a_killed_run_goes_on_to_the_bit(corpus, tmp_path, preset):
    file = preset()
    straight = run(corpus, tmp_path / "straight", file)
    killed = in_process(
        f"""
        step = train.Trainer.step
        def until_13(self, *arguments):
            if self.update == 13:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, *arguments)
        train.Trainer.step = until_13
        run(Path({str(corpus)!r}), Path({str(tmp_path / "killed")!r}), Path({str(file)!r}))
        """
    )
    assert killed.finished().returncode == -signal.SIGKILL
    assert (tmp_path / "killed/last").resolve().name == "update-00000010"
    said = []
    outcome = run(corpus, tmp_path / "killed", file, say=said.append)
    assert "at update 10" in said[0]
    assert weights(tmp_path / "killed/last") == weights(tmp_path / "straight/last")
    states = [
        torch.load(tmp_path / name / "last/training_state.pt", weights_only=True)
        for name in ("straight", "killed")
    ]
    assert torch.equal(states[0]["unit_embeddings"], states[1]["unit_embeddings"])
    for one, other in zip(*(s["optimizer"]["state"].values() for s in states), strict=True):
        assert torch.equal(one["exp_avg_sq"], other["exp_avg_sq"])
    assert outcome.held_out == straight.held_out
    assert outcome.audio_hours == straight.audio_hours
    assert [line["update"] for line in log(tmp_path / "killed")] == [
        line["update"] for line in log(tmp_path / "straight")
    ]


def test_what_a_run_leaves_is_an_upstream_and_a_log(corpus, tmp_path, preset):
    outcome = run(corpus, tmp_path / "run", preset(updates=10))
    loaded = checkpoint.load(tmp_path / "run/last", name="vanilla_nano")
    assert loaded.training["phase"] == 1
    assert loaded.training["held_out"] == outcome.held_out
    lines = log(tmp_path / "run")
    assert [(line["event"], line["update"]) for line in lines] == [
        *(("update", 5), ("update", 10)),
        ("held_out", 10),
    ]
    assert all(line["hours_an_hour"] > 0 for line in lines if line["event"] == "update")
    # 4 files a batch, none longer than the crop
    assert 10 * 4 * 4_800 * 0.9 <= outcome.audio_hours * 3600 * 16_000 <= 10 * 4 * 4_800
    assert 1 / 7 <= outcome.held_out["chance_accuracy"] < 0.25
    assert 1.8 < outcome.held_out["chance_loss"] <= np.log(7)


def test_it_learns(tmp_path, preset):
    corpus = write_corpus(tmp_path / "corpus", copies=16)
    file = preset(
        **{"updates": 150, "learning_rate": 3e-3, "unmasked_weight": 1.0, "layer_drop": 0.0},
        **{"mask_probability": 0.4, "mask_span": 4},
    )
    outcome = run(corpus, tmp_path / "run", file)
    # the pitch tells the unit of a frame that is seen
    assert outcome.held_out["unmasked_accuracy"] > 2 * outcome.held_out["chance_accuracy"]
    assert outcome.held_out["unmasked_loss"] < outcome.held_out["chance_loss"] - 0.3


RANK = """
out = Path({out!r})
with command.joined("cpu") as world:
    config = load_config({file!r})
    runs.run_pretraining(
        config, name="vanilla_nano", size=model_config(config, "vanilla_nano", {file!r}),
        manifests=Path({corpus!r}), labels=Path({corpus!r}), out=out, world=world,
    )
"""


def ranks(size, code):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    return [in_process(code, **env, RANK=str(rank)) for rank in range(size)]


@pytest.mark.parametrize("unmasked_weight", [0.5, 0.0])
def test_two_ranks_are_one_with_twice_the_batch(tmp_path, preset, unmasked_weight):
    """Without a weight on the others, a rank's share of masked frames is its weight."""
    corpus = write_corpus(tmp_path / "corpus", lengths=(4_800,) * 8, copies=1)
    changes = {**EQUAL, "model": {**MICRO["model"], **NO_DROPOUT}}
    changes["unmasked_weight"] = unmasked_weight
    run(corpus, tmp_path / "one", preset(**{**changes, "batch_samples": 38_400}))
    # each of two ranks takes its half in two micro-batches, and some layers are left out
    left_out = [np.random.default_rng([0, u, train._LAYERS]).random(2) < 0.5 for u in range(3)]
    assert [flags.sum() for flags in left_out] == [2, 1, 0]
    file = preset(**{**changes, "batch_samples": 9_600, "accumulate": 2})
    places = {"out": str(tmp_path / "two"), "file": str(file), "corpus": str(corpus)}
    both = ranks(2, RANK.format(**places))
    done = [process.finished() for process in both]
    assert [each.returncode for each in done] == [0, 0], done
    one = checkpoint.load(tmp_path / "one/last").model.state_dict()
    two = checkpoint.load(tmp_path / "two/last").model.state_dict()
    for key in one:
        torch.testing.assert_close(two[key], one[key], atol=2e-6, rtol=1e-5)
    losses = [log(tmp_path / name)[-1]["masked_loss"] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    # and the accumulation of two micro-batches is the same thing once more
    run(corpus, tmp_path / "accumulated", preset(**changes, accumulate=2))
    three = checkpoint.load(tmp_path / "accumulated/last").model.state_dict()
    for key in one:
        torch.testing.assert_close(three[key], one[key], atol=2e-6, rtol=1e-5)


def test_a_rank_that_dies_leaves_the_checkpoint_whole(corpus, tmp_path, preset):
    file = preset(save_every=2, validate_every=2)
    places = {"out": str(tmp_path / "run"), "file": str(file), "corpus": str(corpus)}
    dies = """
    step = train.Trainer.step
    def until_5(self, *arguments):
        if self.update == 5 and self.world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *arguments)
    train.Trainer.step = until_5
    try:
    """
    code = textwrap.dedent(dies) + textwrap.indent(RANK.format(**places), "    ")
    code += "except InputError as error:\n    print(error)\n    sys.exit(2)\n"
    survivor, dead = ranks(2, code)
    survivor, dead = survivor.finished(), dead.finished()
    assert dead.returncode == -signal.SIGKILL
    assert survivor.returncode == 2, survivor.stderr
    assert "rank 0 of 2 lost another rank" in survivor.stdout.splitlines()[-1]
    assert checkpoint.load(tmp_path / "run/last").training["update"] == 4


def make_trainer(corpus, out, file, name="vanilla_nano"):
    made = []

    class Caught(train.Trainer):
        def run(self):
            made.append(self)

    patched, runs.Trainer = runs.Trainer, Caught
    try:
        run(corpus, out, file, name=name)
    finally:
        runs.Trainer = patched
    return made[0]


@pytest.mark.parametrize("name", ["vanilla_nano", "conformer_nano"])  # without, with batch norm
def test_a_nan_update_is_skipped_and_counted(corpus, tmp_path, preset, name):
    trainer = make_trainer(corpus, tmp_path / "run", preset(layer_drop=0.0), name=name)
    meter = Meter(ONE)
    batch = trainer.train_data[0]
    assert np.isfinite(trainer.step([batch], meter))
    before = {key: value.clone() for key, value in trainer.objective.module.state_dict().items()}
    moments = [s["exp_avg"].clone() for s in trainer.optimizer.state.values()]
    batch.samples[0, 100] = float("nan")
    assert not np.isfinite(trainer.step([batch], meter))
    assert (trainer.nan_updates, trainer.update) == (1, 2)
    for key, value in trainer.objective.module.state_dict().items():
        assert torch.equal(value, before[key]), key
    for state, moment in zip(trainer.optimizer.state.values(), moments, strict=True):
        assert torch.equal(state["exp_avg"], moment)
    assert meter.read()["samples"] == batch.samples.numel()  # those of the good update
    for _ in range(train.HOPELESS - 2):
        trainer.step([batch], meter)
    with pytest.raises(InputError, match="100 updates in a row"):
        trainer.step([batch], meter)


def test_a_corrupt_file_is_skipped_and_counted(tmp_path, preset):
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "train-3.wav").write_bytes((corpus / "train-3.wav").read_bytes()[:3_000])
    (corpus / "train-5.wav").write_bytes(b"no audio")
    said = []
    outcome = run(corpus, tmp_path / "run", preset(updates=4), say=said.append)  # one epoch
    assert outcome.skipped_files == 2
    assert sum("skipped: " in line for line in said) == 2
    assert checkpoint.load(tmp_path / "run/last").training["skipped_files"] == 2
    (corpus / "valid-2.wav").write_bytes(b"no audio")
    said.clear()
    file = preset(updates=4, validate_every=2, save_every=2)
    outcome = run(corpus, tmp_path / "again", file, say=said.append)
    assert outcome.held_out["left_out_files"] == 1
    assert sum("left out of the held-out files: " in line for line in said) == 1
    for file in corpus.glob("train-*.wav"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="no audio file could be read"):
        run(corpus, tmp_path / "none", preset())


@pytest.mark.parametrize(
    "name", ["conformer_nano", "squeeze_nano", "sparseformer_dn_nano", "sparseformer_sw_nano"]
)
def test_every_encoder_by_its_name_alone(corpus, tmp_path, preset, name):
    file = preset(updates=2, layer_drop=0.5, validate_every=2, save_every=2, precision="bf16")
    model = {**MICRO["model"], "layers": 4} if name == "squeeze_nano" else MICRO["model"]
    file = preset(**{**yaml.safe_load(file.read_text()), "model": model})
    trainer = make_trainer(corpus, tmp_path / "run", file, name=name)
    assert trainer.layer_drop == (0.0 if name == "squeeze_nano" else 0.5)
    outcome = trainer.__class__.__mro__[1].run(trainer)
    assert np.isfinite(outcome.held_out["masked_loss"])
    assert checkpoint.load(tmp_path / "run/last", name=name).model is not None


def test_the_best_and_the_last_are_kept(corpus, tmp_path, preset):
    file = preset(validate_every=2, save_every=2, keep_every=8, updates=12)
    run(corpus, tmp_path / "run", file)
    kept = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    losses = {
        line["update"]: line["masked_loss"]
        for line in log(tmp_path / "run")
        if line["event"] == "held_out"
    }
    best = min(losses, key=losses.get)
    assert (tmp_path / "run/best").resolve().name == f"update-{best:08d}"
    assert kept == {f"update-{update:08d}" for update in {8, 12, best}}


def test_a_folder_of_another_run(corpus, tmp_path, preset):
    run(corpus, tmp_path / "run", preset(updates=2))
    before = weights(tmp_path / "run/last")
    with pytest.raises(InputError, match=r"a run of phase 1, and phase 2 was asked for"):
        run(corpus, tmp_path / "run", preset(phase=2, updates=2))
    with pytest.raises(InputError, match=r"another learning_rate \(0.001 there, 0.5 here\)"):
        run(corpus, tmp_path / "run", preset(updates=2, learning_rate=0.5))
    with pytest.raises(InputError, match="another model"):
        run(corpus, tmp_path / "run", preset(updates=2), name="sparseformer_dn_nano")
    assert weights(tmp_path / "run/last") == before
    (tmp_path / "run/last/training_state.pt").write_bytes(b"half")
    with pytest.raises(InputError, match=r"training_state.pt cannot be read"):
        run(corpus, tmp_path / "run", preset(updates=2))


def test_a_start_from_other_weights(corpus, tmp_path, preset):
    run(corpus, tmp_path / "first", preset(updates=2, phase=2))
    first = tmp_path / "first/last"
    with pytest.raises(InputError, match="is of phase 2, and phase 1 comes first"):
        run(corpus, tmp_path / "run", preset(updates=2), init=first)
    with pytest.raises(InputError, match="holds a vanilla encoder"):
        run(corpus, tmp_path / "run", preset(phase=2), name="conformer_nano", init=first)
    wide = {**MICRO["model"], "ffn_dim": 48}
    with pytest.raises(InputError, match="has ffn_dim 64, and vanilla_nano has 48"):
        run(corpus, tmp_path / "run", preset(phase=2, model=wide), init=first)
    trainer = make_trainer_from(corpus, tmp_path / "run", preset(phase=2), first)
    for key, value in checkpoint.load(first).model.state_dict().items():
        assert torch.equal(trainer.objective.model.state_dict()[key], value)


def make_trainer_from(corpus, out, file, init):
    made = []

    class Caught(train.Trainer):
        def run(self):
            made.append(self)

    patched, runs.Trainer = runs.Trainer, Caught
    try:
        run(corpus, out, file, init=init)
    finally:
        runs.Trainer = patched
    return made[0]


def arguments(**changes):
    values = {
        "preset": "phase1",
        "model": "vanilla",
        "manifests": None,
        "labels": None,
        "out": None,
        "init": None,
        "set": [],
        "device": "cpu",
        "tensorboard": False,
        "dry_run": False,
        "hardware": "a100",
        "devices": 32,
        "checkpoint_minutes": 15.0,
        "max_hours": None,
    }
    return argparse.Namespace(**{**values, **changes})


@pytest.mark.parametrize(
    ("preset_name", "name"),
    [
        *[(p, n) for p in ("phase1", "nano") for n in load_config(p).models],
        ("phase2", load_config("phase2").models[0]),  # of the same sizes as phase 1
    ],
)
def test_every_preset_and_size_says_how_long(capsys, preset_name, name):
    given = arguments(preset=preset_name, model=name, dry_run=True, hardware="a100", devices=8)
    assert command.pretrain_command(given) == 0
    said = capsys.readouterr().out
    config = load_config(preset_name)
    with torch.device("meta"):
        model = Hubert(model_config(config, name, preset_name))
    parameters = sum(each.numel() for each in model.parameters())
    assert f"{parameters:,} parameters, {config.updates:,} updates" in said
    assert re.search(r"[\d.,]+ (hours|minutes|seconds)", said)


def test_a_dry_run_says_how_long(capsys):
    assert command.pretrain_command(arguments(dry_run=True)) == 0
    said = capsys.readouterr().out
    assert "92,212,096 parameters, 250,000 updates of 1,168 s" in said
    assert "21.2 hours" in said or "21.3 hours" in said  # 2.5 × the paper's 8.5 hours


@pytest.mark.slow
@pytest.mark.parametrize("name", load_config("phase1").models)
@pytest.mark.parametrize("name_of_preset", ["phase1", "phase2"])
def test_the_papers_sizes_train(tmp_path, name_of_preset, name):
    """Twenty updates at the true size on short crops."""
    corpus = write_corpus(tmp_path / "corpus", lengths=(16_000,) * 4, copies=1)
    rate = load_config(name_of_preset).label_rate
    for split in ("train", "valid"):
        file = corpus / f"{split}.km"
        rows = [line.split()[:: 100 // rate] for line in file.read_text().splitlines()]
        file.write_text("".join(" ".join(row) + "\n" for row in rows))
    changes = {"updates": 20, "warm_up_updates": 2, "validate_every": 20, "save_every": 20}
    changes |= {"crop_samples": 16_000, "min_samples": 16_000, "batch_samples": 32_000}
    config = load_config(name_of_preset, changes={**changes, "workers": 0})
    outcome = runs.run_pretraining(
        config,
        name=name,
        size=model_config(config, name, name_of_preset),
        manifests=corpus,
        labels=corpus,
        out=tmp_path / "run",
        world=ONE,
    )
    assert (outcome.update, outcome.nan_updates) == (20, 0)
    assert np.isfinite(outcome.held_out["masked_loss"])


def test_the_verb(corpus, tmp_path, preset, capsys):
    given = arguments(
        preset=str(preset()),
        model="vanilla_nano",
        manifests=corpus,
        labels=corpus,
        out=tmp_path / "run",
        set=["updates=2", "warm_up_updates=1"],
        tensorboard=True,
    )
    assert command.pretrain_command(given) == 0
    assert "2 updates" in capsys.readouterr().out
    assert list((tmp_path / "run/tensorboard").iterdir())
    with pytest.raises(InputError, match="--labels is needed"):
        command.pretrain_command(arguments(manifests=corpus))
