"""Provenance: true where it can be known, None where it cannot, and never in the way."""

import os
import platform
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from importlib import metadata
from pathlib import Path

import pytest

from superbit.benchmark.records import provenance
from superbit.benchmark.records.provenance import Provenance, collect
from superbit.upstreams.machine import git_state


def test_versions_are_those_of_the_installed_packages() -> None:
    found = collect()
    assert found.superbit == metadata.version("superbit")
    assert found.python == platform.python_version()
    assert found.versions["numpy"] == metadata.version("numpy")
    assert set(found.versions) >= {"torch", "torchaudio", "s3prl", "numpy"}
    assert found.cpu_count == os.cpu_count()
    assert found.hostname
    assert found.cpu


def test_what_the_caller_knows_is_kept() -> None:
    started = datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    found = collect(
        ["/opt/env/bin/superbit", "sweep", "--limit", "3"],
        gpu="Accelerator X", threads=2, started=started, seconds=7,
    )  # fmt: skip
    assert found.command == ["superbit", "sweep", "--limit", "3"]
    assert (found.gpu, found.threads, found.seconds) == ("Accelerator X", 2, 7.0)
    assert found.started == "2026-01-02T03:04:05+00:00"


def test_started_is_now_in_utc_unless_given() -> None:
    found = datetime.fromisoformat(collect().started or "")
    assert found.utcoffset() == timedelta(0)
    assert abs((datetime.now(UTC) - found).total_seconds()) < 60


def test_it_comes_back_from_json_as_it_was() -> None:
    found = collect(["superbit"], seconds=1.5)
    assert Provenance.model_validate_json(found.model_dump_json()) == found


def test_nothing_that_cannot_be_found_out_stops_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("not here")

    for name in ("socket.gethostname", "platform.platform", "platform.python_version"):
        monkeypatch.setattr(f"superbit.benchmark.records.provenance.{name}", broken)
    monkeypatch.setattr(provenance.os, "cpu_count", broken)
    monkeypatch.setattr(provenance.metadata, "version", broken)
    monkeypatch.setattr(provenance, "cpu_model", broken)
    monkeypatch.setattr(provenance, "_torch_threads", broken)
    monkeypatch.setattr(provenance, "_git_state_of_this_package", broken)
    found = collect([])
    known = {name for name, value in found.model_dump().items() if value is not None}
    assert known == {"versions", "started"}
    assert set(found.versions.values()) == {None}


def _git(folder: Path, *words: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *words],
        check=True, capture_output=True, text=True, env=clean,
    ).stdout.strip()  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "-q")
    (tmp_path / "tracked.py").write_text("1\n")
    _git(tmp_path, "add", "tracked.py")
    _git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def test_commit_and_dirty_flag_are_git_s(checkout: Path) -> None:
    head = _git(checkout, "rev-parse", "HEAD")
    assert git_state(checkout / "tracked.py") == (head, False)
    (checkout / "results.json").write_text("untracked files do not change the code")
    assert git_state(checkout / "tracked.py") == (head, False)
    (checkout / "tracked.py").write_text("2\n")
    assert git_state(checkout / "tracked.py") == (head, True)


def test_a_package_installed_inside_somebody_s_checkout_has_no_commit(checkout: Path) -> None:
    installed = checkout / "env" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "provenance.py").write_text("1\n")
    assert git_state(installed / "provenance.py") == (None, None)


def test_a_hook_s_variables_do_not_point_elsewhere(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "absent"))
    assert git_state(checkout / "tracked.py")[0] is not None


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout / "tracked.py") == (None, None)
