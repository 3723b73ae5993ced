"""Files: whole or not at all, locked by one at a time, read with one sentence for each fault."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import pytest
import torch

from superbit.benchmark.claims.data import read_claims
from superbit.benchmark.corpora.paths import load_paths
from superbit.benchmark.tasks.configs import resolve
from superbit.upstreams import files
from superbit.upstreams.errors import InputError
from superbit.upstreams.quantization.policy import read_policy
from superbit.upstreams.training.configuration import load_config

ROOT = Path(__file__).parents[2]
START = "import sys, time\nfrom pathlib import Path\nfrom superbit.upstreams import files\n"


def started(code: str, *words: object) -> subprocess.Popen[str]:
    """A process that runs ``code``; it has said a line when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", START + code, *map(str, words)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL


def test_a_file_is_replaced_and_its_folder_made(tmp_path):
    file = tmp_path / "new" / "file.txt"
    files.write_text(file, "one\n")
    files.write_text(file, "tvåä\n")
    assert file.read_bytes() == "tvåä\n".encode()
    with files.replaced(str(file), on_disk=True) as partial:
        partial.write_bytes(b"three")
        assert file.read_bytes() == "tvåä\n".encode()  # until the end
    assert file.read_bytes() == b"three"
    assert list(file.parent.iterdir()) == [file]


def test_others_may_read_what_a_library_writes_for_its_owner_alone(tmp_path):
    from safetensors.torch import save_file

    plain = tmp_path / "plain"
    plain.touch()
    with files.replaced(tmp_path / "weights.safetensors") as partial:
        save_file({"weight": torch.zeros(1)}, partial)
    assert (tmp_path / "weights.safetensors").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fails):
    file = tmp_path / "file"
    file.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space left"):
        files.write_bytes(file, b"new", on_disk=True)
    with (
        pytest.raises(InputError, match=r"file cannot be written: No space left on device\.$"),
        files.said_of(file),
    ):
        files.write_bytes(file, b"new", on_disk=True)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "old"


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")

    def write():
        with files.replaced(file) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "old"


def test_a_process_that_is_killed_while_it_writes_leaves_the_old_file(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    code = (
        "with files.replaced(sys.argv[1]) as partial:\n"
        "    partial.write_text('half')\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    killed(started(code, file))
    assert file.read_text() == "old"
    (left,) = (each for each in tmp_path.iterdir() if each != file)
    assert left.name.startswith(".")  # no reader takes it for one of its files
    assert left.suffix == files.PARTIAL


HOLD = (
    "with files.locked(Path(sys.argv[1])) as ours:\n"
    "    assert ours\n    print('ready', flush=True)\n    time.sleep(60)\n"
)


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    lock = tmp_path / "deep" / "lock"
    holder = started(HOLD, lock)
    with files.locked(lock, stop=lambda: True) as ours:
        assert not ours
    killed(holder)
    with files.locked(lock, stop=lambda: True) as ours:
        assert ours


def test_who_waits_gets_the_lock_when_its_holder_is_killed(tmp_path):
    lock, asked = tmp_path / "lock", []
    holder = started(HOLD, lock)

    def stop():
        asked.append(None)
        if len(asked) == 3:
            killed(holder)
        return len(asked) > 500

    with files.locked(lock, stop=stop, every=0.02) as ours:
        assert ours
        assert len(asked) >= 3


def test_the_lock_is_not_kept_by_a_child_of_a_killed_process(tmp_path):
    code = (
        "import subprocess\nwith files.locked(Path(sys.argv[1])) as ours:\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    Path(sys.argv[2]).write_text(str(child.pid))\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    holder = started(code, tmp_path / "lock", tmp_path / "child")
    killed(holder)
    try:
        with files.locked(tmp_path / "lock", stop=lambda: True) as ours:
            assert ours
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_threads_exclude_each_other(tmp_path):
    inside, most = [], []

    def work(_):
        with files.locked(tmp_path / "lock", every=0.001) as ours:
            inside.append(None)
            most.append(len(inside))
            time.sleep(0.002)
            inside.pop()
            return ours

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(20)))
    assert most == [1] * 20


def test_a_lock_whose_folder_is_deleted_while_one_waits_is_had_anew(tmp_path):
    lock = tmp_path / "folder" / "lock"

    def stop():
        return False

    def wait():
        with files.locked(lock, stop=stop, every=0.01) as ours:
            assert ours
            with files.locked(lock, stop=lambda: True) as another:
                return another

    with ThreadPoolExecutor(1) as thread:
        with files.locked(lock):
            waiting = thread.submit(wait)
            time.sleep(0.2)
            shutil.rmtree(lock.parent)
        assert waiting.result(timeout=30) is False


def test_text_is_read_with_and_without_a_byte_order_mark(tmp_path):
    file = tmp_path / "file"
    for content in (b"\xef\xbb\xbf", b""):
        file.write_bytes(content + "a: ä\n".encode())
        assert files.read_text(file) == "a: ä\n"
        assert files.read_yaml(file, "a file") == {"a": "ä"}
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.read_json(file, "a file") == {"a": 1}


@pytest.mark.parametrize("read", [files.read_text, files.read_yaml, files.read_json])
def test_what_cannot_be_read_is_named_with_what_it_should_be(read, tmp_path):
    file = tmp_path / "file"
    with pytest.raises(InputError, match=r"/file is not there: it should be a list\.$"):
        read(file, "a list")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"/file cannot be read as UTF-8 text \(.*be a list\.$"):
        read(file, "a list")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\): it should be a li"):
        read(tmp_path, "a list")


def test_broken_json_is_named_with_its_line(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1,\n"b": }\n')
    with pytest.raises(InputError, match=r"a\.json is not readable JSON: .*line 2 column 6"):
        files.read_json(tmp_path / "a.json", "a list")


# What YAML's own reader, scanner, parser, composer and constructor refuse, each in line 2.
BROKEN = {
    "a: 1\nb: [libri\n": "at line 3: ",
    "a: 1\n\tb: 2\n": "at line 2: ",
    "a: 1\nb: *x\n": "at line 2: found undefined alias 'x'",
    "a: 1\nb: !x 2\n": "at line 2: ",
    "a: 1\nb: \x00\n": r"at line 2: it holds the character U\+0000",
    "a: 1\nb: 2024-13-45\n": ": month must be in 1..12",
}
READERS = {
    "paths": load_paths,
    "overrides": lambda file: resolve("KS", scale="superb", overrides=file),
    "policy": read_policy,
    "preset": load_config,
    "claims": read_claims,
}


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("reader", READERS)
def test_broken_yaml_is_one_sentence_with_file_and_line(reader, text, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=rf"mine\.yaml is not valid YAML ?{BROKEN[text]}") as said:
        READERS[reader](file)
    assert "\n" not in str(said.value)


def test_a_file_inside_the_package_is_read_as_one_on_disk():
    file = resources.files("superbit.results") / "paper" / "claims.yaml"
    assert files.read_yaml(file, "claims")["claims"]


def test_the_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(InputError, match=r"/gone cannot be read: No such file"):
        files.sha256(tmp_path / "gone")


# Calls that have their one place, and who else may make them.
ONE_PLACE = {
    "os.replace": {"upstreams/training/state.py"},  # of a link to a checkpoint
    "fcntl.flock": {"upstreams/leases.py"},  # which asks whether there is one
    "filelock.FileLock": set(),
    "yaml.safe_load": set(),
}


def test_files_are_written_locked_and_parsed_in_one_place():
    found: dict[str, set[str]] = {call: set() for call in ONE_PLACE}
    for file in (each for top in ("upstreams", "benchmark") for each in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in found:
                found[name].add(file.relative_to(ROOT).as_posix())
    for name, others in ONE_PLACE.items():
        assert found[name] - {"upstreams/files.py"} <= others, name
