"""By how much ``superbit distil`` lowers a 1-bit twin's hidden-state error, for five nano encoders.

    python -m superbit.benchmark.bench.distillation [--encoders NAME,…] [--starts START,…]
        [--updates N] [--corpora DIR] [--out FILE]

Teachers have random weights. Their twins are trained as the verb trains them, by the preset
``distil_nano`` on short crops of embedded speech, hardly masked; the error is that on speakers who
are in none of it. Appends a JSON line an encoder and start to the file, and prints it.

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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from superbit.benchmark.corpora.embedded.make import make_corpora
from superbit.benchmark.corpora.paths import load_paths
from superbit.benchmark.records.provenance import collect
from superbit.upstreams import checkpoint, files
from superbit.upstreams.hubert import Hubert, untrained_model
from superbit.upstreams.quantization.convert import calibrate
from superbit.upstreams.quantization.policy import load_policy
from superbit.upstreams.training import runs
from superbit.upstreams.training.configuration import DistillationConfig, load_distillation_config
from superbit.upstreams.training.distil import HiddenErrors, hidden_errors
from superbit.upstreams.training.distil_objective import student_of
from superbit.upstreams.training.distributed import World
from superbit.upstreams.training.manifest import (
    SAMPLE_RATE,
    AudioManifest,
    audio_samples,
    read_samples,
)
from superbit.upstreams.training.state import LAST, LOG
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
PRESET = "distil_nano"
UPDATES, BATCH, CROP_SECONDS = 200, 4, 2.0
OUT = Path("results/bench/distillation.jsonl")
LAST_LAYERS = ("attention.output", "contract", "pointwise_out")  # of a block


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Utterances of some speakers to learn from, and of others to measure on.

    Attributes:
        manifests: folder of ``train.tsv`` and ``valid.tsv``.
        train: what the first lists.
        held_out: the utterances of the second, at 16 kHz.
    """

    manifests: Path
    train: AudioManifest
    held_out: list[Tensor]

    @property
    def minutes(self) -> float:
        """Of what is learnt from."""
        return 60 * self.train.hours


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What distillation changed, and how long it took.

    Attributes:
        without_blocks: errors of the teacher with every block's output at zero.
        calibrated: errors of the twin after calibration alone.
        distilled: errors after the last update.
        losses: of hidden states, by the update at which they were logged; each a mean since the
            one before.
        seconds: of the run.
    """

    without_blocks: HiddenErrors
    calibrated: HiddenErrors
    distilled: HiddenErrors
    losses: dict[int, float]
    seconds: float


def embedded_speech(paths_file: Path, manifests: Path, *, held_out: int = 12) -> Speech:
    """Return the read speech of embedded corpora, listed in a folder of manifests."""
    librispeech = load_paths(paths_file).librispeech
    assert librispeech is not None

    def listed(split: str, part: str, every: int = 1) -> AudioManifest:
        found = sorted((librispeech.root / part).rglob("*.flac"))[::every]
        manifest = AudioManifest(
            file=manifests / f"{split}.tsv",
            root=librispeech.root,
            paths=tuple(str(file.relative_to(librispeech.root)) for file in found),
            samples=np.array([audio_samples(file) for file in found]),
        )
        files.write_text(manifest.file, manifest.to_text())
        return manifest

    others = listed("valid", "test-clean")
    others = listed("valid", "test-clean", every=len(others) // held_out)
    return Speech(
        manifests=manifests,
        train=listed("train", "train-clean-100"),
        held_out=[
            torch.from_numpy(read_samples(others.path(index)))
            for index in range(min(held_out, len(others)))
        ],
    )


def configuration(updates: int) -> DistillationConfig:
    """Return the settings of a run: the preset's, on short crops, for so many updates.

    One frame of a crop is masked, the least there is: the error is measured where none is, and what
    a teacher with random weights makes of its mask is noise.
    """
    crop = int(CROP_SECONDS * SAMPLE_RATE)
    changes = {
        "updates": updates,
        "warm_up_updates": updates // 10,
        "crop_samples": crop,
        "min_samples": crop,
        "batch_samples": BATCH * crop,
        **{"mask_probability": 0.0, "min_masks": 1, "mask_span": 1},
        "log_every": max(1, updates // 10),
        "validate_every": updates,
        "save_every": updates,
    }
    return load_distillation_config(PRESET, changes=changes)


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


def distillation_gain(name: str, start: str, speech: Speech, *, updates: int = UPDATES) -> Gain:
    """Return what ``updates`` updates do for the twin of one encoder with random weights."""
    config, teacher = configuration(updates), random_teacher(name, start).eval()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "teacher", teacher)
        outcomes = runs.run_distillation(
            config,
            teacher=runs.load_teacher(Path(folder) / "teacher"),
            policies=[load_policy(POLICY)],
            manifests=speech.manifests,
            labels=None,
            out=Path(folder),
            world=World(rank=0, size=1, device=torch.device("cpu")),
            say=lambda line: None,
        )
        (outcome,) = outcomes
        distilled = checkpoint.load(outcome.folder / LAST).model
        lines = (outcome.folder / LOG).read_text("utf-8").splitlines()
    calibrated = student_of(teacher, POLICY)
    calibrate(calibrated, _first_crops(config, teacher, speech))
    return Gain(
        without_blocks=hidden_errors(without_blocks(name, start), teacher, speech.held_out),
        calibrated=hidden_errors(calibrated, teacher, speech.held_out),
        distilled=hidden_errors(distilled, teacher, speech.held_out),
        losses={
            line["update"]: line["hidden_loss"]
            for line in map(json.loads, lines)
            if line["event"] == "update"
        },
        seconds=outcome.seconds,
    )


def _first_crops(config: DistillationConfig, teacher: Hubert, speech: Speech) -> Sequence[Tensor]:
    """What a twin is calibrated on when its run begins."""
    batches = runs.batches(
        config, teacher.config, manifests=speech.manifests, labels=None, units=None, rate=None
    )
    return list(batches["train"][0].samples)


def record(name: str, start: str, speech: Speech, gain: Gain) -> dict[str, Any]:
    """Return the line of the results file."""
    about = collect()
    updates = max(gain.losses)
    config = configuration(updates)
    return {
        "bench": "distillation",
        "encoder": name,
        "teacher": f"random, start {start}",
        "policy": POLICY,
        "preset": PRESET,
        "steps": updates,
        "batch": f"{BATCH} × {CROP_SECONDS:g} s",
        "lr": config.learning_rate,
        "scale_lr": config.scale_learning_rate,
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
        "loss_by_step": {str(update): round(loss, 5) for update, loss in gain.losses.items()},
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
    parser.add_argument("--updates", type=int, default=UPDATES, metavar="N")
    parser.add_argument("--corpora", type=Path, metavar="DIR", help="default: made, and deleted")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        corpora = make_corpora(arguments.corpora or Path(temporary) / "corpora", size="tiny")
        speech = embedded_speech(corpora, Path(temporary))
        for start in arguments.starts.split(","):
            for name in arguments.encoders.split(","):
                gain = distillation_gain(name, start, speech, updates=arguments.updates)
                line = json.dumps(record(name, start, speech, gain), ensure_ascii=False)
                print(line, flush=True)
                with open(arguments.out, "a", encoding="utf-8") as out:
                    out.write(line + "\n")


if __name__ == "__main__":
    main()
