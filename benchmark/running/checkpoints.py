"""A run's checkpoint on disk: everything it needs to continue, whole or not at all."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.upstreams.errors import InputError
from superbit.upstreams.files import replaced

if TYPE_CHECKING:
    from superbit.benchmark.running.experiment import Experiment

CHECKPOINT = "checkpoint.pt"
# Beside it: the one before, and one that could not be read.
BEFORE, DAMAGED = "checkpoint.before.pt", "checkpoint.damaged.pt"
# In a run's folder: what it is, for superbit status.
LABEL = "run.txt"
_SNAPSHOT = re.compile(r"step-(\d+)\.pt")


def run_folders(results: Path) -> Path:
    """Where the folders of unfinished runs lie in a folder of results."""
    return results / "work" / "runs"


def run_folder(results: Path, key: str) -> Path:
    """The folder of the run with this key while it is unfinished."""
    return run_folders(results) / key[:16]


def save(path: Path, experiment: Experiment, *, key: str) -> None:
    """Write each candidate's weights, optimizer and training so far; step and generators.

    The checkpoint that is there is kept as the one before.
    """
    import torch

    state = {"key": key, **experiment.state()}
    with replaced(path, on_disk=True) as partial:
        torch.save(state, partial)
        if path.exists():
            path.replace(path.with_name(BEFORE))


def resume(path: Path, experiment: Experiment, *, key: str) -> str | None:
    """Continue from the checkpoint, or from the one before where it is damaged.

    Returns:
        What was set aside, in one sentence, if anything was.

    Raises:
        InputError: it belongs to another run, or is not what this version of superbit writes.
    """
    said = None
    for file in (path, path.with_name(BEFORE)):
        if not file.exists():
            continue
        try:
            load(file, experiment, key=key)
            return said and f"{said}; the run goes on from step {experiment.position.step}."
        except DamagedCheckpoint as error:
            file.replace(path.with_name(DAMAGED))
            said = f"{error} It was set aside as {DAMAGED}"
    return said and f"{said}; the run begins anew."


class DamagedCheckpoint(InputError):
    """A file that is no checkpoint, or not all of one."""


def load(path: Path, experiment: Experiment, *, key: str) -> None:
    """Continue ``experiment`` from what :func:`save` wrote.

    Raises:
        InputError: the file is damaged, or belongs to another run.
    """
    state = _read(path)
    if state.pop("key", None) != key:
        raise InputError(f"{path} belongs to another run: delete it to start this one anew.")
    try:
        experiment.load_state(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} is no checkpoint of this run as this version of superbit writes it "
            f"({type(error).__name__}): delete it to start the run anew."
        ) from error


def save_snapshot(folder: Path, experiment: Experiment) -> None:
    """Keep the weights of this step beside the checkpoint, to be tested after training."""
    weights = {candidate.name: candidate.weights() for candidate in experiment.candidates}
    _write(folder / f"step-{experiment.position.step}.pt", weights)


def snapshots(folder: Path) -> dict[int, Path]:
    """The files of :func:`save_snapshot` in a run's folder, by step."""
    found = ((_SNAPSHOT.fullmatch(file.name), file) for file in folder.glob("step-*.pt"))
    return {int(match[1]): file for match, file in found if match}


def load_snapshot(path: Path) -> dict[str, Any]:
    """Return the weights that :func:`save_snapshot` wrote, by the candidates' names.

    Raises:
        InputError: the file is damaged.
    """
    return _read(path)


def _write(path: Path, state: dict[str, Any]) -> None:
    import torch

    with replaced(path) as partial:
        torch.save(state, partial)


def _read(path: Path) -> dict[str, Any]:
    import torch

    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
            if (part := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{part} was changed")
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DamagedCheckpoint:
    return DamagedCheckpoint(f"{path} cannot be read as a checkpoint ({type(error).__name__}).")
