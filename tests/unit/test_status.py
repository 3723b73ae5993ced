"""``superbit status``: a list of few records, a matrix of many, and a folder that is not there."""

import re

import pytest
from verbs import run_verb

from superbit.benchmark.cli import main
from superbit.benchmark.records.schema import Chance, Corpus, RunIdentity, RunRecord
from superbit.benchmark.records.store import DEFAULT_FOLDER, ResultStore
from superbit.benchmark.tables.status import LONG_LIST
from superbit.benchmark.tasks.catalog import TASKS

UPSTREAMS = ("fbank", "vanilla_nano", "vanilla_nano+policy=w1a1")


def record(task, upstream, seed, *, reason=None, sha="0a" * 32, label=None, limit=None):
    config = {"scale": "embedded"} | ({} if limit is None else {"limit": limit})
    identity = RunIdentity(
        upstream=upstream,
        weights_sha256="5d" * 32,
        upstream_revision="1",
        task=task,
        task_revision=1,
        config=config,
        corpus_sha256=sha,
        learning_rate=1e-3,
        seed=seed,
        fold=None,
    )
    return RunRecord(
        key=identity.key,
        status="failed" if reason else "done",
        identity=identity,
        scale="embedded",
        limited=limit is not None,
        untrained=False,
        value=None if reason else 8.0 if upstream == "fbank" else 50.0,
        chance=None if reason else Chance(value=8.0, method="m"),
        reason=reason,
        corpus=Corpus(name="speech_commands", kind="real", sha256=sha, label=label),
    )


@pytest.fixture
def status(capsys):
    def read(folder, **options):
        assert run_verb("status", results=folder, **options) == 0
        return capsys.readouterr().out.removesuffix("\n")

    return read


def fill(folder, records):
    store = ResultStore(folder)
    for each in records:
        store.write(each)
    return folder


@pytest.fixture
def many(tmp_path):
    records = [
        record(task, upstream, seed)
        for task in ("KS", "IC")
        for upstream in UPSTREAMS
        for seed in range(10)
    ]
    records += [record("KS", "vanilla_nano", seed, reason="a.wav is empty.") for seed in (90, 91)]
    records += [record("SF", "fbank", 90, reason="b.wav is empty.")]
    assert len(records) > LONG_LIST
    return fill(tmp_path, records)


def test_many_records_are_a_matrix_of_counts(many, status):
    text = status(many)
    lines = text.splitlines()
    header = re.split(r"\s{2,}", lines[0])
    assert header == ["upstream", "scale", "KS", "SF", "IC"]
    cells = {row[0]: row[1:] for row in (re.split(r"\s{2,}", line) for line in lines[1:4])}
    assert cells["vanilla_nano"] == ["embedded", "10+2 failed", "10"]
    assert cells["bq_vanilla_nano"] == ["embedded", "10", "10"]
    assert cells["fbank"] == ["embedded", "10 ≤chance", "0+1 failed", "10 ≤chance"]
    assert "63 records: 60 done, 3 failed" in text
    assert "failed: KS × vanilla_nano (2 runs): a.wav is empty." in text
    assert re.search(r"failed: SF × fbank \([0-9a-f]{12}\): b.wav is empty.", text)
    assert "≤chance: not better than an answer without listening reaches: KS 8.00" in text
    assert len(lines) < 12


def test_all_lists_every_record(many, capsys):
    assert main(["status", "--all", "--results", str(many)]) == 0
    out = capsys.readouterr().out
    keys = {each.key[:12] for each in ResultStore(many).read_all()}
    assert all(key in out for key in keys)
    assert out.count(" 8.00 ≤chance") == 20
    assert "bq_vanilla_nano" in out
    assert "policy=w1a1" not in out


def test_few_records_are_a_list(tmp_path, status):
    fill(tmp_path, [record("KS", "fbank", seed) for seed in range(LONG_LIST)])
    assert status(tmp_path) == status(tmp_path, all=True)
    assert len(status(tmp_path).splitlines()) == LONG_LIST + 2


def test_many_kinds_of_failures_are_cut_short(tmp_path, status):
    reasons = [f"{name}.wav is empty." for name in range(60)]
    fill(tmp_path, [record("KS", "fbank", n, reason=text) for n, text in enumerate(reasons)])
    text = status(tmp_path)
    assert text.count("failed: KS") == 20
    assert "and 40 more such lines: superbit status --all." in text


@pytest.mark.parametrize("every", [True, False])
def test_corpora_scales_and_limits_are_told_apart(tmp_path, every, status):
    count = range(LONG_LIST)
    records = [record("KS", "fbank", n, sha="1" * 64, label="asterisk-en") for n in count]
    records += [record("KS", "fbank", 1, sha="2" * 64), record("KS", "fbank", 1, limit=3)]
    lines = status(fill(tmp_path, records), all=every).splitlines()
    column = lines[0].index("corpora")
    seen = {line[column:].split("  ")[0] for line in lines[1:] if line.startswith(("fbank", "KS"))}
    assert seen == {"asterisk-en", "speech_commands 222222", "speech_commands 0a0a0a"}
    assert any("embedded (limited)" in line for line in lines)


# every verb that reads results, but for those that write them
READERS = [
    ["status"],
    ["table", "2"],
    ["table", "2", "--source", "runs"],
    ["compare", "fbank", "apc"],
    ["cache", "ls"],
    ["cache", "prune", "--all"],
]


@pytest.mark.parametrize("verb", READERS, ids=" ".join)
def test_a_folder_that_does_not_exist_is_said_to(verb, tmp_path, capsys):
    missing = tmp_path / "nonexist"
    assert main([*verb, "--results", str(missing)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"superbit: --results: {missing} does not exist: give the folder that a sweep wrote to.\n"
    )
    assert not missing.exists()


def test_before_the_first_sweep_the_default_folder_need_not_be_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["table", "2"]) == 0
    assert "No measured rows: superbit sweep makes them." in capsys.readouterr().out
    assert main(["status"]) == 0
    assert f"{DEFAULT_FOLDER} holds no results" in capsys.readouterr().out
    assert main(["table", "2", "--source", "paper", "--results", "nowhere"]) == 0


def test_the_default_folder_is_the_verbs():
    from superbit.benchmark.cli.options import RESULTS

    assert RESULTS == DEFAULT_FOLDER


def test_list_tasks_says_what_chance_is(capsys):
    main(["list", "tasks"])
    lines = capsys.readouterr().out.splitlines()
    assert "chance" in lines[0]
    assert len(lines) == 1 + len(TASKS)
    assert "the most frequent label" in lines[2]
