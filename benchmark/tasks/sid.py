"""SID: the speaker of VoxCeleb1's utterances, accuracy."""

from __future__ import annotations

from superbit.benchmark.tasks import classification, resampling
from superbit.benchmark.tasks.binding import RunPlaces, Section
from superbit.benchmark.tasks.task import ABOVE_EIGHT_SECONDS, AudioUse, Task


def _bind(section: Section, places: RunPlaces) -> None:
    corpus = places.paths.section("voxceleb1")
    section["datarc"]["file_path"] = str(corpus.root)
    section["datarc"]["meta_data"] = str(corpus.identification_split)


TASK = Task(
    name="SID",
    title="speaker identification",
    corpus="voxceleb1",
    metric="acc",
    column="sid_acc",
    higher_is_better=True,
    downstream="voxceleb1",
    binding=classification.binding(_bind),
    procedure=classification.best_accuracy(truth="truth_speaker", guess="predict_speaker"),
    resampling=resampling.Resampling(
        measures=(resampling.ACCURACY,), speakers=resampling.in_voxceleb1
    ),
    audio=AudioUse(
        splits={"train": (138_361, 315.0), "dev": (6_904, 15.7), "test": (8_251, 18.8)},
        crops=ABOVE_EIGHT_SECONDS,
        head_may_average=True,
    ),
)
