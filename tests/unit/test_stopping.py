"""Signals that ask to stop: what the first does, the second, a copy of the first, and a limit."""

import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from superbit.benchmark import cli
from superbit.upstreams import stopping
from superbit.upstreams.stopping import SIGNALS

NAMES = [signal.Signals(number).name for number in SIGNALS]


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when a test says so."""
    now = [1_000.0]
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize("number", SIGNALS, ids=NAMES)
def test_the_first_is_noted_and_the_second_ends_it(number, clock):
    said = []
    with stopping.gently(said.append) as stop:
        assert not stop()
        send(number)
        assert stop()
        send(SIGNALS[0])  # the same request: it reached this process and its parent
        assert stop()
        clock[0] += 2
        with pytest.raises(KeyboardInterrupt):
            send(number)
    assert len(said) == 1
    assert "stopping after this step" in said[0]


@pytest.mark.parametrize("number", SIGNALS, ids=NAMES)
def test_where_nothing_can_be_saved_the_first_ends_it(number, monkeypatch, capsys):
    before = [signal.getsignal(each) for each in SIGNALS]
    monkeypatch.setattr(cli.list_, "run", lambda arguments: send(number))
    assert cli.main(["list", "tasks"]) == 130
    assert capsys.readouterr().err == "superbit: stopped.\n"
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.gently(print) as stop:
            send(signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_of_a_data_loader_leaves_it_to_the_one_that_started_it(monkeypatch):
    said, own = [], os.getpid()
    with stopping.gently(said.append) as stop:
        monkeypatch.setattr(stopping.os, "getpid", lambda: own + 1)
        os.kill(own, signal.SIGTERM)
        assert not stop()
    assert said == []


@pytest.mark.parametrize(
    ("hours", "seconds"), [(24, 24 * 3600 - 300), (1, 3600 - 300), (0.1, 324), (None, None)]
)
def test_a_limit_leaves_time_to_save(hours, seconds, clock):
    deadline = stopping.deadline_after(hours, began=clock[0])
    said = []
    with stopping.gently(said.append, deadline=deadline) as stop:
        clock[0] += (seconds or 1e9) - 1
        assert not stop()
        clock[0] += 2
        assert stop() == (seconds is not None)
        stop()
    assert len(said) == (seconds is not None)


def test_an_interrupt_that_code_raises_by_itself_is_not_the_users(clock):
    interrupt = KeyboardInterrupt()
    assert stopping.is_the_users(interrupt)  # nobody listens: who knows
    with stopping.gently(lambda line: None):
        assert not stopping.is_the_users(interrupt)
        assert not stopping.is_the_users(SystemExit(0))
        send(signal.SIGTERM)
        assert stopping.is_the_users(interrupt)
        assert not stopping.is_the_users(ValueError())


@pytest.mark.parametrize("given", ["0", "-1", "nan", "soon"])
@pytest.mark.parametrize("option", ["--max-hours", "--checkpoint-minutes"])
def test_numbers_that_no_limit_can_have(option, given, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["pretrain", "--preset", "nano", "--model", "vanilla_nano", option, given])
    assert exit_.value.code == 2
    assert f"{given!r} must be a number above 0" in capsys.readouterr().err


# --- pre-training ---------------------------------------------------------------------------------

TRAINING = (
    "updates=4", "warm_up_updates=1", "units=3", "batch_samples=16000", "crop_samples=8000",
    "min_samples=4000", "precision=fp32", "save_every=100", "validate_every=100", "log_every=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("speech"), np.random.default_rng(0)
    for split in ("train", "valid"):
        rows, lines = [str(folder)], []
        for index in range(3):
            soundfile.write(folder / f"{split}{index}.wav", random.uniform(-1, 1, 16_000), 16_000)
            rows.append(f"{split}{index}.wav\t16000")
            lines.append(" ".join(map(str, random.integers(0, 3, 99))))
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        (folder / f"{split}.km").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def pretrain(speech, capsys):
    def call(out, *more):
        changes = [word for change in TRAINING for word in ("--set", change)]
        status = cli.main(
            [
                *("pretrain", "--preset", "nano", "--model", "vanilla_nano", "--out", str(out)),
                *("--manifests", str(speech), "--labels", str(speech), "--device", "cpu"),
                *(*changes, *more),
            ]
        )
        return status, capsys.readouterr()

    return call


def weights(out):
    return (out / "last" / "model.safetensors").read_bytes()


def test_pretraining_stops_after_its_update_and_goes_on_to_the_bit(pretrain, tmp_path, monkeypatch):
    from superbit.upstreams.training import train

    assert pretrain(tmp_path / "straight")[0] == 0
    step = train.Trainer.step

    def interrupted(trainer, *arguments):
        if trainer.update == 1:
            send(signal.SIGUSR1)
        return step(trainer, *arguments)

    monkeypatch.setattr(train.Trainer, "step", interrupted)
    status, printed = pretrain(tmp_path / "stopped")
    assert status == 130
    assert printed.err.endswith("superbit: stopped; the same command continues.\n")
    assert (tmp_path / "stopped/last").resolve().name == "update-00000002"
    monkeypatch.setattr(train.Trainer, "step", step)
    status, printed = pretrain(tmp_path / "stopped")
    assert status == 0
    assert "at update 2" in printed.err
    assert weights(tmp_path / "stopped") == weights(tmp_path / "straight")


def test_pretraining_is_saved_by_time_and_stops_before_its_limit(pretrain, tmp_path, monkeypatch):
    from superbit.upstreams.training.state import RunFolder

    saved, save = [], RunFolder.save

    def counted(self, update, *given, **more):
        saved.append(update)
        save(self, update, *given, **more)
        time.sleep(0.02)

    monkeypatch.setattr(RunFolder, "save", counted)
    status, printed = pretrain(tmp_path / "run", "--checkpoint-minutes", "1e-6")
    assert (status, saved) == (0, [1, 2, 3, 4])
    status, printed = pretrain(tmp_path / "other", "--max-hours", "1e-7")
    assert (status, saved) == (130, [1, 2, 3, 4, 1])
    assert "limit on time" in printed.err
