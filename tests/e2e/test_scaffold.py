"""`superbit new-upstream` and `new-encoder`: what they write works as it is written."""

import re
from pathlib import Path

import pytest
from ready_processes import Program

from superbit.benchmark.cli import leaves, parser
from superbit.upstreams import encoder_kinds

SPECS = {"upstream": ["echo_model"], "encoder": ["echo_nano", "bq_echo_nano"]}
NAMES = {"upstream": "echo_model", "encoder": "echo"}
FILES = ["README.md", "NAME/hubconf.py", "pyproject.toml", "tests/test_NAME.py"]
PYTEST = (
    "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))"
)


@pytest.fixture
def made(superbit, tmp_path, monkeypatch):
    """Write one of them into the working folder; give its folder and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encoder_kinds, "_registered", {})  # what is checked registers itself

    def make(template, *more):
        status, out, err = superbit(f"new-{template}", NAMES[template], *more)
        assert (status, err) == (0, "")
        return Path(NAMES[template]), out

    return make


@pytest.mark.parametrize("template", list(SPECS))
def test_it_says_what_it_wrote_and_what_to_type(made, superbit, template):
    folder, out = made(template)
    name = NAMES[template]
    files = sorted(file.replace("NAME", name) for file in FILES)
    assert sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()) == files
    assert [line.strip() for line in out.splitlines()[1:5]] == sorted(files)
    for file in folder.rglob("*.*"):
        assert not re.search("my_|my-|depthwise|MyModel", file.read_text("utf-8")), file
    printed = re.findall(r"superbit (check \S+)", out)
    assert printed == [f"check {folder}/{name}/hubconf.py:{spec}" for spec in SPECS[template]]
    for command in printed[-1:]:
        assert superbit(*command.split())[0] == 0


@pytest.mark.parametrize("template", list(SPECS))
def test_its_readme_types_verbs_and_options_that_exist(made, template):
    folder, _ = made(template)
    text = (folder / "README.md").read_text("utf-8").replace("\\\n", " ")
    verbs = {leaf.prog.removeprefix("superbit "): leaf for leaf in leaves(parser())}
    lines = re.findall(r"^superbit (.*)$", text, re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        verb = max((v for v in verbs if line.startswith(v)), key=len)
        verbs[verb].parse_args(line.removeprefix(verb).split())


@pytest.mark.parametrize("template", ["upstream", pytest.param("encoder", marks=pytest.mark.slow)])
def test_its_own_tests_pass(made, template):
    folder, _ = made(template)
    done = Program(PYTEST, "tests", folder=folder.absolute()).finished()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("template", "name", "said"),
    [
        ("upstream", "vanilla_nano", "taken"),
        ("upstream", "fbank", "taken"),
        ("upstream", "torch", "has a module"),
        ("upstream", "class", "a word of small letters"),
        ("upstream", "a b", "a word of small letters"),
        ("upstream", "../up", "a word of small letters"),
        ("upstream", "bq_x", "1-bit twins"),
        ("encoder", "conformer", "taken"),
        ("encoder", "json", "has a module"),
    ],
)
def test_a_name_that_is_none_or_is_taken_writes_nothing(superbit, tmp_path, template, name, said):
    status, out, err = superbit(f"new-{template}", name, "--out", tmp_path / "new")
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_there_is_left_alone(made, superbit):
    folder, _ = made("upstream")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    status, _, err = superbit("new-upstream", "echo_model")
    assert status == 2
    assert "echo_model is there already" in err
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
