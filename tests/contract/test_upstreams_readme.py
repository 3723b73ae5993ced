"""The code in upstreams/README.md and ENCODERS.md does what the text says."""

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
import torch

import superbit.upstreams
from superbit.upstreams import registry
from superbit.upstreams.contract import rule_names

UPSTREAMS = Path(__file__).parents[2] / "upstreams"
README, ENCODERS = (
    (UPSTREAMS / name).read_text(encoding="utf-8") for name in ("README.md", "ENCODERS.md")
)


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the README's hubconf.py, where its text puts it."""
    path = tmp_path / "path" / "to"
    path.mkdir(parents=True)
    (path / "hubconf.py").write_text(blocks("python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", {})
    return path


def test_the_example_passes_the_check_as_the_readme_writes_it(folder):
    found: dict = {}
    exec(blocks("python")[1], found)  # asserts that the report is ok
    report = found["report"]
    assert report.names("warn") == ()
    assert report.names("not applicable") == ("layer-count",)


def test_the_example_loads_the_checkpoint_behind_the_at_sign(folder):
    spec = "path/to/hubconf.py:my_model"
    trained = superbit.upstreams.load(spec)
    torch.save(trained.state_dict(), "weights.pt")
    loaded = superbit.upstreams.load(f"{spec}@weights.pt")
    assert torch.equal(loaded.embed.weight, trained.embed.weight)
    assert not torch.equal(
        superbit.upstreams.load(spec, draw_seed=1).embed.weight, trained.embed.weight
    )


def test_registering_in_code_gives_a_name_here_and_in_s3prl(folder, monkeypatch):
    from s3prl import hub

    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(hub, "my_model", None, raising=False)  # taken back after the test
    exec(blocks("python")[2], {})
    assert "my_model" in superbit.upstreams.names()
    for expert in (
        superbit.upstreams.load("my_model"),
        hub.my_model(ckpt=None, model_config=None, refresh=False),
    ):
        assert len(expert([torch.zeros(16_000)])["hidden_states"]) == 3


@pytest.mark.parametrize(("template", "page"), [("upstream", README), ("encoder", ENCODERS)])
def test_what_the_pages_show_is_what_superbit_new_writes(template, page):
    folder = UPSTREAMS.parent / "benchmark" / "cli" / "templates" / template
    shown = blocks("python", page)[0]
    assert shown == (folder / "my_package" / "hubconf.py").read_text("utf-8")
    assert (folder / "pyproject.toml").read_text("utf-8").endswith(blocks("toml", page)[0])


def entry_points_in_toml() -> dict[str, str]:
    return tomllib.loads(blocks("toml")[0])["project"]["entry-points"][registry.ENTRY_POINT_GROUP]


def entry_points_in_ini() -> dict[str, str]:
    config = ConfigParser()
    config.read_string(blocks("ini")[0])
    lines = config["options.entry_points"][registry.ENTRY_POINT_GROUP].strip().splitlines()
    return dict(line.split(" = ") for line in lines)


def test_an_installed_package_gives_its_name_by_an_entry_point(tmp_path, monkeypatch):
    points = entry_points_in_toml()
    assert entry_points_in_ini() == points
    package, metadata = tmp_path / "my_package", tmp_path / "my_package-1.0.dist-info"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "hubconf.py").write_text(blocks("python")[0])
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    lines = [f"[{registry.ENTRY_POINT_GROUP}]", *(f"{n} = {v}" for n, v in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "my_model" in superbit.upstreams.names()
    entry = registry.find("my_model")
    assert (entry.origin, entry.revision) == ("my-package", "1")
    assert len(superbit.upstreams.load("my_model")([torch.zeros(16_000)])["hidden_states"]) == 3


def test_the_readme_lists_the_rules_in_their_order():
    section = README.partition("| rule |")[2].partition("## 3")[0]
    assert tuple(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)) == rule_names()
    assert "Eleven rules" in README
    assert len(rule_names()) == 11
