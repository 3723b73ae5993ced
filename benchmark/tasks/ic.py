"""IC: action, object and location of Fluent Speech Commands' utterances, accuracy."""

from __future__ import annotations

from superbit.benchmark.tasks import classification, resampling
from superbit.benchmark.tasks.binding import RunPlaces, Section
from superbit.benchmark.tasks.task import AudioUse, Items, Records, Task


def _bind(section: Section, places: RunPlaces) -> None:
    corpus = places.paths.section("fluent_speech_commands")
    section["datarc"]["file_path"] = str(corpus.root)


def _items(records: Records) -> Items:
    """An intent is right when action, object and location are."""
    named = {
        "filename": records["filename"],
        "truth": [" / ".join(slots) for slots in records["truth"]],
        "predict": [" / ".join(slots) for slots in records["predict"]],
    }
    return classification.label_items(named, truth="truth", guess="predict")


TASK = Task(
    name="IC",
    title="intent classification",
    corpus="fluent_speech_commands",
    metric="acc",
    column="ic_acc",
    higher_is_better=True,
    downstream="fluent_commands",
    binding=classification.binding(_bind),
    procedure=classification.best_accuracy(items=_items),
    resampling=resampling.Resampling(measures=(resampling.ACCURACY,)),
    audio=AudioUse(
        splits={"train": (23_132, 14.7), "dev": (3_118, 1.9), "test": (3_793, 2.4)},
        head_may_average=True,
    ),
)
