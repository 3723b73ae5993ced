"""From a built experiment to a tested one: what each kind of task does in which order.

The rules by which a number is selected are in ``protocols.py``; what is done here is to train,
to evaluate, and to hand the scores to them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from superbit.benchmark.records.schema import Chance
from superbit.benchmark.running import checkpoints, selection_rules
from superbit.benchmark.running.candidate import Candidate
from superbit.benchmark.running.session import (
    Session,
    Tested,
    TestedByName,
    compare,
    curve,
    metrics,
    select_on_dev,
    test,
    train,
)
from superbit.benchmark.scoring import statistics
from superbit.benchmark.tasks.bindings import Items
from superbit.upstreams.errors import InputError
from superbit.upstreams.sound import SAMPLE_RATE


def best_on_dev(session: Session) -> TestedByName:
    """Train, keep the best on dev, evaluate it on test."""
    binding = session.binding
    if binding.items is None or binding.score is None or binding.interval is None:
        raise TypeError("a task that is selected on dev needs items, score and interval")
    items_of, score, interval = binding.items, binding.score, binding.interval
    train(session)
    selections = session.experiment.each(partial(select_on_dev, session))
    evaluations = test(session)

    def tested(candidate: Candidate) -> Tested:
        evaluation = evaluations[candidate.name]
        items = items_of(evaluation.records)
        value = score(items)
        compare(value, evaluation.metrics[binding.metric] * binding.metric_scale, binding.metric)
        return Tested(
            value=value,
            items=items,
            metrics=metrics(candidate, evaluation),
            interval=interval(items),
            selection=selections[candidate.name],
            curve=curve(session, candidate),
        )

    return session.experiment.each(tested)


def lowest_test_der(session: Session) -> TestedByName:
    """SD: best head on dev, then SUPERB's grid of thresholds and median filters on test."""
    from superbit.benchmark.scoring import diarization

    train(session)
    selections = session.experiment.each(partial(select_on_dev, session))
    evaluations = test(session)
    turns = diarization.read_rttm(session.places.paths.section("libri2mix").test_dir / "rttm")
    # The same for every candidate, and to be counted once.
    constant: list[Chance] = []

    def tested(candidate: Candidate) -> Tested:
        probabilities = _predictions(candidate.folder)
        reference = {recording: turns.get(recording, []) for recording in probabilities}
        frame_shift = float((candidate.folder / "frame_shift").read_text()) / SAMPLE_RATE
        scores = diarization.score_settings(probabilities, reference, frame_shift=frame_shift)
        if not constant:
            constant.append(diarization.chance(probabilities, reference, frame_shift=frame_shift))
        best, selection = selection_rules.lowest_test_der(scores, head=selections[candidate.name])
        items = diarization.recording_items(best)
        wrong = [
            item["missed_seconds"] + item["false_alarm_seconds"] + item["confusion_seconds"]
            for item in items
        ]
        return Tested(
            value=best.der,
            items=items,
            metrics=metrics(candidate, evaluations[candidate.name]),
            interval=statistics.ratio_interval(
                wrong, [item["reference_seconds"] for item in items]
            ),
            selection=selection,
            curve=curve(session, candidate),
            chance=constant[0],
        )

    return session.experiment.each(tested)


def lowest_test_eer(session: Session) -> TestedByName:
    """ASV: train, then test every saved checkpoint; the lowest EER counts."""
    from superbit.benchmark.scoring import verification

    train(session)
    experiment = session.experiment
    found: dict[str, dict[int, tuple[Items, float]]] = defaultdict(dict)
    for step, file in sorted(checkpoints.snapshots(session.run_dir).items()):
        weights = checkpoints.load_snapshot(file)
        experiment.each(partial(_take, weights))
        # Scores of a head that diverged have no order.
        sound = [c for c in experiment.candidates if c.goes_on and c.is_finite()]
        if not sound:
            continue
        session.on_step(experiment.progress.step, f"test of step {step:,}")
        evaluations = experiment.evaluate_all(session.binding.test, among=sound)
        table = experiment.head.test_dataset.pair_table

        def score(candidate: Candidate, evaluations=evaluations, table=table, step=step) -> None:
            evaluation = evaluations[candidate.name]
            labels = [int(label) for label, _, _ in table]
            scores = [float(score) for score in evaluation.records["scores"]]
            value = verification.equal_error_rate(labels, scores).percent
            compare(value, 100.0 * evaluation.metrics["EER"], "EER")
            pairs = [(_utterance(first), _utterance(second)) for _, first, second in table]
            items = verification.trial_items(pairs, labels, scores)
            found[candidate.name][step] = items, value

        experiment.each(score, among=sound)
    if not checkpoints.snapshots(session.run_dir):
        raise InputError("runner.test_step is above the steps that are trained: lower it.")
    return experiment.each(lambda c: _lowest_eer(c, found[c.name]))


def best_dev_layer(session: Session) -> TestedByName:
    """QbE: no training; every layer on the dev queries, the best one on the eval queries."""
    from superbit.benchmark.scoring import term_detection

    on_dev = [_layer_trials(session, "dev", layer) for layer in range(_layers(session, "dev"))]
    values = [100.0 * term_detection.maximum_term_weighted_value(t).value for t in on_dev]
    layer, selection = selection_rules.best_dev_layer(values)
    _layers(session, "test")
    trials = _layer_trials(session, "test", layer)
    best = term_detection.maximum_term_weighted_value(trials)
    tested = Tested(
        value=100.0 * best.value,
        items=term_detection.query_items(trials, best.threshold),
        metrics={f"dev-mtwv-layer-{index}": value for index, value in enumerate(values)},
        interval=term_detection.mtwv_interval(trials),
        selection=selection,
    )
    return {session.experiment.candidates[0].name: tested}


PROCEDURES: dict[str, Callable[[Session], TestedByName]] = {
    "best on dev": best_on_dev,
    "mean of 5 folds": best_on_dev,
    "lowest test DER": lowest_test_der,
    "lowest test EER": lowest_test_eer,
    "best layer on dev": best_dev_layer,
}


def _predictions(folder: Path) -> dict[str, Any]:
    """SD's probabilities of each recording, (frames, speakers), as the expert wrote them."""
    import h5py

    probabilities = {}
    for file in sorted((folder / "scoring" / "predictions").glob("*.h5")):
        with h5py.File(file, "r") as stored:
            probabilities[file.stem] = stored["T_hat"][...]
    return probabilities


def _take(weights: dict[str, Any], candidate: Candidate) -> None:
    candidate.load_weights(weights[candidate.name])


def _lowest_eer(candidate: Candidate, tested: dict[int, tuple[Items, float]]) -> Tested:
    from superbit.benchmark.scoring import verification

    if not tested:
        raise InputError(
            f"the training diverged at step {candidate.course.diverged}: no saved checkpoint has "
            "finite weights; take a lower learning rate."
        )
    selection = selection_rules.lowest_test_eer(
        {step: value for step, (_, value) in tested.items()}
    )
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
