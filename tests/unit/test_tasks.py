"""A task is one file of benchmark/tasks/: nothing else names one, and the tables need no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from superbit.benchmark.corpora.catalog import CORPORA
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import SCALES, rates_to_search, resolve, total_steps

ROOT = Path(__file__).parents[2]
# Benches measure tasks one by one; the embedded corpora are made for single tasks.
MAY_NAME_TASKS = ("benchmark/tasks", "benchmark/bench", "benchmark/corpora/embedded")


def names_in(source: str) -> set[str]:
    """Tasks that a module's string literals are; ``"sd"`` is a standard deviation."""
    literals = {
        node.value.strip()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return TASKS.keys() & literals


def test_no_module_but_a_tasks_own_names_it():
    found = {}
    for top in ("benchmark", "upstreams"):
        for file in (ROOT / top).rglob("*.py"):
            name = file.relative_to(ROOT).as_posix()
            if not name.startswith(MAY_NAME_TASKS):
                found[name] = names_in(file.read_text(encoding="utf-8"))
    assert len(found) > 100
    assert {name: tasks for name, tasks in found.items() if tasks} == {}


def test_a_name_would_be_found():
    assert names_in("if task == 'SD': pass") == {"SD"}
    assert names_in("sizes = {'QbE': 1}; other = 'KS and PR'") == {"QbE"}


@pytest.mark.parametrize("name", TASKS)
def test_a_tasks_file_names_no_other_task(name):
    source = (ROOT / "benchmark" / "tasks" / f"{name.lower()}.py").read_text(encoding="utf-8")
    assert names_in(source) == {name}


@pytest.mark.parametrize("name", TASKS)
def test_what_a_task_says_fits_together(name):
    task = TASKS[name]
    assert task.name == name
    assert task.corpus in CORPORA
    for scale in SCALES:
        config = resolve(name, scale=scale)
        trains = total_steps(config) > 0
        assert trains == (task.rates is not None) == bool(rates_to_search(name, scale=scale))
        assert trains == ("train" in task.audio.splits)
        assert task.binding.batch_size(config["downstream_expert"]) >= 1
        if trains:
            read = {"train", *config["runner"]["eval_dataloaders"], task.binding.test}
            assert read >= set(task.audio.splits) - {task.binding.dev}
    assert task.binding.test in task.audio.splits


def test_the_catalog_imports_nothing_that_takes_time():
    heavy = ["torch", "torchaudio", "s3prl", "numpy", "scipy", "pandas", "soundfile", "jiwer"]
    code = (
        "import sys\nimport superbit.benchmark.tasks.catalog\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
