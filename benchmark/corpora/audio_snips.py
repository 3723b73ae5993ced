"""Audio SNIPS, for SF: ``root/{train,valid,test}/<Speaker>-<utterance>.wav``.

``root/all.iob.snips.txt`` has a line ``<Speaker>-<utterance> BOS WORDS EOS<tab>O slot … intent``
for each utterance: a slot a word, ``O`` for none, the intent under ``EOS``. ``root/slots.txt``
lists the slots, ``O`` first, which s3prl passes over. The speakers of each split are those of
SUPERB's config; each of them says every sentence of the split. Splits and counts: SUPERB (Yang et
al., Interspeech 2021), task SF.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from superbit.benchmark.corpora.layout import (
    CorpusFile,
    CorpusFiles,
    CorpusLayout,
    Inspection,
    Problems,
    seconds_of,
)
from superbit.benchmark.corpora.paths import AudioSnipsPaths
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.files import existing_folder, read_text
from superbit.upstreams.s3prl.ctc_corpus.snips_text import (
    NO_SLOT,
    TRANSCRIPTS,
    read_transcripts,
    words_and_slots,
)
from superbit.upstreams.visible import visible

SPEAKERS = {
    "train": ("Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"),
    "valid": ("Aditi", "Amy", "Geraint", "Nicole"),
    "test": ("Brian", "Emma", "Raveena", "Russell"),
}
# Sentences times speakers: 13,084 × 8, 700 × 4, 700 × 4.
EXPECTED = {"train": 104_672, "valid": 2_800, "test": 2_800}
SLOTS = "slots.txt"
PUBLISHED = (
    (
        "the prepared corpus, linked under SF in s3prl's guide to SUPERB",
        "https://github.com/s3prl/s3prl/blob/main/s3prl/downstream/docs/superb.md",
    ),
)
_FORM = "<Speaker>-<utterance> BOS WORDS EOS<tab>O slot … intent"


def read_slots(section: AudioSnipsPaths) -> tuple[str, ...]:
    """The slots that a word may have, without ``O``.

    Raises:
        InputError: the file is missing or names no slot.
    """
    source = section.root / SLOTS
    # s3prl passes over the first line, whatever it is.
    slots = tuple(line for line in read_text(source).split("\n")[1:] if line)
    if not slots:
        raise InputError(f"{source} should have the line {NO_SLOT!r}, then a line a slot.")
    return slots


def transcripts(section: AudioSnipsPaths) -> dict[str, str]:
    """Words and slots of every utterance, by utterance name.

    Raises:
        InputError: the file is missing, is not UTF-8, or gives an utterance two texts.
    """
    return read_transcripts(section.root / TRANSCRIPTS)


def files(section: AudioSnipsPaths) -> CorpusFiles:
    """Audio of SUPERB's speakers by split, transcripts and slots.

    Raises:
        InputError: the transcripts, the slots or a split's folder is missing, or a split has no
            utterance of its speakers.
    """
    audio = {split: _audio(section, split) for split in EXPECTED}
    text = [section.root / SLOTS, section.root / TRANSCRIPTS]
    for path in text:
        if not path.is_file():
            raise InputError(f"{path} is not there: it should be a text file.")
    return CorpusFiles(
        audio=audio,
        text=tuple(sorted((CorpusFile(key=p.name, path=p) for p in text), key=lambda f: f.key)),
    )


def _look(section: AudioSnipsPaths, found: Inspection) -> Iterable[str]:
    problems = found.problems
    spoken: dict[str, str] | None = None
    slots: tuple[str, ...] | None = None
    try:
        spoken = transcripts(section)
    except InputError as error:
        problems.add("transcripts", str(error))
    try:
        slots = read_slots(section)
    except InputError as error:
        problems.add("slots", str(error))
    heard: set[str] = set()
    for split, audio in found.each_split(partial(_audio, section)):
        samples = problems.samples(file.path for file in audio)
        if spoken is not None:
            for file in audio:
                _check_text(section, file.path, spoken, slots, problems)
        heard |= {file.path.stem for file in audio}
        if split == "train":
            found.require_batch(str(section.root / split), len(audio), "utterances")
        found.add_split(
            split,
            utterances=len(audio),
            speakers=len({file.path.name.partition("-")[0] for file in audio}),
            seconds=seconds_of(samples),
        )
    if found.is_whole:
        _check_silent(section, spoken or {}, heard, problems)
    return () if slots is None else (f"{len(slots)} slots",)


def _audio(section: AudioSnipsPaths, split: str) -> tuple[CorpusFile, ...]:
    if split not in EXPECTED:
        raise InputError(f"Audio SNIPS has no split {split!r}: it has {', '.join(EXPECTED)}.")
    folder = existing_folder(
        section.root / split, f"the split {split} of Audio SNIPS, <Speaker>-<utterance>.wav"
    )
    found = sorted(
        (path.relative_to(section.root).as_posix(), path)
        for path in visible(folder, "**/*.wav")
        # As s3prl does: files of other speakers are passed over.
        if path.name.startswith(SPEAKERS[split])
    )
    if not found:
        raise InputError(
            f"{folder} is an empty split: it should hold <Speaker>-<utterance>.wav of the speakers "
            f"{', '.join(SPEAKERS[split])}."
        )
    return tuple(CorpusFile(key=key, path=path) for key, path in found)


def _check_text(
    section: AudioSnipsPaths,
    audio: Path,
    spoken: Mapping[str, str],
    slots: tuple[str, ...] | None,
    problems: Problems,
) -> None:
    source = section.root / TRANSCRIPTS
    if audio.stem not in spoken:
        problems.add(
            "missing transcript",
            f"{audio} has no transcript: {source} should have a line '{audio.stem} BOS … EOS'.",
        )
        return
    try:
        _, tags, _ = words_and_slots(spoken[audio.stem])
    except ValueError:
        problems.add("form", f"{source}: the line of {audio.stem} should be '{_FORM}'.")
        return
    for tag in tags:
        if slots is not None and tag not in (NO_SLOT, *slots):
            problems.add(
                "unknown slot",
                f"{source}: the line of {audio.stem} has the slot {tag!r}, which "
                f"{section.root / SLOTS} lacks.{did_you_mean(tag, slots)}",
            )


def _check_silent(
    section: AudioSnipsPaths, spoken: Mapping[str, str], heard: set[str], problems: Problems
) -> None:
    used = tuple(f"{name}-" for of_split in SPEAKERS.values() for name in of_split)
    for name in spoken:
        if name.startswith(used) and name not in heard:
            problems.add(
                "missing audio",
                f"{section.root / TRANSCRIPTS} has a transcript of {name} and no folder has its "
                "wav: it should have both or neither.",
            )


CORPUS = CorpusLayout(
    name="audio_snips",
    title="Audio SNIPS (SF)",
    expected=EXPECTED,
    files=files,
    look=_look,
    published=PUBLISHED,
)
