"""How a nano encoder and its twin are shipped: in half precision, with how they came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
