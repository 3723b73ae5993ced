"""Corpora that were copied by macOS, saved on Windows or written through pipes read as before.

All corpora and all tasks, so that one reader cannot be forgotten.
"""

from dataclasses import asdict

import pytest
import real_life

from superbit.benchmark.corpora import catalog
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.corpora.paths import load_paths
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.s3prl import compat

pytestmark = pytest.mark.thorough

pytest.importorskip("s3prl", reason="the peer")
compat.install()


@pytest.fixture(scope="module")
def places(tiny_paths_file, tmp_path_factory):
    """By name: the corpora as they are, and a copy for each thing that happens to corpora."""
    folder = tmp_path_factory.mktemp("real-life")
    found = {"as they are": real_life.own_copy(tiny_paths_file.parent, folder / "plain")}
    for name, spoil in real_life.SPOILERS.items():
        found[name] = real_life.own_copy(tiny_paths_file.parent, folder / name)
        spoil(found[name])
    return found


def reported(corpus, root):
    """What ``superbit corpus check`` finds, without the place of the corpus."""
    section = load_paths(root / "paths.yaml").section(corpus)
    report = asdict(catalog.find(corpus).check(section, batch_size=1))
    return {key: value for key, value in report.items() if key != "root"}


@pytest.mark.parametrize("corpus", catalog.CORPORA)
@pytest.mark.parametrize("what", real_life.SPOILERS)
def test_every_corpus_checks_as_before(what, corpus, places):
    expected = reported(corpus, places["as they are"])
    assert expected["problems"] == ()
    assert sum(split["utterances"] for split in expected["splits"]) > 0
    assert reported(corpus, places[what]) == expected


@pytest.mark.parametrize("corpus", catalog.CORPORA)
@pytest.mark.parametrize("what", real_life.SPOILERS)
def test_every_manifest_is_of_the_same_files(what, corpus, places, tmp_path):
    found = {
        name: build_manifest(corpus, load_paths(places[name] / "paths.yaml"), work_dir=tmp_path)
        for name in ("as they are", what)
    }
    expected, spoiled = found["as they are"], found[what]
    assert (spoiled.files, spoiled.seconds) == (expected.files, expected.seconds)
    assert spoiled.splits == expected.splits
    if what == "hidden files":  # nothing that a task reads was changed
        assert spoiled.sha256 == expected.sha256


@pytest.fixture(scope="module")
def items(places, tmp_path_factory):
    """What s3prl's data sets give of a copy, for each task once."""
    known = {}

    def of(task, name):
        if (task, name) not in known:
            work = tmp_path_factory.mktemp("work")
            known[task, name] = real_life.items_of_task(task, places[name], work)
        return known[task, name]

    return of


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("what", real_life.SPOILERS)
def test_every_task_is_given_the_same_items(what, task, items):
    expected = items(task, "as they are")
    assert expected
    assert items(task, what) == expected
