"""Nano checkpoints as superbit ships them: half precision, and a record of how they came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from superbit.upstreams import checkpoint
from superbit.upstreams.files import read_json
from superbit.upstreams.machine import cores, cpu_model, git_state
from superbit.upstreams.spec import TWIN_PREFIX
from superbit.upstreams.training.manifest import read_manifest
from superbit.upstreams.training.state import LAST
from superbit.upstreams.training.units import load_units
from superbit.upstreams.variant import nanos

LARGEST_BYTES = 3_000_000  # of a shipped file
_OF_A_RUN = ("update", "audio_hours", "seconds", "held_out", "skipped_files", "nan_updates")


def package(
    name: str,
    *,
    runs: Mapping[str, Path],
    out: Path,
    speech: Path,
    units: Sequence[Path],
    seed: int,
    command: str,
    device: str,
) -> list[str]:
    """Write ``OUT/VARIANT/NAME`` and its twin beside it, and return a sentence on each.

    Args:
        name: of the encoder.
        runs: ``phase1``, ``phase2`` and ``twin``, whose last checkpoints are taken.
        out: the package's folder of upstreams, or another.
        speech: what it was trained on.
        units: of phase 1 and of phase 2.
        seed: of the encoder.
        command: what made it.
        device: ``"cpu"`` or ``"cuda"``.
    """
    commit, dirty = git_state(Path(__file__).resolve())
    loaded = {stage: checkpoint.load(run / LAST) for stage, run in runs.items()}
    record = {
        "command": command,
        "commit": commit,
        "dirty": dirty,
        "seed": seed,
        "speech": _speech(speech),
        "units": [_units(file) for file in units],
        "host": _host(device),
        "date": datetime.now(UTC).date().isoformat(),
    }
    said = []
    for shipped, last, stages in (
        (name, "phase2", ("phase1", "phase2")),
        (f"{TWIN_PREFIX}{name}", "twin", ("phase1", "phase2", "twin")),
    ):
        own = loaded[last].training
        training = {
            **{key: value for key, value in own.items() if key not in (*_OF_A_RUN, "units")},
            "units": own.get("units"),
            "made_by": record,
            "stages": {stage: _stage(loaded[stage].training) for stage in stages},
        }
        folder = out / nanos()[name] / shipped
        checkpoint.save(folder, loaded[last].model, dtype=torch.float16, training=training)
        size = (folder / checkpoint.WEIGHTS_FILE).stat().st_size
        if size > LARGEST_BYTES:
            raise RuntimeError(f"{folder} takes {size:,} bytes, more than {LARGEST_BYTES:,}")
        said.append(f"{folder}: {size / 1e6:.2f} MB; {_accuracy(own['held_out'])}")
    return said


def _stage(training: Mapping[str, Any]) -> dict[str, Any]:
    return {key: training[key] for key in ("phase", *_OF_A_RUN) if key in training}


def _speech(folder: Path) -> dict[str, Any]:
    """Return the hours of each manifest, and the recipe of `superbit corpus speech`."""
    found: dict[str, Any] = {
        f"{split}_hours": round(read_manifest(folder / f"{split}.tsv").hours, 4)
        for split in ("train", "valid")
    }
    recipe = folder / "pretraining.json"
    if recipe.is_file():
        found["recipe"] = read_json(recipe, "what superbit corpus speech made")
    return found


def _units(file: Path) -> dict[str, Any]:
    units = load_units(file)
    return {"clusters": len(units.centroids), "of": units.info.kind, "layer": units.info.layer}


def _host(device: str) -> dict[str, Any]:
    return {
        "processor": cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def _accuracy(held_out: Mapping[str, float]) -> str:
    return (
        f"masked accuracy {held_out['masked_accuracy']:.1%} (chance "
        f"{held_out['chance_accuracy']:.1%})"
    )


MODULE = "superbit.upstreams.training.nano"
# Updates a second of one thread on a server's core with bfloat16 instructions: (pre-training,
# distillation).
PACE = {
    "vanilla_nano": (1.8, 1.1),
    "conformer_nano": (1.7, 1.0),
    "squeeze_nano": (1.8, 1.1),
    "sparseformer_dn_nano": (1.8, 1.1),
    "sparseformer_sw_nano": (1.8, 1.1),
}
UNITS_SECONDS = 40.0  # of fitting units of an hour of speech, and labelling it


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What fixes the checkpoints, given the speech.

    Attributes:
        seed: the first encoder's; the others' follow. The two sparse ones are of one size, so that
            only their seeds tell them apart.
        clusters: k of the MFCC units of phase 1.
        layer: whose units phase 2 predicts, the middle one as HuBERT's; 0 is the encoder's input.
        layer_clusters: k of those.
        start: of phase 2, ``fresh`` weights as HuBERT's, or those of ``phase1``, which at so few
            updates is far ahead (after 500: masked accuracy 16.6 % against 10.7 %).
        updates_1: of phase 1.
        updates_2: of phase 2.
        updates_twin: of the twin's distillation.
    """

    seed: int = 0
    clusters: int = 100
    layer: int = 2
    layer_clusters: int = 100
    start: str = "phase1"
    updates_1: int = 1000
    updates_2: int = 700
    updates_twin: int = 400

    def seed_of(self, name: str) -> int:
        """Return the seed of one encoder."""
        return self.seed + list(nanos()).index(name)

    def command(self) -> str:
        """Return the command line that says so, without folders."""
        options = [
            f"--{field.name.replace('_', '-')} {getattr(self, field.name)}"
            for field in fields(self)
        ]
        return f"python -m {MODULE} {' '.join(options)}"


def estimated_seconds(name: str, recipe: Recipe) -> float:
    """Return how long one encoder takes on one thread, by `PACE`."""
    pretraining, distillation = PACE[name]
    pretrained = (recipe.updates_1 + recipe.updates_2) / pretraining
    return pretrained + recipe.updates_twin / distillation + UNITS_SECONDS


def estimated_total(names: Sequence[str], recipe: Recipe, *, jobs: int) -> float:
    """Return how many seconds some encoders take, ``jobs`` at a time, the longest first."""
    busy = [0.0] * max(1, jobs)
    for name in longest_first(names, recipe):
        busy[busy.index(min(busy))] += estimated_seconds(name, recipe)
    return UNITS_SECONDS + max(busy)


def plan(names: Sequence[str], recipe: Recipe, jobs: int) -> str:
    """Return what will be done and about how long it takes, ``jobs`` encoders at a time."""
    lines = [
        f"  {name}: {recipe.updates_1} + {recipe.updates_2} updates and {recipe.updates_twin} of "
        f"its twin, about {estimated_seconds(name, recipe) / 60:.0f} minutes"
        for name in longest_first(names, recipe)
    ]
    minutes = estimated_total(names, recipe, jobs=jobs) / 60
    lines.append(
        f"{jobs} at a time, one thread each: about {minutes:.0f} minutes (an estimate, of a "
        "server's cores and an hour of speech, with nothing left from earlier)"
    )
    return "\n".join(lines)


def longest_first(names: Sequence[str], recipe: Recipe) -> list[str]:
    """Return the encoders in the order in which they are begun."""
    return sorted(names, key=lambda name: -estimated_seconds(name, recipe))
