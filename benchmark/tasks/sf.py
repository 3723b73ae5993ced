"""SF: the words of Audio SNIPS with their slots marked inline, slot-type F1."""

from __future__ import annotations

from superbit.benchmark.records.measured import Interval
from superbit.benchmark.tasks import resampling, transcription
from superbit.benchmark.tasks.best_on_dev import BestOnDev
from superbit.benchmark.tasks.binding import Binding, RunPlaces, Section
from superbit.benchmark.tasks.task import AudioUse, Items, Records, Task


def _bind(section: Section, places: RunPlaces) -> None:
    corpus = places.paths.section("audio_snips")
    section["corpus"]["path"] = str(corpus.root)
    section["text"]["vocab_file"] = transcription.asset("character.txt")
    section["text"]["slots_file"] = str(corpus.root / "slots.txt")


def _items(records: Records) -> Items:
    from superbit.benchmark.scoring import slots

    return slots.slot_items(records["filename"], records["groundtruth"], records["hypothesis"])


def _f1(items: Items) -> float:
    from superbit.benchmark.scoring import slots

    return slots.slot_type_f1(items)


def _interval(items: Items) -> Interval | None:
    from superbit.benchmark.scoring import slots

    return slots.slot_type_f1_interval(items)


TASK = Task(
    name="SF",
    title="slot filling",
    corpus="audio_snips",
    metric="slot_type_f1",
    column="sf_f1",
    higher_is_better=True,
    unit="fraction",
    downstream="ctc",
    binding=Binding(metric="slot_type_f1", batch=("corpus", "batch_size"), bind=_bind),
    procedure=BestOnDev(items=_items, score=_f1, interval=_interval),
    chance="slots",
    recurrent=True,
    resampling=resampling.Resampling(
        measures=(
            resampling.Measure(
                top=lambda item: item["slot_type_f1"], bottom=resampling.one, scale=1.0
            ),
            resampling.Measure(
                name="CER",
                top=lambda item: item["value_errors"],
                bottom=lambda item: item["value_reference_length"],
                higher_is_better=False,
            ),
        ),
        speakers=resampling.in_audio_snips,
    ),
    # about 3 s an utterance
    audio=AudioUse(
        splits={"train": (104_672, 87.0), "dev": (2_800, 2.3), "test": (2_800, 2.3)},
    ),
)
