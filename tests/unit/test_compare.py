"""Two upstreams beside the spread over seeds."""

import json

import pytest

from superbit.benchmark.compare import compare, compare_command
from superbit.benchmark.records import Corpus, RunIdentity, RunRecord
from superbit.benchmark.results import ResultStore
from superbit.upstreams.errors import InputError

ONE, OTHER = "vanilla_nano", "vanilla_nano+untrained"


def run(task, upstream, value, *, seed=1337, corpus_sha256="0a" * 32):
    identity = RunIdentity(
        upstream=upstream,
        weights_sha256="5d" * 32,
        upstream_revision="1",
        task=task,
        task_revision=1,
        config={"scale": "embedded"},
        corpus_sha256=corpus_sha256,
        learning_rate=1e-3,
        seed=seed,
        fold=None,
    )
    return RunRecord(
        key=identity.key,
        status="done",
        identity=identity,
        scale="embedded",
        limited=False,
        untrained="+untrained" in upstream,
        value=value,
        corpus=Corpus(name="c", kind="synthesized", sha256=corpus_sha256),
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
    (found,) = compare(runs(task, one=one, other=other), ONE, OTHER)
    assert found.gain == pytest.approx(gain)
    assert found.better == better


def test_only_tasks_that_both_have_are_compared():
    records = [*runs("KS", one=(1.0, 2.0), other=(3.0, 4.0)), run("SID", ONE, 5.0)]
    assert [each.task for each in compare(records, ONE, OTHER)] == ["KS"]
    with pytest.raises(InputError, match="no task in common"):
        compare([run("KS", ONE, 1.0), run("SID", OTHER, 1.0)], ONE, OTHER)


def test_an_upstream_without_runs_names_those_that_have():
    with pytest.raises(InputError, match="upstreams that have: vanilla_nano"):
        compare([run("KS", ONE, 1.0)], ONE, "fbank")


def test_two_runs_of_one_seed_are_not_chosen_between():
    records = [run("KS", ONE, 1.0, corpus_sha256=digit * 64) for digit in "12"]
    with pytest.raises(InputError, match="several runs of seed 1337"):
        compare([*records, run("KS", OTHER, 1.0)], ONE, OTHER)


def test_the_verb_reads_the_folder(tmp_path, capsys):
    store = ResultStore(tmp_path)
    for record in runs("KS", one=(70.0, 74.0), other=(60.0, 69.0)):
        store.write(record)
    assert compare_command(ONE, OTHER, tmp_path, [], "md") == 0
    out = capsys.readouterr().out
    assert "72.00 ±2.83" in out
    assert "64.50 ±6.36" in out
    assert f"{ONE} on 1 of 1 tasks, {OTHER} on 0." in out
    compare_command(ONE, OTHER, tmp_path, [], "json")
    assert json.loads(capsys.readouterr().out)["tasks"][0]["gain"] == 7.5
