"""By how much distillation lowers a 1-bit twin's hidden-state error, for the five nano encoders.

    python -m superbit.benchmark.bench.distillation [--encoders NAME,…] [--starts START,…]
        [--steps N] [--corpora DIR] [--out FILE]

Teachers have random weights. Their twins are calibrated on embedded speech, then learn the hidden
states of crops of it; the error is that on speakers who are in none of it. Appends a JSON line an
encoder and start to the file, and prints it.

Starts: ``hubert`` is HuBERT's own, linear weights from N(0, 0.02²), with which every block adds a
percent to what passes it by; ``fan_in``, from N(0, 1 / fan-in), lets blocks count as much as what
passes them by. ``error_without_blocks`` is the error of the teacher itself with every block's
output at zero: a twin has learnt something of the blocks only if its error is below that.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from superbit.benchmark.corpora.audio import SAMPLE_RATE, read_audio
from superbit.benchmark.corpora.embedded.make import make_corpora
from superbit.benchmark.corpora.paths import load_paths
from superbit.benchmark.records.provenance import collect
from superbit.upstreams.hubert import Hubert, untrained_model
from superbit.upstreams.quantization.convert import calibrate
from superbit.upstreams.training.distil import DistillationBatch, HiddenErrors, hidden_errors
from superbit.upstreams.training.distil_training import Progress, distil, student_of
from superbit.upstreams.variant import size_of

ENCODERS = (
    "vanilla_nano",
    "conformer_nano",
    "squeeze_nano",
    "sparseformer_dn_nano",
    "sparseformer_sw_nano",
)
STARTS = ("hubert", "fan_in")
POLICY = "w1a1"
STEPS, BATCH, CROP_SECONDS = 200, 4, 2.0
LR, SCALE_LR = 3e-3, 3e-3
OUT = Path("results/bench/distillation.jsonl")
LAST_LAYERS = ("attention.output", "contract", "pointwise_out")  # of a block


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Utterances of some speakers to learn from, and of others to measure on."""

    train: list[Tensor]
    held_out: list[Tensor]

    @property
    def minutes(self) -> float:
        """Of what is learnt from."""
        return sum(map(len, self.train)) / SAMPLE_RATE / 60


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What distillation changed, and how long it took.

    Attributes:
        without_blocks: errors of the teacher with every block's output at zero.
        calibrated: errors of the twin after calibration alone.
        distilled: errors after the last step.
        history: the steps.
        seconds: of the training, without measuring.
    """

    without_blocks: HiddenErrors
    calibrated: HiddenErrors
    distilled: HiddenErrors
    history: list[Progress]
    seconds: float


def embedded_speech(paths_file: Path, *, held_out: int = 12) -> Speech:
    """Return the read speech of embedded corpora."""
    librispeech = load_paths(paths_file).librispeech
    assert librispeech is not None

    def utterances(split: str) -> list[Tensor]:
        files = sorted((librispeech.root / split).rglob("*.flac"))
        return [torch.from_numpy(read_audio(file)[0]) for file in files]

    others = utterances("test-clean")
    long_enough = CROP_SECONDS * SAMPLE_RATE
    return Speech(
        train=[one for one in utterances("train-clean-100") if len(one) >= long_enough],
        held_out=others[:: len(others) // held_out][:held_out],
    )


def crops(utterances: Sequence[Tensor], *, seed: int = 0) -> Iterator[DistillationBatch]:
    """Yield batches of crops at random, for ever."""
    random = np.random.default_rng(seed)
    size = int(CROP_SECONDS * SAMPLE_RATE)
    while True:
        chosen = [utterances[i] for i in random.integers(len(utterances), size=BATCH)]
        starts = [int(random.integers(len(one) - size + 1)) for one in chosen]
        rows = [one[start : start + size] for one, start in zip(chosen, starts, strict=True)]
        yield DistillationBatch(waveforms=torch.stack(rows))


def _blocks(model: Hubert) -> nn.Module:
    return model.encoder.get_submodule("layers")


@torch.no_grad()
def random_teacher(name: str, start: str) -> Hubert:
    """Return an FP32 model with random weights, always the same for a name and a start."""
    model = untrained_model(size_of(name))
    if start == "fan_in":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            for module in _blocks(model).modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return model


@torch.no_grad()
def without_blocks(name: str, start: str) -> Hubert:
    """Return that teacher with every block's output at zero: only residual sums and norms act."""
    model = random_teacher(name, start)
    for module_name, module in _blocks(model).named_modules():
        if module_name.endswith(LAST_LAYERS):
            for parameter in module.parameters():
                parameter.zero_()
    return model


def distillation_gain(name: str, start: str, speech: Speech, *, steps: int = STEPS) -> Gain:
    """Return what ``steps`` steps do for the twin of one encoder with random weights."""
    teacher = random_teacher(name, start)
    student = student_of(teacher, POLICY)
    batches = crops(speech.train)
    calibrate(student, list(next(batches).waveforms))
    calibrated = hidden_errors(student, teacher, speech.held_out)
    began = time.perf_counter()
    history = distil(student, teacher, batches, steps=steps, lr=LR, scale_lr=SCALE_LR)
    seconds = time.perf_counter() - began
    return Gain(
        without_blocks=hidden_errors(without_blocks(name, start), teacher, speech.held_out),
        calibrated=calibrated,
        distilled=hidden_errors(student, teacher, speech.held_out),
        history=history,
        seconds=seconds,
    )


def record(name: str, start: str, speech: Speech, gain: Gain) -> dict[str, Any]:
    """Return the line of the results file."""
    about = collect()
    steps = len(gain.history)
    every = max(1, steps // 10)
    return {
        "bench": "distillation",
        "encoder": name,
        "teacher": f"random, start {start}",
        "policy": POLICY,
        "steps": steps,
        "batch": f"{BATCH} × {CROP_SECONDS:g} s",
        "lr": LR,
        "scale_lr": SCALE_LR,
        "train_minutes": round(speech.minutes, 2),
        "held_out_utterances": len(speech.held_out),
        "error_without_blocks": round(gain.without_blocks.mean, 5),
        "error_calibrated": round(gain.calibrated.mean, 5),
        "error_distilled": round(gain.distilled.mean, 5),
        "ratio": round(gain.distilled.mean / gain.calibrated.mean, 4),
        "last_layer_without_blocks": round(gain.without_blocks.last, 5),
        "last_layer_calibrated": round(gain.calibrated.last, 5),
        "last_layer_distilled": round(gain.distilled.last, 5),
        "last_layer_ratio": round(gain.distilled.last / gain.calibrated.last, 4),
        "loss_by_step": {
            str(step.step): round(step.hidden, 5)
            for step in gain.history
            if step.step in (1, steps) or step.step % every == 0
        },
        "seconds": round(gain.seconds, 1),
        "threads": torch.get_num_threads(),
        "machine": f"{about.cpu}, {about.cpu_count} processors",
        "torch": torch.__version__,
        "commit": about.commit,
        "dirty": about.dirty,
        "date": datetime.date.today().isoformat(),
        "command": f"python {shlex.join(sys.argv)}",
    }


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--encoders", default=",".join(ENCODERS), metavar="NAME,…")
    parser.add_argument("--starts", default=",".join(STARTS), metavar="START,…")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N")
    parser.add_argument("--corpora", type=Path, metavar="DIR", help="default: made, and deleted")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        speech = embedded_speech(make_corpora(arguments.corpora or temporary, size="tiny"))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for start in arguments.starts.split(","):
        for name in arguments.encoders.split(","):
            gain = distillation_gain(name, start, speech, steps=arguments.steps)
            line = json.dumps(record(name, start, speech, gain), ensure_ascii=False)
            print(line, flush=True)
            with open(arguments.out, "a", encoding="utf-8") as out:
                out.write(line + "\n")


if __name__ == "__main__":
    main()
