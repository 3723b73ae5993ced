"""Libri2Mix, for SD: a Kaldi data folder a split, two speakers a recording.

The folder's files: see ``kaldi``; its ``rttm`` is the reference that is scored against. Splits and
counts: SUPERB (Yang et al., Interspeech 2021), task SD; the mixtures are those of LibriMix
(Cosentino et al., arXiv:2005.11262), two speakers at 16 kHz, mode max.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from superbit.benchmark.corpora.audio import SAMPLE_RATE, read_header
from superbit.benchmark.corpora.kaldi import (
    FILES,
    RTTM,
    WAVS,
    KaldiFolder,
    read_folder,
    wav_files,
)
from superbit.benchmark.corpora.layout import (
    CorpusFile,
    CorpusFiles,
    CorpusLayout,
    Inspection,
    Problems,
    seconds_of,
)
from superbit.benchmark.corpora.paths import Libri2MixPaths
from superbit.benchmark.corpora.rttm import read_rttm
from superbit.upstreams.derived import keep_text
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import existing_folder, read_text

__all__ = [
    "CORPUS",
    "EXPECTED",
    "FILES",
    "bound_dirs",
    "files",
    "folder_of",
    "read_folder",
]

# Recordings in SUPERB's splits.
EXPECTED = {"train": 13_900, "dev": 3_000, "test": 3_000}
SPEAKERS = 2  # in a recording; s3prl's model has an output for each
PUBLISHED = (
    ("LibriSpeech, from which the mixtures are made", "https://www.openslr.org/12"),
    (
        "the mixtures' recipe (generate_librimix_sd.sh, scripts/prepare_diarization.py)",
        "https://github.com/s3prl/LibriMix",
    ),
)
# Tables hold rounded seconds.
_TOLERANCE_SECONDS = 0.02


def folder_of(section: Libri2MixPaths, split: str) -> Path:
    """The folder of a split.

    Raises:
        InputError: there is no such split.
    """
    if split not in EXPECTED:
        raise InputError(f"Libri2Mix has no split {split!r}: it has {', '.join(EXPECTED)}.")
    folder: Path = getattr(section, f"{split}_dir")
    return folder


def files(section: Libri2MixPaths) -> CorpusFiles:
    """Recordings by split, and the tables that say who speaks when.

    ``wav.scp`` is not among them: it says where the recordings lie, not what they are.

    Raises:
        InputError: a folder or one of its files is missing, a line of one is not of its form, or
            a split has no recording.
    """
    audio, text = {}, []
    for split in EXPECTED:
        folder = _existing(section, split)
        audio[split] = tuple(
            CorpusFile(key=f"{split}/{name}", path=path)
            for name, path in sorted(read_folder(folder).wavs.items())
        )
        if not audio[split]:
            raise InputError(f"{folder / WAVS} is empty: it should have a line a recording.")
        text += [
            CorpusFile(key=f"{split}.{name}", path=folder / name) for name in FILES if name != WAVS
        ]
    return CorpusFiles(audio=audio, text=tuple(sorted(text, key=lambda file: file.key)))


def _look(section: Libri2MixPaths, found: Inspection) -> Iterable[str]:
    problems = found.problems
    for split, tables in found.each_split(lambda split: read_folder(_existing(section, split))):
        folder = folder_of(section, split)
        samples = _check_audio(folder, tables, problems)
        _check_segments(folder, tables, samples, problems)
        _check_rttm(folder, tables, samples, problems)
        if not tables.wavs:
            problems.add(
                f"split {split}", f"{folder / WAVS} is empty: it should have a line a recording."
            )
        elif split == "train":
            found.require_batch(str(folder), len(tables.wavs), "recordings")
        found.add_split(
            split,
            utterances=len(tables.wavs),
            speakers=len(set(tables.speakers.values())),
            seconds=seconds_of(sum(samples.values())),
        )
    return ()


def bound_dirs(section: Libri2MixPaths, work_dir: str | os.PathLike[str]) -> dict[str, Path]:
    """Folders by split that s3prl can read from anywhere.

    s3prl takes a relative path in ``wav.scp`` from the process's own folder. A folder without
    relative paths is returned as it is; of another one a copy with absolute paths is written below
    ``work_dir``, under a name that changes with its contents. The corpus is never written to.

    Raises:
        InputError: as :func:`files`.
    """
    bound = {}
    for split in EXPECTED:
        folder = _existing(section, split)
        tables = read_folder(folder)
        if all(Path(path).is_absolute() for _, path in wav_files(folder)):
            bound[split] = folder
            continue
        texts = {name: read_text(folder / name) for name in FILES if name != WAVS}
        texts[WAVS] = "".join(f"{name} {path}\n" for name, path in tables.wavs.items())
        digest = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:16]
        bound[split] = Path(work_dir).absolute() / "libri2mix" / digest / split
        for name, text in texts.items():
            keep_text(bound[split] / name, text)
    return bound


def _existing(section: Libri2MixPaths, split: str) -> Path:
    return existing_folder(
        folder_of(section, split), f"the Kaldi data folder of {split}: {', '.join(FILES)}"
    )


def _check_audio(folder: Path, tables: KaldiFolder, problems: Problems) -> dict[str, int]:
    """Samples of every recording whose header can be read."""
    samples = {}
    for name, path in tables.wavs.items():
        try:
            samples[name] = read_header(path).samples
        except InputError as error:
            problems.add("audio", f"{folder / WAVS}: {error}")
            continue
        said = tables.seconds.get(name)
        found = samples[name] / SAMPLE_RATE
        if said is None or abs(said - found) > _TOLERANCE_SECONDS:
            problems.add(
                "reco2dur",
                f"{folder / 'reco2dur'} gives {name} "
                f"{'no length' if said is None else f'{said:.2f} s'}; {path} lasts {found:.2f} s.",
            )
    return samples


def _check_segments(
    folder: Path, tables: KaldiFolder, samples: Mapping[str, int], problems: Problems
) -> None:
    source = folder / "segments"
    speakers: dict[str, set[str]] = defaultdict(set)
    for name, segment in tables.segments.items():
        if segment.recording not in tables.wavs:
            problems.add(
                "segment without its wav",
                f"{source}: {name} is in the recording {segment.recording}, which {folder / WAVS} "
                "does not name; it should have a line for it.",
            )
            continue
        if name not in tables.speakers:
            problems.add(
                "utt2spk", f"{folder / 'utt2spk'} names no speaker of {name}, which {source} has."
            )
        else:
            speakers[segment.recording].add(tables.speakers[name])
        _check_end(source, name, segment.recording, segment.end, samples, problems)
    for name in tables.wavs:
        if len(speakers[name]) > SPEAKERS or not speakers[name]:
            problems.add(
                "speakers",
                f"{source} has {len(speakers[name])} speakers in the recording {name}; it should "
                f"have one or {SPEAKERS}.",
            )


def _check_rttm(
    folder: Path, tables: KaldiFolder, samples: Mapping[str, int], problems: Problems
) -> None:
    source = folder / RTTM
    try:
        reference = read_rttm(source)
    except InputError as error:
        problems.add("rttm", str(error))
        return
    for name, turns in reference.items():
        if name not in tables.wavs:
            problems.add(
                "RTTM without its wav",
                f"{source} has turns of the recording {name}, which {folder / WAVS} does not "
                "name; it should have a line for it.",
            )
            continue
        _check_end(source, f"a turn in {name}", name, max(t.end for t in turns), samples, problems)
    for name in tables.wavs:
        if name not in reference:
            problems.add(
                "wav without its RTTM",
                f"{source} has no turn of the recording {name}: each recording should have some.",
            )


def _check_end(
    source: Path,
    what: str,
    recording: str,
    end: float,
    samples: Mapping[str, int],
    problems: Problems,
) -> None:
    # A recording that cannot be read has been told of.
    seconds = samples.get(recording, math.inf) / SAMPLE_RATE
    if end > seconds + _TOLERANCE_SECONDS:
        problems.add(
            f"end in {source.name}",
            f"{source}: {what} ends at {end:.2f} s, beyond the end of its recording at "
            f"{seconds:.2f} s.",
        )


CORPUS = CorpusLayout(
    name="libri2mix",
    title="Libri2Mix (SD)",
    expected=EXPECTED,
    files=files,
    look=_look,
    published=PUBLISHED,
)
