"""Pilots of pre-training: would another recipe of the nano encoders be better? By scores on dev.

    python -m superbit.benchmark.bench.pilots --speech DIR --work DIR --paths corpora/paths.yaml \
        [--pilots NAME,…] [--precision fp32] [--out FILE]

Every pilot is `vanilla_nano` from scratch on the same audio and the same units: MFCC's, then those
of the first pilot's middle layer. Each is scored by heads of four seeds on the small scale's KS, PR
and ASR, at the rates of ``embedded.yaml``, and only by dev. Two seeds of the shipped recipe are the
yardstick: what differs by less than they do says nothing. A pilot that was stopped goes on.

Appends a JSON line a pilot to the file, and prints it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from superbit.benchmark.api.evaluation import evaluate
from superbit.benchmark.records.provenance import collect
from superbit.benchmark.records.rate_search import score_of
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_json
from superbit.upstreams.hubert_config import fastconv_layers
from superbit.upstreams.training.configuration import load_config, model_config
from superbit.upstreams.training.distributed import joined
from superbit.upstreams.training.features import hidden_source, mfcc_source
from superbit.upstreams.training.nano import WARM_UP, make_units
from superbit.upstreams.training.nano_recipe import NanoRecipe
from superbit.upstreams.training.runs import run_pretraining
from superbit.upstreams.training.state import LAST

OUT = Path("results/bench/pilots.jsonl")
SIZE = "vanilla_nano"
TASKS = ("KS", "PR", "ASR")
HEAD_SEEDS = (1337, 1338, 1339, 1340)
RECIPE = NanoRecipe()
MFCC, LAYER = "MFCC", "layer"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of training.

    Attributes:
        name: of its folder.
        updates: how many.
        units: what is predicted, `MFCC` or `LAYER`.
        settings: keys of the preset in place of the nano preset's.
    """

    name: str
    updates: int
    units: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """An encoder trained in stages, each of which starts from the one before.

    Attributes:
        about: what it tells, one line.
        seed: of weights, crops and masks.
        stages: in their order.
        after: another pilot, whose last stage it goes on from; None: from scratch.
        model: fields of `HubertConfig` in place of `SIZE`'s.
    """

    about: str
    seed: int
    stages: tuple[Stage, ...]
    after: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)


_SHIPPED = (
    Stage(name="phase1", updates=RECIPE.updates_1, units=MFCC),
    Stage(name="phase2", updates=RECIPE.updates_2, units=LAYER),
)
_AS_MANY = RECIPE.updates_1 + RECIPE.updates_2
# The first one's middle layer gives the units of all.
PILOTS: dict[str, Pilot] = {
    "shipped_recipe": Pilot(about="the shipped recipe", seed=0, stages=_SHIPPED),
    "shipped_recipe_seed_1": Pilot(about="the same from another seed", seed=1, stages=_SHIPPED),
    "longer": Pilot(
        about="as many updates again, as before",
        seed=0,
        after="shipped_recipe",
        stages=(Stage(name="phase3", updates=_AS_MANY, units=LAYER),),
    ),
    "longer_masked_only": Pilot(
        about="as many updates again, without the loss on unmasked frames",
        seed=0,
        after="shipped_recipe",
        stages=(
            Stage(name="phase3", updates=_AS_MANY, units=LAYER, settings={"unmasked_weight": 0.0}),
        ),
    ),
    "half_front_end": Pilot(
        about="half the front end's channels and six blocks of width 160",
        seed=0,
        stages=_SHIPPED,
        model={
            "conv_layers": fastconv_layers(16, *(32,) * 4, *(64,) * 8),
            "layers": 6,
            "dim": 160,
            "ffn_dim": 640,
        },
    ),
}
FIRST = next(iter(PILOTS))


def last_stage(work: Path, name: str) -> Path:
    """Return the checkpoint that a pilot ends with."""
    return work / name / PILOTS[name].stages[-1].name / LAST


def train(name: str, *, speech: Path, work: Path, precision: str) -> Path:
    """Train one pilot, or go on with it, and return its last checkpoint.

    Raises `InputError` where another pilot, whose units or weights it takes, is not trained.
    """
    pilot = PILOTS[name]
    init = None if pilot.after is None else _trained(work, pilot.after, of=name)
    for stage in pilot.stages:
        labels = _labels(stage.units, name=name, speech=speech, work=work)
        changes: dict[str, Any] = {
            "phase": 1 if stage.units == MFCC else 2,
            "units": RECIPE.clusters if stage.units == MFCC else RECIPE.layer_clusters,
            "label_rate": 100 if stage.units == MFCC else 50,
            "updates": stage.updates,
            "warm_up_updates": round(WARM_UP * stage.updates),
            "seed": pilot.seed,
            "precision": precision,
            "save_every": 100,
            "model": dict(pilot.model),
            **stage.settings,
        }
        config = load_config("nano", changes=changes)
        out = work / name / stage.name
        with joined("cpu") as world:
            run_pretraining(
                config,
                name=SIZE,
                size=model_config(config, SIZE, "nano"),
                manifests=speech,
                labels=labels,
                out=out,
                world=world,
                init=init,
                say=lambda line, at=f"{name}, {stage.name}": print(  # type: ignore[misc]
                    f"{at}: {line}", file=sys.stderr, flush=True
                ),
            )
        init = out / LAST
    return last_stage(work, name)


def _labels(units: str, *, name: str, speech: Path, work: Path) -> Path:
    """Return the folder of a stage's labels, made where they are not there yet."""
    labels = work / f"labels_{units}"
    if units == MFCC:
        make_units(
            mfcc_source(),
            speech=speech,
            clusters=RECIPE.clusters,
            seed=RECIPE.seed,
            units=work / "mfcc.safetensors",
            labels=labels,
        )
        return labels
    checkpoint = work / FIRST / PILOTS[FIRST].stages[0].name / LAST
    if not checkpoint.is_dir():
        raise InputError(f"{name} takes the units of {FIRST}, which has to be trained first.")
    make_units(
        hidden_source(checkpoint, layer=RECIPE.layer, device="cpu"),
        speech=speech,
        clusters=RECIPE.layer_clusters,
        seed=RECIPE.seed,
        units=work / "layer.safetensors",
        labels=labels,
        checkpoint=checkpoint,
    )
    return labels


def _trained(work: Path, name: str, *, of: str) -> Path:
    found = last_stage(work, name)
    if not found.is_dir():
        raise InputError(f"{of} goes on from {name}, which has to be trained first.")
    return found


def dev_scores(name: str, *, paths: Path, work: Path) -> dict[str, list[float]]:
    """Return a pilot's scores on dev, in %, of every task: one a seed of the head.

    Raises `InputError` where the pilot is not trained, RuntimeError where a run failed.
    """
    upstream = f"{SIZE}@{_trained(work, name, of='a score')}"
    results = evaluate(
        upstreams=[upstream],
        tasks=TASKS,
        scale="embedded",
        paths=paths,
        results=work / "results",
        seeds=HEAD_SEEDS,
    )
    scores: dict[str, list[float]] = {task: [] for task in TASKS}
    for record in results.records:
        score = score_of(record)
        if score is None:
            raise RuntimeError(f"{name}: {record.identity.task} gave no score: {record.reason}")
        scores[record.identity.task].append(round(100 * score, 3))
    return scores


def line_of(name: str, scores: Mapping[str, Sequence[float]], *, work: Path) -> dict[str, Any]:
    """Return what is written of a pilot."""
    pilot, about = PILOTS[name], collect()
    stages = [_as_trained(work / name / stage.name / LAST) for stage in pilot.stages]
    return {
        "bench": "pilots",
        "pilot": name,
        "about": pilot.about,
        "after": pilot.after,
        "seed": pilot.seed,
        "model": dict(pilot.model),
        "stages": [
            {"settings": dict(stage.settings), **trained}
            for stage, trained in zip(pilot.stages, stages, strict=True)
        ],
        "minutes": round(sum(stage["seconds"] for stage in stages) / 60, 1),
        "head_seeds": list(HEAD_SEEDS),
        "dev": {task: list(values) for task, values in scores.items()},
        "dev_mean": {task: round(fmean(values), 2) for task, values in scores.items()},
        "dev_sd": {task: round(stdev(values), 2) for task, values in scores.items()},
        "machine": f"{about.cpu}, {about.cpu_count} processors",
        "commit": about.commit,
        "dirty": about.dirty,
        "date": datetime.date.today().isoformat(),
        "command": f"python {shlex.join(sys.argv)}",
    }


def _as_trained(checkpoint: Path) -> dict[str, Any]:
    training = read_json(checkpoint / "config.json", "a checkpoint's config")["training"]
    held_out = training["held_out"]
    return {
        "updates": training["update"],
        "units": training["units"],
        "seconds": training["seconds"],
        "masked_accuracy": round(held_out["masked_accuracy"], 4),
        "chance_accuracy": round(held_out["chance_accuracy"], 4),
    }


def main() -> None:
    """Train and score the pilots that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--speech", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--paths", type=Path, metavar="FILE", help="none: train only")
    parser.add_argument("--pilots", default=",".join(PILOTS), metavar="NAME,…")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.pilots.split(",")
    if unknown := [name for name in names if name not in PILOTS]:
        parser.error(f"{unknown[0]!r} is no pilot; there are {', '.join(PILOTS)}")
    for name in names:
        train(name, speech=arguments.speech, work=arguments.work, precision=arguments.precision)
        if arguments.paths is None:
            continue
        scores = dev_scores(name, paths=arguments.paths, work=arguments.work)
        text = json.dumps(line_of(name, scores, work=arguments.work))
        print(text, flush=True)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("a") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
