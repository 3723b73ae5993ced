"""Twins by the training loop: resumed to the bit, each from the last, the teacher untouched."""

import json
import signal
import socket
import textwrap
from pathlib import Path

import numpy as np
import pytest
import ready_processes
import soundfile
import torch

from superbit.upstreams import checkpoint
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.convert import calibrate, quantizer_scales
from superbit.upstreams.training import command, runs, train
from superbit.upstreams.training.configuration import load_config, load_distillation_config
from superbit.upstreams.training.distil import hidden_errors
from superbit.upstreams.training.distil_objective import student_of
from superbit.upstreams.training.distributed import World
from superbit.upstreams.training.evaluation import Meter
from superbit.upstreams.training.manifest import read_samples
from superbit.upstreams.training.state import STATE_FILE
from superbit.upstreams.variant import size_of

pytestmark = pytest.mark.thorough

ONE = World(rank=0, size=1, device=torch.device("cpu"))
UNITS = 7
CONVOLUTIONS = [[8, 10, 5], [8, 3, 2], [8, 3, 2], [8, 3, 2], [8, 3, 2], [8, 2, 2], [8, 2, 2]]
MICRO = {
    "updates": 12,
    "warm_up_updates": 2,
    "batch_samples": 19_200,  # four crops of 0.3 s
    "crop_samples": 4_800,
    "min_samples": 3_200,
    "bucket_samples": 400,
    "log_every": 4,
    "validate_every": 6,
    "save_every": 6,
}


def write_corpus(folder, *, lengths=(4_800, 6_000, 7_777, 5_000), copies=2):
    """Noise and labels at random, as fairseq's files."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid"):
        rows, lines = [str(folder)], []
        for index in range(len(lengths) * copies):
            samples = lengths[index % len(lengths)]
            loudness = random.uniform(0.01, 0.3, samples // 400 + 1).repeat(400)[:samples]
            audio = loudness * random.uniform(-1, 1, samples)
            soundfile.write(folder / f"{split}-{index}.wav", audio, 16_000)
            rows.append(f"{split}-{index}.wav\t{samples}")
            lines.append(" ".join(map(str, random.integers(0, UNITS, samples // 320))))
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        (folder / f"{split}.km").write_text("\n".join(lines) + "\n")
    return folder


def write_teacher(folder, name="vanilla_nano", *, factor=5):
    """A checkpoint as a run of phase 2 leaves it, of random weights with which blocks count."""
    sizes = {"layers": 2, "dim": 32, "heads": 2, "ffn_dim": 64, "final_dim": 16}
    sizes |= {"conv_layers": CONVOLUTIONS, "position_kernel": 8, "position_groups": 4}
    if name == "squeeze_nano":
        sizes["layers"] = 4
    model = untrained_model(HubertConfig.from_dict({**size_of(name).to_dict(), **sizes}))
    with torch.no_grad():
        for module in model.encoder.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(factor)
    training = {"name": name, "phase": 2, "units": UNITS, "label_rate": 50}
    checkpoint.save(folder, model, training=training)
    embeddings = torch.rand(UNITS, 16, generator=torch.Generator().manual_seed(0))
    torch.save({"unit_embeddings": embeddings}, folder / STATE_FILE)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "last")


def run(corpus, teacher, out, *, policy="w1a1", labels=True, say=lambda line: None, **changes):
    outcomes = runs.run_distillation(
        load_distillation_config("distil_nano", changes={**MICRO, **changes}),
        teacher=runs.load_teacher(Path(teacher)),
        policies=command.parse_policies(policy),
        manifests=Path(corpus),
        labels=Path(corpus) if labels else None,
        out=Path(out),
        world=ONE,
        say=say,
    )
    return list(outcomes)


def program(code, **environment):
    begin = f"""
    import os, signal, sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from test_distil_training_resume import *
    torch.set_num_threads(1)
    """
    environment = {"OMP_NUM_THREADS": "1", **environment}
    code = textwrap.dedent(begin) + textwrap.dedent(code)
    return ready_processes.Program(code, environment=environment)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("loss", ["kd", "hubert"])
def test_a_killed_run_goes_on_to_the_bit(corpus, teacher, tmp_path, loss):
    straight = run(corpus, teacher, tmp_path / "straight", policy="w1a2,w1a1", loss=loss)
    code = f"""
    step, taken = train.Trainer.step, []
    def killed(self, *arguments):
        taken.append(self)
        if len(taken) == 12 + 9:  # in the second policy, after its first checkpoint
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *arguments)
    train.Trainer.step = killed
    run({str(corpus)!r}, {str(teacher)!r}, {str(tmp_path / "killed")!r}, policy="w1a2,w1a1",
        loss={loss!r})
    """
    assert program(code).finished().returncode == -signal.SIGKILL
    assert (tmp_path / "killed/w1a1/last").resolve().name == "update-00000006"
    said = []
    resumed = run(
        corpus, teacher, tmp_path / "killed", policy="w1a2,w1a1", loss=loss, say=said.append
    )
    assert [line for line in said if "going on" in line][1].endswith("at update 6")
    for policy in ("w1a2", "w1a1"):
        ends = [tmp_path / name / policy / "last" for name in ("straight", "killed")]
        assert weights(ends[0]) == weights(ends[1])
        states = [torch.load(end / STATE_FILE, weights_only=True) for end in ends]
        moments = [state["optimizer"]["state"].values() for state in states]
        for one, other in zip(*moments, strict=True):
            assert torch.equal(one["exp_avg_sq"], other["exp_avg_sq"])
    assert [each.held_out for each in resumed] == [each.held_out for each in straight]


def test_two_ranks_are_one_with_twice_the_batch(teacher, tmp_path):
    """But for the scales, whose gradient LSQ divides by the root of a micro-batch's elements."""
    corpus = write_corpus(tmp_path / "corpus", lengths=(4_800,) * 8, copies=1)
    one_update = {"updates": 1, "warm_up_updates": 0, "optimizer": "sgd", "weight_decay": 0.0}
    one_update |= {"learning_rate": 0.05, "scale_learning_rate": 0.05, "gradient_clip": 1e9}
    one_update |= {"relative": False, "validate_every": 1, "save_every": 1}
    run(corpus, teacher, tmp_path / "one", **one_update, batch_samples=38_400)
    still = {**one_update, "learning_rate": 1e-30, "scale_learning_rate": 1e-30}
    run(corpus, teacher, tmp_path / "still", **still, batch_samples=38_400)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"""
    with command.joined("cpu") as world:
        config = load_distillation_config(
            "distil_nano", changes={{**MICRO, **{one_update!r}, "batch_samples": 19_200}}
        )
        list(runs.run_distillation(
            config, teacher=runs.load_teacher(Path({str(teacher)!r})),
            policies=command.parse_policies("w1a1"), manifests=Path({str(corpus)!r}),
            labels=Path({str(corpus)!r}), out=Path({str(tmp_path / "two")!r}), world=world,
        ))
    """
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [program(code, **common, RANK=str(rank)) for rank in range(2)]
    assert [rank.finished().returncode for rank in ranks] == [0, 0]
    one, two, still = (
        checkpoint.load(tmp_path / name / "w1a1/last").model.state_dict()
        for name in ("one", "two", "still")
    )
    moved = 0.0
    for key in one:
        if key.endswith(".scale"):
            ours, theirs = two[key] - still[key], one[key] - still[key]
            torch.testing.assert_close(ours, theirs * 2**0.5, atol=2e-6, rtol=1e-2)
            moved = max(moved, theirs.abs().item())
        else:
            torch.testing.assert_close(two[key], one[key], atol=2e-6, rtol=1e-4)
    assert moved > 1e-4


def caught(monkeypatch):
    """Return the trainers that are made from now on, with the weights that each began with."""
    made = []
    begin = train.Trainer.__init__

    def noted(self, **kwargs):
        begin(self, **kwargs)
        start = {key: value.clone() for key, value in self.objective.model.state_dict().items()}
        made.append((self, start))

    monkeypatch.setattr(train.Trainer, "__init__", noted)
    return made


def test_each_step_starts_from_the_last_and_learns_from_it(corpus, teacher, tmp_path, monkeypatch):
    made = caught(monkeypatch)
    outcomes = run(corpus, teacher, tmp_path, policy="w1a2,w1a1")
    fp32 = checkpoint.load(teacher).model.state_dict()
    middle = checkpoint.load(tmp_path / "w1a2/last").model
    end = checkpoint.load(tmp_path / "w1a1/last")
    assert (middle.policy.name, end.model.policy.name) == ("w1a2", "w1a1")
    assert end.training["steps"] == ["w1a2", "w1a1"]
    key = "encoder.layers.0.feed_forward.expand.weight"
    (first, first_start), (second, second_start) = made
    assert torch.equal(first_start[key], fp32[key])
    assert not torch.equal(middle.state_dict()[key], fp32[key])
    assert torch.equal(second_start[key], middle.state_dict()[key])
    # the second learns from the first's twin: what its teacher computes is the twin's states
    taught_by = second.objective.module.beside[0]
    for name, value in middle.state_dict().items():
        assert torch.equal(taught_by.state_dict()[name], value), name
    # one bit more of activations has other scales, so they are not taken over
    scales = [quantizer_scales(model)[0].item() for model in (middle, end.model)]
    assert scales[0] != scales[1]
    # frozen: the first's teacher is what the file holds, and its gradients were never asked for
    frozen = first.objective.module.beside[0]
    assert all(torch.equal(frozen.state_dict()[name], value) for name, value in fp32.items())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not frozen.training
    assert not first.objective.model.training
    assert outcomes[0].held_out["hidden_loss"] > 0


def test_what_lies_before_the_encoder_stays_the_teachers(corpus, teacher, tmp_path, monkeypatch):
    made = caught(monkeypatch)
    run(corpus, teacher, tmp_path)
    fp32 = checkpoint.load(teacher).model.state_dict()
    twin = checkpoint.load(tmp_path / "w1a1/last").model.state_dict()
    shared = ("front_end.", "front_end_norm.", "post_extract_proj.", "mask_emb")
    changed = {name for name in fp32 if not torch.equal(twin[name], fp32[name])}
    assert not [name for name in changed if name.startswith(shared)]
    assert "final_proj.weight" in changed
    assert "encoder_norm.weight" in changed
    (trainer, start) = made[0]
    learnt = {name for name, value in twin.items() if not torch.equal(value, start[name])}
    for part in ("scale", "shift", "query.weight", "attention_norm.bias"):
        assert any(name.endswith(part) for name in learnt), part
    taught_by = trainer.objective.module.beside[0]
    assert all(parameter.grad is None for parameter in taught_by.parameters())


@pytest.mark.parametrize("name", ["vanilla_nano", "conformer_nano", "squeeze_nano"])
def test_the_held_out_error_falls(corpus, tmp_path, name):
    teacher = write_teacher(tmp_path / "teacher", name)
    changes = {"updates": 40, "validate_every": 20, "save_every": 40, "warm_up_updates": 4}
    (outcome,) = run(corpus, teacher, tmp_path / "run", **changes)
    lines = (tmp_path / "run/w1a1/log.jsonl").read_text().splitlines()
    held_out = [line for line in map(json.loads, lines) if line["event"] == "held_out"]
    assert held_out[-1]["hidden_loss"] == outcome.held_out["hidden_loss"]
    assert held_out[-1]["hidden_loss"] < 0.9 * held_out[0]["hidden_loss"]
    # labels are only looked at: at random, so neither model predicts them
    assert 0 < outcome.held_out["teacher_masked_accuracy"] < 0.5
    assert outcome.held_out["chance_loss"] < np.log(UNITS)


def test_where_hardly_a_frame_is_masked_the_error_of_whole_utterances_falls(corpus, tmp_path):
    teacher = write_teacher(tmp_path / "teacher")
    changes = {"updates": 40, "warm_up_updates": 4}
    changes |= {"mask_probability": 0.0, "min_masks": 1, "mask_span": 1}
    run(corpus, teacher, tmp_path / "run", **changes)
    model, twin = (checkpoint.load(path).model for path in (teacher, tmp_path / "run/w1a1/last"))
    seen, unseen = (
        [torch.from_numpy(read_samples(corpus / f"{split}-{index}.wav")) for index in range(4)]
        for split in ("train", "valid")
    )
    begun = student_of(model.eval(), "w1a1")
    calibrate(begun, seen)
    start, end = (hidden_errors(each, model, unseen) for each in (begun, twin))
    assert end.mean < 0.9 * start.mean
    assert end.last < 0.9 * start.last


def test_without_labels_and_without_units(corpus, teacher, tmp_path):
    (outcome,) = run(corpus, teacher, tmp_path / "a", labels=False)
    assert outcome.held_out["unit_loss"] > 0
    assert "masked_accuracy" not in outcome.held_out
    # labels change nothing that is learnt
    run(corpus, teacher, tmp_path / "b")
    assert weights(tmp_path / "a/w1a1/last") == weights(tmp_path / "b/w1a1/last")
    bare = tmp_path / "bare"
    loaded = checkpoint.load(teacher)
    checkpoint.save(bare, loaded.model, training=loaded.training)
    said = []
    (outcome,) = run(corpus, bare, tmp_path / "c", labels=False, say=said.append)
    assert outcome.held_out["unit_loss"] == 0
    assert "hidden states alone" in said[0]


def test_scales_have_their_own_learning_rate_and_do_not_decay(
    corpus, teacher, tmp_path, monkeypatch
):
    made = caught(monkeypatch)
    for loss in ("kd", "hubert"):
        run(corpus, teacher, tmp_path / loss, loss=loss, scale_learning_rate=6e-3, updates=3)
        trainer, _ = made.pop()
        scales = {id(scale) for scale in quantizer_scales(trainer.objective.model)}
        groups = trainer.optimizer.param_groups
        own = [group for group in groups if {id(p) for p in group["params"]} & scales]
        assert [{id(p) for p in group["params"]} for group in own] == [scales]
        assert own[0]["weight_decay"] == 0
        rest = next(group for group in groups if group is not own[0])
        assert own[0]["lr"] == pytest.approx(2 * rest["lr"])  # 6e-3 and the preset's 3e-3


def test_quantization_aware_pretraining_starts_from_the_teachers_units(
    corpus, teacher, tmp_path, monkeypatch
):
    made = caught(monkeypatch)
    (outcome,) = run(corpus, teacher, tmp_path, loss="hubert", updates=2)
    trainer, start = made[0]
    fp32 = checkpoint.load(teacher)
    assert torch.equal(start["final_proj.weight"], fp32.model.state_dict()["final_proj.weight"])
    assert trainer.objective.model.training
    state = torch.load(tmp_path / "w1a1/last" / STATE_FILE, weights_only=True)
    given = torch.load(teacher / STATE_FILE, weights_only=True)
    torch.testing.assert_close(
        state["unit_embeddings"], given["unit_embeddings"], atol=0.02, rtol=0
    )
    assert not torch.equal(state["unit_embeddings"], given["unit_embeddings"])
    assert np.isfinite(outcome.held_out["masked_loss"])


def test_a_nan_update_is_skipped_and_counted(corpus, teacher, tmp_path, monkeypatch):
    made = caught(monkeypatch)
    run(corpus, teacher, tmp_path, updates=2)
    trainer, _ = made[0]
    meter = Meter(ONE, trainer.objective.sums)
    batch = trainer.train_data[0]
    before = {key: value.clone() for key, value in trainer.objective.model.state_dict().items()}
    batch.samples[0, 100] = float("nan")
    assert not np.isfinite(trainer.step([batch], meter))
    assert trainer.nan_updates == 1
    for key, value in trainer.objective.model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_half_precision_trains_the_same_twin_roughly(corpus, teacher, tmp_path):
    (full,) = run(corpus, teacher, tmp_path / "fp32")
    (half,) = run(corpus, teacher, tmp_path / "bf16", precision="bf16")
    assert half.nan_updates == 0
    assert half.held_out["hidden_loss"] == pytest.approx(full.held_out["hidden_loss"], rel=0.3)


def test_a_folder_of_another_run(corpus, teacher, tmp_path):
    run(corpus, teacher, tmp_path / "run", updates=2)
    before = weights(tmp_path / "run/w1a1/last")
    with pytest.raises(InputError, match="holds a run of distillation, and quantization-aware"):
        run(corpus, teacher, tmp_path / "run", updates=2, loss="hubert")
    with pytest.raises(InputError, match="a run with another teacher: go on with the same"):
        run(corpus, write_teacher(tmp_path / "t", factor=4), tmp_path / "run", updates=2)
    assert weights(tmp_path / "run/w1a1/last") == before


@pytest.mark.slow
@pytest.mark.parametrize("name", load_config("phase2").models)
def test_the_papers_sizes_learn(tmp_path, name):
    """Twenty updates at the true size on short crops, by the preset's own settings otherwise."""
    corpus = write_corpus(tmp_path / "corpus", lengths=(16_000,) * 4, copies=1)
    checkpoint.save(tmp_path / "teacher", untrained_model(size_of(name)))
    changes = {"updates": 20, "warm_up_updates": 2, "validate_every": 20, "save_every": 20}
    changes |= {"crop_samples": 16_000, "min_samples": 16_000, "batch_samples": 32_000}
    (outcome,) = runs.run_distillation(
        load_distillation_config("distil", changes={**changes, "workers": 0}),
        teacher=runs.load_teacher(tmp_path / "teacher"),
        policies=command.parse_policies("w1a1"),
        manifests=corpus,
        labels=None,
        out=tmp_path / "run",
        world=ONE,
    )
    assert (outcome.update, outcome.nan_updates) == (20, 0)
    assert 0 < outcome.held_out["hidden_loss"] < 1
