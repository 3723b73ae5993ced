"""IEMOCAP, for ER: ``root/Session{1…5}/sentences/wav/<dialog>/<utterance>.wav``.

Emotions are in ``root/Session{k}/dialog/EmoEvaluation/<dialog>.txt``, in lines
``[start - end]<tab>utterance<tab>emotion<tab>[valence, activation, dominance]``. SUPERB (Yang et
al., Interspeech 2021), task ER, takes four classes, excitement counting as happiness, and five
folds, each of which is tested on one session. Corpus: Busso et al., 2008.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from superbit.benchmark.corpora.layout import (
    CorpusFile,
    CorpusFiles,
    CorpusLayout,
    Inspection,
    refuse,
    seconds_of,
)
from superbit.benchmark.corpora.paths import IemocapPaths
from superbit.upstreams.derived import keep_text
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import existing_folder, read_text
from superbit.upstreams.visible import visible

# Utterances of the four classes, 5,531 in all.
SESSIONS = {
    "Session1": 1_085,
    "Session2": 1_023,
    "Session3": 1_151,
    "Session4": 1_031,
    "Session5": 1_241,
}
# s3prl's numbers of the classes.
CLASSES = {"neu": 0, "hap": 1, "ang": 2, "sad": 3}
EXPECTED_ITEMS = {"neu": 1_708, "hap": 1_636, "ang": 1_103, "sad": 1_084}
PUBLISHED = (("Session1 to Session5", "https://sail.usc.edu/iemocap/iemocap_release.htm"),)
_CLASS_OF_EMOTION = {**{name: name for name in CLASSES}, "exc": "hap"}
_LINE = re.compile(r"\[[^\]]*\]\t(\S+)\t(\S+)\t\[[^\]]*\]\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class EmotionUtterance:
    """An utterance of one of the four classes.

    Attributes:
        path: of the wav file, relative to the root.
        emotion: one of ``CLASSES``.
    """

    path: str
    emotion: str

    @property
    def recording(self) -> str:
        """What s3prl calls the speaker: session and wearer of the sensors, e.g. ``Ses01F``."""
        return Path(self.path).name.split("_")[0]

    @property
    def speaker(self) -> str:
        """Who speaks: session and gender, e.g. ``Ses01M``; the last part of the name tells."""
        name = Path(self.path).stem
        return name[:5] + name.rpartition("_")[2][:1]


def utterances(section: IemocapPaths, session: str) -> tuple[EmotionUtterance, ...]:
    """Utterances of the four classes in ``Session1`` … ``Session5``, sorted by path.

    Raises:
        InputError: the session is unknown or missing, or holds a malformed line, an utterance
            without its wav file, or a class without items.
    """
    return _read(section, session, refuse)


def files(section: IemocapPaths) -> CorpusFiles:
    """Audio of the four classes by session, and the files of emotions.

    Raises:
        InputError: as :func:`utterances`.
    """
    return CorpusFiles(
        audio={
            session: tuple(
                CorpusFile(key=item.path, path=section.root / item.path)
                for item in utterances(section, session)
            )
            for session in SESSIONS
        },
        text=tuple(
            sorted(
                (
                    CorpusFile(key=path.relative_to(section.root).as_posix(), path=path)
                    for session in SESSIONS
                    for path in _label_files(section, session)
                ),
                key=lambda file: file.key,
            )
        ),
    )


def _look(section: IemocapPaths, found: Inspection) -> Iterable[str]:
    items: Counter[str] = Counter()
    for session, of_session in found.each_split(
        lambda session: _read(section, session, found.problems.add)
    ):
        items.update(item.emotion for item in of_session)
        samples = found.problems.samples(section.root / item.path for item in of_session)
        found.add_split(
            session,
            utterances=len(of_session),
            speakers=len({item.speaker for item in of_session}),
            seconds=seconds_of(samples),
        )
    if found.is_whole:
        largest = max(split.utterances for split in found.splits)
        training = items.total() - largest
        found.require_batch(str(section.root), training, "utterances to train on in a fold")
    counts = ", ".join(
        f"{name} {items[name]:,} (SUPERB: {expected:,})"
        for name, expected in EXPECTED_ITEMS.items()
    )
    return (counts,)


def write_folds(section: IemocapPaths, work_dir: str | os.PathLike[str]) -> Path:
    """Write the lists from which s3prl's ER takes its five folds.

    ``Session{k}/test_meta_data.json`` has the utterances of session k, ``train_meta_data.json``
    those of the other four, both sorted by path. The same corpus gives the same folder, wherever
    it lies; the corpus itself is never written to.

    Args:
        work_dir: a folder of ours.

    Returns:
        The folder that holds ``Session1`` to ``Session5``: s3prl's ``meta_data``.

    Raises:
        InputError: as :func:`utterances`.
    """
    items = {session: utterances(section, session) for session in SESSIONS}
    texts = {}
    for session in SESSIONS:
        others = [item for other in SESSIONS if other != session for item in items[other]]
        texts[f"{session}/train_meta_data.json"] = _meta_data(others)
        texts[f"{session}/test_meta_data.json"] = _meta_data(list(items[session]))
    digest = hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()[:16]
    folder = Path(work_dir) / "folds" / f"iemocap-{digest}"
    for name, text in texts.items():
        keep_text(folder / name, text)
    return folder


def _meta_data(items: list[EmotionUtterance]) -> str:
    rows = [
        {"path": item.path, "label": item.emotion, "speaker": item.recording}
        for item in sorted(items, key=lambda item: item.path)
    ]
    return json.dumps({"labels": CLASSES, "meta_data": rows})


def _label_files(section: IemocapPaths, session: str) -> list[Path]:
    if session not in SESSIONS:
        raise InputError(f"IEMOCAP has no session {session!r}: it has {', '.join(SESSIONS)}.")
    existing_folder(
        section.root / session, f"{session} of IEMOCAP, with sentences/wav and dialog/EmoEvaluation"
    )
    folder = existing_folder(
        section.root / session / "dialog" / "EmoEvaluation", "the files of emotions, <dialog>.txt"
    )
    return visible(folder, "*.txt")


def _read(
    section: IemocapPaths, session: str, report: Callable[[str, str], None]
) -> tuple[EmotionUtterance, ...]:
    labels = _label_files(section, session)
    wavs = existing_folder(
        section.root / session / "sentences" / "wav", "the folder of <dialog>/<utterance>.wav"
    )
    paths = {
        path.stem: path.relative_to(section.root).as_posix() for path in visible(wavs, "*/*.wav")
    }
    found = []
    for file in labels:
        for number, line in enumerate(read_text(file).splitlines(), 1):
            if not line.startswith("["):
                continue
            match = _LINE.fullmatch(line)
            if match is None:
                report(
                    "line of emotion",
                    f"{file}, line {number}, is {line!r}; it should be '[start - end]', the "
                    "utterance, its emotion and '[valence, activation, dominance]' between tabs.",
                )
                continue
            emotion = _CLASS_OF_EMOTION.get(match[2])
            if emotion is None:
                continue
            if match[1] in paths:
                found.append(EmotionUtterance(path=paths[match[1]], emotion=emotion))
            else:
                report(
                    "absent utterance",
                    f"{file}, line {number}, names {match[1]}, of which there is no wav file "
                    f"under {wavs}.",
                )
    for emotion in CLASSES:
        if not any(item.emotion == emotion for item in found):
            report(
                f"class {emotion}",
                f"{section.root / session} has no utterance of the class {emotion!r}; every one "
                f"of {', '.join(CLASSES)} should have some.",
            )
    return tuple(sorted(found, key=lambda item: item.path))


CORPUS = CorpusLayout(
    name="iemocap",
    title="IEMOCAP (ER)",
    expected=SESSIONS,
    files=files,
    look=_look,
    published=PUBLISHED,
)
