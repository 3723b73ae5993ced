"""What happens to a corpus on other systems: files left in its folders, texts saved anew.

And what s3prl's own data sets give of a corpus, task by task, so that two copies can be compared.
"""

import copy
import os
import random
import shutil
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from odd_audio import flac_of_unknown_length, wav_of_a_pipe

AUDIO = (".wav", ".flac")
# The first bytes of a macOS resource fork.
APPLE_DOUBLE = bytes.fromhex("0005160700020000") + b"Mac OS X        "


def own_copy(corpora: Path, to: Path) -> Path:
    """Copy a folder. Links would move the originals' times, which manifests look at."""
    shutil.copytree(corpora, to)
    return to


def leave_hidden_files(root: Path) -> None:
    """Put into every folder what macOS, Windows, a notebook and a network drive leave there."""
    for folder, _, names in list(os.walk(root)):
        place = Path(folder)
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (place / name).write_bytes(b"\0\xff")
        for name in ["folder", *names[:3]]:
            (place / f"._{name}").write_bytes(APPLE_DOUBLE)
        copies = place / ".ipynb_checkpoints"
        copies.mkdir()
        zipped = place / "__MACOSX"
        zipped.mkdir()
        drive = place / "@eaDir"
        for name in names[:3]:
            stem, ending = os.path.splitext(name)
            os.link(place / name, copies / f"{stem}-checkpoint{ending}")
            (zipped / f"._{name}").write_bytes(APPLE_DOUBLE)
            (drive / name).mkdir(parents=True)


def save_on_windows(root: Path) -> None:
    """Begin every text with a byte order mark, and end its lines with two characters."""
    for path in texts(root):
        lines = path.read_bytes().splitlines()
        path.write_bytes(BOM_UTF8 + b"".join(line + b"\r\n" for line in lines))


def write_through_a_pipe(root: Path) -> None:
    """Take the length out of the header of every fourth audio file."""
    import soundfile

    for number, path in enumerate(sorted(p for p in root.rglob("*") if p.suffix in AUDIO)):
        if number % 4:
            continue
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == 16_000
        path.unlink()
        size = (0, 0x7FFFF000, 0xFFFFFFFF)[number // 4 % 3]
        write = flac_of_unknown_length if path.suffix == ".flac" else wav_of_a_pipe(size)
        write(path, samples)


def texts(root: Path) -> list[Path]:
    """Every text of the corpora, but not what superbit wrote of how they were made."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix not in AUDIO and path.name != "recipe.json"
    ]


SPOILERS: dict[str, Callable[[Path], None]] = {
    "hidden files": leave_hidden_files,
    "saved on Windows": save_on_windows,
    "written through a pipe": write_through_a_pipe,
}


def items_of_task(task: str, root: Path, work_dir: Path) -> list[Any]:
    """Every item of every split that a run reads: audio files and all that goes with them.

    Args:
        root: the folder of embedded corpora; names below it are given relative to it.
        work_dir: a folder for derived files.
    """
    from superbit.benchmark.corpora.paths import load_paths
    from superbit.benchmark.features.demand import splits_read
    from superbit.benchmark.running import heads
    from superbit.benchmark.tasks.binding import RunPlaces
    from superbit.benchmark.tasks.catalog import TASKS
    from superbit.benchmark.tasks.configs import resolve
    from superbit.upstreams.s3prl import patches

    config = copy.deepcopy(resolve(task, scale="embedded"))
    fold = 1 if TASKS[task].folds else None
    places = RunPlaces(paths=load_paths(root / "paths.yaml"), work_dir=work_dir, fold=fold)
    TASKS[task].binding.bind(config["downstream_expert"], places)
    read: list[tuple[str, Any]] = []

    def answer(path: str, transform: tuple[Any, ...], _read: Callable[[], Any]) -> Any:
        read.append((path, transform))
        if transform[0] == "cut":
            return np.zeros(16_000 if transform[2] is None else transform[2] - transform[1]), 16_000
        return torch.zeros(1, 40_000), 16_000

    found: list[Any] = []
    (work_dir / task).mkdir()
    with patches.audio_read_by(answer):
        random.seed(0)
        head = heads.build(
            str(TASKS[task].downstream), config, upstream_dim=8, upstream_rate=320,
            expdir=work_dir / task, seed=0, device="cpu",
        )  # fmt: skip
        for split, _ in splits_read(task, config):
            loader = head.get_dataloader(split)
            found.append((split, _plain(getattr(loader.dataset, "pair_table", None), root)))
            for index in range(len(loader.dataset)):
                read.clear()
                _, *others = loader.collate_fn([loader.dataset[index]])
                found.append((split, _plain(list(read), root), _plain(others, root)))
    return found


def _plain(value: Any, root: Path) -> Any:
    """``value`` without tensors and without the place of the corpora."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return np.asarray(value).tolist()
    if isinstance(value, dict):
        return {key: _plain(each, root) for key, each in value.items()}
    if isinstance(value, list | tuple | zip):
        return [_plain(each, root) for each in value]
    return str(value).replace(str(root), "") if isinstance(value, str | Path) else value
