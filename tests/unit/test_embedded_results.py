"""`results/embedded`: the tables beside its records are what the records give, to the byte."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from superbit.benchmark.cli import main
from superbit.benchmark.records import packed
from superbit.benchmark.records.choose import usable_runs
from superbit.benchmark.records.schema import FURTHER_FIELDS
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams import registry
from superbit.upstreams.identity.further import Further
from superbit.upstreams.spec import UpstreamSpec

FOLDER = Path(__file__).parents[2] / "results" / "embedded"
LINES = [
    line.split()
    for line in (FOLDER / "tables.txt").read_text().splitlines()
    if not line.startswith("#")
]
NANOS = [name for name in registry.names() if name.endswith("_nano")]
SEEDS = {1337, 1338, 1339}


@pytest.fixture(scope="module")
def records():
    return ResultStore(FOLDER).read_all()


@pytest.mark.parametrize(("file", "arguments"), [(line[0], line[1:]) for line in LINES])
def test_a_table_is_what_the_records_give(file, arguments, records, capsys, monkeypatch):
    monkeypatch.setattr(ResultStore, "read_all", lambda *_, **__: records)  # read once
    assert main([*arguments, "--results", str(FOLDER)]) == 0
    assert capsys.readouterr().out == (FOLDER / file).read_text()


def test_no_table_is_left_from_earlier():
    assert {f.name for f in FOLDER.iterdir() if f.is_file()} == {
        "README.md",
        "tables.txt",
        "report.html",
        *(line[0] for line in LINES),
        *(f"{task}.{kind}.gz" for task in TASKS for kind in ("jsonl", "items.jsonl")),
    }


def test_nothing_else_lies_in_its_folders():
    names = {
        f"{name}-{theme}.svg" for name in ("pareto", "delta") for theme in ("light", "dark")
    } | {f"{name}-{theme}.csv" for name in ("pareto", "delta") for theme in ("light", "dark")}
    assert {f.name for f in (FOLDER / "figures").iterdir()} == names
    twins = {f"bq_{name}.csv" for name in NANOS if not name.startswith("bq_")}
    assert {f.name for f in (FOLDER / "error_flow").iterdir()} == twins


def test_every_upstream_has_every_task_with_three_seeds(records):
    upstreams = {record.identity.upstream for record in records}
    nanos = {str(UpstreamSpec.parse(name)) for name in NANOS}
    assert upstreams == nanos | {"fbank", "vanilla_nano+untrained"}
    runs = usable_runs(records, where={}, searches=ResultStore(FOLDER).read_searches()).runs
    found = {
        (upstream, task): {
            run.identity.seed
            for run in runs
            if (run.identity.upstream, run.identity.task) == (upstream, task)
        }
        for upstream in upstreams
        for task in TASKS
    }
    # QbE trains nothing, so one seed is all seeds.
    wanted = {pair: SEEDS if pair[1] != "QbE" else {min(SEEDS)} for pair in found}
    assert found == wanted


def test_records_are_of_the_weights_that_are_shipped(records):
    """A sweep of what is shipped asks for these very keys: nothing further is in them."""
    of_records = {(r.identity.upstream, r.identity.weights_sha256) for r in records}
    loaded = {name: registry.load_upstream(name) for name, _ in of_records}
    assert of_records == {(name, each.weights_sha256) for name, each in loaded.items()}
    assert {each.further for each in loaded.values()} == {Further()}
    assert not any(set(FURTHER_FIELDS) & set(r.identity.model_dump()) for r in records)


def test_records_are_whole_runs_of_a_clean_tree(records):
    for record in records:
        assert record.scale == "embedded"
        assert not record.limited
        assert record.provenance.commit
        assert record.provenance.dirty is False


def test_no_record_names_a_folder_of_the_machine():
    checked = 0
    for task in TASKS:
        pack = packed.Pack(packed.records_file(FOLDER, task))
        for name in pack.names():
            text = packed.file_content(pack.get(name)).decode()
            assert not re.search(r'"/(?!/)[a-z]', text), (task, name)
            checked += 1
    assert checked > 1000


def test_packed_records_are_the_files_that_sweeps_wrote(records):
    """Every byte of them: the hash is over the 1,992 single files that stood here before."""
    digest = hashlib.sha256()
    for task in sorted(TASKS):
        pack = packed.Pack(packed.records_file(FOLDER, task))
        for name in pack.names():
            digest.update(f"{task}/{name}\0".encode() + packed.file_content(pack.get(name)))
    assert len(records) == 1992
    assert digest.hexdigest() == "3699fcf6922fcb592d96be161e83285ef27e66e32d0269eb8e6d1a9e5153c2a3"


def test_every_record_has_its_per_item_counts(records):
    """Read by hand: each pack once, and every line in it is some record's."""
    for task in TASKS:
        of_task = {r.items.file: r.items for r in records if r.identity.task == task}
        with gzip.open(FOLDER / f"{task}.items.jsonl.gz", "rt", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        assert [line["file"] for line in lines] == sorted(of_task)
        for line in lines:
            said = of_task[line["file"]]
            assert line["sha256"] == said.sha256
            assert line["text_sha256"] == hashlib.sha256(line["text"].encode()).hexdigest()
            assert line["text"].count("\n") == said.count
