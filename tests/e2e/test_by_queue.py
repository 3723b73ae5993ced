"""Sweeps by a queue: what is submitted, what each task is told, and what comes of it.

Under submitit's local executor, which begins interrupted tasks again as Slurm does; and beside
stand-ins of sbatch, squeue and scancel that write down what they are asked. A real Slurm is in
tests/slurm.
"""

import json
import os
import re
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest
import torch

from superbit.benchmark.features.store import FeatureStore
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.running.heartbeat import UNTIL, beating
from superbit.benchmark.sweeping import processes, submissions
from superbit.benchmark.sweeping.array_tasks import ArrayTask
from superbit.upstreams.machine import cores

LONGER = """
KS:
  runner: {total_steps: 400, eval_step: 200, save_step: 5, log_step: 5}
  downstream_expert: {datarc: {batch_size: 8}}
PR:
  runner: {total_steps: 4, eval_step: 2, save_step: 2}
  resources: {cpus: 2, memory_gb: 6, gpus: 1, hours: 30}
"""


@pytest.fixture
def sweep(superbit, tiny_paths_file, tmp_path, hubconf):
    file = tmp_path / "longer.yaml"
    file.write_text(LONGER)

    def call(results, *more, upstreams=("energies",), tasks="KS"):
        named = ",".join(f"{hubconf}:{name}" for name in upstreams)
        return superbit(
            "sweep", "--upstreams", named, "--tasks", tasks, "--scale", "embedded",
            "--paths", tiny_paths_file, "--overrides", file, "--results", tmp_path / results, *more,
        )  # fmt: skip

    return call


def children(pid):
    """The processes that a process has begun."""
    stats = (file.read_text() for file in Path("/proc").glob("[0-9]*/stat"))
    fields = [(int(text.split()[0]), text.rpartition(")")[2].split()) for text in stats]
    return [child for child, (_, parent, *_) in fields if int(parent) == pid]


def test_an_interrupted_task_goes_on_and_its_record_is_the_undisturbed_one(sweep, tmp_path):
    work = tmp_path / "queued/work"

    def interrupt():
        while not list(work.glob("runs/*/checkpoint.pt")):
            time.sleep(0.02)
        (file,) = work.glob("submissions/*.json")
        # submitit names a local job by the process that begins it, and begins it again
        *_, job = (job["id"] for job in json.loads(file.read_text())["jobs"])
        (task,) = children(int(job))
        os.kill(task, signal.SIGUSR2)

    thread = threading.Thread(target=interrupt)
    thread.start()
    status, out, err = sweep("queued", "--launcher", "local", "--device", "cpu")
    thread.join()
    assert status == 0, out + err
    assert "1 of 1 runs have ended" in err
    (log,) = (
        f
        for f in (tmp_path / "queued/work/submissions").glob("*_log.err")
        if "run 1 of 1" in f.read_text()
    )
    begun = log.read_text().split("run 1 of 1:")[1:]
    assert len(begun) == 2, log.read_text()
    assert sweep("straight", "--device", "cpu")[0] == 0
    (queued,), (straight,) = (ResultStore(tmp_path / n).read_all() for n in ("queued", "straight"))
    assert (queued.key, queued.value, queued.metrics) == (
        *(straight.key, straight.value, straight.metrics),
    )
    assert queued.provenance.features["stored"] > 0


# --- beside stand-ins of Slurm's commands ---------------------------------------------------------

STAND_IN = """#!/bin/sh
echo "$(basename $0) $@" >> {folder}/asked
case $(basename $0) in
  sbatch) n=$(($(cat {folder}/jobs 2>/dev/null || echo 100) + 1)); echo $n > {folder}/jobs
          cp "$1" {folder}/$n.sh
          [ -e {folder}/refuse ] && {{ echo 'sbatch: error: no such partition' >&2; exit 1; }}
          echo "Submitted batch job $n";;
  squeue) cat {folder}/queue 2>/dev/null;;
esac
exit 0
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of stand-ins: what they were asked, scripts that were submitted, the queue."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel", "srun"):
        (folder / name).write_text(STAND_IN.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


SLURM = (
    *("--launcher", "slurm", "--detach", "--slurm-partition", "long", "--slurm-account", "me"),
    *("--slurm-setup", "module load x", "--slurm-option", "nice=7", "--slurm-array-parallelism", 3),
)


def test_what_is_submitted(sweep, slurm, superbit, tmp_path):
    status, out, err = sweep("r", *SLURM, upstreams=("energies", "twin"), tasks="KS,PR")
    assert status == 0, out + err
    assert "submitted 6 tasks as 101, 102, 103, 104, 105" in err
    scripts = {n: (slurm / f"{n}.sh").read_text() for n in range(101, 106)}
    for script in scripts.values():
        for line in ("partition=long", "account=me", "nice=7", "requeue"):
            assert f"#SBATCH --{line}\n" in script
        assert "\nmodule load x\n" in script
    # one array for the features of both; then for each upstream what needs alike
    assert "--array=0-1%2\n" in scripts[101]
    assert "dependency" not in scripts[101]
    for number, feature in {102: 0, 103: 0, 104: 1, 105: 1}.items():
        assert f"--dependency=afterok:101_{feature}\n" in scripts[number]
        assert "--kill-on-invalid-dep=yes\n" in scripts[number]
    asked = [
        (s.count("--gpus-per-node=1\n"), *re.search(r"--mem=(\d+)M", s).groups())
        for s in scripts.values()
    ]
    assert sorted(asked[1:]) == [(0, "4096")] * 2 + [(1, "6144")] * 2
    long = [s for s in scripts.values() if "--mem=6144M" in s][-1]
    assert "--cpus-per-task=2\n" in long
    assert "--time=1800\n" in long
    assert "--signal=USR2@300\n" in long
    assert "nobody knows here how long they take" in err

    # what each task will do
    (submission,) = (tmp_path / "r/work/submissions").glob("*.json")
    jobs = json.loads(submission.read_text())["jobs"]
    assert [job["what"] for job in jobs] == ["features"] * 2 + ["run"] * 4
    for file in (tmp_path / "r/work/submissions").glob("*_submitted.pkl"):
        for delayed in [cloudpickle.loads(file.read_bytes())]:
            (task,) = delayed.args
            assert isinstance(task, ArrayTask)
            assert task.checkpoint().function == task
            words = list(task.options)
            assert "--overrides" in words
            assert words[words.index("--results") + 1] == str(tmp_path / "r")
            assert ("--only" in words) == (task.what == "run")

    # given again, it waits there already
    (slurm / "queue").write_text("".join(f"{job['id']}|PENDING\n" for job in jobs))
    status, out, err = sweep("r", *SLURM, upstreams=("energies", "twin"), tasks="KS,PR")
    assert status == 0
    assert "4 runs wait or run already" in err
    assert not (slurm / "106.sh").exists()
    _, out, _ = superbit("status", "--results", tmp_path / "r")
    assert "4 submitted runs: 4 pending." in out

    # where Slurm does not answer, files tell as much
    real = (slurm / "squeue").read_text()
    (slurm / "squeue").write_text("#!/bin/sh\necho 'cannot contact' >&2; exit 1\n")
    status, out, _ = superbit("status", "--results", tmp_path / "r")
    assert status == 0
    assert "by files alone, as squeue failed: cannot contact" in out
    assert "4 submitted runs: 4 pending." in out
    (slurm / "squeue").write_text(real)

    # cancelled in part, then whole
    (slurm / "asked").unlink()
    status, out, _ = superbit("cancel", "--task", "ks", "--results", tmp_path / "r")
    assert (status, out.split(";")[0]) == (0, "2 jobs cancelled")
    ks = sorted(job["id"] for job in jobs if job["task"] == "KS")
    assert f"scancel {' '.join(ks)}\n" in (slurm / "asked").read_text()
    assert superbit("cancel", "--results", tmp_path / "r")[1].startswith("6 jobs cancelled")
    (slurm / "queue").unlink()
    _, out, _ = superbit("status", "--results", tmp_path / "r")
    assert "4 submitted runs: 4 gone." in out


def test_what_slurm_refuses_is_said(sweep, slurm):
    (slurm / "refuse").touch()
    status, _, err = sweep("r", *SLURM)
    assert status == 2
    assert "sbatch refused the array" in err
    assert "no such partition" in err


def test_without_slurm_it_says_so(sweep, superbit, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, _, err = sweep("r", "--launcher", "slurm")
    assert (status, "there is no sbatch here" in err) == (2, True)
    # nothing was submitted, so nobody need be asked
    assert superbit("cancel", "--results", tmp_path)[1].startswith("0 jobs cancelled")


def test_features_in_shares_are_the_features(sweep, superbit, tmp_path):
    for share in ("1/3", "3/3", "2/3"):
        assert sweep("r", "--features-only", share, "--device", "cpu")[0] == 0
    whole = sweep("whole", "--features-only", "--device", "cpu")
    assert whole[0] == 0
    assert not ResultStore(tmp_path / "r").read_all()
    (first,), (second,) = (
        (tmp_path / n / "work/features").glob("*/*-float*") for n in ("r", "whole")
    )
    one, other = (FeatureStore(folder, dtype="float32") for folder in (first, second))
    assert len(one) == len(other) > 0
    for file in second.glob("*.json"):
        for key in json.loads(file.read_text())["entries"]:
            assert (one.read(key) == other.read(key)).all()
    # and a run reads them
    _, out, _ = sweep("r", "--dry-run", "--device", "cpu")
    assert "all is stored already" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--slurm-partition", "x"], "--slurm-partition has no effect without --launcher slurm"),
        (["--detach"], "--detach has no effect"),
        (["--launcher", "slurm", "--jobs", "2"], "--jobs has no effect with --launcher slurm"),
        (["--launcher", "local", "--detach"], "--launcher local begins its tasks itself"),
        (["--launcher", "slurm", "--slurm-option", "nice"], "'nice' must be KEY=VALUE"),
        (["--launcher", "slurm", "--slurm-feature-tasks", "0"], "0 must be at least 1"),
        (["--launcher", "slurm", "--only", "ab"], "--only has no effect with --launcher slurm"),
        (["--launcher", "slrm"], "invalid choice: 'slrm'"),
        (["--features-only", "3/2"], "'3/2' must be like 2/4"),
        (["--features-only", "--no-cache"], "--features-only has no effect with --no-cache"),
        (["--only", "0123456789abcdef"], "'0123456789abcdef' is no run of this plan"),
    ],
)
def test_options_without_effect_are_refused(sweep, words, said):
    status, out, err = sweep("r", *words)
    assert status == 2, out
    assert said in err


def test_resources_are_checked(sweep, tmp_path):
    for wrong, said in (
        ("{cpus: 0}", "resources.cpus"),
        ("{cores: 2}", "unknown key 'cores'"),
        ("{hours: soon}", "resources.hours"),
    ):
        (tmp_path / "longer.yaml").write_text(f"KS:\n  resources: {wrong}\n")
        status, _, err = sweep("r", "--dry-run")
        assert (status, said in err) == (2, True), err


def test_an_upstream_that_fails_is_recorded_by_who_submits(sweep, slurm, hubconf, tmp_path):
    broken = "def broken(ckpt=None, **kwargs):\n    raise ValueError('it has no weights')\n"
    hubconf.write_text(hubconf.read_text() + broken)
    status, out, err = sweep("r", *SLURM, upstreams=("energies", "broken"))
    assert status == 1, out + err
    (record,) = ResultStore(tmp_path / "r").read_all()
    assert record.status == "failed"
    assert "it has no weights" in record.reason
    assert "submitted 2 tasks" in err  # features and the run of the other


def test_several_gpus_take_turns(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [processes.device_of(slot, "cuda") for slot in range(4)] == [
        *("cuda:0", "cuda:1", "cuda:2", "cuda:0"),
    ]
    assert processes.device_of(1, "cpu") == "cpu"
    assert processes.device_of(1, "cuda:2") == "cuda:2"
    assert processes.slots(None) == processes.slots("cuda") == 3
    assert processes.slots("cuda:1") == 1
    assert processes.slots("cpu") == cores()


def test_a_run_says_which_job_it_is_and_until_when(monkeypatch, tmp_path):
    for name, value in (
        ("SLURM_ARRAY_JOB_ID", "12"),
        ("SLURM_ARRAY_TASK_ID", "3"),
        ("SLURMD_NODENAME", "n7"),
        (UNTIL, f"{time.time() + 5400:.0f}"),
    ):
        monkeypatch.setenv(name, value)
    run = "ab" * 8
    beating(tmp_path / "work/runs" / run, steps=10, on_step=lambda *_: None)(4, "loss 1.0")
    submission = submissions.new_submission(tmp_path, "slurm")
    job = submissions.SubmittedJob(
        id="12_3",
        what="run",
        upstream="fbank",
        task="KS",
        label="KS × fbank",
        folders=(run,),
        keys=("k",),
    )
    submissions.write(replace(submission, jobs=(job,)))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    lines = submissions.submitted_lines(tmp_path, [])
    assert lines[-2:] == [
        "1 submitted runs: 1 running.",
        "  running: KS × fbank: step 4 of 10, loss 1.0; n7, job 12_3, 1 h 30 min of its time left",
    ]
