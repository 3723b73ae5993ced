"""ER: the emotion of IEMOCAP's utterances, accuracy, the mean over five folds."""

from __future__ import annotations

from pathlib import Path

from superbit.benchmark.tasks import classification, resampling
from superbit.benchmark.tasks.binding import DerivedFiles, RunPlaces, Section
from superbit.benchmark.tasks.task import AudioUse, RateRule, Task
from superbit.upstreams.files import read_json


def _bind(section: Section, places: RunPlaces) -> None:
    from superbit.benchmark.corpora import iemocap

    corpus = places.paths.section("iemocap")
    section["datarc"]["root"] = str(corpus.root)
    section["datarc"]["meta_data"] = str(iemocap.write_folds(corpus, places.work_dir))
    section["datarc"]["test_fold"] = f"fold{places.fold}"


def _listed(folder: Path) -> int:
    # Each utterance is tested in one fold.
    lists = folder.glob("*/test_meta_data.json")
    return sum(len(read_json(file, "a split that s3prl wrote")["meta_data"]) for file in lists)


TASK = Task(
    name="ER",
    title="emotion recognition",
    corpus="iemocap",
    metric="acc",
    column="er_acc",
    higher_is_better=True,
    downstream="emotion",
    # Folds are lists of ours over the sessions, so the manifest has no split of that name.
    binding=classification.binding(
        _bind,
        test_files=None,
        reinitialize_head=True,
        derived=(DerivedFiles(folder="folds", what="folds", unit="utterances", count=_listed),),
    ),
    protocol="mean of 5 folds",
    procedure=classification.best_accuracy(),
    folds=5,
    rates=RateRule(description="one rate for all folds, best mean on dev"),
    resampling=resampling.Resampling(measures=(resampling.ACCURACY,)),
    # about 4.5 s an utterance, all five sessions
    audio=AudioUse(
        splits={"train": (3_548, 4.4), "dev": (887, 1.1), "test": (1_106, 1.4)},
        head_may_average=True,
    ),
)
