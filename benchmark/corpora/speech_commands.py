"""Speech Commands v0.01, for KS: ``root/<word>/<speaker hash>_nohash_<n>.wav``.

``root/_background_noise_`` holds recordings from which training and development crop their
silence class; ``test_root`` holds one folder for each of the 12 classes. Splits and counts: SUPERB
(Yang et al., Interspeech 2021), task KS; the split by a hash of the speaker is the corpus's own
(Warden, arXiv:1804.03209).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from superbit.benchmark.corpora.audio import SAMPLE_RATE, read_header
from superbit.benchmark.corpora.layout import (
    CorpusFile,
    CorpusFiles,
    CorpusLayout,
    Inspection,
    Problems,
    seconds_of,
)
from superbit.benchmark.corpora.paths import SpeechCommandsPaths
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import existing_folder
from superbit.upstreams.visible import visible

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE, NOISE = "_unknown_", "_silence_", "_background_noise_"
CLASSES = (*KEYWORDS, UNKNOWN, SILENCE)
# Files in SUPERB's splits. The corpus has 64,727: 51,088 and 6,798 words, 6 noises (which are
# the silence class of training and development), and 6,835 words that SUPERB leaves out.
EXPECTED = {"train": 51_094, "dev": 6_804, "test": 3_081}
PUBLISHED = (
    (
        "root",
        "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.01.tar.gz",
    ),
    (
        "test_root",
        "https://storage.googleapis.com/download.tensorflow.org/data/"
        "speech_commands_test_set_v0.01.tar.gz",
    ),
)
_HASH_RANGE = 2**27
# Training and development crop one second of noise at a random place.
_MINIMUM_NOISE_SAMPLES = SAMPLE_RATE


def speaker_of(file_name: str) -> str:
    """The part of a file name that stands for the speaker."""
    return file_name.split("_nohash_")[0]


def split_of(file_name: str) -> str | None:
    """``"train"`` or ``"dev"``, or None for the tenth of the speakers that SUPERB leaves out.

    A hash of the speaker, as a percentage: below 10 development, below 20 left out, else training.
    """
    hashed = int(hashlib.sha1(speaker_of(file_name).encode()).hexdigest(), 16)
    percent = hashed % _HASH_RANGE * (100.0 / (_HASH_RANGE - 1))
    if percent < 10:
        return "dev"
    return None if percent < 20 else "train"


def class_of(folder: str) -> str:
    """The class of the files in a training folder."""
    return {NOISE: SILENCE}.get(folder, folder if folder in CLASSES else UNKNOWN)


def files(section: SpeechCommandsPaths) -> CorpusFiles:
    """Audio by split, background noise under a split ``noise`` of its own.

    Raises:
        InputError: a root is missing or a split is empty.
    """
    words, noise = _training_audio(section)
    audio = {
        "train": tuple(file for file in words if split_of(file.path.name) == "train"),
        "dev": tuple(file for file in words if split_of(file.path.name) == "dev"),
        "test": _test_audio(section),
        "noise": noise,
    }
    for split, of_split in audio.items():
        if not of_split:
            raise InputError(_empty_split(section, split))
    return CorpusFiles(audio=audio)


def _look(section: SpeechCommandsPaths, found: Inspection) -> Iterable[str]:
    problems = found.problems
    try:
        words, noise = _training_audio(section)
        test = _test_audio(section)
    except InputError as error:
        problems.add("root", str(error))
        words, noise, test = (), (), ()
    samples = {file.key: _samples(file, problems) for file in (*words, *noise, *test)}
    # s3prl counts the noises as items of the silence class of both train and dev.
    items = {
        "train": [f for f in words if split_of(f.path.name) == "train"] + list(noise),
        "dev": [f for f in words if split_of(f.path.name) == "dev"] + list(noise),
        "test": list(test),
    }
    for name, of_split in items.items():
        speakers = {speaker_of(f.path.name) for f in of_split if f not in noise}
        found.add_split(
            name,
            utterances=len(of_split),
            # File names of the test do not tell the speaker.
            speakers=None if name == "test" else len(speakers),
            seconds=seconds_of(sum(samples[file.key] for file in of_split)),
        )
        if words or test:
            _check_classes(section, name, of_split, problems)
    if words:
        # s3prl's loop never ends on less than a batch.
        found.require_batch(str(section.root), len(items["train"]), "training items")
    folders = {file.key.split("/")[1] for file in words}
    return (
        f"{len(folders)} words, {len(words):,} files of words in root (SUPERB: 30, 64,721)",
        f"{len(noise)} background noises, in train and dev as the silence class (SUPERB: 6)",
    )


def _training_audio(
    section: SpeechCommandsPaths,
) -> tuple[tuple[CorpusFile, ...], tuple[CorpusFile, ...]]:
    """(words, background noises) under root, sorted by key."""
    root = existing_folder(section.root, "the folder that holds a folder a word")
    found = sorted(
        (f"train/{folder.name}/{path.name}", path)
        for folder in visible(root, "*/")
        for path in visible(folder, "*.wav")
    )
    is_noise = f"train/{NOISE}/"
    every = [CorpusFile(key=key, path=path) for key, path in found]
    return (
        tuple(file for file in every if not file.key.startswith(is_noise)),
        tuple(file for file in every if file.key.startswith(is_noise)),
    )


def _test_audio(section: SpeechCommandsPaths) -> tuple[CorpusFile, ...]:
    root = existing_folder(section.test_root, "the folder that holds the 12 class folders")
    folders = visible(root, "*/")
    for folder in folders:
        if folder.name not in CLASSES and visible(folder, "*.wav"):
            raise InputError(
                f"{folder} is none of the 12 classes of the test: {', '.join(CLASSES)}."
            )
    found = sorted(
        (f"test/{folder.name}/{path.name}", path)
        for folder in folders
        for path in visible(folder, "*.wav")
    )
    return tuple(CorpusFile(key=key, path=path) for key, path in found)


def _empty_split(section: SpeechCommandsPaths, split: str) -> str:
    if split == "noise":
        return (
            f"{section.root / NOISE} has no wav file: it should hold recordings of noise of at "
            "least a second, from which the silence class is cropped."
        )
    root = section.test_root if split == "test" else section.root
    return f"{root} is an empty split: no file of it belongs to {split}."


def _samples(file: CorpusFile, problems: Problems) -> int:
    try:
        samples = read_header(file.path).samples
    except InputError as error:
        problems.add("audio", str(error))
        return 0
    if file.path.parent.name == NOISE and samples < _MINIMUM_NOISE_SAMPLES:
        problems.add(
            "short noise",
            f"{file.path} has {samples:,} samples; a background noise should have at least "
            f"{_MINIMUM_NOISE_SAMPLES:,}, because a second of it is cropped at random.",
        )
    return samples


def _check_classes(
    section: SpeechCommandsPaths, split: str, items: list[CorpusFile], problems: Problems
) -> None:
    if not items:
        problems.add(f"empty {split}", _empty_split(section, split))
        return
    of_class = (lambda name: name) if split == "test" else class_of
    counts = Counter(of_class(file.key.split("/")[1]) for file in items)
    root: Path = section.test_root if split == "test" else section.root
    for class_name in CLASSES:
        if counts[class_name]:
            continue
        if class_name == SILENCE and split != "test":
            # One sentence for train and dev together.
            if split == "train":
                problems.add("noise", _empty_split(section, "noise"))
            continue
        problems.add(
            f"class in {split}",
            f"{root} has no item of the class {class_name!r} in the split {split}; every one of "
            "the 12 classes should have some.",
        )


CORPUS = CorpusLayout(
    name="speech_commands",
    title="Speech Commands v0.01 (KS)",
    expected=EXPECTED,
    files=files,
    look=_look,
    published=PUBLISHED,
)
