"""The package as it is installed: its list of folders, its light start, its public verbs."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = ("upstreams", "downstream_configs", "benchmark", "results")
# The folder that is the package `superbit` itself.
API = ROOT / "benchmark" / "api"


def test_the_explicit_list_of_packages_is_the_folders_on_disk():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = [file.parent for top in TOP for file in (ROOT / top).rglob("__init__.py")]
    on_disk = {
        f"superbit.{folder.relative_to(ROOT).as_posix()}" for folder in folders if folder != API
    }
    assert listed == {"superbit", *(name.replace("/", ".") for name in on_disk)}
    lines = config["options"]["package_dir"].strip().splitlines()
    mapped = dict(line.split(" = ") for line in lines)
    assert mapped.items() == {
        ("superbit", API.relative_to(ROOT).as_posix()),
        *((f"superbit.{top}", top) for top in TOP),
    }


def test_no_module_of_the_package_hides_another_package():
    """Both would be `superbit.NAME`, and whichever is found first would win."""
    assert not {module.stem for module in API.glob("*.py")} & set(TOP)
    assert not [folder for folder in API.iterdir() if folder.is_dir() and folder.name in TOP]


@pytest.mark.parametrize(
    "words", [["--help"], ["sweep", "--help"], ["list", "tasks"], ["table", "2"]]
)
def test_a_light_start(words, tmp_path):
    """What needs no model imports none; the help imports nothing that takes time."""
    heavy = ["torch", "torchaudio", "s3prl", "scipy", "pandas", "transformers"]
    if "--help" in words:
        heavy += ["pydantic", "rich", "yaml", "numpy"]
    code = (
        "import sys\nfrom superbit.benchmark.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_nothing_imports_a_top_level_folder_by_its_bare_name():
    for top in TOP:
        for file in (ROOT / top).rglob("*.py"):
            lines = file.read_text(encoding="utf-8").splitlines()
            bare = [ln for ln in lines if ln.startswith(tuple(f"from {t}" for t in TOP))]
            assert not bare, file
