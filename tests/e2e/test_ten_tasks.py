"""All ten tasks through s3prl's experts, from the command line to Table 2."""

import json

import pytest
import yaml

from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.scoring.chance import of_items
from superbit.benchmark.tasks.catalog import TASKS

OVERRIDES = """
SID: {runner: {total_steps: 4, eval_step: 2, save_step: 2}}
IC: {runner: {total_steps: 4, eval_step: 2, save_step: 2}}
ER: {runner: {total_steps: 2, eval_step: 2, save_step: 2}}
SF: {runner: {total_steps: 2, eval_step: 2, save_step: 2}}
SD: {runner: {total_steps: 4, eval_step: 2, save_step: 2}}
ASV: {runner: {total_steps: 4, save_step: 2, test_step: 2}}
"""


NAME = "tiny & mine"


def named_paths(paths_file, folder):
    """A paths file for the same corpora that names them."""
    sections = yaml.safe_load(paths_file.read_text())
    for section in sections.values():
        for key, value in section.items():
            several = value if isinstance(value, list) else [value]
            absolute = [str(paths_file.parent / path) for path in several]
            section[key] = absolute if isinstance(value, list) else absolute[0]
    (folder / "paths.yaml").write_text(yaml.safe_dump({"name": NAME} | sections))
    return folder / "paths.yaml"


@pytest.fixture(scope="module")
def records(tiny_paths_file, tmp_path_factory, write_hubconf):
    """The seven tasks that other files do not sweep, run once over an upstream that costs nothing.

    PR, ASR and KS are swept in test_sweep.py.
    """
    from superbit.benchmark import cli

    folder = tmp_path_factory.mktemp("ten")
    (folder / "overrides.yaml").write_text(OVERRIDES)
    status = cli.main(
        [
            "sweep", "--upstreams", f"{write_hubconf(folder)}:energies",
            "--tasks", "SID,IC,ER,SF,SD,ASV,QbE", "--scale", "embedded",
            "--paths", str(named_paths(tiny_paths_file, folder)),
            "--overrides", str(folder / "overrides.yaml"), "--results", str(folder / "results"),
        ]
    )  # fmt: skip
    store = ResultStore(folder / "results")
    found = store.read_all()
    assert status == 0, [record.reason for record in found]
    return store, found


def test_every_task_gives_a_record_with_items_and_an_interval(records):
    store, found = records
    by_task = {record.identity.task for record in found}
    assert by_task == {"SID", "IC", "ER", "SF", "SD", "ASV", "QbE"}
    for record in found:
        assert record.items.count == len(store.read_items(record)) > 0, record.identity.task
        assert record.items.count == record.items.expected
        assert record.interval.low <= record.value <= record.interval.high, record.identity.task
        # of one hidden state there is nothing to weigh
        assert record.layer_weights is None


def test_every_record_knows_its_chance_level_and_what_its_corpus_is_called(records):
    store, found = records
    for record in found:
        task = record.identity.task
        assert record.chance is not None, task
        assert record.corpus.label == NAME
        # the same as what is found from the items of a record that does not hold it
        from_items = of_items(TASKS[task], store.read_items(record))
        assert from_items == (None if task == "SD" else record.chance)
        assert NAME not in record.identity.model_dump_json()
    (diarization,) = [r for r in found if r.identity.task == "SD"]
    assert 0 < diarization.chance.value < 100
    assert "talk" in diarization.chance.method


def test_selection_on_test_is_in_the_record(records):
    _, found = records
    chosen_on = {record.identity.task: record.selection.selected_on for record in found}
    assert chosen_on["ASV"] == chosen_on["SD"] == "test"
    assert chosen_on["QbE"] == "dev"
    assert "test" not in {chosen_on[task] for task in ("SID", "IC", "ER", "SF")}


def test_er_is_five_records_and_one_cell(records):
    store, found = records
    folds = [record for record in found if record.identity.task == "ER"]
    assert [record.identity.fold for record in sorted(folds, key=lambda r: r.identity.fold)] == [
        1, 2, 3, 4, 5,
    ]  # fmt: skip
    tested = [item["id"] for record in folds for item in store.read_items(record)]
    # Each session is tested once: no utterance is in two folds' test splits.
    assert len(tested) == len(set(tested))


def test_asv_tests_every_checkpoint_it_saved(records):
    _, found = records
    (record,) = [r for r in found if r.identity.task == "ASV"]
    assert set(record.metrics) == {"test-EER-2", "test-EER-4"}
    assert record.value == pytest.approx(min(record.metrics.values()))


def test_the_table_has_all_their_columns(records, superbit):
    store, _ = records
    _, out, _ = superbit(
        "table", "2", "--results", store.root, "--source", "runs", "--format", "json"
    )
    (row,) = json.loads(out)
    assert row["corpora"] == NAME
    assert row["source"].endswith(f"; {NAME}")
    filled = {task.name for task in TASKS.values() if row[task.column] is not None}
    assert filled == {"SID", "IC", "ER", "SF", "SD", "ASV", "QbE"}
