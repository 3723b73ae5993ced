"""Two upstreams beside the spread over seeds."""

import json

import pytest
from verbs import run_verb

from superbit.benchmark.records.schema import Chance, Corpus, RunIdentity, RunRecord
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.tables.compare import compare
from superbit.upstreams.errors import InputError

ONE, OTHER = "vanilla_nano", "vanilla_nano+untrained"


def run(
    task, upstream, value, *, seed=1337, corpus_sha256="0a" * 32, label=None, limit=None, **changes
):
    config = {"scale": "embedded"} | ({} if limit is None else {"limit": limit})
    identity = RunIdentity(
        **{
            "upstream": upstream,
            "weights_sha256": "5d" * 32,
            "upstream_revision": "1",
            "task": task,
            "task_revision": 1,
            "config": config,
            "corpus_sha256": corpus_sha256,
            "learning_rate": 1e-3,
            "seed": seed,
            "fold": None,
        }
        | changes
    )
    return RunRecord(
        key=identity.key,
        status="done",
        identity=identity,
        scale=identity.config["scale"],
        limited=limit is not None,
        untrained="+untrained" in upstream,
        value=value,
        corpus=Corpus(name="c", kind="real", sha256=corpus_sha256, label=label),
    )


def runs(task, **values):
    return [
        run(task, upstream, value, seed=seed)
        for upstream, several in ((ONE, values["one"]), (OTHER, values["other"]))
        for seed, value in enumerate(several, start=1)
    ]


@pytest.mark.parametrize(
    ("task", "one", "other", "gain", "better"),
    [
        ("KS", (70.0, 74.0), (60.0, 69.0), 7.5, "first"),
        ("KS", (70.0, 74.0), (60.0, 70.0), 7.0, None),
        # lower is better
        ("PR", (70.0, 74.0), (60.0, 69.0), -7.5, "second"),
        # nothing is beyond the spread of a single seed
        ("KS", (70.0,), (10.0, 11.0), 59.5, None),
    ],
)
def test_better_is_better_in_every_seed(task, one, other, gain, better):
    (found,) = compare(runs(task, one=one, other=other), ONE, OTHER).tasks
    assert found.gain == pytest.approx(gain)
    assert found.better == better


def test_only_tasks_that_both_have_are_compared():
    records = [*runs("KS", one=(1.0, 2.0), other=(3.0, 4.0)), run("SID", ONE, 5.0)]
    assert [each.task for each in compare(records, ONE, OTHER).tasks] == ["KS"]
    with pytest.raises(InputError, match="no task in common"):
        compare([run("KS", ONE, 1.0), run("SID", OTHER, 1.0)], ONE, OTHER)


def test_an_upstream_without_runs_names_those_that_have():
    with pytest.raises(InputError, match="upstreams that have: vanilla_nano"):
        compare([run("KS", ONE, 1.0)], ONE, "fbank")


def test_two_runs_of_one_seed_are_not_chosen_between():
    records = [run("KS", ONE, 1.0, learning_rate=rate) for rate in (1e-3, 1e-2)]
    with pytest.raises(InputError, match=r"several runs of seed 1337.*--where learning_rate=0.001"):
        compare([*records, run("KS", OTHER, 1.0)], ONE, OTHER)


# --- what is compared was made alike ---------------------------------------------------------

OTHER_CORPUS = {"corpus_sha256": "5e0c" * 16, "label": "asterisk-en"}
# Every way in which runs of one task may have been made unlike each other, and what is said of it.
UNLIKE = [
    (OTHER_CORPUS, r"corpus differs: .*asterisk-en \(c, 5e0c5e0c5e0c\)"),
    ({"config": {"scale": "superb"}}, r"config.scale differs: .*embedded.*superb"),
    ({"limit": 3}, r"config.limit differs: .*none.*3"),
    (
        {"config": {"scale": "embedded", "runner": {"total_steps": 5}}},
        r"config.runner.total_steps differs: .*none.*5",
    ),
    ({"task_revision": 2}, r"task_revision differs: .*1.*2"),
]


@pytest.mark.parametrize(("unlike", "says"), UNLIKE)
def test_runs_that_were_not_made_alike_are_not_compared(unlike, says):
    records = [run("IC", ONE, 60.0), run("IC", OTHER, 21.5, **unlike)]
    with pytest.raises(InputError, match=f"IC is not compared, as {says}") as caught:
        compare(records, ONE, OTHER)
    assert "--where scale" not in str(caught.value)
    with_one_alike = [*records, run("KS", ONE, 60.0), run("KS", OTHER, 21.5)]
    found = compare(with_one_alike, ONE, OTHER)
    assert [each.task for each in found.tasks] == ["KS"]
    assert len(found.left_out) == 1
    assert "IC is not compared" in found.left_out[0]


@pytest.mark.parametrize(("unlike", "says"), UNLIKE)
def test_groups_that_match_are_paired_up_and_the_rest_is_named(unlike, says):
    records = [
        run("IC", ONE, 60.0),
        run("IC", OTHER, 50.0),
        run("IC", OTHER, 21.5, **unlike),
    ]
    found = compare(records, ONE, OTHER)
    (comparison,) = found.tasks
    assert comparison.gain == 10.0
    assert comparison.setting
    assert "1 run of vanilla_nano+untrained left out" in found.left_out[0]
    both = compare([*records, run("IC", ONE, 20.5, **unlike)], ONE, OTHER)
    assert sorted(each.gain for each in both.tasks) == [-1.0, 10.0]
    assert len({each.setting for each in both.tasks}) == 2
    assert both.left_out == ()


def test_each_upstream_may_have_its_own_learning_rate():
    config = {"scale": "embedded", "optimizer": {"name": "Adam"}}
    records = [
        run(
            "IC",
            upstream,
            value,
            learning_rate=rate,
            config=config | {"optimizer": {"name": "Adam", "lr": rate}},
        )
        for upstream, value, rate in ((ONE, 60.0, 0.1), (OTHER, 50.0, 0.01))
    ]
    (found,) = compare(records, ONE, OTHER).tasks
    assert (found.gain, found.setting) == (10.0, "")


@pytest.mark.parametrize("field", ["weights_sha256", "upstream_revision"])
def test_seeds_of_two_models_of_one_name_are_not_averaged(field):
    records = [
        run("KS", ONE, 1.0, seed=1),
        run("KS", ONE, 2.0, seed=2, **{field: "9" * 64}),
        run("KS", OTHER, 1.0),
    ]
    with pytest.raises(InputError, match=f"more than the seed.*--where {field}="):
        compare(records, ONE, OTHER)


def test_values_at_chance_are_marked(tmp_path, capsys):
    store = ResultStore(tmp_path)
    for record in runs("IC", one=(50.0,), other=(8.0,)):
        store.write(record.model_copy(update={"chance": Chance(value=8.0, method="m")}))
    run_verb("compare", ONE, OTHER, results=tmp_path)
    out = capsys.readouterr().out
    assert "8.00 ≤chance" in out
    assert "50.00 ≤chance" not in out


def test_the_verb_reads_the_folder(tmp_path, capsys):
    store = ResultStore(tmp_path)
    for record in runs("KS", one=(70.0, 74.0), other=(60.0, 69.0)):
        store.write(record)
    assert run_verb("compare", ONE, OTHER, results=tmp_path) == 0
    out = capsys.readouterr().out
    assert "72.00 ±2.83" in out
    assert "64.50 ±6.36" in out
    assert f"{ONE} on 1 of 1 tasks, {OTHER} on 0." in out
    run_verb("compare", ONE, OTHER, results=tmp_path, format="json")
    assert json.loads(capsys.readouterr().out)["tasks"][0]["gain"] == 7.5
