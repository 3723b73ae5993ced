"""What superbit must know of each s3prl expert to run it: paths, split names, per-item records.

One :class:`Binding` a task. The expert itself owns data pipeline, head, loss and metric.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from superbit.benchmark.corpora import librispeech
from superbit.benchmark.corpora.paths import CorpusPaths

Items = list[dict[str, Any]]
Records = Mapping[str, list[Any]]


@dataclass(frozen=True, kw_only=True)
class Binding:
    """How one task's expert is fed and read.

    Attributes:
        dev: the split that selects the checkpoint, by the expert's name for it.
        test: the split that is reported.
        test_files: the corpus manifest's name of that split.
        metric: the expert's own name of the task's metric on a split.
        metric_scale: factor from the expert's metric to the table's unit (100 for a fraction).
        bind: ``(downstream_expert section, paths, work folder)`` → the section with every path
            the expert reads; what must be derived from a corpus goes to the work folder.
        items: the expert's evaluation records → one dict an utterance.
        score: items → the task's value in the table's unit.
    """

    dev: str
    test: str
    test_files: str
    metric: str
    metric_scale: float
    bind: Callable[[dict[str, Any], CorpusPaths, Path], dict[str, Any]]
    items: Callable[[Records], Items]
    score: Callable[[Items], float]


def _asset(name: str) -> str:
    return str(resources.files("superbit.downstream_configs") / "assets" / name)


def _bind_speech_commands(
    section: dict[str, Any], paths: CorpusPaths, work_dir: Path
) -> dict[str, Any]:
    bound, corpus = copy.deepcopy(section), paths.section("speech_commands")
    bound["datarc"]["speech_commands_root"] = str(corpus.root)
    bound["datarc"]["speech_commands_test_root"] = str(corpus.test_root)
    return bound


def _bind_libriphone(section: dict[str, Any], paths: CorpusPaths, work_dir: Path) -> dict[str, Any]:
    bound, corpus = copy.deepcopy(section), paths.section("librispeech")
    bound["corpus"]["path"] = str(corpus.root)
    bound["corpus"]["lexicon"] = [str(file) for file in corpus.lexicon]
    bound["text"]["vocab_file"] = _asset("phoneme.txt")
    return bound


def _bind_asr(section: dict[str, Any], paths: CorpusPaths, work_dir: Path) -> dict[str, Any]:
    bound, corpus = copy.deepcopy(section), paths.section("librispeech")
    datarc = bound["datarc"]
    splits = [folder for key in ("train", "dev-clean", "test-clean") for folder in datarc[key]]
    datarc["libri_root"] = str(corpus.root)
    datarc["bucket_file"] = str(librispeech.write_length_buckets(corpus, splits, work_dir))
    datarc["dict_path"] = _asset("characters.dict")
    return bound


def _class_items(records: Records) -> Items:
    return [
        {"id": name, "reference": truth, "hypothesis": guess, "correct": truth == guess}
        for name, truth, guess in zip(
            records["filename"], records["truth"], records["predict"], strict=True
        )
    ]


def _accuracy(items: Items) -> float:
    return 100.0 * sum(item["correct"] for item in items) / len(items)


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


def errors(item: Mapping[str, Any]) -> int:
    """Return an item's substitutions + deletions + insertions."""
    return int(item["substitutions"] + item["deletions"] + item["insertions"])


def _error_rate(items: Items) -> float:
    return 100.0 * sum(map(errors, items)) / sum(item["reference_length"] for item in items)


BINDINGS: dict[str, Binding] = {
    "KS": Binding(
        dev="dev", test="test", test_files="test", metric="acc", metric_scale=100.0,
        bind=_bind_speech_commands, items=_class_items, score=_accuracy,
    ),
    "PR": Binding(
        dev="dev", test="test", test_files="test-clean", metric="per", metric_scale=100.0,
        bind=_bind_libriphone, items=_phone_items, score=_error_rate,
    ),
    "ASR": Binding(
        dev="dev-clean", test="test-clean", test_files="test-clean", metric="wer", metric_scale=1.0,
        bind=_bind_asr, items=_word_items, score=_error_rate,
    ),
}  # fmt: skip
