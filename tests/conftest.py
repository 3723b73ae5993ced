"""Fixtures that several test files share."""

import gc
import os
from pathlib import Path

import pytest

# Beside another process, threads that spin while they wait slow torch down many times.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# What is imported and collected stays: it need not be searched for garbage again and again.
gc.disable()


# The first of these makes the corpora, which others wait for; the second needs none.
FIRST = ("tests/e2e/test_bad_corpora.py", "tests/numerics/test_sparse_attention.py")


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(FIRST)))


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all of pytest-xdist's workers share for one session."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def tiny_paths_file(shared_folder) -> Path:
    """The paths file of tiny embedded corpora, read only, synthesized once for all workers."""
    from filelock import FileLock

    pytest.importorskip("espeakng_loader", reason="embedded corpora need the extra 'embedded'")
    from superbit.benchmark.corpora.embedded.make import make_corpora

    with FileLock(shared_folder / "embedded-tiny.lock"):
        return make_corpora(shared_folder / "embedded-tiny", size="tiny")


@pytest.fixture(scope="session")
def tiny_paths(tiny_paths_file):
    """Where the tiny embedded corpora lie."""
    from superbit.benchmark.corpora.paths import load_paths

    return load_paths(tiny_paths_file)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """One thread, so that a test's numbers and time do not depend on the machine's load."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def forked_workers(monkeypatch):
    """Let worker processes be forked, not spawned: they begin at once (see `ready_processes`)."""
    from multiprocessing import context

    from ready_processes import ReadyContext

    monkeypatch.setitem(context._concrete_contexts, "spawn", ReadyContext())
