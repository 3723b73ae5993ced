"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

# Beside another process, threads that spin while they wait slow torch down many times.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def tiny_paths_file(tmp_path_factory) -> Path:
    """The paths file of tiny embedded corpora, synthesized once a session."""
    from superbit.benchmark.corpora.embedded.make import make_corpora

    return make_corpora(tmp_path_factory.mktemp("corpora"), size="tiny")


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
