"""Sixty inputs that nobody should give: one sentence and status 2 for each, and quickly."""

import json
import os
import signal
from pathlib import Path

import pytest

from superbit.benchmark import cli

DEEP = 200_000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
LONG = "x" * 5_000
CONTENTS = {
    "deep_json": "[" * DEEP,
    "deep_object": '{"a":' * DEEP,
    "deep_yaml": "[" * DEEP,
    "deep_flow": "{a: " * DEEP,
    "bomb": BOMB,
    "loop": "a: &a\n  b: *a\n",
    "digits": f'{{"KS": {"9" * 6_000}}}',
    "huge": f"KS: {{runner: {{total_steps: 1{'0' * 4_000}}}}}",
    "twice": "KS:\n  runner: {total_steps: 5}\nKS: {}\n",
    "twice_json": '{"format": 1,\n "model": {},\n "format": 1}',
    "binary": b"\xff\xfe\x00\x01\x02" * 50,
    "nul": "KS:\x00 {}",
    "empty": "",
    "list": "[1, 2]",
    "number": "3",
    "text": "just words",
    "tag": "!!python/object/apply:os.system ['touch owned']",
    "tabs": "KS:\n\trunner: 1\n",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder of odd files, by the names of `CONTENTS`; `fifo`, `folder`, and a checkpoint."""
    root = tmp_path_factory.mktemp("odd")
    for name, content in CONTENTS.items():
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    os.mkfifo(root / "fifo")
    (root / "folder").mkdir()
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Write a checkpoint whose config says something else than its weights need."""
    import shutil

    from superbit.upstreams import variant

    nano = Path(variant.__file__).parent / "vanilla" / "vanilla_nano"

    def write(name, **changes):
        folder = tmp_path_factory.mktemp("checkpoint") / name
        folder.mkdir()
        shutil.copy(nano / "model.safetensors", folder)
        content = json.loads((nano / "config.json").read_text())
        content["model"].update(changes)
        (folder / "config.json").write_text(json.dumps(content))
        return folder

    return write


@pytest.fixture
def said(capsys):
    """Call the command line, ten seconds at most; give its status and what it said."""

    def late(*_):
        raise AssertionError("it hangs")

    def call(*words):
        before = signal.signal(signal.SIGALRM, late)
        signal.alarm(10)
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        return status, capsys.readouterr().err

    return call


def is_one_sentence(err):
    lines = err.strip().splitlines()
    return (
        len(lines) == 1
        and lines[0].startswith("superbit: ")
        and len(lines[0]) < 900
        and lines[0].isprintable()
    )


SWEEP = ("sweep", "--tasks", "KS", "--scale", "embedded")
FILES = (*CONTENTS, "fifo", "folder", "missing")


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("huge",)])
def test_a_paths_file(said, inputs, name, tmp_path):
    status, err = said(
        *SWEEP, "--upstreams", "fbank", "--paths", inputs / name, "--results", tmp_path / "r"
    )
    assert status == 2, err
    assert is_one_sentence(err)
    assert name in err
    assert not (inputs / "owned").exists()


@pytest.mark.parametrize("name", [name for name in FILES if name != "empty"])
def test_overrides(said, inputs, name):
    status, err = said(
        *SWEEP, "--upstreams", "fbank", "--assume", "superb-sizes", "--dry-run",
        "--overrides", inputs / name,
    )  # fmt: skip
    assert status == 2, err
    assert is_one_sentence(err)
    assert name in err or name == "huge"


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": 10**9},
        {"dim": 2**62},
        {"ffn_dim": 2**62},
        {"heads": 10**30},
        {"conv_layers": [[1, 1, 1]] * 100_000},
        {"conv_layers": [[2**62, 10, 5]]},
        {"position_kernel": 2**62},
        {"layers": "9" * 5_000},
    ],
    ids=lambda changes: "-".join(f"{k}" for k in changes),
)
def test_the_config_of_a_checkpoint(said, checkpoint, changes):
    folder = checkpoint("odd", **changes)
    status, err = said("check", f"vanilla_nano@{folder}")
    assert status == 2, err
    assert is_one_sentence(err)
    assert next(iter(changes)) in err


@pytest.mark.parametrize(
    "name", ["deep_json", "deep_object", "digits", "twice_json", "binary", "list", "fifo", "folder"]
)
def test_the_config_file_of_a_checkpoint(said, checkpoint, inputs, name):
    folder = checkpoint("odd")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(inputs / name)
    status, err = said("check", f"vanilla_nano@{folder}")
    assert status == 2, err
    assert is_one_sentence(err)
    assert "config.json" in err


@pytest.mark.parametrize(
    "spec",
    [
        "bq_bq_vanilla_nano",
        "bq_" * 50 + "vanilla_nano",
        "~nosuchuser/hubconf.py:model",
        f"{LONG}.py:model",
        f"{LONG}/hubconf.py:model",
        f"vanilla_nano@{LONG}",
        "vanilla_nano@~nosuchuser/ckpt",
        "vanilla_nano@{fifo}",
        "hubert_local@{fifo}",
        "hubert_local@{folder}",
        "{fifo}:model",
        "{folder}:model",
        "{folder}/hubconf.py:model",
        "vanilla_nano+policy={bomb}.yaml",
        "vanilla_nano+policy={folder}",
        "vanilla_nano+policy=" + LONG + ".yaml",
        "\x1b[31mred",
        "a\nb",
        "=cmd()",
        "",
        "@",
        "+",
        ":",
        "/",
        "vanilla_nano" + "+untrained" * 300,
    ],
    ids=lambda spec: spec[:24].encode("unicode_escape").decode(),
)
def test_specs(said, inputs, spec):
    for name in ("fifo", "folder", "bomb"):
        spec = spec.replace(f"{{{name}}}", str(inputs / name))
    status, err = said("check", spec)
    assert status == 2, err
    assert is_one_sentence(err)


@pytest.mark.parametrize("name", ["deep_json", "binary", "list", "twice_json", "digits"])
@pytest.mark.parametrize("place", ["KS/x.json", "searches/x.json", "KS.jsonl.gz"])
def test_results(said, inputs, name, place, tmp_path):
    (tmp_path / "results" / place).parent.mkdir(parents=True)
    (tmp_path / "results" / place).write_bytes((inputs / name).read_bytes())
    status, err = said("table", "2", "--source", "runs", "--results", tmp_path / "results")
    assert status == 2, err
    assert is_one_sentence(err)
    assert Path(place).name in err


def test_the_label_of_a_run_that_is_no_text_hides_no_other(said, tmp_path, capsys):
    runs = tmp_path / "results" / "work" / "runs"
    for name, label in (("a", b"\xff\xfe"), ("b", b"KS \xc3\x97 fbank\n")):
        (runs / name).mkdir(parents=True)
        (runs / name / "run.txt").write_bytes(label)
        (runs / name / "checkpoint.pt").write_bytes(b"")
    assert cli.main(["status", "--results", str(tmp_path / "results")]) == 0
    assert "KS × fbank" in capsys.readouterr().out


def test_names_move_no_cursor_and_run_in_no_spreadsheet():
    from superbit.benchmark.rendering import TextTable, csv_text, render_text

    names = ["a\nb", "\x1b[31mred", "x|y", "=cmd()", "@a", "+sum", "-1.5", "a\tb"]
    table = TextTable(title="T", header=["name"], groups=[[[name] for name in names]])
    for format in ("md", "html", "latex"):
        text = render_text(table, format)
        assert "\x1b" not in text
        assert "\t" not in text
        assert sum("red" in line or "cmd" in line for line in text.splitlines()) == 2
    rows = csv_text(["name"], [[name] for name in names]).splitlines()
    assert rows == [
        "name", "a\\nb", "\\x1b[31mred", "x|y", "'=cmd()", "'@a", "'+sum", "-1.5", "a\\tb"
    ]  # fmt: skip


def test_pruning_deletes_only_what_was_stored(tmp_path, capsys):
    cache = tmp_path / "features"
    for name, note in (
        ("theirs", '{"upstream": "my model"}'),
        ("ours", '{"upstream": "fbank", "weights_sha256": "0"}'),
        ("mixed", '{"upstream": "fbank", "weights_sha256": "1"}'),
    ):
        (cache / name / "pooled-float32").mkdir(parents=True)
        (cache / name / "upstream.json").write_text(note)
        (cache / name / "pooled-float32" / "a.bin").write_bytes(b"")
    (cache / "mixed" / "thesis.tex").write_text("years of work")
    assert cli.main(["cache", "prune", "--all", "--cache-dir", str(cache)]) == 0
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == ["mixed", "theirs"]
    assert (cache / "theirs" / "pooled-float32" / "a.bin").exists()
    assert [path.name for path in (cache / "mixed").iterdir()] == ["thesis.tex"]
    assert "not of superbit, left alone: 1 files" in capsys.readouterr().out
