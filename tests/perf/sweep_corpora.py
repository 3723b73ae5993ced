"""Noise as long as the real corpora's utterances, in their layouts: for measuring time only.

Mean lengths are those of ``benchmark/features/sizes.py`` (hours by utterances); how they spread is
stated in :data:`LENGTHS`. Lengths are evenly spaced quantiles in random order, so that few files
have the mean and the tail of many.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from superbit.benchmark.corpora import (
    audio_snips,
    fluent_speech_commands,
    iemocap,
    librispeech,
    quesst14,
    speech_commands,
)
from superbit.benchmark.features.sizes import SIZES
from superbit.benchmark.tasks import TASKS

SAMPLE_RATE = 16_000
SPLITS = ("train", "dev", "test")
WORDS_A_SECOND = 2.7  # of read English
# Longer than the 0.1 s from which sox takes silence for such.
_PAUSE_SECONDS = 0.3
# VoxCeleb1's audio that ASV's silence trimming leaves (306 of 340 hours).
VOICED_SHARE = 0.9


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long a corpus's utterances are, in seconds.

    Attributes:
        tail: ``"exponential"`` above the shortest, cut at the longest, as of talk; or
            ``"bounded"``, a power of an even spread, as of read speech of limited length.
    """

    shortest: float
    mean: float
    longest: float
    tail: str = "exponential"

    def quantiles(self, count: int) -> np.ndarray:
        """``count`` lengths at evenly spaced quantiles, rising."""
        places = (np.arange(count) + 0.5) / count
        if self.shortest == self.longest:
            return np.full(count, self.mean)
        if self.tail == "bounded":
            power = (self.longest - self.mean) / (self.mean - self.shortest)
            return self.shortest + (self.longest - self.shortest) * places**power
        above = self.mean - self.shortest
        return np.minimum(self.shortest - above * np.log1p(-places), self.longest)


def _mean(task: str, split: str) -> float:
    count, hours = SIZES[task][split]
    return 3600 * hours / count


# By corpus and split; dev and test alike.
LENGTHS: dict[str, dict[str, Lengths]] = {
    # 1 to 16 s, half of them above 13 s; dev and test are not cut at 16 s
    "librispeech": {
        "train": Lengths(shortest=1.0, mean=_mean("PR", "train"), longest=16.0, tail="bounded"),
        "test": Lengths(shortest=1.5, mean=_mean("PR", "test"), longest=35.0),
    },
    "speech_commands": {
        "train": Lengths(shortest=1.0, mean=1.0, longest=1.0),
        "test": Lengths(shortest=1.0, mean=1.0, longest=1.0),
        "noise": Lengths(shortest=60.0, mean=66.0, longest=95.0),
    },
    # 4 s and more, mean 8.2 s, 39 % above the 8 s from which SID and ASV crop
    "voxceleb1": {
        "train": Lengths(shortest=4.0, mean=_mean("SID", "train"), longest=145.0),
        "test": Lengths(shortest=4.0, mean=_mean("SID", "test"), longest=145.0),
    },
    "fluent_speech_commands": {
        "train": Lengths(shortest=1.2, mean=_mean("IC", "train"), longest=10.0),
        "test": Lengths(shortest=1.2, mean=_mean("IC", "test"), longest=10.0),
    },
    "iemocap": {"train": Lengths(shortest=0.6, mean=_mean("ER", "train"), longest=34.0)},
    "audio_snips": {
        "train": Lengths(shortest=1.2, mean=_mean("SF", "train"), longest=7.5, tail="bounded"),
        "test": Lengths(shortest=1.2, mean=_mean("SF", "test"), longest=7.5, tail="bounded"),
    },
    # mode max: the longer of two utterances of LibriSpeech
    "libri2mix": {
        "train": Lengths(shortest=5.0, mean=_mean("SD", "train"), longest=16.8, tail="bounded"),
        "test": Lengths(shortest=5.0, mean=_mean("SD", "test"), longest=35.0),
    },
    # documents, and queries of a word or two; together the 4.2 h of sizes.py
    "quesst14": {
        "train": Lengths(shortest=1.5, mean=6.1, longest=30.0),
        "test": Lengths(shortest=0.8, mean=1.5, longest=4.0),
    },
}


def make_corpus(
    task: str,
    folder: Path,
    *,
    train: int,
    evaluated: int,
    distinct_seconds: float = math.inf,
    seed: int = 0,
) -> Path:
    """Make what a task reads and return its paths file.

    Args:
        train: utterances to train on (QbE: documents).
        evaluated: of dev and of test each (QbE: queries).
        distinct_seconds: of audio; files above it are links to earlier ones. Only for tasks that
            draw in random order: batches of utterances of one length would hold one file.
    """
    corpus = TASKS[task].corpus
    folder.mkdir(parents=True, exist_ok=True)
    text = _LAYOUTS[corpus](folder, train, evaluated, _Voice(corpus, seed, distinct_seconds))
    paths = folder / "paths.yaml"
    paths.write_text(f"{corpus}: {{{text}}}\n")
    return paths


class _Voice:
    """Writes noise that rises and falls as syllables do, of the lengths of a corpus."""

    def __init__(self, corpus: str, seed: int, distinct_seconds: float) -> None:
        self.corpus, self.random = corpus, np.random.default_rng(seed)
        self._left = distinct_seconds
        self._written: list[tuple[Path, float]] = []
        self._links = 0

    def lengths(self, split: str, count: int) -> Iterator[float]:
        """``count`` lengths of a split in random order."""
        known = LENGTHS[self.corpus]
        if split not in known:
            split = "test" if split != "train" and "test" in known else "train"
        drawn = known[split].quantiles(count)
        return iter(self.random.permutation(drawn).tolist())

    def write(self, path: Path, seconds: float, *, alone: bool = False) -> float:
        """Write a file; return its length in seconds, whole samples.

        Args:
            alone: of its own kind: no other file is a link to it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._left < seconds and self._written and not alone:
            earlier, length = self._written[self._links % len(self._written)]
            self._links += 1
            os.link(earlier, path)
            return length
        sound = speech_like(
            round(seconds * SAMPLE_RATE), self.random, pauses=self.corpus == "voxceleb1"
        )
        soundfile.write(path, sound, SAMPLE_RATE, subtype="PCM_16")
        length = len(sound) / SAMPLE_RATE
        if not alone:
            self._left -= length
            self._written.append((path, length))
        return length


def speech_like(samples: int, random: np.random.Generator, *, pauses: bool) -> np.ndarray:
    """Noise with four swells a second, float32; never silent but for pauses, a tenth of it."""
    seconds = np.arange(samples) / SAMPLE_RATE
    swell = 0.6 + 0.4 * np.sin(2 * math.pi * 4 * seconds + random.uniform(0, 2 * math.pi))
    sound = (0.1 * swell * random.standard_normal(samples)).clip(-0.99, 0.99)
    if pauses:
        period = _PAUSE_SECONDS / (1 - VOICED_SHARE)
        within = (seconds + random.uniform(0, period)) % period
        sound[within < _PAUSE_SECONDS] = 0.0
    return sound.astype(np.float32)


def _count(split: str, train: int, evaluated: int) -> int:
    return train if split == "train" else evaluated


def _librispeech(folder: Path, train: int, evaluated: int, voice: _Voice) -> str:
    (folder / "lexicon.txt").write_text("WORD W ER1 D\nWORDS W ER1 D Z\n")
    for number, split in enumerate(librispeech.SPLITS):
        part = "train" if split == librispeech.TRAIN else "test"
        lines: dict[Path, list[str]] = {}
        for index, seconds in enumerate(voice.lengths(part, _count(part, train, evaluated))):
            speaker, chapter = 100 * (number + 1) + index // 10, 1_000 + index // 10
            below = folder / "LibriSpeech" / split / str(speaker) / str(chapter)
            name = f"{speaker}-{chapter}-{index:04d}"
            voice.write(below / f"{name}.flac", seconds)
            words = itertools.islice(itertools.cycle(("WORD", "WORDS")), _words(seconds))
            transcript = below / f"{speaker}-{chapter}.trans.txt"
            lines.setdefault(transcript, []).append(f"{name} {' '.join(words)}\n")
        for file, said in lines.items():
            file.write_text("".join(said))
    return "root: LibriSpeech, lexicon: [lexicon.txt]"


def _words(seconds: float) -> int:
    return max(1, round(WORDS_A_SECOND * seconds))


def _speech_commands(folder: Path, train: int, evaluated: int, voice: _Voice) -> str:
    words = (*speech_commands.KEYWORDS, "bed")
    names = {split: _hashed(split) for split in ("train", "dev")}
    for split in ("train", "dev"):
        lengths = voice.lengths(split, _count(split, train, evaluated))
        for word, seconds in zip(itertools.cycle(words), lengths, strict=False):
            voice.write(folder / "words" / word / f"{next(names[split])}_nohash_0.wav", seconds)
    for index, seconds in enumerate(voice.lengths("noise", 6)):
        voice.write(
            folder / "words" / speech_commands.NOISE / f"noise{index}.wav", seconds, alone=True
        )
    of_test = zip(
        itertools.cycle(speech_commands.CLASSES), voice.lengths("test", evaluated), strict=False
    )
    for index, (name, seconds) in enumerate(of_test):
        voice.write(folder / "test" / name / f"{index:05d}.wav", seconds)
    return "root: words, test_root: test"


def _hashed(split: str) -> Iterator[str]:
    """Names of speakers whom the corpus's own hash puts into ``split``."""
    for number in itertools.count():
        name = hashlib.sha1(str(number).encode()).hexdigest()[:8]
        if speech_commands.split_of(f"{name}_nohash_0.wav") == split:
            yield name


def _voxceleb1(folder: Path, train: int, evaluated: int, voice: _Voice) -> str:
    """Two files a speaker. SID's splits are of the speakers of dev/wav, trials of test/wav."""
    split_lines, of_trials = [], []
    for number, split in enumerate((*SPLITS, "trials"), start=1):
        is_trial = split == "trials"
        part, first = ("test", 10_270) if is_trial else ("dev", 10_001)
        lengths = voice.lengths("test" if is_trial else split, _count(split, train, evaluated))
        for index, seconds in enumerate(lengths):
            name = f"id{first + index // 2}/{split}/{index:05d}.wav"
            voice.write(folder / "VoxCeleb1" / part / "wav" / name, seconds)
            if is_trial:
                of_trials.append(name)
            else:
                split_lines.append(f"{number} {name}\n")
    (folder / "split.txt").write_text("".join(split_lines))
    # Each file with the one of the same speaker and with one of another, four times.
    trials = []
    for index, name in enumerate(of_trials):
        for step in range(4):
            other = (index + 2 + 2 * step) % len(of_trials)
            trials += [f"1 {name} {of_trials[index ^ 1]}\n", f"0 {name} {of_trials[other]}\n"]
    (folder / "trials.txt").write_text("".join(trials))
    return "root: VoxCeleb1, identification_split: split.txt, trials: trials.txt"


def _fluent_speech_commands(folder: Path, train: int, evaluated: int, voice: _Voice) -> str:
    root = folder / "fluent"
    intents = list(itertools.product(("activate", "change"), ("lights", "music"), ("none", "den")))
    for split in fluent_speech_commands.SPLITS:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("", *fluent_speech_commands.COLUMNS))
        for index, seconds in enumerate(voice.lengths(split, _count(split, train, evaluated))):
            file = f"wavs/speakers/{split}{index % 10}/{index:05d}.wav"
            voice.write(root / file, seconds)
            intent = intents[index % len(intents)]
            table.writerow((index, file, f"{split}{index % 10}", "words", *intent))
        (root / "data").mkdir(exist_ok=True)
        (root / "data" / f"{split}_data.csv").write_text(text.getvalue())
    return "root: fluent"


def _iemocap(folder: Path, train: int, evaluated: int, voice: _Voice) -> str:
    """Fold 1 trains on four fifths of four sessions."""
    each = max(evaluated, math.ceil(train / 0.8 / (len(iemocap.SESSIONS) - 1)))
    for session, name in enumerate(iemocap.SESSIONS, start=1):
        dialog, lines = f"Ses{session:02d}F_impro01", ["% header\n\n"]
        count = evaluated if session == 1 else each
        for index, seconds in enumerate(voice.lengths("train", count)):
            utterance = f"{dialog}_{'FM'[index % 2]}{index:03d}"
            wav = folder / "IEMOCAP" / name / "sentences" / "wav" / dialog / f"{utterance}.wav"
            voice.write(wav, seconds)
            emotion = list(iemocap.CLASSES)[index % len(iemocap.CLASSES)]
            times = f"[{index:.4f} - {index + 1:.4f}]"
            lines.append(f"{times}\t{utterance}\t{emotion}\t[3.0000, 3.0000, 3.0000]\n\n")
        labels = folder / "IEMOCAP" / name / "dialog" / "EmoEvaluation" / f"{dialog}.txt"
        labels.parent.mkdir(parents=True)
        labels.write_text("".join(lines))
    return "root: IEMOCAP"


def _audio_snips(folder: Path, train: int, evaluated: int, voice: _Voice) -> str:
    root, lines = folder / "snips", []
    for split, speakers in audio_snips.SPEAKERS.items():
        count = _count(split, train, evaluated)
        for index, seconds in enumerate(voice.lengths(split, count)):
            name = f"{speakers[index % len(speakers)]}-snips-{split}-{index}"
            voice.write(root / split / f"{name}.wav", seconds)
            words = ["PLAY", "JAZZ", *["NOW"] * (_words(seconds) - 2)]
            slots = ["O", "genre", *["O"] * (_words(seconds) - 2)]
            lines.append(f"{name} BOS {' '.join(words)} EOS\tO {' '.join(slots)} PlayMusic\n")
    (root / audio_snips.TRANSCRIPTS).write_text("".join(lines))
    (root / audio_snips.SLOTS).write_text("O\ngenre")
    return "root: snips"


def _libri2mix(folder: Path, train: int, evaluated: int, voice: _Voice) -> str:
    """One speaker talks all the time, the other one in the second half."""
    for split in SPLITS:
        tables: dict[str, list[str]] = {
            name: [] for name in ("wav.scp", "segments", "utt2spk", "spk2utt", "reco2dur", "rttm")
        }
        for index, seconds in enumerate(voice.lengths(split, _count(split, train, evaluated))):
            name = f"{split}{index:05d}"
            end = voice.write(folder / split / "wav" / f"{name}.wav", seconds)
            tables["wav.scp"].append(f"{name} wav/{name}.wav")
            tables["reco2dur"].append(f"{name} {end:.4f}")
            for speaker, start in ((f"{name}a", 0.0), (f"{name}b", end / 2)):
                tables["segments"].append(f"{speaker}_1 {name} {start:.4f} {end:.4f}")
                tables["utt2spk"].append(f"{speaker}_1 {speaker}")
                tables["spk2utt"].append(f"{speaker} {speaker}_1")
                tables["rttm"].append(
                    f"SPEAKER {name} 1 {start:.4f} {end - start:.4f} <NA> <NA> {speaker} <NA> <NA>"
                )
        for table, rows in tables.items():
            (folder / split / table).write_text("\n".join(rows) + "\n")
    return ", ".join(f"{split}_dir: {split}" for split in SPLITS)


def _quesst14(folder: Path, train: int, evaluated: int, voice: _Voice) -> str:
    """The first query of a split is in the first document, and so on."""
    scoring = folder / "quesst" / "scoring"
    scoring.mkdir(parents=True)
    seconds: dict[str, dict[str, float]] = {}
    for group in (quesst14.DOCUMENTS, *quesst14.SPLITS):
        is_document = group == quesst14.DOCUMENTS
        below = "Audio" if is_document else f"{group}_queries"
        part, count = ("train", train) if is_document else ("test", evaluated)
        seconds[group] = {
            f"quesst14_{group}_{index:05d}": length
            for index, length in enumerate(voice.lengths(part, count))
        }
        for name, length in seconds[group].items():
            voice.write(folder / "quesst" / below / f"{name}.wav", length)
        lines = [f"quesst/{below}/{name}.wav {quesst14.LANGUAGE}\n" for name in seconds[group]]
        (scoring / f"language_key_{group}.lst").write_text("".join(lines))
    documents = seconds[quesst14.DOCUMENTS]
    for split in quesst14.SPLITS:
        _write_truth(scoring / f"groundtruth_quesst14_{split}", split, documents, seconds[split])
    return "root: quesst"


def _write_truth(
    folder: Path, split: str, documents: dict[str, float], queries: Sequence[str]
) -> None:
    folder.mkdir()
    held = dict(zip(documents, queries, strict=False))
    rttm = [
        f"LEXEME {name} 1 0.000 {length:.3f} {held.get(name, 'NO_KEYWORD')} lex <NA> <NA>\n"
        for name, length in documents.items()
    ]
    terms = "".join(f'<term termid="{q}"><termtext>{q}</termtext></term>\n' for q in queries)
    excerpts = "".join(
        f'<excerpt audio_filename="{name}.wav" channel="1" tbeg="0.000" dur="{length:.3f}" '
        'source_type="splitcts"/>\n'
        for name, length in documents.items()
    )
    (folder / f"quesst14_{split}.rttm").write_text("".join(rttm))
    (folder / f"quesst14_{split}.tlist.xml").write_text(
        f'<termlist ecf_filename="quesst14.ecf.xml" language="english" version="1">\n{terms}'
        "</termlist>\n"
    )
    (folder / "quesst14.ecf.xml").write_text(
        f'<ecf source_signal_duration="{sum(documents.values()):.3f}" version="1">\n{excerpts}'
        "</ecf>\n"
    )


_LAYOUTS: dict[str, Callable[[Path, int, int, _Voice], str]] = {
    "librispeech": _librispeech,
    "speech_commands": _speech_commands,
    "voxceleb1": _voxceleb1,
    "fluent_speech_commands": _fluent_speech_commands,
    "iemocap": _iemocap,
    "audio_snips": _audio_snips,
    "libri2mix": _libri2mix,
    "quesst14": _quesst14,
}
