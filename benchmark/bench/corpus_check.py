"""How long ``corpus check`` takes on layouts with the full number of files.

    python -m superbit.benchmark.bench.corpus_check [--corpus NAME] [--audio empty] [--out DIR]

Makes the layouts of VoxCeleb1, LibriSpeech and Audio SNIPS below a temporary folder, with as many
files as SUPERB's copies have, empty or of one sample, checks each, and prints a JSON line a check.
Files of one sample have their headers read; empty ones are found by their size.
"""

from __future__ import annotations

import argparse
import datetime
import io
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from superbit.benchmark.corpora import audio_snips, catalog, librispeech, voxceleb1
from superbit.benchmark.corpora.paths import CorpusPaths, load_paths

AUDIO = ("empty", "one sample")
VIDEOS_OF_A_SPEAKER = 18
TEST_SPEAKERS = 40


class _Writer:
    """Makes files of the same contents, most of them as links, which take no space."""

    def __init__(self, audio: str, ending: str) -> None:
        self.content = b""
        if audio != "empty":
            sound = io.BytesIO()
            soundfile.write(sound, np.full(1, 0.1), 16_000, format=ending, subtype="PCM_16")
            self.content = sound.getvalue()

    def fill(self, folder: Path, names: list[str]) -> None:
        """Make the files ``names`` in ``folder``, which is made too."""
        folder.mkdir(parents=True)
        # File systems have a limit on links to one file.
        for start in range(0, len(names), 10_000):
            first, *others = (folder / name for name in names[start : start + 10_000])
            first.write_bytes(self.content)
            for other in others:
                os.link(first, other)


def make_layout(folder: Path, *, corpus: str, audio: str) -> CorpusPaths:
    """Make a corpus with SUPERB's number of files.

    Args:
        audio: ``"empty"`` or ``"one sample"``: what is in them.
    """
    _LAYOUTS[corpus](folder, audio)
    return load_paths(folder / "paths.yaml")


def _voxceleb1(folder: Path, audio: str) -> None:
    """1,251 speakers of 18 videos; those of the trials come last, in the folder test."""
    writer = _Writer(audio, "wav")
    dev_speakers = voxceleb1.SPEAKERS - TEST_SPEAKERS
    total = sum(voxceleb1.EXPECTED[split] for split in voxceleb1.IDENTIFICATION)
    in_dev = voxceleb1.EXPECTED[voxceleb1.VERIFICATION_DEV]
    of_speaker: dict[str, list[str]] = {}
    for part, speakers, files in (
        ("dev", range(dev_speakers), in_dev),
        ("test", range(dev_speakers, voxceleb1.SPEAKERS), total - in_dev),
    ):
        for place, number in enumerate(speakers):
            speaker = f"id{10_001 + number}"
            # As equal as can be: the first speakers have one file more.
            count = files // len(speakers) + (place < files % len(speakers))
            of_speaker[speaker] = []
            for video in range(VIDEOS_OF_A_SPEAKER):
                names = [f"{n:05d}.wav" for n in range(video, count, VIDEOS_OF_A_SPEAKER)]
                writer.fill(folder / part / "wav" / speaker / f"video{video:02d}", names)
                of_speaker[speaker] += [f"{speaker}/video{video:02d}/{name}" for name in names]
    _write_split(folder / "split.txt", list(of_speaker.values()))
    in_test = list(itertools.chain(*list(of_speaker.values())[dev_speakers:]))
    _write_trials(folder / "trials.txt", in_test[: voxceleb1.EXPECTED[voxceleb1.TRIALS]])
    (folder / "paths.yaml").write_text(
        "voxceleb1: {root: ., identification_split: split.txt, trials: trials.txt}\n"
    )


def _write_split(file: Path, speakers: list[list[str]]) -> None:
    """Split every speaker's files, so that each speaker is in train; write them in that order."""
    # Round robin over speakers: the first files that are dealt are one of each speaker.
    dealt = [name for names in itertools.zip_longest(*speakers) for name in names if name]
    numbers = [
        number
        for number, split in enumerate(voxceleb1.IDENTIFICATION, start=1)
        for _ in range(voxceleb1.EXPECTED[split])
    ]
    file.write_text("".join(f"{n} {name}\n" for n, name in zip(numbers, dealt, strict=True)))


def _write_trials(file: Path, names: list[str]) -> None:
    """Each file with the eight that follow it, every second time with one of another speaker."""
    trials = []
    for index, name in enumerate(names):
        for step in range(1, 9):
            far = (index + (step if step % 2 else len(names) // 2 + step)) % len(names)
            same = name.split("/")[0] == names[far].split("/")[0]
            trials.append(f"{int(same)} {name} {names[far]}\n")
    file.write_text("".join(trials))


def _librispeech(folder: Path, audio: str) -> None:
    """Chapters of a hundred utterances of one word, ten chapters a speaker."""
    writer, first = _Writer(audio, "flac"), 0
    for split, count in librispeech.SPLITS.items():
        for chapter in range(-(-count // 100)):
            speaker, number = 100 + (first + chapter) // 10, 1_000 + first + chapter
            names = [f"{speaker}-{number}-{n:04d}" for n in range(min(100, count - 100 * chapter))]
            below = folder / "LibriSpeech" / split / str(speaker) / str(number)
            writer.fill(below, [f"{name}.flac" for name in names])
            (below / f"{speaker}-{number}.trans.txt").write_text(
                "".join(f"{name} WORD\n" for name in names)
            )
        first += 1_000
    (folder / "lexicon.txt").write_text("WORD W ER1 D\n")
    (folder / "paths.yaml").write_text("librispeech: {root: LibriSpeech, lexicon: [lexicon.txt]}\n")


def _audio_snips(folder: Path, audio: str) -> None:
    """Every speaker of a split says each of its sentences."""
    writer, lines = _Writer(audio, "wav"), []
    root = folder / "audio_snips"
    for split, speakers in audio_snips.SPEAKERS.items():
        sentences = audio_snips.EXPECTED[split] // len(speakers)
        names = [f"{name}-snips-{split}-{n}" for name in speakers for n in range(sentences)]
        writer.fill(root / split, [f"{name}.wav" for name in names])
        lines += [f"{name} BOS word EOS\tO O intent\n" for name in names]
    (root / audio_snips.TRANSCRIPTS).write_text("".join(lines))
    (root / audio_snips.SLOTS).write_text("O\nB-slot\n")
    (folder / "paths.yaml").write_text("audio_snips: {root: audio_snips}\n")


_LAYOUTS: dict[str, Callable[[Path, str], None]] = {
    "voxceleb1": _voxceleb1,
    "librispeech": _librispeech,
    "audio_snips": _audio_snips,
}


def _measure(corpus: str, audio: str, out: Path | None) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=out) as folder:
        paths = make_layout(Path(folder), corpus=corpus, audio=audio)
        start = time.perf_counter()
        report = catalog.find(corpus).check(paths.section(corpus))
        seconds = time.perf_counter() - start
    return {
        "bench": "corpus check",
        "corpus": corpus,
        "audio": audio,
        "files": _FILES[corpus],
        "seconds": round(seconds, 2),
        "problems": len(report.problems),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


_FILES = {
    "voxceleb1": sum(voxceleb1.EXPECTED[split] for split in voxceleb1.IDENTIFICATION),
    "librispeech": sum(librispeech.SPLITS.values()),
    "audio_snips": sum(audio_snips.EXPECTED.values()),
}


def main() -> int:
    """Print a JSON line a layout and kind of audio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", choices=list(_LAYOUTS), action="append")
    parser.add_argument("--audio", choices=AUDIO, action="append")
    parser.add_argument("--out", type=Path, help="where the temporary folders are made")
    arguments = parser.parse_args()
    for corpus in arguments.corpus or _LAYOUTS:
        for audio in arguments.audio or AUDIO:
            print(json.dumps(_measure(corpus, audio, arguments.out)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
