"""VoxCeleb1, for SID and ASV: ``root/{dev,test}/wav/idNNNNN/<video>/NNNNN.wav``.

Speaker identification takes its splits from a file of lines ``1|2|3 idNNNNN/<video>/NNNNN.wav``
over both folders. Verification trains on every speaker of ``dev/wav`` and is tested by trials,
lines ``0|1 a.wav b.wav``, over the other speakers, in ``test/wav``. Splits and counts: SUPERB (Yang
et al., Interspeech 2021), tasks SID and ASV; corpus: Nagrani et al., Interspeech 2017.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from superbit.benchmark.corpora.audio import read_header
from superbit.benchmark.corpora.layout import (
    CorpusFile,
    CorpusFiles,
    CorpusLayout,
    Inspection,
    Problems,
    refuse,
    seconds_of,
)
from superbit.benchmark.corpora.paths import VoxCeleb1Paths
from superbit.upstreams.derived import keep_text
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import existing_folder, read_text
from superbit.upstreams.visible import is_hidden

IDENTIFICATION = ("train", "dev", "test")
VERIFICATION_DEV, TRIALS = "verification-dev", "trials"
SPEAKERS = 1_251
# Utterances of the identification splits, of the speakers that ASV trains on, and in trials.
EXPECTED = {
    "train": 138_361,
    "dev": 6_904,
    "test": 8_251,
    VERIFICATION_DEV: 148_642,
    TRIALS: 4_715,
}
EXPECTED_TRIALS = 37_720
PUBLISHED = (
    ("dev/wav, test/wav", "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"),
    (
        "identification_split",
        "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/iden_split.txt",
    ),
    (
        "trials",
        "https://github.com/s3prl/s3prl/blob/main/s3prl/downstream/sv_voxceleb1/"
        "voxceleb1_test_v2.txt",
    ),
)
_PARTS = ("dev", "test")
_MOST_DEV_TRIALS = 2_000
# Raised when the same corpus would get other trials.
_DEV_TRIALS_SEED = 1
_FIRST_SPEAKER = 10_001
_SPLIT_OF_NUMBER = {"1": "train", "2": "dev", "3": "test"}
_FILE = re.compile(r"id(\d{5})/[^/]+/[^/]+\.wav")


class Trial(NamedTuple):
    """Whether two files, relative to the folder of speakers, are of one speaker."""

    same: bool
    first: str
    second: str


def label_of(speaker: str) -> int:
    """SID's class of a speaker's folder: ``id10001`` is 0, ``id11251`` is 1250."""
    return int(speaker[2:]) - _FIRST_SPEAKER


def identification_split(section: VoxCeleb1Paths) -> dict[str, tuple[str, ...]]:
    """Files of each split of SID, ``idNNNNN/<video>/NNNNN.wav``, in the order of the split file.

    Raises:
        InputError: a line is malformed or names a speaker outside id10001 to id11251, or a split
            is empty.
    """
    return _read_split(section, refuse)


def trials(section: VoxCeleb1Paths) -> tuple[Trial, ...]:
    """ASV's trials, in the order of their file.

    Raises:
        InputError: a line is malformed, or trials of the same or of different speakers lack.
    """
    return _read_trials(section, refuse)


def files(section: VoxCeleb1Paths) -> CorpusFiles:
    """Audio by split of SID, then all that ASV trains on and what its trials name.

    Splits share files.

    Raises:
        InputError: a folder is missing or empty, the split file or the trials are malformed, or
            they name a file that is not there.
    """
    return CorpusFiles(
        audio=_audio(section, _read_split(section, refuse), _read_trials(section, refuse), refuse),
        text=(
            CorpusFile(key="identification_split", path=section.identification_split),
            CorpusFile(key="trials", path=section.trials),
        ),
    )


def files_of_part(section: VoxCeleb1Paths, part: str) -> dict[str, CorpusFile]:
    """Every file of ``root/<part>/wav`` by its name relative to that folder.

    Args:
        part: ``dev`` or ``test``.

    Raises:
        InputError: the folder is missing or empty.
    """
    folder = existing_folder(
        section.root / part / "wav", f"the {part} part of VoxCeleb1, folders idNNNNN/<video>"
    )
    found = {}
    # os.scandir: a hundred and fifty thousand Path objects from glob take ten times as long.
    for speaker in _folders(folder):
        for video in _folders(speaker.path):
            for entry in os.scandir(video.path):
                if entry.name.endswith(".wav") and not is_hidden(entry.name):
                    name = f"{speaker.name}/{video.name}/{entry.name}"
                    found[name] = CorpusFile(key=f"{part}/wav/{name}", path=Path(entry.path))
    if not found:
        raise InputError(f"{folder} is empty: it should hold idNNNNN/<video>/NNNNN.wav.")
    return found


def _look(section: VoxCeleb1Paths, found: Inspection) -> Iterable[str]:
    problems = found.problems
    identification: Mapping[str, tuple[str, ...]] = {}
    of_trials: tuple[Trial, ...] = ()
    audio: dict[str, tuple[CorpusFile, ...]] = {}
    try:
        identification = _read_split(section, problems.add)
        of_trials = _read_trials(section, problems.add)
        audio = _audio(section, identification, of_trials, problems.add)
    except InputError as error:
        problems.add("root", str(error))
    samples: dict[str, int] = {}
    for file in {file.key: file for split in audio.values() for file in split}.values():
        try:
            samples[file.key] = read_header(file.path).samples
        except InputError as error:
            problems.add("audio", str(error))
    for name, of_split in audio.items():
        found.add_split(
            name,
            utterances=len(of_split),
            speakers=len({_speaker(file) for file in of_split}),
            seconds=seconds_of(sum(samples.get(file.key, 0) for file in of_split)),
        )
    if audio:
        _check_speakers(section, audio, problems)
        training = min(len(audio["train"]), len(audio[VERIFICATION_DEV]))
        found.require_batch(str(section.root), training, "training items")
    speakers = {_speaker(file) for split in audio.values() for file in split}
    return (
        f"{len(speakers):,} speakers (SUPERB: {SPEAKERS:,})",
        f"{len(of_trials):,} trials (SUPERB: {EXPECTED_TRIALS:,})",
    )


def _read_split(
    section: VoxCeleb1Paths, report: Callable[[str, str], None]
) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {split: [] for split in IDENTIFICATION}
    for number, line in enumerate(read_text(section.identification_split).splitlines(), 1):
        words = line.split()
        where = f"{section.identification_split}, line {number},"
        match = _FILE.fullmatch(words[1]) if len(words) == 2 else None
        if match is None or words[0] not in _SPLIT_OF_NUMBER:
            report(
                "split line",
                f"{where} is {line!r}; it should be '1|2|3 idNNNNN/<video>/NNNNN.wav'.",
            )
        elif not 0 <= int(match[1]) - _FIRST_SPEAKER < SPEAKERS:
            report(
                "speaker range",
                f"{where} names the speaker id{match[1]}; speakers should be id{_FIRST_SPEAKER} "
                f"to id{_FIRST_SPEAKER + SPEAKERS - 1}.",
            )
        else:
            found[_SPLIT_OF_NUMBER[words[0]]].append(words[1])
    for split_number, split in _SPLIT_OF_NUMBER.items():
        if not found[split]:
            report(
                f"empty {split}",
                f"{section.identification_split} has an empty split: it should have lines "
                f"'{split_number} idNNNNN/<video>/NNNNN.wav', the split {split}.",
            )
    return {split: tuple(names) for split, names in found.items()}


def _read_trials(section: VoxCeleb1Paths, report: Callable[[str, str], None]) -> tuple[Trial, ...]:
    found = []
    for number, line in enumerate(read_text(section.trials).splitlines(), 1):
        words = line.split()
        if len(words) == 3 and words[0] in ("0", "1") and all(map(_FILE.fullmatch, words[1:])):
            found.append(Trial(words[0] == "1", words[1], words[2]))
        else:
            report(
                "trial line",
                f"{section.trials}, line {number}, is {line!r}; it should be '0|1 a.wav b.wav', "
                "with both files as idNNNNN/<video>/NNNNN.wav.",
            )
    for same, speakers in ((True, "the same speaker"), (False, "different speakers")):
        if not any(trial.same is same for trial in found):
            report(
                "one-sided trials",
                f"{section.trials} has no trial of {speakers}; an equal error rate needs trials "
                "of the same and of different speakers.",
            )
    return tuple(found)


def _folders(folder: str | os.PathLike[str]) -> Iterable[os.DirEntry[str]]:
    return [entry for entry in os.scandir(folder) if not is_hidden(entry.name) and entry.is_dir()]


def _audio(
    section: VoxCeleb1Paths,
    identification: Mapping[str, tuple[str, ...]],
    of_trials: Iterable[Trial],
    report: Callable[[str, str], None],
) -> dict[str, tuple[CorpusFile, ...]]:
    existing_folder(section.root, "the folder that holds dev/wav and test/wav")
    parts = {part: files_of_part(section, part) for part in _PARTS}
    # The same rule as for speakers: dev and test have none in common.
    everything = parts["test"] | parts["dev"]
    audio = {}
    for split, names in identification.items():
        found = []
        for name in names:
            if name in everything:
                found.append(everything[name])
            else:
                report(
                    "absent utterance",
                    f"{section.identification_split} names {name}, which is neither in "
                    f"{section.root / 'dev' / 'wav'} nor in {section.root / 'test' / 'wav'}.",
                )
        audio[split] = _sorted(found)
    audio[VERIFICATION_DEV] = _sorted(parts["dev"].values())
    in_trials = {}
    for trial in of_trials:
        for name in (trial.first, trial.second):
            if name in parts["test"]:
                in_trials[name] = parts["test"][name]
            else:
                report(
                    "absent trial",
                    f"{section.trials} names {name}, which is not in "
                    f"{section.root / 'test' / 'wav'}.",
                )
    audio[TRIALS] = _sorted(in_trials.values())
    return audio


def _sorted(found: Iterable[CorpusFile]) -> tuple[CorpusFile, ...]:
    return tuple(sorted(found, key=lambda file: file.key))


def _speaker(file: CorpusFile) -> str:
    return file.key.split("/")[2]


def _check_speakers(
    section: VoxCeleb1Paths, audio: Mapping[str, tuple[CorpusFile, ...]], problems: Problems
) -> None:
    speakers = {split: {_speaker(file) for file in found} for split, found in audio.items()}
    for split in ("dev", "test"):
        for speaker in sorted(speakers[split] - speakers["train"]):
            problems.add(
                "untrained speaker",
                f"{section.identification_split} has {speaker} in {split} and not in train; every "
                "speaker should have training utterances.",
            )
    for speaker in sorted(speakers[VERIFICATION_DEV] & speakers[TRIALS]):
        problems.add(
            "speaker in both",
            f"{section.root} has {speaker} in dev/wav and in the trials on test/wav; no speaker "
            "should be in both.",
        )


def dev_trials(section: VoxCeleb1Paths, work_dir: str | os.PathLike[str]) -> Path:
    """Write trials over the speakers of ``dev/wav``: s3prl's verification wants some to start.

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
    number = min(_MOST_DEV_TRIALS // 2, *_pairs([len(names) for names in of_speaker.values()]))
    if number == 0:
        raise InputError(
            f"{section.root / 'dev' / 'wav'} gives no trials: it should have two speakers or more "
            "with two files or more."
        )
    draw = random.Random(_DEV_TRIALS_SEED)
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
    keep_text(path, text)
    return path


def _pairs(files_of_speakers: list[int]) -> tuple[int, int]:
    """(pairs of files of one speaker, pairs of files of two speakers)."""
    same = sum(count * (count - 1) // 2 for count in files_of_speakers)
    every = sum(files_of_speakers)
    return same, every * (every - 1) // 2 - same


CORPUS = CorpusLayout(
    name="voxceleb1",
    title="VoxCeleb1 (SID, ASV)",
    expected=EXPECTED,
    files=files,
    look=_look,
    published=PUBLISHED,
)
