"""Which learning rate counts, by hand-made records of every protocol."""

import pytest

from superbit.benchmark.records.rate_search import (
    DeclaredSearch,
    chosen_only,
    declared_by,
    describe_search,
    outcome_of,
    score_of,
)
from superbit.benchmark.records.schema import Corpus, Point, RunIdentity, RunRecord, Selection
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.tables.table2 import table2
from superbit.benchmark.tables.table2_rendering import render_table2
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import rates_to_search, resolve
from superbit.upstreams.errors import InputError


def run(rate, scores=(), *, task="KS", best=True, value=50.0, fold=None, **changes):
    """A record whose evaluations on dev gave ``scores``; the best one of them was tested."""
    identity = RunIdentity(
        upstream=changes.pop("upstream", "vanilla_nano+untrained"), weights_sha256="5d" * 32,
        upstream_revision="1", task=task, task_revision=1,
        config={"scale": "embedded", "optimizer": {"name": "TorchOptim", "lr": rate}},
        corpus_sha256="0a" * 32, learning_rate=rate, seed=changes.pop("seed", 1), fold=fold,
    )  # fmt: skip
    curve = [Point(step=10 * (i + 1), score=score) for i, score in enumerate(scores)]
    wanted = max if task in ("KS", "SD", "ER") else min
    step = wanted(curve, key=lambda point: point.score).step if curve and best else None
    selection = Selection(rule="r", step=step or 99, checkpoint="best" if step else "last")
    fields = {
        "key": identity.key, "status": "done", "identity": identity, "scale": "embedded",
        "limited": False, "untrained": True, "value": value, "curve": curve,
        "selection": selection,
        "corpus": Corpus(name="c", kind="synthesized", sha256=identity.corpus_sha256),
    }  # fmt: skip
    return RunRecord(**(fields | changes))


def failed(rate, diverged=None):
    return run(rate, status="failed", value=None, reason="no", diverged=diverged, selection=None)


def chosen(records):
    found = outcome_of(declared_by(record.identity for record in records), records)
    return found.search.chosen


@pytest.mark.parametrize(
    ("task", "scores", "expected"),
    [
        ("KS", {0.1: (40, 90), 0.01: (95, 60), 0.001: (70, 80)}, 0.01),
        ("PR", {0.1: (40, 90), 0.01: (95, 60), 0.001: (70, 80)}, 0.1),
        ("ASR", {0.1: (99, 98), 0.01: (95, 60), 0.001: (70, 80)}, 0.01),
        # SD's own number is a DER; on dev its frame accuracy decides, and higher is better.
        ("SD", {0.1: (0.4, 0.9), 0.01: (0.95, 0.6), 0.001: (0.7, 0.8)}, 0.01),
        ("KS", {0.1: (90,), 0.01: (90,), 0.001: (80,)}, 0.01),
    ],
)
def test_the_best_checkpoint_on_dev_decides(task, scores, expected):
    assert chosen([run(rate, each, task=task) for rate, each in scores.items()]) == expected


def test_asv_is_chosen_on_test_and_says_so():
    records = [run(rate, task="ASV", value=eer) for rate, eer in ((0.1, 30.0), (0.01, 12.0))]
    search = outcome_of(declared_by(r.identity for r in records), records).search
    assert (search.chosen, search.selected_on) == (0.01, "test")


def test_er_takes_the_mean_over_folds():
    folds = {0.1: (90, 10, 10, 10, 10), 0.01: (40, 40, 40, 40, 40)}
    records = [
        run(rate, (score,), task="ER", fold=fold)
        for rate, scores in folds.items()
        for fold, score in enumerate(scores, start=1)
    ]
    assert chosen(records) == 0.01
    declared = declared_by(record.identity for record in records)
    assert outcome_of(declared, records[1:]).missing == (0.1,)
    lost = records[5].model_copy(update={"diverged": 3})
    assert outcome_of(declared, [*records[:5], lost, *records[6:]]).search.chosen == 0.1


def test_where_no_checkpoint_was_best_the_last_score_decides():
    assert score_of(run(0.1, (20, 10), best=False)) == 10
    assert score_of(run(0.1, ())) is None


def test_a_rate_that_diverged_is_never_chosen():
    lost = run(0.1, (99,), diverged=20)
    assert chosen([lost, run(0.01, (10,))]) == 0.01
    assert chosen([lost, failed(0.01, diverged=4)]) is None
    found = outcome_of(declared_by([lost.identity, failed(0.01).identity]), [lost, failed(0.01)])
    assert found.missing == (0.01,)
    assert "0.1 (diverged at step 20)" in describe_search(found.search)


def test_other_runs_are_no_candidates():
    records = [run(0.1, (10,)), run(0.01, (20,)), run(0.001, (30,), seed=2), run(1e-4, (40,))]
    declared = declared_by(record.identity for record in records[:2])
    left, found, notes = chosen_only(records, [declared])
    assert [(r.identity.learning_rate, r.identity.seed) for r in left] == [
        (0.01, 1), (0.001, 2), (1e-4, 1),
    ]  # fmt: skip
    assert ([each.search.chosen for each in found], notes) == ([0.01], [])


def test_two_searches_are_one_over_all_their_rates():
    records = [run(0.1, (10,)), run(0.01, (20,)), run(0.001, (30,))]
    searches = [declared_by(r.identity for r in pair) for pair in (records[:2], records[1:])]
    left, (found,), _ = chosen_only(records, searches)
    assert left == records[2:]
    assert len(found.search.tried) == 3


def test_a_search_that_has_not_ended_leaves_the_cell_empty():
    records = [run(0.1, (10,)), run(0.01, (20,))]
    declared = declared_by([*(r.identity for r in records), run(0.001).identity])
    table = table2(records, source="runs", searches=[declared])
    assert table.rows == ()
    assert any("2 of 3 learning rates are done" in note for note in table.notes)
    (row,) = table2(
        records, source="runs", searches=[declared], where={"learning_rate": "0.1"}
    ).rows
    assert row.cells["ks_acc"].record == records[0]


def test_rates_are_shown_in_every_format():
    records = [run(0.1, (10,), value=12.5), run(0.01, (20,), value=25.0)]
    searches = [declared_by(record.identity for record in records)]
    table = table2(records, source="runs", searches=searches, show_rates=True)
    for fmt in ("md", "latex", "html"):
        assert "25.00 lr 0.01" in render_table2(table, fmt)
        assert "12.50" not in render_table2(table, fmt)
    header, line = render_table2(table, "csv").splitlines()
    values = dict(zip(header.split(","), line.split(","), strict=True))
    assert (values["ks_acc"], values["ks_acc_lr"], values["asr_wer_lr"]) == ("25.00", "0.01", "")
    plain = table2(records, source="runs", searches=searches)
    assert "lr 0.01" not in render_table2(plain, "md")
    with pytest.raises(InputError, match="could be filled by 2 runs"):
        table2(records, source="runs")


def test_a_store_remembers_what_was_asked_for(tmp_path):
    store = ResultStore(tmp_path)
    declared = declared_by([run(0.1).identity, run(0.01).identity])
    store.declare(declared)
    store.declare(declared)
    assert store.read_searches() == [declared]
    assert store.read_searches()[0].key == declared.key
    assert store.read_all() == []
    (file,) = (tmp_path / "searches").iterdir()
    file.write_text('{"rates": [1]}')
    with pytest.raises(InputError, match="does not name a search over learning rates"):
        store.read_searches()


def test_what_candidates_share():
    first, second = (run(rate, task="ER", fold=fold).identity for rate, fold in ((1, 1), (2, 3)))
    assert first.without_rate == second.without_rate
    assert first.without_rate != run(1, task="ER", fold=1, seed=7).identity.without_rate
    assert (
        DeclaredSearch(identity=first.without_rate, rates=frozenset({1.0})).key
        != declared_by([first, second]).key
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("scale", ["superb", "embedded"])
def test_every_task_that_trains_has_a_list_that_enters_no_key(task, scale):
    rates, config = rates_to_search(task, scale=scale), resolve(task, scale=scale)
    if task == "QbE":
        assert rates == []
    elif scale == "superb":
        assert rates == [0.1, 0.01, 0.001, 1e-4, 1e-5]
    else:
        # the rate of a run without a search is among those of a search, which then reuses it
        assert config["optimizer"]["lr"] in rates
    assert "learning_rates" not in config
