"""A task is added by its file, its YAML and its corpus: nothing else has to know of it."""

import copy

import pytest

import superbit
from superbit.benchmark import cli
from superbit.benchmark.tasks import classification, configs
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.task import AudioUse, Task

SMALL = {"runner": {"total_steps": 4, "eval_step": 2, "save_step": 2, "eval_dataloaders": ["dev"]}}


# --- all that a file benchmark/tasks/wc.py would hold ------------------------------------------


def _bind(section, places):
    corpus = places.paths.section("speech_commands")
    section["datarc"]["speech_commands_root"] = str(corpus.root)
    section["datarc"]["speech_commands_test_root"] = str(corpus.test_root)


TASK = Task(
    name="WC",
    title="word classification",
    corpus="speech_commands",
    metric="acc",
    column="wc_acc",
    higher_is_better=True,
    downstream="speech_commands",
    binding=classification.binding(_bind, batch="batch_size"),
    procedure=classification.best_accuracy(),
    audio=AudioUse(splits={"train": (100, 0.03), "dev": (10, 0.01), "test": (10, 0.01)}),
)


# -----------------------------------------------------------------------------------------------


@pytest.fixture
def another(monkeypatch):
    """The task in the catalog, its YAML among the packaged ones."""
    packaged = configs._packaged

    def read(name):
        if name == "wc.yaml":
            return copy.deepcopy(packaged("ks.yaml"))
        found = packaged(name)
        if name == "embedded.yaml":
            section = SMALL | {"downstream_expert": {"datarc": {"num_workers": 0, "batch_size": 8}}}
            found = found | {TASK.name: section}
        return found

    monkeypatch.setattr(configs, "_packaged", read)
    monkeypatch.setitem(TASKS, TASK.name, TASK)


def test_it_is_listed_planned_run_and_chosen_among_rates(
    another, tiny_paths_file, tmp_path, capsys
):
    assert cli.main(["list", "tasks"]) == 0
    assert "word classification" in capsys.readouterr().out
    results = superbit.evaluate(
        upstreams="fbank", tasks="wc", paths=tiny_paths_file, results=tmp_path / "results",
        learning_rates=[1e-2, 1e-3],
    )  # fmt: skip
    rows = results.to_pandas()
    assert rows[["task", "status"]].values.tolist() == [["WC", "done"]] * len(rows)
    record = results.records[0]
    assert record.chance.value > 0
    assert record.interval.low <= record.value <= record.interval.high
    assert record.search.rule == "best on dev"
    assert [each.learning_rate for each in record.search.tried] == [1e-3, 1e-2]
    assert record.search.chosen in (1e-3, 1e-2)
