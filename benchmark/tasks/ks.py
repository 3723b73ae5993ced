"""KS: the keyword of Speech Commands' recordings, of twelve classes, accuracy."""

from __future__ import annotations

from superbit.benchmark.tasks import classification, resampling
from superbit.benchmark.tasks.binding import RunPlaces, Section
from superbit.benchmark.tasks.task import AudioUse, RandomCrops, Task


def _bind(section: Section, places: RunPlaces) -> None:
    corpus = places.paths.section("speech_commands")
    section["datarc"]["speech_commands_root"] = str(corpus.root)
    section["datarc"]["speech_commands_test_root"] = str(corpus.test_root)


TASK = Task(
    name="KS",
    title="keyword spotting",
    corpus="speech_commands",
    metric="acc",
    column="ks_acc",
    higher_is_better=True,
    downstream="speech_commands",
    binding=classification.binding(_bind, batch="batch_size"),
    procedure=classification.best_accuracy(),
    resampling=resampling.Resampling(
        measures=(resampling.ACCURACY,), speakers=resampling.in_speech_commands
    ),
    audio=AudioUse(
        splits={"train": (51_094, 14.2), "dev": (6_798, 1.9), "test": (3_081, 0.86)},
        # silence is a second of one of six recordings of noise; classes are drawn evenly
        crops=RandomCrops(share=1 / 12, files=6),
        head_may_average=True,
    ),
)
