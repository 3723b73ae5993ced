"""SD: who of two speakers talks when in Libri2Mix's mixtures, diarization error rate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbit.benchmark.corpora.rttm import read_rttm
from superbit.benchmark.records.measured import Chance, Selection
from superbit.benchmark.tasks import resampling
from superbit.benchmark.tasks.best_on_dev import select_on_dev
from superbit.benchmark.tasks.binding import Binding, DerivedFiles, RunPlaces, Section
from superbit.benchmark.tasks.task import AudioUse, RateRule, Task, Tested, TestedByName
from superbit.upstreams.files import read_text

if TYPE_CHECKING:
    from superbit.benchmark.running.candidate import Candidate
    from superbit.benchmark.running.session import Session
    from superbit.benchmark.scoring.diarization import SettingScore


def _bind(section: Section, places: RunPlaces) -> None:
    from superbit.benchmark.corpora import libri2mix

    folders = libri2mix.bound_dirs(places.paths.section("libri2mix"), places.work_dir)
    for split in ("train", "dev", "test"):
        section["loaderrc"][f"{split}_dir"] = str(folders[split])


def best_head_then_lowest_der(session: Session) -> TestedByName:
    """Best head on dev, then SUPERB's grid of thresholds and median filters on test."""
    from superbit.benchmark.scoring import diarization, statistics
    from superbit.upstreams.sound import SAMPLE_RATE

    session.train()
    selections = session.experiment.each(partial(select_on_dev, session))
    evaluations = session.test()
    turns = read_rttm(session.places.paths.section("libri2mix").test_dir / "rttm")
    # The same for every candidate, and to be counted once.
    constant: list[Chance] = []

    def tested(candidate: Candidate) -> Tested:
        probabilities = _predictions(candidate.folder)
        reference = {recording: turns.get(recording, []) for recording in probabilities}
        frame_shift = float((candidate.folder / "frame_shift").read_text()) / SAMPLE_RATE
        scores = diarization.score_settings(probabilities, reference, frame_shift=frame_shift)
        if not constant:
            constant.append(diarization.chance(probabilities, reference, frame_shift=frame_shift))
        best, selection = lowest_test_der(scores, head=selections[candidate.name])
        items = diarization.recording_items(best)
        wrong = [
            item["missed_seconds"] + item["false_alarm_seconds"] + item["confusion_seconds"]
            for item in items
        ]
        return Tested(
            value=best.der,
            items=items,
            metrics=session.metrics(candidate, evaluations[candidate.name]),
            interval=statistics.ratio_interval(
                wrong, [item["reference_seconds"] for item in items]
            ),
            selection=selection,
            curve=session.curve(candidate),
            layer_weights=candidate.layer_weights(),
            chance=constant[0],
        )

    return session.experiment.each(tested)


def lowest_test_der(
    settings: Sequence[SettingScore], *, head: Selection
) -> tuple[SettingScore, Selection]:
    """The lowest test DER (percent) over thresholds and median filters, for dev's best head."""
    from superbit.benchmark.scoring.diarization import lowest

    best = lowest(list(settings))
    return best, Selection(
        rule=f"{head.rule} by frame accuracy, then lowest test DER: threshold {best.threshold:g}, "
        f"median filter {best.median_window}",
        selected_on="test",
        step=head.step,
        score=best.der,
        checkpoint=head.checkpoint,
    )


def _predictions(folder: Path) -> dict[str, Any]:
    """Probabilities of each recording, (frames, speakers), as the expert wrote them."""
    import h5py

    probabilities = {}
    for file in sorted((folder / "scoring" / "predictions").glob("*.h5")):
        with h5py.File(file, "r") as stored:
            probabilities[file.stem] = stored["T_hat"][...]
    return probabilities


TASK = Task(
    name="SD",
    title="speaker diarization",
    corpus="libri2mix",
    metric="der",
    column="sd_der",
    higher_is_better=False,
    downstream="diarization",
    # The expert's own DER is a mean over batches at one threshold: not SUPERB's number.
    binding=Binding(
        metric="acc",
        batch=("loaderrc", "train_batchsize"),
        bind=_bind,
        derived=(
            DerivedFiles(
                folder="libri2mix",
                what="Kaldi folders with absolute paths",
                unit="recordings",
                count=lambda folder: len(read_text(folder / "wav.scp").splitlines()),
            ),
        ),
    ),
    protocol="lowest test DER",
    procedure=best_head_then_lowest_der,
    rates=RateRule(description="best frame accuracy on dev", higher_is_better=True),
    chance="activity",
    tells_nothing_apart=(
        "an untrained encoder errs as seldom as a trained one (29 % on corpora of another seed)"
    ),
    dev_score="frame accuracy",
    resampling=resampling.Resampling(
        item="recordings",
        measures=(
            resampling.Measure(
                top=lambda item: (
                    item["missed_seconds"] + item["false_alarm_seconds"] + item["confusion_seconds"]
                ),
                bottom=lambda item: item["reference_seconds"],
            ),
        ),
        speakers=resampling.in_libri2mix,
    ),
    # about 15 s a mixture (16 kHz max), read in chunks of a number of frames
    audio=AudioUse(
        splits={"train": (13_900, 58.0), "dev": (3_000, 11.0), "test": (3_000, 11.0)},
        cuts_by_frames=True,
    ),
)
