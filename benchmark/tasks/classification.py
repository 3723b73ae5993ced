"""What tasks with one label an utterance share: items, accuracy in percent, its interval."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from superbit.benchmark.records.measured import Interval
from superbit.benchmark.tasks.best_on_dev import BestOnDev
from superbit.benchmark.tasks.binding import Binding, DerivedFiles, RunPlaces, Section
from superbit.benchmark.tasks.task import Items, Records


def binding(
    bind: Callable[[Section, RunPlaces], None],
    *,
    batch: str = "train_batch_size",
    test_files: str | None = "test",
    reinitialize_head: bool = False,
    derived: tuple[DerivedFiles, ...] = (),
) -> Binding:
    """How s3prl's classifiers are fed and read: all call their metric ``acc``, a fraction."""
    return Binding(
        metric="acc",
        metric_scale=100.0,
        batch=("datarc", batch),
        bind=bind,
        test_files=test_files,
        reinitialize_head=reinitialize_head,
        derived=derived,
    )


def best_accuracy(
    *,
    truth: str = "truth",
    guess: str = "predict",
    items: Callable[[Records], Items] | None = None,
) -> BestOnDev:
    """Accuracy on test of the checkpoint that is best on dev.

    Args:
        truth: the expert's key of the right labels, ``guess`` of the predicted ones.
        items: in place of comparing those two.
    """
    return BestOnDev(
        items=items or partial(label_items, truth=truth, guess=guess),
        score=_accuracy,
        interval=_interval,
    )


def label_items(records: Records, *, truth: str, guess: str) -> Items:
    """One item an utterance: the label, what was predicted, and whether they are the same."""
    return [
        {"id": name, "reference": right, "hypothesis": said, "correct": right == said}
        for name, right, said in zip(
            records["filename"], records[truth], records[guess], strict=True
        )
    ]


def _accuracy(items: Items) -> float:
    return 100.0 * sum(item["correct"] for item in items) / len(items)


def _interval(items: Items) -> Interval:
    from superbit.benchmark.scoring import statistics

    return statistics.accuracy_interval([item["correct"] for item in items])
