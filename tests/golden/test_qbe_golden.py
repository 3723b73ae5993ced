"""QbE's whole way to the number against s3prl's expert and ``Runner``, live and on stored features.

As SUPERB does it: one evaluation a layer on the dev queries (``-l LAYER -t dev``), the layer with
the highest MTWV on the test queries. s3prl writes scores into ``benchmark.stdlist.xml``; they are
scored here from that file and from the ground truth, by the definition of the term-weighted value.
"""

import shutil
from collections import defaultdict
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import s3prl_loop

from superbit.benchmark.scoring import term_detection

LAYERS = 3
# QUESST 2014's costs and prior: (Cfa / Cmiss) (1 - P) / P.
FALSE_ALARM_WEIGHT = (1 / 100) * (1 - 0.0008) / 0.0008
# s3prl standardizes in float32, and writes four decimals.
LAST_DECIMAL = 1.01e-4


def scores_of(folder):
    """Query → document → score, as s3prl wrote it."""
    root = ElementTree.parse(folder / "benchmark.stdlist.xml").getroot()
    return {
        query.get("termid"): {hit.get("file"): float(hit.get("score")) for hit in query}
        for query in root
    }


def truth_of(bench, split):
    """Query → the documents that hold it, from the RTTM."""
    held = defaultdict(set)
    folder = bench.places.paths.section("quesst14").root / f"scoring/groundtruth_quesst14_{split}"
    (file,) = folder.glob("*.rttm")
    for line in file.read_text().splitlines():
        kind, document, _, _, _, query, *_ = line.split()
        if kind == "LEXEME" and query != "NO_KEYWORD":
            held[query].add(document)
    return held


def mtwv(scores, truth):
    """Try every threshold; times 100."""
    queries = [query for query in scores if truth.get(query)]
    best = 0.0
    for threshold in {score for query in queries for score in scores[query].values()}:
        total = 0.0
        for query in queries:
            found = {name for name, score in scores[query].items() if score >= threshold}
            missed = len(truth[query] - found) / len(truth[query])
            alarms = len(found - truth[query]) / (len(scores[query]) - len(truth[query]))
            total += 1 - missed - FALSE_ALARM_WEIGHT * alarms
        best = max(best, 100 * total / len(queries))
    return best


@pytest.fixture(scope="module")
def theirs(tiny_paths, tmp_path_factory):
    """Every layer on both splits, by s3prl."""
    with pytest.MonkeyPatch.context() as patch:
        s3prl_loop.use_upstreams(patch)
        bench = s3prl_loop.bench(
            "QbE", "bands", paths=tiny_paths, folder=tmp_path_factory.mktemp("qbe")
        )
        bench.config["downstream_expert"]["max_workers"] = 1
        found = {
            (layer, split): scores_of(s3prl_loop.search_by_s3prl(bench, layer=layer, split=split))
            for layer in range(LAYERS)
            for split in ("dev", "test")
        }
        yield SimpleNamespace(bench=bench, scores=found)


@pytest.fixture(params=["live", "stored"])
def ours(request, theirs, monkeypatch):
    """Our run, and the trials that it scored: of each layer on dev, then on test."""
    trials, collect = [], term_detection.collect_trials

    def taped(*args, **kwargs):
        trials.append(collect(*args, **kwargs))
        return trials[-1]

    monkeypatch.setattr(term_detection, "collect_trials", taped)
    run = s3prl_loop.run_ours(theirs.bench, request.param, stored=request.param == "stored")
    source = run.experiment.source
    assert (source is None) if request.param == "live" else (source.stored and not source.live)
    yield SimpleNamespace(tested=run.tested, trials=trials)
    shutil.rmtree(run.folder)


def differences(trials, scores):
    """How far our scores are from s3prl's, trial by trial."""
    assert set(trials.queries) <= set(scores)
    assert all(set(trials.documents) == set(scores[query]) for query in trials.queries)
    return [
        abs(trials.scores[row, column] - scores[query][document])
        for row, query in enumerate(trials.queries)
        for column, document in enumerate(trials.documents)
    ]


def test_every_layer_and_the_number_are_s3prls(theirs, ours):
    dev, test = truth_of(theirs.bench, "dev"), truth_of(theirs.bench, "eval")
    on_dev = [mtwv(theirs.scores[layer, "dev"], dev) for layer in range(LAYERS)]
    best = max(range(LAYERS), key=lambda layer: on_dev[layer])
    assert best > 0  # not whichever comes first
    assert len(set(on_dev)) == LAYERS

    *trials, tested = ours.trials
    for layer in range(LAYERS):
        assert max(differences(trials[layer], theirs.scores[layer, "dev"])) <= LAST_DECIMAL
    assert ours.tested.metrics == pytest.approx(
        {f"dev-mtwv-layer-{layer}": value for layer, value in enumerate(on_dev)}, abs=1e-3
    )
    assert f"layer {best}" in ours.tested.selection.rule
    assert ours.tested.selection.score == pytest.approx(on_dev[best], abs=1e-3)

    assert max(differences(tested, theirs.scores[best, "test"])) <= LAST_DECIMAL
    assert ours.tested.value == pytest.approx(mtwv(theirs.scores[best, "test"], test), abs=1e-3)
    assert ours.tested.value > 0
    assert [item["id"] for item in ours.tested.items] == sorted(q for q in test if test[q])


def test_another_layer_or_split_is_told_apart(theirs, ours):
    test = truth_of(theirs.bench, "eval")
    best = int(ours.tested.selection.rule.rpartition(" ")[2])
    for layer in set(range(LAYERS)) - {best}:
        assert max(differences(ours.trials[-1], theirs.scores[layer, "test"])) > 0.1
        other = mtwv(theirs.scores[layer, "test"], test)
        assert ours.tested.value != pytest.approx(other, abs=1e-3)
    turned = {query: test[other] for query, other in zip(test, reversed(test), strict=True)}
    assert mtwv(theirs.scores[best, "test"], turned) != pytest.approx(ours.tested.value, abs=1e-3)
