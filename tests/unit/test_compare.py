"""Two upstreams: what is compared with what, and what is said of it."""

import json
from pathlib import Path

import pytest
from verbs import run_verb

from superbit.benchmark.records.schema import Chance, Corpus, RunIdentity, RunRecord
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.tables.compare import compare
from superbit.benchmark.tasks import resampling
from superbit.benchmark.tasks.catalog import TASKS
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
    assert "has no per-item counts" in out
    run_verb("compare", ONE, OTHER, results=tmp_path, format="json")
    assert json.loads(capsys.readouterr().out)["tasks"][0]["gain"] == 7.5


# --- on single items -------------------------------------------------------------------------


def of_items(folder, upstream, right, *, seed=1337, task="IC", names=None):
    """A run whose items are right or wrong as said."""
    names = names or [f"item-{number}" for number in range(len(right))]
    record = run(task, upstream, 100 * sum(right) / len(right), seed=seed)
    items = [
        {"id": name, "correct": bool(each), "reference": "a", "hypothesis": "a" if each else "b"}
        for name, each in zip(names, right, strict=True)
    ]
    return ResultStore(folder).write(record, items)


def compared(folder, *more, capsys, **options):
    run_verb("compare", ONE, OTHER, *more, results=folder, format="json", **options)
    return json.loads(capsys.readouterr().out)


def test_better_worse_and_not_told_apart(tmp_path, capsys):
    for task, first, second in (
        ("IC", [1] * 60 + [0] * 20, [1] * 30 + [0] * 50),
        ("SID", [1] * 30 + [0] * 50, [1] * 60 + [0] * 20),
        ("KS", [1] * 40 + [0] * 40, [0] * 2 + [1] * 40 + [0] * 38),
    ):
        of_items(tmp_path, ONE, first, task=task)
        of_items(tmp_path, OTHER, second, task=task)
    tasks = {each["task"]: each for each in compared(tmp_path, capsys=capsys)["tasks"]}
    found = {name: each["paired"][0] for name, each in tasks.items()}
    assert {name: each["verdict"] for name, each in found.items()} == {
        "IC": "better",
        "SID": "worse",
        "KS": "not told apart",
    }
    assert found["IC"]["on"] == "80 utterances, 1 seed"
    # McNemar by hand: 30 items that one alone has right, all of them the first
    assert found["IC"]["mcnemar"] == [pytest.approx(2 / 2**30)]
    assert found["KS"]["mcnemar"] == [1.0]
    # the largest of three p is not multiplied; the others are
    assert found["KS"]["adjusted"] == found["KS"]["found"]["p"]
    assert found["IC"]["adjusted"] > found["IC"]["found"]["p"]


def test_only_items_that_both_were_scored_on_count(tmp_path, capsys):
    of_items(tmp_path, ONE, [1, 1, 0, 0], names=["a", "b", "c", "d"])
    of_items(tmp_path, OTHER, [0, 1, 1, 0], names=["e", "d", "c", "b"])
    (task,) = compared(tmp_path, capsys=capsys)["tasks"]
    assert task["first"] == [50.0]
    assert task["paired"][0]["items"] == 3
    # b, c, d: one of three against two of three
    assert task["paired"][0]["first"] == [pytest.approx(100 / 3)]
    assert task["paired"][0]["second"] == [pytest.approx(200 / 3)]


def test_speakers_are_told_by_the_items_where_they_tell(tmp_path, capsys):
    names = [f"left-{speaker:08x}_nohash_{n}.wav" for speaker in range(6) for n in range(4)]
    names += [f"_silence_-{n}.wav" for n in range(3)]
    for upstream, flags in ((ONE, [1, 0, 1] * 9), (OTHER, [0, 1, 1] * 9)):
        of_items(tmp_path, upstream, flags, task="KS", names=names)
    (task,) = compared(tmp_path, capsys=capsys)["tasks"]
    assert task["paired"][0]["units"] == "6 speakers and 3 without one"


def test_against_compares_with_further_ones(tmp_path, capsys):
    for upstream, right in ((ONE, 60), (OTHER, 30), ("fbank", 59)):
        of_items(tmp_path, upstream, [1] * right + [0] * (80 - right))
    found = compared(tmp_path, capsys=capsys, against="fbank")
    assert [(each["first"], each["second"]) for each in found] == [(ONE, OTHER), (ONE, "fbank")]
    verdicts = [each["tasks"][0]["paired"][0]["verdict"] for each in found]
    assert verdicts == ["better", "not told apart"]
    with pytest.raises(InputError, match="named twice"):
        compared(tmp_path, capsys=capsys, against=OTHER)
    with pytest.raises(InputError, match="are the same upstream"):
        compared(tmp_path, capsys=capsys, against=ONE)


def test_counts_that_are_missing_are_said_and_the_rest_is_compared(tmp_path, capsys):
    record = of_items(tmp_path, ONE, [1, 0, 1])
    of_items(tmp_path, OTHER, [1, 0, 0])
    (tmp_path / "IC" / record.items.file).unlink()
    assert run_verb("compare", ONE, OTHER, results=tmp_path) == 0
    out = capsys.readouterr().out
    assert "not known" in out
    assert "are missing: restore the file" in out


@pytest.mark.parametrize("task", TASKS)
def test_numbers_of_common_items_are_the_records_own(task, embedded_runs):
    """All ten metrics computed anew from items, held against what s3prl's code gave."""
    from superbit.benchmark.pairing.pair import pair

    items, runs = embedded_runs
    sides = [
        [r for r in runs if (r.identity.upstream, r.identity.task) == (upstream, task)]
        for upstream in (ONE, "vanilla_nano+policy=w1a1")
    ]
    first, *more = pair(*sides, items)
    assert first.first + first.second == pytest.approx([r.value for side in sides for r in side])
    assert first.found.low < first.found.value < first.found.high
    assert [each.measure for each in more] == (["CER"] if task == "SF" else [])
    if more:
        from superbit.benchmark.scoring.slots import slot_value_cer

        by_hand = [slot_value_cer(items._read(run)) for run in sides[0]]
        assert more[0].first == pytest.approx(by_hand)


@pytest.fixture(scope="module")
def embedded_runs():
    from superbit.benchmark.pairing.items import ItemsOfRuns
    from superbit.benchmark.records.choose import usable_runs

    store = ResultStore(Path(__file__).parents[2] / "results" / "embedded")
    records = store.read_all()
    runs = usable_runs(records, where={}, searches=store.read_searches()).runs
    return ItemsOfRuns(records, store.read_items), runs


def test_speakers_of_each_corpus():
    def of(rule, name):
        return rule({"id": name})

    assert of(resampling.in_librispeech, "3008-1-0005") == ("3008",)
    assert of(resampling.in_voxceleb1, "id10001-fdgmy85Xh60-00001") == ("id10001",)
    assert of(resampling.in_speech_commands, "left-006b4dd0_nohash_0.wav") == ("006b4dd0",)
    assert of(resampling.in_speech_commands, "_silence_-0.wav") == ()
    assert of(resampling.in_audio_snips, "Brian-snips-test-22") == ("Brian",)
    mixture = "4446-2271-0000_1188-133604-0018"
    assert of(resampling.in_libri2mix, mixture) == ("4446", "1188")
    assert of(resampling.in_libri2mix, "test-0000") == ()
    trial = {"enrolment": "id10291-a-00001", "test": "id10292-b-00002"}
    assert resampling.in_voxceleb1_trials(trial) == ("id10291", "id10292")
