"""KS, SID, IC and ER: one label an utterance, accuracy in percent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from superbit.benchmark.records.schema import Interval
from superbit.benchmark.scoring import statistics
from superbit.benchmark.tasks.binding import Binding, Items, Places, Records, Section


def _items(records: Records, *, truth: str, guess: str) -> Items:
    return [
        {"id": name, "reference": right, "hypothesis": said, "correct": right == said}
        for name, right, said in zip(
            records["filename"], records[truth], records[guess], strict=True
        )
    ]


def _intent_items(records: Records) -> Items:
    """An intent is right when action, object and location are."""
    named = {
        "filename": records["filename"],
        "truth": [" / ".join(slots) for slots in records["truth"]],
        "predict": [" / ".join(slots) for slots in records["predict"]],
    }
    return _items(named, truth="truth", guess="predict")


def _accuracy(items: Items) -> float:
    return 100.0 * sum(item["correct"] for item in items) / len(items)


def _interval(items: Items) -> Interval:
    return statistics.accuracy_interval([item["correct"] for item in items])


def _bind_speech_commands(section: Section, places: Places) -> None:
    corpus = places.paths.section("speech_commands")
    section["datarc"]["speech_commands_root"] = str(corpus.root)
    section["datarc"]["speech_commands_test_root"] = str(corpus.test_root)


def _bind_speakers(section: Section, places: Places) -> None:
    corpus = places.paths.section("voxceleb1")
    section["datarc"]["file_path"] = str(corpus.root)
    section["datarc"]["meta_data"] = str(corpus.identification_split)


def _bind_intents(section: Section, places: Places) -> None:
    corpus = places.paths.section("fluent_speech_commands")
    section["datarc"]["file_path"] = str(corpus.root)


def _bind_emotions(section: Section, places: Places) -> None:
    from superbit.benchmark.corpora import iemocap

    corpus = places.paths.section("iemocap")
    section["datarc"]["root"] = str(corpus.root)
    section["datarc"]["meta_data"] = str(iemocap.write_folds(corpus, places.work_dir))
    section["datarc"]["test_fold"] = f"fold{places.fold}"


def _classifier(
    bind: Callable[[Section, Places], None],
    *,
    batch: str = "train_batch_size",
    truth: str = "truth",
    guess: str = "predict",
    items: Callable[[Records], Items] | None = None,
    test_files: str | None = "test",
    reinitialize_head: bool = False,
) -> Binding:
    return Binding(
        metric="acc",
        metric_scale=100.0,
        batch=("datarc", batch),
        bind=bind,
        items=items or partial(_items, truth=truth, guess=guess),
        score=_accuracy,
        interval=_interval,
        test_files=test_files,
        reinitialize_head=reinitialize_head,
    )


KS = _classifier(_bind_speech_commands, batch="batch_size")
SID = _classifier(_bind_speakers, truth="truth_speaker", guess="predict_speaker")
IC = _classifier(_bind_intents, items=_intent_items)
# Folds are lists of ours over the sessions, so the manifest has no split of that name.
ER = _classifier(_bind_emotions, test_files=None, reinitialize_head=True)
