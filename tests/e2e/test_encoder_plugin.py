"""The kind of encoder in upstreams/ENCODERS.md, in a package: check, Table 1, a KS run."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from superbit.benchmark.records.store import ResultStore
from superbit.upstreams import encoder_kinds

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "benchmark" / "cli" / "templates" / "encoder"
PAGE = (ROOT / "upstreams" / "ENCODERS.md").read_text(encoding="utf-8")
# Its encoders are of true nano size: every evaluation takes seconds.
SHORT = "KS: {runner: {total_steps: 2, eval_step: 2, save_step: 2, log_step: 2}}"
NAMES = ("depthwise_nano", "bq_depthwise_nano")


def steps() -> dict[str, list[str]]:
    """The commands of each step of the page, on one line each."""
    section = PAGE
    found = {}
    for step in re.split(r"^## ", section, flags=re.MULTILINE)[1:]:
        shell = "".join(re.findall(r"```sh\n(.*?)```", step, re.DOTALL)).replace("\\\n", " ")
        found[step.partition(".")[0]] = [line.split() for line in shell.splitlines()]
    return found


@pytest.fixture
def in_the_package(tmp_path, monkeypatch):
    """The package's folder as the working folder, without what other tests registered."""
    monkeypatch.setattr(encoder_kinds, "_registered", {})
    (tmp_path / "my_package").mkdir()
    file = Path("my_package") / "hubconf.py"
    (tmp_path / file).write_bytes((PLUGIN / file).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def installed(in_the_package, monkeypatch):
    """The same package as pip installs it, by the entry points of its pyproject.toml."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text("utf-8"))["project"]
    metadata = in_the_package / "my_package-1.0.dist-info"
    metadata.mkdir()
    named = f"Name: {project['name']}\nVersion: {project['version']}\n"
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\n{named}")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    for module in ("my_package.hubconf", "my_package"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(in_the_package))
    yield in_the_package
    for module in ("my_package.hubconf", "my_package"):
        sys.modules.pop(module, None)


@pytest.mark.usefixtures("in_the_package")
def test_by_its_path_a_kind_and_its_twins_pass_the_check(superbit):
    commands = steps()["2"]
    assert len(commands) == 3
    for command in commands:
        status, out, err = superbit(*command[1:])
        assert (status, err) == (0, ""), out


@pytest.mark.thorough
def test_installed_it_is_checked_counted_and_run(installed, superbit, tiny_paths_file, tmp_path):
    check, profile, sweep = steps()["4"]
    overrides = tmp_path / "overrides.yaml"
    overrides.write_text(SHORT)
    assert superbit(*check[1:])[0] == 0
    status, out, _ = superbit(*profile[1:], "--seconds", "1", "--format", "json")
    rows = json.loads(out)
    assert status == 0
    assert [row["storage_mb"] for row in rows] == [None, None]
    full, twin = (row["honest_storage_mb"] for row in rows)
    assert full > twin > 0
    words = [str(tiny_paths_file) if word == "corpora/paths.yaml" else word for word in sweep[1:]]
    status, out, err = superbit(*words, "--overrides", overrides, "--no-cache")
    assert (status, "2 new" in out) == (0, True), err
    records = ResultStore(tmp_path / "results" / "local").read_all()
    specs = {str(record.identity.upstream) for record in records}
    assert specs == {"depthwise_nano+untrained", "depthwise_nano+untrained+policy=w1a1"}
    assert all(record.status == "done" and 0 <= record.value <= 100 for record in records)
    status, out, _ = superbit(
        "table", "2", "--results", "results/local", "--source", "runs", "--format", "json"
    )
    assert (status, len(json.loads(out))) == (0, 2)
