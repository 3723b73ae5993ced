"""The real corpora's layouts with noise in place of speech: for measuring time only."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from superbit.benchmark.bench.noise import Voice
from superbit.benchmark.corpora import (
    audio_snips,
    fluent_speech_commands,
    iemocap,
    librispeech,
    quesst14,
    speech_commands,
)
from superbit.benchmark.tasks.catalog import TASKS

SPLITS = ("train", "dev", "test")
WORDS_A_SECOND = 2.7  # of read English


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
    text = _LAYOUTS[corpus](folder, train, evaluated, Voice(corpus, seed, distinct_seconds))
    paths = folder / "paths.yaml"
    paths.write_text(f"{corpus}: {{{text}}}\n")
    return paths


def _count(split: str, train: int, evaluated: int) -> int:
    return train if split == "train" else evaluated


def _librispeech(folder: Path, train: int, evaluated: int, voice: Voice) -> str:
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


def _speech_commands(folder: Path, train: int, evaluated: int, voice: Voice) -> str:
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


def _voxceleb1(folder: Path, train: int, evaluated: int, voice: Voice) -> str:
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


def _fluent_speech_commands(folder: Path, train: int, evaluated: int, voice: Voice) -> str:
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


def _iemocap(folder: Path, train: int, evaluated: int, voice: Voice) -> str:
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


def _audio_snips(folder: Path, train: int, evaluated: int, voice: Voice) -> str:
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


def _libri2mix(folder: Path, train: int, evaluated: int, voice: Voice) -> str:
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


def _quesst14(folder: Path, train: int, evaluated: int, voice: Voice) -> str:
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
    folder: Path, split: str, documents: dict[str, float], queries: Iterable[str]
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


_LAYOUTS: dict[str, Callable[[Path, int, int, Voice], str]] = {
    "librispeech": _librispeech,
    "speech_commands": _speech_commands,
    "voxceleb1": _voxceleb1,
    "fluent_speech_commands": _fluent_speech_commands,
    "iemocap": _iemocap,
    "audio_snips": _audio_snips,
    "libri2mix": _libri2mix,
    "quesst14": _quesst14,
}
