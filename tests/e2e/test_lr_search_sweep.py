"""``sweep --lr search`` from the command line to Table 2."""

import json
import shutil

import pytest
import ready_processes

from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.running import checkpoints

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("forked_workers")]

RATES = "1e-1,1e-2,1e-3"
SHORT = """
KS:
  runner: {total_steps: 8, eval_step: 4, save_step: 2, log_step: 2}
  learning_rates: [1.0e-1, 1.0e-2]
  downstream_expert: {datarc: {batch_size: 8}}
ER:
  runner: {total_steps: 4, eval_step: 2, save_step: 4}
  learning_rates: [1.0e-1, 1.0e-2]
ASV:
  runner: {total_steps: 2, save_step: 1, test_step: 1}
  learning_rates: [1.0e-2, 1.0e-4]
  downstream_expert:
    modelrc: {input_dim: 8, module_config: {XVector: {agg_dim: 16}}}
"""


@pytest.fixture
def words(tiny_paths_file, tmp_path):
    (tmp_path / "short.yaml").write_text(SHORT)

    def of(upstream, tasks, *more, results="results"):
        return [
            "sweep", "--upstreams", upstream, "--tasks", tasks, "--scale", "embedded",
            "--paths", tiny_paths_file, "--overrides", tmp_path / "short.yaml",
            "--results", tmp_path / results, *more,
        ]  # fmt: skip

    return of


@pytest.fixture
def sweep(superbit, words, hubconf):
    def call(tasks, *more, **options):
        return superbit(*words(f"{hubconf}:energies", tasks, *more, "--no-cache", **options))

    return call


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


@pytest.fixture
def table(superbit, store):
    def of(*more, fmt="json"):
        call = ("table", "2", "--source", "runs", "--format", fmt, "--results", store.root)
        status, out, err = superbit(*call, *more)
        assert status == 0, err
        return json.loads(out) if fmt == "json" else out

    return of


def by_rate(store):
    return {record.identity.learning_rate: record for record in store.read_all()}


def what_counts(record):
    """What a run at that rate alone must have as well."""
    return record.value, record.metrics, record.selection, record.curve, record.interval


def test_candidates_are_runs_of_their_own_and_one_of_them_counts(sweep, table, hubconf, store):
    calls = hubconf.parent / "calls"
    status, _, _ = sweep("KS", "--lr", "1e-2", results="alone")
    assert status == 0
    of_one = calls.stat().st_size
    calls.write_text("")
    status, out, _ = sweep("KS", "--lr", RATES)
    assert status == 0
    assert "3 new, 0 reused" in out
    assert calls.stat().st_size == of_one  # the upstream ran as often as for one rate
    found = by_rate(store)
    (alone,) = ResultStore(store.root.parent / "alone").read_all()
    assert alone.key == found[1e-2].key
    assert what_counts(alone) == what_counts(found[1e-2])
    assert store.read_items(found[1e-2]) == ResultStore(store.root.parent / "alone").read_items(
        alone
    )

    search = found[1e-2].search
    assert all(record.search == search for record in found.values())
    assert search.selected_on == "dev"
    assert [tried.learning_rate for tried in search.tried] == [1e-3, 1e-2, 1e-1]
    scores = {tried.learning_rate: tried.score for tried in search.tried}
    assert scores == {rate: max(p.score for p in record.curve) for rate, record in found.items()}
    best = max(scores.values())
    assert search.chosen == min(rate for rate, score in scores.items() if score == best)
    (row,) = table()
    assert row["ks_acc"] == found[search.chosen].value
    assert row["cells"]["ks_acc"]["learning_rate"] == search.chosen
    assert f" lr {search.chosen:g}" in table("--show-lr", fmt="md")
    assert "KS: learning rate chosen among 0.001, 0.01, 0.1" in table(fmt="md")
    (row,) = table("--where", "learning_rate=0.001")
    assert row["ks_acc"] == found[1e-3].value

    _, out, _ = sweep("KS", "--lr", RATES)
    assert "0 new, 3 reused" in out
    _, out, _ = sweep("KS", "--lr", "1e-3")
    assert "0 new, 1 reused" in out


def test_runs_alone_become_candidates(sweep, table, store):
    sweep("KS", "--lr", "1e-2")
    before = by_rate(store)[1e-2]
    _, out, _ = sweep("KS", "--lr", "search")
    assert "1 new, 1 reused" in out
    found = by_rate(store)
    assert found[1e-2] == before
    assert found[1e-1].search.tried[0].score == pytest.approx(max(p.score for p in before.curve))
    assert len(table()) == 1
    # A rate of no search still competes for the cell, and is named.
    sweep("KS", "--lr", "1e-3")
    with pytest.raises(AssertionError, match="could be filled by 2 runs"):
        table()
    sweep("KS", "--lr", RATES)
    assert len(table()) == 1


def test_runs_all_of_which_were_done_alone_can_be_compared(sweep, table, store):
    for rate in ("1e-1", "1e-2"):
        sweep("KS", "--lr", rate)
    with pytest.raises(AssertionError, match="could be filled by 2 runs"):
        table()
    _, out, _ = sweep("KS", "--lr", "search")
    assert "0 new, 2 reused" in out
    assert "learning rate of KS × " in out
    assert len(table()) == 1


def test_until_every_rate_is_done_the_cell_is_empty(sweep, table, store):
    sweep("KS", "--lr", "search")
    chosen = by_rate(store)[1e-1].search.chosen
    for rate, record in by_rate(store).items():
        if rate != chosen:
            store.path(record.identity).unlink()
    out = table(fmt="md")
    assert "of whose search 1 of 2 learning rates are done" in out
    assert "energies |" not in out


def test_killed_and_continued_equals_never_killed(
    sweep, words, superbit, hubconf, store, monkeypatch, tmp_path
):
    sweep("KS", "--lr", RATES, results="straight")
    straight = by_rate(ResultStore(tmp_path / "straight"))
    calls, order = hubconf.parent / "calls", hubconf.parent / "order"
    whole = calls.stat().st_size
    calls.write_text("")
    order.write_text(f"die {whole - 14}")  # while testing, as step 8 is done
    asked = words(f"{hubconf}:energies", "KS", "--lr", RATES, "--no-cache")
    died = ready_processes.verb(*asked).finished()
    assert died.returncode == -9
    assert store.read_all() == []
    (checkpoint,) = store.root.glob("work/runs/*/checkpoint.pt")

    # One of them is done alone meanwhile; the others continue from the common checkpoint.
    sweep("KS", "--lr", "1e-1")
    resumed_at = []
    load = checkpoints.load

    def noting(file, experiment, *, key):
        load(file, experiment, key=key)
        resumed_at.append((experiment.position.step, [c.name for c in experiment.candidates]))

    monkeypatch.setattr(checkpoints, "load", noting)
    assert checkpoint.exists()
    status, out, _ = sweep("KS", "--lr", RATES)
    assert status == 0
    assert "1 done, 2 unfinished" in out
    ((step, names),) = resumed_at
    assert step > 0
    assert names == ["0.01", "0.001"]
    for rate, record in by_rate(store).items():
        assert what_counts(record) == what_counts(straight[rate])
    assert not list(store.root.glob("work/runs/*"))


def test_a_rate_that_diverges_is_recorded_and_never_chosen(sweep, table, store):
    _, out, _ = sweep("KS,ASV", "--lr", "1e30,1e-2")
    assert "1e+30 (diverged at step" in out
    records = {(r.identity.task, r.identity.learning_rate): r for r in store.read_all()}
    for task in ("KS", "ASV"):
        assert records[task, 1e30].diverged > 1
        assert records[task, 1e-2].status == "done"
        assert records[task, 1e-2].diverged is None
        assert records[task, 1e-2].search.chosen == 1e-2
    (row,) = table()
    assert row["ks_acc"] == records["KS", 1e-2].value
    assert row["cells"]["asv_eer"]["learning_rate"] == 1e-2
    assert row["cells"]["asv_eer"]["selected_on"] == "test"
    _, out, _ = sweep("KS,ASV", "--lr", "1e30,1e-2")
    assert "0 new, 4 reused" in out


def test_er_has_one_rate_for_all_folds(sweep, table, store):
    status, out, _ = sweep("ER", "--lr", "search")
    assert status == 0
    assert "10 new" in out
    records = store.read_all()
    means = {
        rate: sum(
            next(p.score for p in r.curve if p.step == r.selection.step)
            for r in records if r.identity.learning_rate == rate
        ) / 5
        for rate in (1e-1, 1e-2)
    }  # fmt: skip
    chosen = min(means, key=lambda rate: (-means[rate], rate))
    (row,) = table()
    values = [r.value for r in records if r.identity.learning_rate == chosen]
    assert row["er_acc"] == pytest.approx(sum(values) / 5)
    assert row["cells"]["er_acc"]["learning_rate"] == chosen
    assert f"learning rate of ER × {records[0].identity.upstream}: {chosen:g} of" in out
    store.path(records[0].identity).unlink()
    assert "of whose search 1 of 2 learning rates are done" in table(fmt="md")


def test_a_dry_run_shows_the_rates_of_each_task(sweep, store):
    status, out, _ = sweep("KS,PR,QbE", "--lr", "search", "--dry-run")
    assert status == 0
    lines = {line.split(" × ")[0].strip(): line for line in out.splitlines()}
    assert "lr 0.1, 0.01 side by side" in lines["KS"]
    assert "lr 0.01, 0.003, 0.001 side by side" in lines["PR"]
    assert "lr none (no training)" in lines["QbE"]
    assert "6 runs: 6 to run" in out
    assert not list(store.root.glob("searches/*"))


def test_two_processes_and_stored_features(words, superbit, hubconf, store, tmp_path):
    # So long that features are worth storing.
    (tmp_path / "short.yaml").write_text(
        "KS: {runner: {total_steps: 40, eval_step: 40, save_step: 40}, "
        "learning_rates: [1.0e-1, 1.0e-2]}\n"
    )
    shutil.copy(hubconf, hubconf.with_name("other.py"))
    both = f"{hubconf}:energies,{hubconf.with_name('other.py')}:twin"
    status, out, _ = superbit(*words(both, "KS", "--lr", "search", "--jobs", "2"))
    assert status == 0, out
    assert "4 new" in out
    assert all(record.provenance.features["stored"] > 0 for record in store.read_all())
    status, _, _ = superbit(*words(f"{hubconf}:energies", "KS", "--lr", "1e-2", results="alone"))
    (alone,) = ResultStore(tmp_path / "alone").read_all()
    (same,) = [record for record in store.read_all() if record.key == alone.key]
    assert what_counts(same) == what_counts(alone)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ("1e-3,-1", "-1 must be a number above 0"),
        ("0", "0 must be a number above 0"),
        ("nan", "nan must be a number above 0"),
        (",", "--lr: name at least one"),
        ("serach", "Did you mean 'search'?"),
    ],
)
def test_wrong_rates_are_refused(sweep, rates, said):
    status, _, err = sweep("KS", f"--lr={rates}")
    assert status == 2
    assert said in err


@pytest.mark.parametrize("rates", ["[]", "[1.0e-3, -1.0]", "fast"])
def test_wrong_lists_of_a_config_are_refused(sweep, rates, tmp_path):
    short = tmp_path / "short.yaml"
    short.write_text(f"KS:\n  learning_rates: {rates}\n")
    status, _, err = sweep("KS", "--lr", "search")
    assert status == 2
    assert "short.yaml: KS" in err
    assert "learning_rates" in err
