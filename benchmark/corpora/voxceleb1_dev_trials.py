"""Trials over the speakers of VoxCeleb1's ``dev/wav``: s3prl's ASV wants such a list to start."""

from __future__ import annotations

import hashlib
import os
import random
from collections import defaultdict
from pathlib import Path

from superbit.benchmark.corpora.paths import VoxCeleb1Paths
from superbit.benchmark.corpora.voxceleb1 import Trial, files_of_part
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import write_text

_MOST = 2_000
# Raised when the same corpus would get other trials.
_SEED = 1


def dev_trials(section: VoxCeleb1Paths, work_dir: str | os.PathLike[str]) -> Path:
    """Write trials over the speakers of ``dev/wav``.

    Half of them are of the same speaker, at most 2,000 in all, drawn by a fixed seed: the same
    files give the same trials. Lines ``0|1 a.wav b.wav``, relative to ``dev/wav``. The corpus
    itself is never written to.

    Args:
        work_dir: a folder of ours.

    Raises:
        InputError: ``dev/wav`` is missing, or has not two speakers, one of them with two files.
    """
    of_speaker: dict[str, list[str]] = defaultdict(list)
    for name in sorted(files_of_part(section, "dev")):
        of_speaker[name.split("/")[0]].append(name)
    number = min(_MOST // 2, *_pairs([len(names) for names in of_speaker.values()]))
    if number == 0:
        raise InputError(
            f"{section.root / 'dev' / 'wav'} gives no trials: it should have two speakers or more "
            "with two files or more."
        )
    draw = random.Random(_SEED)
    several = [names for names in of_speaker.values() if len(names) > 1]
    everyone = list(of_speaker.values())
    drawn: dict[Trial, None] = {}
    while len(drawn) < number:
        drawn[Trial(True, *sorted(draw.sample(draw.choice(several), 2)))] = None
    while len(drawn) < 2 * number:
        pair = sorted(draw.choice(names) for names in draw.sample(everyone, 2))
        drawn[Trial(False, *pair)] = None
    lines = [f"{int(trial.same)} {trial.first} {trial.second}\n" for trial in drawn]
    draw.shuffle(lines)
    text = "".join(lines)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = Path(work_dir) / "dev_trials" / f"voxceleb1-{name}.txt"
    if not path.is_file():
        write_text(path, text)
    return path


def _pairs(files_of_speakers: list[int]) -> tuple[int, int]:
    """(pairs of files of one speaker, pairs of files of two speakers)."""
    same = sum(count * (count - 1) // 2 for count in files_of_speakers)
    every = sum(files_of_speakers)
    return same, every * (every - 1) // 2 - same
