"""PR: the phones of LibriSpeech's utterances, phone error rate."""

from __future__ import annotations

from superbit.benchmark.tasks import resampling, transcription
from superbit.benchmark.tasks.binding import Binding, RunPlaces, Section
from superbit.benchmark.tasks.task import AudioUse, Items, Records, Task


def _bind(section: Section, places: RunPlaces) -> None:
    corpus = places.paths.section("librispeech")
    section["corpus"]["path"] = str(corpus.root)
    section["corpus"]["lexicon"] = [str(file) for file in corpus.lexicon]
    section["text"]["vocab_file"] = transcription.asset("phoneme.txt")


def _items(records: Records) -> Items:
    return transcription.text_items(
        records["filename"], records["groundtruth"], records["hypothesis"]
    )


TASK = Task(
    name="PR",
    title="phoneme recognition",
    corpus="librispeech",
    metric="per",
    column="pr_per",
    higher_is_better=False,
    downstream="ctc",
    binding=Binding(
        metric="per",
        metric_scale=100.0,
        test_files="test-clean",
        batch=("corpus", "batch_size"),
        bind=_bind,
    ),
    procedure=transcription.best_error_rate(_items),
    chance="transcript",
    resampling=resampling.Resampling(
        measures=(resampling.EDIT_ERRORS,), speakers=resampling.in_librispeech
    ),
    audio=AudioUse(
        splits={"train": (28_539, 100.6), "dev": (2_703, 5.4), "test": (2_620, 5.4)},
        shared="LibriSpeech",
    ),
)
