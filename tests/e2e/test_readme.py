"""The README's recipes run as they are printed, in a folder with small corpora."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 15


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


RECIPES = [block for block in blocks("sh") if "make demo" not in block]


@pytest.fixture
def here(tiny_paths_file, tmp_path, monkeypatch):
    """A working folder that holds what the recipes name: corpora, and two tasks' results."""
    folder = tmp_path / "here"
    shutil.copytree(tiny_paths_file.parent, folder)
    results = folder / "results" / "embedded"
    results.mkdir(parents=True)
    for file in (ROOT / "results" / "embedded").glob("*.jsonl.gz"):
        if file.name.partition(".")[0] in ("KS", "QbE"):
            (results / file.name).symlink_to(file)
    monkeypatch.chdir(folder)
    return folder


def test_recipes_are_short():
    assert len(RECIPES) == 3
    for block in (*RECIPES, *blocks("python")):
        assert len(block.splitlines()) <= MOST_LINES, block


def test_the_recipes_run_as_printed(here):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    printed = []
    for block in RECIPES:
        done = subprocess.run(
            ["bash", "-euc", block],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    check, sweep, tables = printed
    assert "rules passed" in check
    assert "KS × my_upstream/hubconf.py:frames" in sweep
    assert "Table 2" in tables
    assert "bq_vanilla_nano" in tables
    assert "report.html" in tables
    assert b"bq_vanilla_nano" in (here / "report.html").read_bytes()
    assert (here / "pareto.pdf").read_bytes().startswith(b"%PDF")


def test_s3prls_own_code_knows_the_names_as_printed(here):
    (block,) = (block for block in blocks("python") if "s3prl" in block)
    found = {"waveform": torch.zeros(16_000)}
    exec(block, found)
    assert len(found["states"]) == 5


@pytest.mark.slow
def test_the_python_lines_run_as_printed(here):
    (block,) = (block for block in blocks("python") if "evaluate" in block)
    found = {"waveform": torch.zeros(16_000)}
    exec(block, found)
    assert len(found["states"]) == 5
    frame = found["results"].to_pandas()
    assert set(frame["upstream"]) == {"fbank", "vanilla_nano"}
    assert frame["value"].between(0, 100).all()


def test_the_readme_is_one_page_whose_links_lead_somewhere():
    assert len(README.splitlines()) <= 140
    assert len(README.split()) <= 1000
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
