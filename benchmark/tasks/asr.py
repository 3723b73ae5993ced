"""ASR: the words of LibriSpeech's utterances as characters, word error rate."""

from __future__ import annotations

from pathlib import Path

from superbit.benchmark.tasks import resampling, transcription
from superbit.benchmark.tasks.binding import Binding, DerivedFiles, RunPlaces, Section
from superbit.benchmark.tasks.task import AudioUse, Items, Records, Task
from superbit.upstreams.files import read_text


def _bind(section: Section, places: RunPlaces) -> None:
    from superbit.benchmark.corpora import librispeech

    corpus, datarc = places.paths.section("librispeech"), section["datarc"]
    splits = [folder for key in ("train", "dev-clean", "test-clean") for folder in datarc[key]]
    datarc["libri_root"] = str(corpus.root)
    datarc["bucket_file"] = str(librispeech.write_length_buckets(corpus, splits, places.work_dir))
    datarc["dict_path"] = transcription.asset("characters.dict")


def _items(records: Records) -> Items:
    return transcription.text_items(
        records["filenames"],
        [" ".join(words) for words in records["target_words"]],
        [" ".join(words) for words in records["pred_words"]],
    )


def _listed(folder: Path) -> int:
    return sum(len(read_text(table).splitlines()) - 1 for table in folder.glob("*.csv"))


TASK = Task(
    name="ASR",
    title="automatic speech recognition",
    corpus="librispeech",
    metric="wer",
    column="asr_wer",
    higher_is_better=False,
    downstream="asr",
    binding=Binding(
        dev="dev-clean",
        test="test-clean",
        test_files="test-clean",
        metric="wer",
        batch=("datarc", "batch_size"),
        batch_divisor=2,
        bind=_bind,
        derived=(
            DerivedFiles(
                folder="length_buckets", what="length buckets", unit="utterances", count=_listed
            ),
        ),
    ),
    procedure=transcription.best_error_rate(_items),
    chance="transcript",
    recurrent=True,
    resampling=resampling.Resampling(
        measures=(resampling.EDIT_ERRORS,), speakers=resampling.in_librispeech
    ),
    audio=AudioUse(
        splits={"train": (28_539, 100.6), "dev-clean": (2_703, 5.4), "test-clean": (2_620, 5.4)},
        shared="LibriSpeech",
    ),
)
