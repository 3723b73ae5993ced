"""A sweep on a real Slurm of two nodes: preempted, requeued, its node lost, cancelled, given twice.

Minutes, of which most are those for which Slurm holds a requeued job back; ``make test-slurm``.
"""

import json
import re
import subprocess
import sys
import time

import cluster
import pytest

from superbit.benchmark.records.store import ResultStore

pytestmark = pytest.mark.slurm

OVERRIDES = """
KS:
  resources: {memory_gb: 1}
  runner: {total_steps: 600, eval_step: 300, save_step: 5, log_step: 5}
PR:
  resources: {memory_gb: 1}
  runner: {total_steps: 500, eval_step: 250, save_step: 5, log_step: 5}
SID:
  resources: {memory_gb: 1}
  runner: {total_steps: 600, eval_step: 300, save_step: 5, log_step: 5}
"""
UPSTREAMS, TASKS = ("fbank", "vanilla_nano"), ("KS", "PR", "SID")
RUNS = [f"{task} × {upstream}" for task in TASKS for upstream in UPSTREAMS]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if not cluster.is_possible():
        pytest.skip("needs root, and Slurm or apt-get")
    # sockets have short names
    with cluster.running(tmp_path_factory.mktemp("slurm")) as running:
        yield running


class Sweep:
    """``superbit`` over one folder of results, as a person on a node of the cluster types it."""

    def __init__(self, folder, paths, slurm):
        self.folder, self.slurm = folder, slurm
        self.results = folder / "results"
        overrides = folder / "overrides.yaml"
        overrides.write_text(OVERRIDES)
        self.words = [
            *("sweep", "--upstreams", ",".join(UPSTREAMS), "--tasks", ",".join(TASKS)),
            *("--scale", "embedded", "--overrides", str(overrides), "--paths", str(paths)),
            *("--device", "cpu"),
        ]

    def begin(self, *words, results=None):
        command = [sys.executable, "-m", "superbit", *words]
        command += ["--results", str(results or self.results)]
        return subprocess.Popen(
            command,
            env={**self.slurm.environment, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
        )

    def say(self, *words, results=None):
        process = self.begin(*words, results=results)
        said, _ = process.communicate(timeout=900)
        print(said)
        return process.returncode, said

    def submit(self, *words):
        return self.begin(*self.words, "--launcher", "slurm", *words)

    def jobs(self):
        """The last job of each run, by its label."""
        files = sorted((self.results / "work/submissions").glob("*.json"))
        jobs = [job for file in files for job in json.loads(file.read_text())["jobs"]]
        return {job["label"]: job["id"] for job in jobs if job["what"] == "run"}

    def segments(self, job):
        """The steps that a job said, a list for each time that it was begun."""
        file = self.results / "work/submissions" / f"{job}_0_log.err"
        if not file.exists():
            return []
        parts = file.read_text().split("run 1 of 1:")[1:]
        return [
            [int(n.replace(",", "")) for n in re.findall(r"step ([\d,]+) of", p)] for p in parts
        ]

    def wait_until(self, condition, *, seconds=420, what=""):
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(f"{what}: {self.slurm.queue()}")
            time.sleep(0.5)

    def has_saved(self, label):
        """Whether a run is far enough to be seen going on."""
        said = self.segments(self.jobs()[label])
        return bool(said) and bool(said[-1]) and said[-1][-1] >= 40


def test_a_sweep_on_slurm_ends_as_one_that_nothing_disturbs(slurm, tiny_paths_file, tmp_path):
    sweep = Sweep(tmp_path, tiny_paths_file, slurm)
    status, _ = sweep.say(*sweep.words, results=tmp_path / "undisturbed")
    assert status == 0

    # submitted and left alone
    process = sweep.submit("--detach")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert set(sweep.jobs()) == set(RUNS)

    # both nodes work
    sweep.wait_until(
        lambda: {n for s, n in slurm.queue().values() if s == "RUNNING"} == {"n1", "n2"},
        what="both nodes",
    )
    running = []

    def four_saved():
        jobs = {job: label for label, job in sweep.jobs().items()}
        running[:] = [
            (jobs[id], id, node)
            for id, (state, node) in slurm.queue().items()
            if state == "RUNNING" and id in jobs and sweep.has_saved(jobs[id])
        ]
        return len({node for _, _, node in running}) == 2 and len(running) >= 3

    sweep.wait_until(four_saved, what="runs on both nodes that have saved")

    # one is begun again by hand; two lose their node to a job of higher priority
    nodes = [node for _, _, node in running]
    full = max(set(nodes), key=nodes.count)
    preempted = [(label, id) for label, id, node in running if node == full][:2]
    requeued = next((label, id) for label, id, node in running if node != full)
    slurm.run("scontrol", "requeue", requeued[1])
    slurm.run(
        "sbatch", "-p", "urgent", "-n2", "-N1", "-w", full, "-o", "/dev/null", "--wrap", "sleep 6"
    )
    sweep.wait_until(
        lambda: all(slurm.queue().get(id, ("",))[0] != "RUNNING" for _, id in preempted),
        what="preempted",
    )
    _, said = sweep.say("status")
    assert "requeued" in said
    assert re.search(r"requeued: .*step \d+ of 600 when it was stopped", said)

    # a node's daemon dies and comes back
    slurm.kill_node("n1")
    time.sleep(3)
    slurm.begin_node("n1")

    # half is cancelled, and given again by two processes at the same time
    status, said = sweep.say("cancel", "--upstream", "vanilla_nano")
    assert status == 0
    assert re.search(r"[1-9] jobs? cancelled", said)
    both = [sweep.submit(), sweep.submit()]
    said = [process.communicate(timeout=1500)[0] for process in both]
    print(*said, sep="\n---\n")
    assert [process.returncode for process in both] == [0, 0]

    # every record is the undisturbed sweep's, and nothing is left over
    straight = {r.key: r for r in ResultStore(tmp_path / "undisturbed").read_all()}
    disturbed = {r.key: r for r in ResultStore(sweep.results).read_all()}
    assert set(straight) == set(disturbed)
    assert len(straight) == len(RUNS)
    for key, record in straight.items():
        other = disturbed[key]
        assert (other.status, other.value, other.metrics) == ("done", record.value, record.metrics)
        store = ResultStore(sweep.results)
        assert store.read_items(other) == ResultStore(tmp_path / "undisturbed").read_items(record)
    assert not list((sweep.results / "work/runs").glob("*"))
    _, said = sweep.say("status")
    assert f"{len(RUNS)} submitted runs: {len(RUNS)} done." in said

    # what was preempted went on from where it had saved
    went_on = [
        sweep.segments(id) for _, id in [*preempted, requeued] if len(sweep.segments(id)) > 1
    ]
    assert went_on, "nothing was begun again"
    for begun in went_on:
        assert begun[1][0] >= 40, begun
