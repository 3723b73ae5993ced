"""LibriSpeech, for PR and ASR: ``root/<split>/<speaker>/<chapter>/<utterance>.flac``.

Transcripts lie beside the audio in ``<speaker>-<chapter>.trans.txt``; the lexicon is a list of
text files of lines ``WORD PH ON EMES`` of which a word's first pronunciation counts. Splits and
counts: SUPERB (Yang et al., Interspeech 2021), tasks PR and ASR.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path

from superbit.benchmark.corpora.audio import read_header
from superbit.benchmark.corpora.layout import (
    CorpusFile,
    CorpusFiles,
    CorpusLayout,
    Inspection,
    Problems,
    seconds_of,
)
from superbit.benchmark.corpora.paths import LibriSpeechPaths
from superbit.upstreams.derived import kept_text
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_text
from superbit.upstreams.s3prl.ctc_corpus.librispeech import (
    SPLITS,
    TRAIN,
    Lexicon,
    absent_word,
    audio_files,
    read_lexicon,
    to_phones,
    transcript_files,
    transcripts,
    utterances,
    words_of,
)

__all__ = [
    "CORPUS",
    "SPLITS",
    "TRAIN",
    "files",
    "read_lexicon",
    "to_phones",
    "transcripts",
    "utterances",
    "write_length_buckets",
]

PUBLISHED = (
    ("train-clean-100, dev-clean, test-clean", "https://www.openslr.org/12"),
    (
        "the two lexicons of s3prl",
        "https://huggingface.co/datasets/s3prl/g2p/tree/main/lexicon",
    ),
)


def files(section: LibriSpeechPaths) -> CorpusFiles:
    """Audio by split, transcripts and lexicons.

    Raises:
        InputError: a split's folder is missing or has no utterance.
    """
    audio = {split: _audio(section, split) for split in SPLITS}
    transcripts = [
        CorpusFile(key=path.relative_to(section.root).as_posix(), path=path)
        for split in SPLITS
        for path in transcript_files(section, split)
    ]
    # Their order counts (the first pronunciation wins), their names do not.
    lexicons = [
        CorpusFile(key=f"lexicon/{index}", path=path) for index, path in enumerate(section.lexicon)
    ]
    text = sorted(transcripts + lexicons, key=lambda file: file.key)
    return CorpusFiles(audio=audio, text=tuple(text))


def _look(section: LibriSpeechPaths, found: Inspection) -> Iterable[str]:
    lexicon = _check_lexicon(section, found.problems)
    for split, audio in found.each_split(partial(_audio, section)):
        samples = found.problems.samples(file.path for file in audio)
        _check_transcripts(section, split, audio, lexicon, found.problems)
        if split == TRAIN:
            found.require_batch(str(section.root / split), len(audio), "utterances")
        found.add_split(
            split,
            utterances=len(audio),
            speakers=len({file.key.split("/")[1] for file in audio}),
            seconds=seconds_of(samples),
        )
    return () if lexicon is None else (f"lexicon: {len(lexicon.phones):,} words",)


def write_length_buckets(
    section: LibriSpeechPaths, splits: Sequence[str], work_dir: str | os.PathLike[str]
) -> Path:
    """Write the tables from which s3prl's ASR dataset makes its batches.

    ``<split>.csv`` has the columns ``file_path`` (relative to the root), ``length`` (samples) and
    ``label`` (empty: transcripts are read from the corpus), longest first, equal lengths by name.
    Tables made before from the same files are used again if they are whole; the corpus itself is
    never written to.

    Args:
        work_dir: a folder of ours.

    Returns:
        The folder that holds the tables: s3prl's ``bucket_file``.

    Raises:
        InputError: a split is unknown, missing or empty, or the header of an audio file is bad.
    """
    audio = {split: _audio(section, split) for split in splits}
    folder = Path(work_dir) / "length_buckets" / _fingerprint(audio)
    for split, of_split in audio.items():
        kept_text(folder / f"{split}.csv", partial(_buckets, of_split))
    return folder


def _buckets(audio: Sequence[CorpusFile]) -> str:
    rows = [(file.key, read_header(file.path).samples) for file in audio]
    rows.sort(key=lambda row: (-row[1], row[0]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file_path", "length", "label"])
    writer.writerows([key, length, ""] for key, length in rows)
    return text.getvalue()


def _fingerprint(audio: dict[str, tuple[CorpusFile, ...]]) -> str:
    """Names one state of the audio: changes whenever a file is added, taken away or changed."""
    digest = hashlib.sha256()
    for split, of_split in audio.items():
        for file in of_split:
            status = file.path.stat()
            digest.update(
                f"{split}\0{file.path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode()
            )
    return digest.hexdigest()[:16]


def _audio(section: LibriSpeechPaths, split: str) -> tuple[CorpusFile, ...]:
    return tuple(CorpusFile(key=key, path=path) for key, path in audio_files(section, split))


def phone_inventory() -> frozenset[str]:
    """The phone symbols of SUPERB's PR task, as in ``downstream_configs/assets/phoneme.txt``."""
    asset = resources.files("superbit.downstream_configs") / "assets" / "phoneme.txt"
    return frozenset(asset.read_text(encoding="utf-8").split())


def _check_lexicon(section: LibriSpeechPaths, problems: Problems) -> Lexicon | None:
    """The lexicon, with its faults added to ``problems``; None where it cannot be read."""
    try:
        lexicon = read_lexicon(section)
    except InputError as error:
        problems.add("lexicon", str(error))
        return None
    inventory = phone_inventory()
    for path in section.lexicon:
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            word, *phones = line.split() or [""]
            if word and not phones:
                problems.add(
                    "no phones",
                    f"{path}, line {number}: {word!r} has no phones; a line should be "
                    "'WORD PH ON EMES'.",
                )
            for phone in phones:
                if phone not in inventory:
                    problems.add(
                        "phone",
                        f"{path}, line {number}: the phone {phone!r} of {word!r} is not one of "
                        f"the {len(inventory)} that PR knows (AA0 … ZH, SIL, SPN).",
                    )
    return lexicon


def _check_transcripts(
    section: LibriSpeechPaths,
    split: str,
    audio: Iterable[CorpusFile],
    lexicon: Lexicon | None,
    problems: Problems,
) -> None:
    try:
        spoken = transcripts(section, split)
    except InputError as error:
        problems.add("transcript file", str(error))
        return
    reported: set[str] = set()
    silent = set(spoken)
    for file in audio:
        silent.discard(file.path.stem)
        try:
            words = words_of(file.path, spoken)
        except InputError as error:
            problems.add("transcript", str(error))
            continue
        if lexicon is None:
            continue
        for word in words.split():
            if word not in lexicon.phones and word not in reported:
                reported.add(word)
                problems.add("word", absent_word(file.path, word, lexicon))
    for name in sorted(silent):
        problems.add(
            "missing audio",
            f"{section.root / split} has a transcript of {name} and no {name}.flac: "
            "it should have both or neither.",
        )


CORPUS = CorpusLayout(
    name="librispeech",
    title="LibriSpeech (PR, ASR)",
    expected=SPLITS,
    files=files,
    look=_look,
    published=PUBLISHED,
)
