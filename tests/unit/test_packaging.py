"""The package as it is installed: its list of folders, its light start, its public verbs."""

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
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


def source_files() -> dict[str, Path]:
    """Every module of the two packages, by its name."""
    found = {}
    for top in ("upstreams", "benchmark"):
        for file in (ROOT / top).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join(("superbit", *parts))] = file
    return found


def imports(node: ast.AST, module: str, *, typing: bool) -> Iterator[str]:
    """What is imported below a node, functions included: modules, and names in modules.

    Args:
        typing: also what only a type checker imports.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test) and not typing:
            for other in child.orelse:
                yield from imports(other, module, typing=typing)
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = module.split(".")[: -child.level] if child.level else []
            origin = ".".join([*above, *filter(None, [child.module])])
            yield from (f"{origin}.{alias.name}" for alias in child.names)
        yield from imports(child, module, typing=typing)


def graph(files: dict[str, Path], *, typing: bool) -> dict[str, set[str]]:
    """The modules that each module imports, wherever in its file."""
    found = {}
    for module, file in files.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        # a name in a module counts as its module
        named = {name for name in imports(tree, module, typing=typing)}
        of_modules = {name if name in files else name.rpartition(".")[0] for name in named}
        found[module] = (of_modules & files.keys()) - {module}
    return found


def circles(of: dict[str, set[str]]) -> list[str]:
    """The modules that are left when those that import none that is left are taken away."""
    left = {module: set(others) for module, others in of.items()}
    while ends := {module for module, others in left.items() if not others & left.keys()}:
        left = {module: others for module, others in left.items() if module not in ends}
    # neither those that only lead to a circle
    while ends := {m for m in left if not any(m in others for others in left.values())}:
        left = {module: others for module, others in left.items() if module not in ends}
    return sorted(left)


def test_no_module_of_upstreams_knows_benchmark():
    """By import, also for types only, or by a string that is imported; presets tell commands."""
    files = source_files()
    for module, others in graph(files, typing=True).items():
        if module.startswith("superbit.upstreams"):
            assert not {o for o in others if o.startswith("superbit.benchmark")}, module
            assert "superbit.benchmark" not in files[module].read_text(encoding="utf-8"), module


def test_modules_import_each_other_in_no_circle():
    assert circles(graph(source_files(), typing=False)) == []


def test_a_circle_would_be_found(tmp_path):
    written = {
        "superbit.upstreams.a": "def f():\n    from superbit.upstreams import b\n",
        "superbit.upstreams.b": "import superbit.upstreams.c.d\n",
        "superbit.upstreams.c.d": "from ..a import name\n",
        "superbit.upstreams.leads": "from superbit.upstreams.a import f\n",
        "superbit.upstreams.led": "",
        "superbit.upstreams.typed": "if TYPE_CHECKING:\n    import superbit.upstreams.led\n",
    }
    files = {}
    for number, (module, text) in enumerate(written.items()):
        files[module] = tmp_path / f"{number}.py"
        files[module].write_text(text)
    files["superbit.upstreams.led"].write_text("import superbit.upstreams.typed\n")
    assert circles(graph(files, typing=False)) == [
        "superbit.upstreams.a",
        "superbit.upstreams.b",
        "superbit.upstreams.c.d",
    ]
    assert len(circles(graph(files, typing=True))) == 5


def test_what_both_packages_need_is_said_once():
    """By name, at a module's top level; ESpeak speaks at a rate of its own."""
    places: dict[str, list[str]] = {"SAMPLE_RATE": [], "seed_everything": []}
    for module, file in source_files().items():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [ast.unparse(each) for each in getattr(node, "targets", [])]
            for name in [*names, getattr(node, "name", "")]:
                if name in places:
                    places[name].append(module)
    espeak = "superbit.benchmark.corpora.embedded.espeak"
    assert sorted(places["SAMPLE_RATE"]) == [espeak, "superbit.upstreams.sound"]
    assert places["seed_everything"] == ["superbit.upstreams.rng"]


def test_a_class_has_its_name_for_itself():
    """Whoever reads a name need not ask which of two things it is."""
    defined: dict[str, set[str]] = {}
    for package in ("upstreams", "benchmark"):
        for file in (ROOT / package).rglob("*.py"):
            if "templates" in file.parts:
                continue
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    defined.setdefault(node.name, set()).add(str(file.relative_to(ROOT)))
    assert {name: files for name, files in defined.items() if len(files) > 1} == {}
