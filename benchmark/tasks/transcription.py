"""PR, ASR and SF: a sequence an utterance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from superbit.benchmark.corpora import librispeech
from superbit.benchmark.records.schema import Interval
from superbit.benchmark.scoring import slots, statistics
from superbit.benchmark.tasks.binding import Binding, Items, Places, Records, Section, asset


def _text_items(names: list[str], references: list[str], hypotheses: list[str]) -> Items:
    """Per-utterance error counts by jiwer; the tokens of a text are separated by spaces."""
    import jiwer

    items = []
    for name, reference, hypothesis in zip(names, references, hypotheses, strict=True):
        words = jiwer.process_words(reference, hypothesis)
        items.append(
            {
                "id": name,
                "reference": reference,
                "hypothesis": hypothesis,
                "substitutions": words.substitutions,
                "deletions": words.deletions,
                "insertions": words.insertions,
                "reference_length": words.hits + words.substitutions + words.deletions,
            }
        )
    return items


def _phone_items(records: Records) -> Items:
    return _text_items(records["filename"], records["groundtruth"], records["hypothesis"])


def _word_items(records: Records) -> Items:
    return _text_items(
        records["filenames"],
        [" ".join(words) for words in records["target_words"]],
        [" ".join(words) for words in records["pred_words"]],
    )


def _slot_items(records: Records) -> Items:
    return slots.slot_items(records["filename"], records["groundtruth"], records["hypothesis"])


def _errors(item: Mapping[str, Any]) -> int:
    return int(item["substitutions"] + item["deletions"] + item["insertions"])


def _error_rate(items: Items) -> float:
    return 100.0 * sum(map(_errors, items)) / sum(item["reference_length"] for item in items)


def _error_rate_interval(items: Items) -> Interval | None:
    return statistics.error_rate_interval(
        [_errors(item) for item in items], [item["reference_length"] for item in items]
    )


def _bind_phones(section: Section, places: Places) -> None:
    corpus = places.paths.section("librispeech")
    section["corpus"]["path"] = str(corpus.root)
    section["corpus"]["lexicon"] = [str(file) for file in corpus.lexicon]
    section["text"]["vocab_file"] = asset("phoneme.txt")


def _bind_characters(section: Section, places: Places) -> None:
    corpus, datarc = places.paths.section("librispeech"), section["datarc"]
    splits = [folder for key in ("train", "dev-clean", "test-clean") for folder in datarc[key]]
    datarc["libri_root"] = str(corpus.root)
    datarc["bucket_file"] = str(librispeech.write_length_buckets(corpus, splits, places.work_dir))
    datarc["dict_path"] = asset("characters.dict")


def _bind_slots(section: Section, places: Places) -> None:
    corpus = places.paths.section("audio_snips")
    section["corpus"]["path"] = str(corpus.root)
    section["text"]["vocab_file"] = asset("character.txt")
    section["text"]["slots_file"] = str(corpus.root / "slots.txt")


PR = Binding(
    metric="per",
    metric_scale=100.0,
    test_files="test-clean",
    batch=("corpus", "batch_size"),
    bind=_bind_phones,
    items=_phone_items,
    score=_error_rate,
    interval=_error_rate_interval,
)
ASR = Binding(
    dev="dev-clean",
    test="test-clean",
    test_files="test-clean",
    metric="wer",
    batch=("datarc", "batch_size"),
    bind=_bind_characters,
    items=_word_items,
    score=_error_rate,
    interval=_error_rate_interval,
)
SF = Binding(
    metric="slot_type_f1",
    batch=("corpus", "batch_size"),
    bind=_bind_slots,
    items=_slot_items,
    score=slots.slot_type_f1,
    interval=slots.slot_type_f1_interval,
)
