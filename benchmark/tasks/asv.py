"""ASV: whether two of VoxCeleb1's utterances are of one speaker, equal error rate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from superbit.benchmark.records.measured import Selection
from superbit.benchmark.tasks import resampling
from superbit.benchmark.tasks.best_on_dev import require_equal
from superbit.benchmark.tasks.binding import Binding, DerivedFiles, OnProgress, RunPlaces, Section
from superbit.benchmark.tasks.task import (
    ABOVE_EIGHT_SECONDS,
    AudioUse,
    Items,
    RateRule,
    Task,
    Tested,
    TestedByName,
)
from superbit.upstreams.errors import InputError
from superbit.upstreams.extras import pip_line

if TYPE_CHECKING:
    from superbit.benchmark.running.candidate import Candidate
    from superbit.benchmark.running.session import Session


def _bind(section: Section, places: RunPlaces) -> None:
    from superbit.benchmark.corpora.voxceleb1 import dev_trials

    corpus, datarc = places.paths.section("voxceleb1"), section["datarc"]
    lengths = places.work_dir / "trimmed_lengths"
    lengths.mkdir(parents=True, exist_ok=True)
    datarc["file_path"] = str(corpus.root)
    # s3prl never reads this key; superbit's patch of its dataset remembers lengths there.
    datarc["train_meta_data"] = str(lengths)
    datarc["dev_meta_data"] = str(dev_trials(corpus, places.work_dir))
    datarc["test_meta_data"] = str(corpus.trials)


def _measure_speech(section: Section, on_progress: OnProgress) -> int:
    """Let the expert list what it trains on, which writes the lengths; return how many."""
    datarc = section["datarc"]
    try:
        from s3prl.downstream.sv_voxceleb1 import dataset
    except ModuleNotFoundError as error:
        raise InputError(
            f"{(error.name or 's3prl').partition('.')[0]} is not installed, which ASV needs to cut "
            f"silence from VoxCeleb1: {pip_line('run')}."
        ) from None

    with _counted(dataset, on_progress):
        # As s3prl's ASV expert does.
        listed = dataset.SpeakerVerifi_train(
            vad_config=datarc["vad_config"],
            key_list=["Voxceleb1"],
            file_path=[Path(datarc["file_path"]) / "dev" / "wav"],
            meta_data=datarc["train_meta_data"],
            max_timestep=datarc["max_timestep"],
        )
    return len(listed.dataset)


@contextmanager
def _counted(dataset: ModuleType, on_progress: OnProgress) -> Iterator[None]:
    """Report to ``on_progress`` what s3prl's module would draw a bar of."""
    drawn = dataset.tqdm

    class Counted:
        @staticmethod
        def tqdm(items: Any, *, total: int, **_shown: Any) -> Iterator[Any]:
            for done, item in enumerate(items, start=1):
                on_progress(done, total)
                yield item

    vars(dataset)["tqdm"] = Counted
    try:
        yield
    finally:
        vars(dataset)["tqdm"] = drawn


# of one checkpoint: test items, EER, what the head takes of each hidden state
_Scored = tuple[Items, float, tuple[float, ...] | None]


def lowest_eer_of_checkpoints(session: Session) -> TestedByName:
    """Train, then test every saved checkpoint; the lowest EER counts."""
    from superbit.benchmark.scoring import verification

    session.train()
    experiment = session.experiment
    found: dict[str, dict[int, _Scored]] = defaultdict(dict)
    for step in session.each_snapshot():
        # Scores of a head that diverged have no order.
        sound = [c for c in experiment.candidates if c.active and c.is_finite()]
        if not sound:
            continue
        session.on_step(experiment.position.step, f"test of step {step:,}")
        evaluations = experiment.evaluate_all(session.binding.test, among=sound)
        table = experiment.head.test_dataset.pair_table

        def score(candidate: Candidate, evaluations=evaluations, table=table, step=step) -> None:
            evaluation = evaluations[candidate.name]
            labels = [int(label) for label, _, _ in table]
            scores = [float(score) for score in evaluation.records["scores"]]
            value = verification.equal_error_rate(labels, scores).percent
            require_equal(value, 100.0 * evaluation.metrics["EER"], "EER")
            pairs = [(_utterance(first), _utterance(second)) for _, first, second in table]
            items = verification.trial_items(pairs, labels, scores)
            found[candidate.name][step] = items, value, candidate.layer_weights()

        experiment.each(score, among=sound)
    return experiment.each(lambda c: _lowest(c, found[c.name]))


def lowest_test_eer(eers: Mapping[int, float]) -> Selection:
    """The lowest test EER (percent) over checkpoints, by step; the earlier one of equals."""
    step = min(eers, key=lambda key: (eers[key], key))
    return Selection(
        rule=f"lowest test EER of {len(eers)} checkpoints",
        selected_on="test",
        step=step,
        score=eers[step],
        checkpoint="best",
    )


def _lowest(candidate: Candidate, tested: dict[int, _Scored]) -> Tested:
    from superbit.benchmark.scoring import verification

    if not tested:
        raise InputError(
            f"the training diverged at step {candidate.training.diverged}: no saved checkpoint has "
            "finite weights; take a lower learning rate."
        )
    selection = lowest_test_eer({step: value for step, (_, value, _) in tested.items()})
    items, value, weights = tested[selection.step or 0]
    return Tested(
        value=value,
        items=items,
        metrics={f"test-EER-{step}": value for step, (_, value, _) in tested.items()},
        interval=verification.eer_interval(
            [item["same_speaker"] for item in items],
            [item["score"] for item in items],
            speakers=[
                (item["enrolment"].split("-")[0], item["test"].split("-")[0]) for item in items
            ],
        ),
        selection=selection,
        layer_weights=weights,
    )


def _utterance(path: str) -> str:
    """``id10270-video-00001`` of a file's path: the last three parts name it."""
    return "-".join(Path(path).with_suffix("").parts[-3:])


TASK = Task(
    name="ASV",
    title="speaker verification",
    corpus="voxceleb1",
    metric="eer",
    column="asv_eer",
    higher_is_better=False,
    downstream="sv_voxceleb1",
    binding=Binding(
        metric="EER",
        metric_scale=100.0,
        test_files=None,
        batch=("datarc", "train_batch_size"),
        bind=_bind,
        derived=(
            DerivedFiles(
                folder="trimmed_lengths",
                what="lengths without silence",
                unit="utterances",
                measure=_measure_speech,
            ),
            DerivedFiles(
                folder="dev_trials", what="verification trials over dev/wav", unit="pairs"
            ),
        ),
    ),
    protocol="lowest test EER",
    procedure=lowest_eer_of_checkpoints,
    # There are no held-out speakers besides those of the test: every speaker of the development
    # part is trained on.
    rates=RateRule(description="lowest test EER", split="test"),
    chance="score",
    resampling=resampling.Resampling(
        item="trials",
        identify=lambda item: f"{item['enrolment']} {item['test']}",
        measures=(
            resampling.Measure(
                kind="eer",
                top=lambda item: item["score"],
                bottom=lambda item: float(item["same_speaker"]),
            ),
        ),
        speakers=resampling.in_voxceleb1_trials,
    ),
    # about a tenth of the audio is silence that the task trims
    audio=AudioUse(
        splits={"train": (148_642, 306.0), "test": (4_708, 9.7)}, crops=ABOVE_EIGHT_SECONDS
    ),
)
