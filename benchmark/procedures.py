"""From a built experiment to a tested one: what each kind of task does in which order.

The rules by which a number is selected are in ``protocols.py``; what is done here is to train,
to evaluate, and to hand the scores to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from superbit.benchmark import checkpoints, protocols, stats
from superbit.benchmark.bindings import Binding, Items, Places
from superbit.benchmark.experiment import Experiment
from superbit.benchmark.records import Interval, Selection
from superbit.benchmark.training_state import Evaluation
from superbit.upstreams.errors import InputError

SAMPLE_RATE = 16_000


@dataclass(frozen=True, kw_only=True)
class Session:
    """An experiment with what its procedure needs around it.

    Attributes:
        run_dir: where the expert writes and the checkpoint lies.
        key: of the run, kept in its checkpoint.
        on_step: told steps done and what goes on.
    """

    experiment: Experiment
    binding: Binding
    places: Places
    run_dir: Path
    key: str
    on_step: Callable[[int, str], None]


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A run's number and where it comes from; ``value`` is in the table's unit."""

    value: float
    items: Items
    metrics: dict[str, float]
    interval: Interval | None
    selection: Selection


def best_on_dev(session: Session) -> Tested:
    """Train, keep the best on dev, evaluate it on test."""
    _train(session)
    selection = _select_on_dev(session)
    evaluation = _test(session)
    binding = session.binding
    if binding.items is None or binding.score is None or binding.interval is None:
        raise TypeError("a task that is selected on dev needs items, score and interval")
    items = binding.items(evaluation.records)
    value = binding.score(items)
    _compare(value, evaluation.metrics[binding.metric] * binding.metric_scale, binding.metric)
    return Tested(
        value=value,
        items=items,
        metrics=_metrics(session, evaluation),
        interval=binding.interval(items),
        selection=selection,
    )


def lowest_test_der(session: Session) -> Tested:
    """SD: best head on dev, then SUPERB's grid of thresholds and median filters on test."""
    import h5py

    from superbit.benchmark.scoring import diarization

    _train(session)
    head = _select_on_dev(session)
    evaluation = _test(session)
    files = sorted((session.run_dir / "scoring" / "predictions").glob("*.h5"))
    probabilities = {}
    for file in files:
        with h5py.File(file, "r") as stored:
            probabilities[file.stem] = stored["T_hat"][...]
    turns = diarization.read_rttm(session.places.paths.section("libri2mix").test_dir / "rttm")
    scores = diarization.score_settings(
        probabilities,
        {recording: turns.get(recording, []) for recording in probabilities},
        frame_shift=float((session.run_dir / "frame_shift").read_text()) / SAMPLE_RATE,
    )
    best, selection = protocols.lowest_test_der(scores, head=head)
    items = diarization.recording_items(best)
    wrong = [
        item["missed_seconds"] + item["false_alarm_seconds"] + item["confusion_seconds"]
        for item in items
    ]
    return Tested(
        value=best.der,
        items=items,
        metrics=_metrics(session, evaluation),
        interval=stats.ratio_interval(wrong, [item["reference_seconds"] for item in items]),
        selection=selection,
    )


def lowest_test_eer(session: Session) -> Tested:
    """ASV: train, then test every saved checkpoint; the lowest EER counts."""
    from superbit.benchmark.scoring import verification

    _train(session)
    tested: dict[int, tuple[Items, float]] = {}
    for step, file in sorted(checkpoints.snapshots(session.run_dir).items()):
        session.experiment.load_weights(checkpoints.load_snapshot(file))
        session.on_step(session.experiment.progress.step, f"test of step {step:,}")
        evaluation = session.experiment.evaluate(session.binding.test)
        table = session.experiment.head.test_dataset.pair_table
        labels = [int(label) for label, _, _ in table]
        scores = [float(score) for score in evaluation.records["scores"]]
        value = verification.equal_error_rate(labels, scores).percent
        _compare(value, 100.0 * evaluation.metrics["EER"], "EER")
        pairs = [(_utterance(first), _utterance(second)) for _, first, second in table]
        tested[step] = verification.trial_items(pairs, labels, scores), value
    if not tested:
        raise InputError("runner.test_step is above the steps that are trained: lower it.")
    selection = protocols.lowest_test_eer({step: value for step, (_, value) in tested.items()})
    items, value = tested[selection.step or 0]
    return Tested(
        value=value,
        items=items,
        metrics={f"test-EER-{step}": value for step, (_, value) in tested.items()},
        interval=verification.eer_interval(
            [item["same_speaker"] for item in items],
            [item["score"] for item in items],
            speakers=[
                (item["enrolment"].split("-")[0], item["test"].split("-")[0]) for item in items
            ],
        ),
        selection=selection,
    )


def best_dev_layer(session: Session) -> Tested:
    """QbE: no training; every layer on the dev queries, the best one on the eval queries."""
    from superbit.benchmark.scoring import term_detection

    on_dev = [_layer_trials(session, "dev", layer) for layer in range(_layers(session, "dev"))]
    values = [100.0 * term_detection.maximum_term_weighted_value(t).value for t in on_dev]
    layer, selection = protocols.best_dev_layer(values)
    _layers(session, "test")
    trials = _layer_trials(session, "test", layer)
    best = term_detection.maximum_term_weighted_value(trials)
    return Tested(
        value=100.0 * best.value,
        items=term_detection.query_items(trials, best.threshold),
        metrics={f"dev-mtwv-layer-{index}": value for index, value in enumerate(values)},
        interval=term_detection.mtwv_interval(trials),
        selection=selection,
    )


PROCEDURES: dict[str, Callable[[Session], Tested]] = {
    "best on dev": best_on_dev,
    "mean of 5 folds": best_on_dev,
    "lowest test DER": lowest_test_der,
    "lowest test EER": lowest_test_eer,
    "best layer on dev": best_dev_layer,
}


# --- steps that procedures share ------------------------------------------------------------------


def _train(session: Session) -> None:
    experiment, file = session.experiment, session.run_dir / checkpoints.CHECKPOINT
    if file.exists():
        checkpoints.load(file, experiment, key=session.key)

    def save() -> None:
        test_step = experiment.config["runner"].get("test_step")
        if test_step and experiment.progress.step % test_step == 0 and experiment.progress.step:
            checkpoints.save_snapshot(session.run_dir, experiment)
        checkpoints.save(file, experiment, key=session.key)

    experiment.train(
        on_step=lambda step, loss: session.on_step(step, f"loss {loss:.3f}"),
        on_evaluation=lambda done: session.on_step(done.step, f"{done.split} done"),
        on_save=save,
    )


def _select_on_dev(session: Session) -> Selection:
    """Load the best weights on dev into the experiment, or leave the last ones."""
    progress, binding = session.experiment.progress, session.binding
    score = None
    if progress.best is not None:
        session.experiment.load_weights(progress.best)
        score = next(
            point[binding.metric] * binding.metric_scale
            for point in progress.history
            if point["split"] == binding.dev and point["step"] == progress.best_step
        )
    return protocols.best_on_dev(best_step=progress.best_step, score=score, last_step=progress.step)


def _test(session: Session) -> Evaluation:
    split = session.binding.test
    session.on_step(session.experiment.progress.step, f"{split} evaluation")
    return session.experiment.evaluate(split)


def _compare(ours: float, experts: float, metric: str) -> None:
    """Refuse a number that differs from the expert's own."""
    if not math.isclose(ours, experts, rel_tol=1e-4, abs_tol=1e-4):
        raise RuntimeError(
            f"superbit's {metric} is {ours:.6f} and s3prl's own is {experts:.6f}: "
            "they must be equal."
        )


def _metrics(session: Session, evaluation: Evaluation) -> dict[str, float]:
    """The expert's scalars on the tested split that JSON can hold."""
    named = {f"{evaluation.split}-{name}": value for name, value in evaluation.metrics.items()}
    named["skipped_steps"] = float(session.experiment.progress.skipped_steps)
    return {name: value for name, value in named.items() if math.isfinite(value)}


def _utterance(path: str) -> str:
    """``id10270-video-00001`` of a file's path: the last three parts name it."""
    return "-".join(Path(path).with_suffix("").parts[-3:])


def _layers(session: Session, split: str) -> int:
    """Compute every layer's features of a split; return how many layers there are."""
    session.on_step(0, f"{split} features")
    session.experiment.collect_layers(split)
    return len(session.experiment.layer_records)


def _layer_trials(session: Session, split: str, layer: int) -> Any:
    from superbit.benchmark.corpora import quesst14
    from superbit.benchmark.scoring import dtw, term_detection

    experiment = session.experiment
    session.on_step(0, f"{split} search in layer {layer}")
    records = experiment.layer_records[layer]
    files = dict(zip(records["audio_names"], (f.numpy() for f in records["features"]), strict=True))
    split_at = experiment.head.test_dataset.n_queries
    names = list(files)
    queries, documents = dtw.standardize(
        {name: files[name] for name in names[:split_at]},
        {name: files[name] for name in names[split_at:]},
    )
    scores = {}
    for query, found in dtw.score_queries(queries, documents).items():
        normal = term_detection.normalize_scores(np.array(list(found.values())))
        scores[query] = dict(zip(found, normal.tolist(), strict=True))
    section = session.places.paths.section("quesst14")
    held = quesst14.occurrences(section, "dev" if split == "dev" else "eval")
    return term_detection.collect_trials(
        scores,
        {query: set(held.get(query, ())) & set(documents) for query in queries},
        documents=list(documents),
    )
