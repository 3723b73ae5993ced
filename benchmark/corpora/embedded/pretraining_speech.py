"""Speech to pre-train small encoders on: no speaker and no sentence of the task corpora.

Speakers: `PRETRAINING_VOICES`, of which the task corpora have none. Sentences: two clauses around
one of `CONJUNCTIONS`, words that no task corpus ever says. Rooms, noises and microphones are of the
same kinds as there.

The folder holds ``train/``, ``valid/`` (speakers of its own) and their manifests in fairseq's
format, so that ``superbit units`` and ``superbit pretrain`` take it as it is.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from superbit.benchmark.corpora.audio import SAMPLE_RATE
from superbit.benchmark.corpora.embedded.acoustics import Conditions, record_with_margins, say
from superbit.benchmark.corpora.embedded.espeak import MISSING, Espeak
from superbit.benchmark.corpora.embedded.exact import write
from superbit.benchmark.corpora.embedded.voices import (
    PRETRAINING_VOICES,
    TABLE_COLUMNS,
    Speaker,
    draw_speakers,
)
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_json, read_text, write_text
from superbit.upstreams.training.manifest import AudioManifest

# Raised whenever the same options would give other audio.
VERSION = 2
RECIPE, SPEAKERS, SPOKEN = "pretraining.json", "speakers.csv", "spoken.csv"
_STARTED = ".superbit-pretraining"  # made first: what a killed process left is ours to remove

SPEAKERS_DEFAULT = 120
_VALID_SHARE = 0.05
_HOURS_A_SHARD = 1.0
_CONDITIONS = Conditions(
    margin_seconds=(0.05, 0.3), snr_db=(0, 30), tilt=(-0.5, 0.7), level_db=(-32, -16)
)

CONJUNCTIONS = ("because", "although", "while", "until", "unless", "whereas", "whenever", "since")
_SUBJECTS = (
    *("the engineer", "my cousin", "a painter", "our neighbor", "the pilot", "some tourists"),
    *("the orchestra", "each student", "an old wizard", "the young thief", "his uncle", "she"),
    *("they", "we", "nobody", "everyone", "the goose", "a jealous giant", "the choir", "you"),
    *("several voices", "the shepherd", "her quiet aunt", "the baker", "these foxes", "he"),
)
_VERBS = (
    *("never enjoyed", "slowly measured", "could describe", "should repair", "had chosen"),
    *("will deliver", "often imagined", "nearly dropped", "must explain", "always refused"),
    *("once composed", "would exchange", "rarely noticed", "just swallowed", "can borrow"),
    *("gladly shared", "almost finished", "usually avoids", "has polished", "secretly kept"),
)
_OBJECTS = (
    *("the copper engine", "fresh bread", "a thousand pages", "the azure vase", "both jewels"),
    *("an orange umbrella", "their voyage", "the thick fog", "eighty candles", "a joyful tune"),
    *("this puzzle", "the vision", "cold soup", "enough cloth", "the wooden toy", "a huge shadow"),
    *("its eleven boxes", "the usual path", "thirteen peaches", "a broken clock", "good advice"),
    *("the azure scarf", "another measure", "smooth pebbles", "the southern coast", "raw fish"),
)
_ENDINGS = (
    *("", "", "", "at noon", "by the lake", "without a sound", "in the cellar", "last autumn"),
    *("before lunch", "on the northern shore", "with great pleasure", "during the vacation"),
    *("above the clouds", "beneath the oak", "for a whole hour", "at the theater"),
)


def draw_sentence(random: np.random.Generator) -> str:
    """Return two clauses around a conjunction, lower case, without punctuation."""

    def clause() -> str:
        # half of them short, as many utterances of the tasks are
        parts = (_SUBJECTS, _VERBS, _OBJECTS, _ENDINGS)[: 2 if random.random() < 0.5 else 4]
        return " ".join(str(random.choice(part)) for part in parts).strip()

    return f"{clause()} {random.choice(CONJUNCTIONS)} {clause()}"


def make_pretraining_speech(
    out: str | Path,
    *,
    hours: float = 1.0,
    speakers: int = SPEAKERS_DEFAULT,
    seed: int = 0,
    jobs: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Synthesize speech for pre-training into ``out``, or find it there already.

    The same options give the same audio, whatever ``jobs`` is. A complete folder of the same
    recipe is used again; one that was left incomplete is made again.

    Args:
        out: a folder; made if it is not there.
        hours: of speech, about.
        speakers: how many, a twentieth of them for ``valid/``.
        seed: every random choice follows from it.
        jobs: processes at a time; each makes about an hour of speech.
        on_progress: called with (processes done, processes in all).

    Returns:
        The folder.

    Raises:
        InputError: too many speakers, a folder that holds something else, or espeak-ng is not
            installed.
    """
    out = Path(out).absolute()
    if hours <= 0 or speakers < 4:
        raise InputError(
            f"{hours} hours of {speakers} speakers: more than 0 hours of at least 4 are needed."
        )
    recipe = {
        "made_by": "superbit pre-training speech",
        "version": VERSION,
        "hours": float(hours),
        "speakers": speakers,
        "seed": seed,
    }
    if _is_complete(out, recipe):
        return out
    if find_spec("espeakng_loader") is None:
        raise InputError(MISSING)
    voices = _draw(speakers, seed)
    _begin(out, voices)
    shards = max(1, round(hours / _HOURS_A_SHARD))
    seconds = hours * 3600 / speakers
    _run_workers(out, shards, seed, seconds, jobs, on_progress or (lambda done, total: None))
    _finish(out, shards)
    write_text(out / RECIPE, json.dumps(recipe, indent=1) + "\n")
    return out


def _draw(speakers: int, seed: int) -> list[tuple[str, Speaker]]:
    """Return (split, speaker) of each."""
    valid = max(2, round(_VALID_SHARE * speakers))
    names = [f"p{index:05d}" for index in range(speakers)]
    random = np.random.default_rng(seed)
    try:
        drawn = draw_speakers(names, random, among=PRETRAINING_VOICES)
    except ValueError as error:
        raise InputError(
            f"{speakers} speakers among the {len(PRETRAINING_VOICES)} voices for pre-training: "
            f"{error}"
        ) from None
    splits = ["valid"] * valid + ["train"] * (speakers - valid)
    return list(zip(splits, drawn, strict=True))


def _is_complete(out: Path, recipe: dict[str, object]) -> bool:
    if not out.exists():
        return False
    if not out.is_dir():
        raise InputError(f"{out} is a file; speech for pre-training needs a folder.")
    if not any(out.iterdir()):
        return False
    if not (out / _STARTED).is_file():
        raise InputError(
            f"{out} holds something that superbit did not make; give an empty or a new folder."
        )
    if not (out / RECIPE).is_file():
        return False
    found = read_json(out / RECIPE, "the recipe of speech for pre-training")
    for key, value in recipe.items():
        if found.get(key) != value:
            raise InputError(
                f"{out} holds speech for pre-training with {key} {found.get(key)}, not {value}; "
                "give another folder, or delete that one."
            )
    return True


def _begin(out: Path, voices: Sequence[tuple[str, Speaker]]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / _STARTED).touch()
    except OSError as error:
        raise InputError(f"{out} cannot be written to: {error.strerror}.") from None
    for split in ("train", "valid"):
        shutil.rmtree(out / split, ignore_errors=True)
    table = [",".join(TABLE_COLUMNS), *(speaker.row(split) for split, speaker in voices)]
    write_text(out / SPEAKERS, "\n".join(table) + "\n")


def _run_workers(
    out: Path,
    shards: int,
    seed: int,
    seconds: float,
    jobs: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """One process a shard, so that each has a history of its own, ``jobs`` at a time."""
    module = "superbit.benchmark.corpora.embedded.pretraining_speech"
    running: list[subprocess.Popen[bytes]] = []
    waiting = list(range(shards))
    done = 0
    try:
        while waiting or running:
            while waiting and len(running) < max(1, jobs):
                words = [out, waiting.pop(0), shards, seed, seconds]
                command = [sys.executable, "-m", module, *map(str, words)]
                running.append(subprocess.Popen(command))
            worker = running.pop(0)
            if worker.wait() != 0:
                raise RuntimeError("Making speech for pre-training failed; its message is above.")
            done += 1
            on_progress(done, shards)
    finally:
        for worker in running:
            worker.kill()
            worker.wait()


def _finish(out: Path, shards: int) -> None:
    """Write the manifests and the table of what was said from what the workers left."""
    rows: list[list[str]] = []
    for shard in range(shards):
        part = out / f"{SPOKEN}.{shard}"
        rows += csv.reader(read_text(part).splitlines())
        part.unlink()
    rows.sort()
    for split in ("train", "valid"):
        own = [row for row in rows if row[0].startswith(f"{split}/")]
        manifest = AudioManifest(
            file=out / f"{split}.tsv",
            root=out,
            paths=tuple(path for path, _, _ in own),
            samples=np.asarray([int(samples) for _, samples, _ in own], dtype=np.int64),
        )
        write_text(manifest.file, manifest.to_text())
    spoken = "".join(f"{path},{text}\n" for path, _, text in rows)
    write_text(out / SPOKEN, "path,text\n" + spoken)


def _make_shard(out: Path, shard: int, shards: int, seed: int, seconds: float) -> None:
    """Make the utterances of every ``shards``-th speaker, about ``seconds`` of each."""
    random = np.random.default_rng([seed, shard])
    espeak = Espeak(int(random.integers(2**31)))
    rows = []
    table = list(csv.DictReader(read_text(out / SPEAKERS).splitlines()))
    for row in table[shard::shards]:
        speaker = _speaker(row)
        folder = out / row["split"] / speaker.name
        folder.mkdir(parents=True)
        made, index = 0, 0
        while made < seconds * SAMPLE_RATE:
            text = draw_sentence(random)
            recording = record_with_margins(say(text, speaker, espeak), _CONDITIONS, random)
            path = folder / f"{speaker.name}-{index:04d}.flac"
            write(path, recording)
            rows.append(f"{path.relative_to(out).as_posix()},{len(recording)},{text}\n")
            made, index = made + len(recording), index + 1
    write_text(out / f"{SPOKEN}.{shard}", "".join(rows))


def _speaker(row: dict[str, str]) -> Speaker:
    return Speaker(
        name=row["speaker"],
        accent=row["accent"],
        variant=row["variant"],
        pitch=int(row["pitch"]),
        pitch_range=int(row["pitch_range"]),
        rate=int(row["rate"]),
        vocal_tract=float(row["vocal_tract"]),
    )


def main(out: str, shard: str, shards: str, seed: str, seconds: str) -> None:
    """Make one shard; each is a process of its own."""
    _make_shard(Path(out), int(shard), int(shards), int(seed), float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
