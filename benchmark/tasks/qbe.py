"""QbE: where QUESST 2014's spoken queries occur in its documents, maximum term-weighted value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from superbit.benchmark.records.measured import Selection
from superbit.benchmark.tasks import resampling
from superbit.benchmark.tasks.binding import Binding, RunPlaces, Section
from superbit.benchmark.tasks.task import AudioUse, Task, Tested, TestedByName

if TYPE_CHECKING:
    from superbit.benchmark.running.session import Session


def _bind(section: Section, places: RunPlaces) -> None:
    section["datarc"]["dataset_root"] = str(places.paths.section("quesst14").root)


def best_layer(session: Session) -> TestedByName:
    """No training; every layer on the dev queries, the best one on the eval queries."""
    from superbit.benchmark.scoring import term_detection

    on_dev = [_layer_trials(session, "dev", layer) for layer in range(_layers(session, "dev"))]
    values = [100.0 * term_detection.maximum_term_weighted_value(t).value for t in on_dev]
    layer, selection = best_dev_layer(values)
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


def best_dev_layer(mtwvs: Sequence[float]) -> tuple[int, Selection]:
    """The layer with the highest MTWV (times 100) on the dev queries, the lower of equals."""
    layer = max(range(len(mtwvs)), key=lambda index: (mtwvs[index], -index))
    return layer, Selection(
        rule=f"best of {len(mtwvs)} layers on dev: layer {layer}",
        selected_on="dev",
        step=None,
        score=mtwvs[layer],
        checkpoint=None,
    )


def _layers(session: Session, split: str) -> int:
    """Compute every layer's features of a split; return how many layers there are."""
    session.on_step(0, f"{split} features")
    session.experiment.collect_layers(split)
    return len(session.experiment.layer_records)


def _layer_trials(session: Session, split: str, layer: int) -> Any:
    import numpy as np

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


TASK = Task(
    name="QbE",
    title="query by example",
    corpus="quesst14",
    metric="mtwv",
    column="qbe_mtwv",
    higher_is_better=True,
    unit="x100",
    downstream="quesst14_dtw",
    binding=Binding(metric="mtwv", test_files=None, batch=("datarc", "batch_size"), bind=_bind),
    protocol="best layer on dev",
    procedure=best_layer,
    rates=None,
    chance="nothing",
    layer_scores="dev-mtwv-layer-",
    # Of the trials' scores only what they come to at the best threshold is kept: resamples share
    # that threshold. It is where the value is highest, so that to first order it does not matter.
    resampling=resampling.Resampling(
        item="queries",
        measures=(
            resampling.Measure(top=lambda item: item["twv"], bottom=resampling.one, lowest=0.0),
        ),
        note="resamples share the threshold that is best on all queries",
    ),
    # English documents, the same for the queries of dev and of eval
    audio=AudioUse(
        splits={"dev": (2_438 + 138, 4.2), "test": (2_438 + 138, 4.2)},
        evaluated_once=(2_438 + 276, 4.4),
    ),
)
