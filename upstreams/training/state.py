"""A run's checkpoints: each a folder that appears whole, and loads as an upstream by its path.

    RUN/checkpoints/update-00005000/   model.safetensors, config.json, training_state.pt
    RUN/last, RUN/best                 links to two of them
    RUN/log.jsonl                      one JSON object a line

``training_state.pt`` holds tensors and plain data and is read without running any code from it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from superbit.upstreams import checkpoint, files
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.training.configuration import MAY_DIFFER, TrainingConfig

STATE_FILE = "training_state.pt"
LAST, BEST, LOG = "last", "best", "log.jsonl"


class RunFolder:
    """The folder of one run. Only rank 0 writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def log(self) -> Path:
        """One JSON object a line."""
        return self.path / LOG

    def save(
        self,
        update: int,
        model: Hubert,
        *,
        state: Mapping[str, Any],
        training: Mapping[str, Any],
        best: bool,
        keep_every: int | None,
    ) -> None:
        """Write a checkpoint, point ``last`` (and ``best``) to it, and remove superseded ones.

        Raises `InputError` where the folder cannot be written to.
        """
        target = self.path / "checkpoints" / f"update-{update:08d}"
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            checkpoint.save(partial, model, training=training)
            with files.replaced(partial / STATE_FILE, on_disk=True) as out:
                torch.save(dict(state), out)
            if target.exists():
                shutil.rmtree(target)
            os.rename(partial, target)
            self._point(LAST, target)
            if best:
                self._point(BEST, target)
            self._prune(keep_every)
        except OSError as error:
            raise InputError(
                f"{target} cannot be written: {error.strerror or error}; earlier checkpoints of "
                "the run are whole."
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def load_last(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the last checkpoint and its training state, None where there is none.

        Raises `InputError` for one that cannot be read.
        """
        last = self.path / LAST
        return (last, read_state(last)) if last.exists() else None

    def trim_log(self, update: int) -> None:
        """Drop what a run that was killed logged after its last checkpoint."""
        if not self.log.is_file():
            return
        kept = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):  # a kill may leave half a line
                if json.loads(line)["update"] <= update:
                    kept.append(line + "\n")
        with files.said_of(self.log):
            files.write_text(self.log, "".join(kept))

    def append_log(self, values: Mapping[str, Any]) -> None:
        """Add one line to the log."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.log, "a", encoding="utf-8") as out:
            out.write(json.dumps(values) + "\n")

    def _point(self, name: str, target: Path) -> None:
        """Make ``name`` a link to a checkpoint, in one step."""
        partial = self.path / f".{name}.{uuid.uuid4().hex}"
        os.symlink(os.path.relpath(target, self.path), partial)
        os.replace(partial, self.path / name)

    def _prune(self, keep_every: int | None) -> None:
        pointed = {(self.path / name).resolve() for name in (LAST, BEST)}
        for folder in (self.path / "checkpoints").glob("update-*"):
            number = int(folder.name.partition("-")[2])
            kept_for_good = keep_every is not None and number % keep_every == 0
            if folder.resolve() not in pointed and not kept_for_good:
                shutil.rmtree(folder, ignore_errors=True)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the training state of a checkpoint, on the CPU.

    Raises `InputError` for one that cannot be read.
    """
    try:
        return torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{folder / STATE_FILE} cannot be read ({type(error).__name__}): take another of the "
            f"run's checkpoints (where it is a link, point {folder} to it), or give another --out."
        ) from None


def check_same_run(
    folder: Path,
    found: Mapping[str, Any],
    *,
    phase: int | str,
    config: TrainingConfig,
    facts: Mapping[str, Any],
) -> None:
    """Raise `InputError` unless a state is of the run that is to go on, naming what differs.

    Args:
        folder: of the run.
        found: a training state.
        phase: of the run that is asked for.
        config: of the run that is asked for.
        facts: what else must be the same: the model's sizes, the manifest's and labels' hashes.
    """
    if found.get("phase") != phase:
        raise InputError(
            f"{folder} holds a run of {phase_name(found.get('phase'))}, and {phase_name(phase)} "
            "was asked for: give another --out."
        )
    wanted: dict[str, Any] = {**config.model_dump(mode="json"), **facts}
    had: dict[str, Any] = {**found["config"], **found["facts"]}
    different = [key for key in wanted if key not in MAY_DIFFER and had.get(key) != wanted[key]]
    if different:
        key = different[0]
        shown = "" if key in facts else f" ({had.get(key)!r} there, {wanted[key]!r} here)"
        raise InputError(
            f"{folder} holds a run with another {key}{shown}: go on with the same settings, or "
            "give another --out."
        )


def phase_name(phase: Any) -> str:
    """Return what a message calls a phase: 1, 2 or a word such as distillation."""
    return f"phase {phase}" if isinstance(phase, int) else str(phase)
