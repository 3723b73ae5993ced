"""Synthesizes a corpus in QUESST 2014's layout: spoken queries, documents that hold them or not.

A query is two words that follow each other, an adjective and a noun, or one long word. Speakers of
the queries are not those of the documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from superbit.benchmark.corpora.audio import SAMPLE_RATE
from superbit.benchmark.corpora.embedded import sizes
from superbit.benchmark.corpora.embedded.acoustics import Conditions, record_with_margins, say
from superbit.benchmark.corpora.embedded.espeak import Espeak
from superbit.benchmark.corpora.embedded.exact import write
from superbit.benchmark.corpora.embedded.texts import WORDS
from superbit.benchmark.corpora.embedded.voices import TABLE_COLUMNS, draw_speakers
from superbit.benchmark.corpora.quesst14 import DOCUMENTS, LANGUAGE, SPLITS

_NOUNS = ("person", "object", "place")
# Queries of one word: long, and no part of another word.
_SINGLE_WORDS = ("carried", "watched", "opened", "painted", "measured", "forgot")
_CONDITIONS = Conditions(
    margin_seconds=(0.05, 0.25), snr_db=(20, 35), tilt=(-0.2, 0.3), level_db=(-32, -18)
)


def draw_texts(
    plan: sizes.QuerySearch, random: np.random.Generator
) -> tuple[list[str], dict[str, list[str]]]:
    """Documents, and the queries of each split.

    Of a split's queries those that are present occur in two documents or more, the others in none.
    """
    pairs = [f"{a} {n}" for a in WORDS["adjective"] for kind in _NOUNS for n in WORDS[kind]]
    pairs = [pairs[index] for index in random.permutation(len(pairs))]
    singles = [_SINGLE_WORDS[index] for index in random.permutation(len(_SINGLE_WORDS))]
    queries: dict[str, list[str]] = {}
    for split in SPLITS:
        wanted = plan.splits[split]
        of_split = [singles.pop() for _ in range(wanted.single_words)]
        of_split += [pairs.pop() for _ in range(wanted.present - wanted.single_words)]
        queries[split] = of_split
    spoken = [q for of_split in queries.values() for q in of_split if " " in q]
    verbs = [q for of_split in queries.values() for q in of_split if " " not in q]
    text: list[str] = []
    deck: list[str] = []
    while len(text) < plan.documents:
        # Two of the queries a document; each of them comes as often as any other.
        if len(deck) < 2:
            deck = [spoken[index] for index in random.permutation(len(spoken))] + deck
        first, second = deck.pop(), deck.pop()
        verb = _verb(len(text), verbs, random)
        text.append(
            f"{_word('determiner', random)} {first} {verb} {_word('determiner', random)} {second}"
        )
    for split in SPLITS:
        absent = [pair for pair in pairs if not any(holds(line, pair) for line in text)]
        queries[split] += [
            absent[i] for i in random.permutation(len(absent))[: plan.splits[split].absent]
        ]
        pairs = [pair for pair in pairs if pair not in queries[split]]
    return text, queries


def holds(document: str, query: str) -> bool:
    """Whether the words of the query follow each other in the document."""
    return f" {query} " in f" {document} "


def make(out: Path, *, size: str, seed: int, on_item: Callable[[], None]) -> None:
    """Write ``quesst14Database/`` under ``out``.

    Every random choice follows from ``seed``; ``on_item`` is called after each file.
    """
    random = np.random.default_rng(seed)
    espeak = Espeak(seed)
    root = out / "quesst14Database"
    plan = sizes.QUESST14[size]
    documents, queries = draw_texts(plan, random)
    groups = {
        DOCUMENTS: ("Audio", "quesst14", plan.speakers, documents),
        **{
            s: (f"{s}_queries", f"quesst14_{s}", plan.splits[s].speakers, queries[s])
            for s in SPLITS
        },
    }
    names = [f"{group}{i}" for group, (_, _, count, _) in groups.items() for i in range(count)]
    speakers = iter(draw_speakers(names, random))
    table = [",".join(TABLE_COLUMNS)]
    said = ["file,text"]
    seconds: dict[str, dict[str, float]] = {}
    (root / "scoring").mkdir(parents=True, exist_ok=True)
    for group, (folder, prefix, count, texts) in groups.items():
        of_group = [next(speakers) for _ in range(count)]
        table += [speaker.row(group) for speaker in of_group]
        (root / folder).mkdir(exist_ok=True)
        seconds[group] = {}
        for index, text in enumerate(texts):
            name = f"{prefix}_{index + 1:05d}"
            recording = record_with_margins(
                say(text, of_group[index % count], espeak), _CONDITIONS, random
            )
            write(root / folder / f"{name}.wav", recording)
            seconds[group][name] = len(recording) / SAMPLE_RATE
            said.append(f"{folder}/{name}.wav,{text}")
            on_item()
        lines = [f"{root.name}/{folder}/{name}.wav {LANGUAGE}" for name in seconds[group]]
        _write(root / "scoring" / f"language_key_{group}.lst", lines)
    for split in SPLITS:
        held = {
            query: [
                name
                for name, document in zip(seconds[DOCUMENTS], documents, strict=True)
                if holds(document, text)
            ]
            for query, text in zip(seconds[split], queries[split], strict=True)
        }
        _write_truth(root / "scoring", split, held, seconds[DOCUMENTS])
    _write(root / "speakers.csv", table)
    _write(root / "texts.csv", said)


def _write_truth(
    scoring: Path, split: str, held: Mapping[str, list[str]], seconds: Mapping[str, float]
) -> None:
    """A ground truth. A query is somewhere in a document: its time is that of the document."""
    folder = scoring / f"groundtruth_quesst14_{split}"
    folder.mkdir(exist_ok=True)
    rttm = [
        f"LEXEME {document} 1 0.000 {seconds[document]:.3f} {query} lex <NA> <NA>"
        for query, documents in held.items()
        for document in documents
    ]
    holding = {document for documents in held.values() for document in documents}
    rttm += [
        f"LEXEME {document} 1 0.000 {length:.3f} NO_KEYWORD lex <NA> <NA>"
        for document, length in seconds.items()
        if document not in holding
    ]
    _write(folder / f"quesst14_{split}.rttm", sorted(rttm))
    _write(
        folder / f"quesst14_{split}.tlist.xml",
        [
            '<termlist ecf_filename="quesst14.ecf.xml" language="english" version="1">',
            *(f"<term termid={quoteattr(q)}><termtext>{q}</termtext></term>" for q in held),
            "</termlist>",
        ],
    )
    _write(
        folder / "quesst14.ecf.xml",
        [
            f'<ecf source_signal_duration="{sum(seconds.values()):.3f}" version="1">',
            *(
                f'<excerpt audio_filename={quoteattr(name + ".wav")} channel="1" tbeg="0.000" '
                f'dur="{length:.3f}" source_type="splitcts"/>'
                for name, length in seconds.items()
            ),
            "</ecf>",
        ],
    )


def _word(word_class: str, random: np.random.Generator) -> str:
    return WORDS[word_class][random.integers(len(WORDS[word_class]))]


def _verb(index: int, queries: list[str], random: np.random.Generator) -> str:
    """Each query of one word in turn, in every other document; else a verb that is no query."""
    if index % 2 == 0 and queries:
        return queries[index // 2 % len(queries)]
    others = [verb for verb in WORDS["handles"] if verb not in _SINGLE_WORDS]
    return others[random.integers(len(others))]


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
