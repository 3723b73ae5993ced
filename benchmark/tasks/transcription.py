"""What tasks with a sequence an utterance share: error counts, their rate, vocabularies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from superbit.benchmark.records.measured import Interval
from superbit.benchmark.tasks.best_on_dev import BestOnDev
from superbit.benchmark.tasks.task import Items, Records


def asset(name: str) -> str:
    """Return the path of a packaged vocabulary."""
    return str(resources.files("superbit.downstream_configs") / "assets" / name)


def best_error_rate(items: Callable[[Records], Items]) -> BestOnDev:
    """Errors by reference tokens, in percent, on test of the checkpoint that is best on dev."""
    return BestOnDev(items=items, score=_error_rate, interval=_error_rate_interval)


def text_items(names: list[str], references: list[str], hypotheses: list[str]) -> Items:
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


def _errors(item: Mapping[str, Any]) -> int:
    return int(item["substitutions"] + item["deletions"] + item["insertions"])


def _error_rate(items: Items) -> float:
    return 100.0 * sum(map(_errors, items)) / sum(item["reference_length"] for item in items)


def _error_rate_interval(items: Items) -> Interval | None:
    from superbit.benchmark.scoring import statistics

    return statistics.error_rate_interval(
        [_errors(item) for item in items], [item["reference_length"] for item in items]
    )
