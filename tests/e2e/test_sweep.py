"""A sweep from the command line to Table 2: reuse, failure, interruption, continuation."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import ready_processes
import torch

from superbit.benchmark.records.store import ResultStore


@pytest.fixture
def sweep(superbit, tiny_paths_file, overrides, tmp_path):
    """``sweep("SPEC,SPEC", "KS", …)`` at the short config, into one results folder."""

    def call(upstreams, tasks, *more, paths=tiny_paths_file):
        return superbit(
            "sweep", "--upstreams", upstreams, "--tasks", tasks, "--scale", "embedded",
            "--paths", paths, "--overrides", overrides, "--results", tmp_path / "results", *more,
            # Many of these tests count the upstream's calls.
            "--no-cache",
        )  # fmt: skip

    return call


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


def one(store):
    (record,) = store.read_all()
    return record


def test_three_tasks_to_the_table_and_reuse(sweep, superbit, hubconf, store):
    spec = f"{hubconf}:energies"
    status, out, _ = sweep(spec, "KS,PR,ASR")
    assert status == 0
    assert "3 new, 0 reused" in out
    records = store.read_all()
    assert [record.identity.task for record in records] == ["ASR", "KS", "PR"]
    for record in records:
        assert record.status == "done"
        assert record.interval.low <= record.value <= record.interval.high
        assert record.items.count == record.items.expected == len(store.read_items(record))

    before = {path: path.read_bytes() for path in store.root.rglob("*.json")}
    status, out, _ = sweep(spec, "KS,PR,ASR")
    assert status == 0
    assert "0 new, 3 reused" in out
    assert before == {path: path.read_bytes() for path in store.root.rglob("*.json")}

    status, out, _ = superbit(
        "table", "2", "--results", store.root, "--source", "runs", "--format", "json"
    )
    (row,) = json.loads(out)
    assert status == 0
    assert row["ks_acc"] == pytest.approx(records[1].value)
    assert row["asr_wer"] == pytest.approx(records[0].value)


def test_two_processes_give_the_same_records(sweep, hubconf, store, tmp_path):
    both = f"{hubconf}:energies,{hubconf}:twin"
    sweep(both, "KS")
    alone = {record.key: (record.value, store.read_items(record)) for record in store.read_all()}
    for path in store.root.rglob("*.json*"):
        path.unlink()
    status, out, _ = sweep(both, "KS", "--jobs", "2")
    assert status == 0
    assert "2 new" in out
    together = {r.key: (r.value, store.read_items(r)) for r in store.read_all()}
    assert together == alone


def test_a_failing_run_leaves_a_record_and_the_others_go_on(sweep, superbit, hubconf, store):
    (hubconf.parent / "order").write_text("fail 6")
    status, out, _ = sweep(f"{hubconf}:energies,{hubconf}:twin", "KS")
    assert status == 1
    assert "1 new" in out
    assert out.splitlines()[-1].startswith("failed: KS × ")
    assert out.splitlines()[-1].endswith("energies: ValueError: the upstream broke")
    failed, done = sorted(store.read_all(), key=lambda record: record.status, reverse=True)
    assert (failed.status, done.status) == ("failed", "done")
    assert failed.reason == "ValueError: the upstream broke"
    assert "misbehave" in failed.traceback

    _, out, _ = superbit("status", "--results", store.root)
    assert "the upstream broke" in out
    _, out, _ = superbit(
        "table", "2", "--results", store.root, "--source", "runs", "--format", "csv"
    )
    assert len(out.splitlines()) == 2  # the header and the run that was done

    status, out, _ = sweep(f"{hubconf}:energies,{hubconf}:twin", "KS")
    assert status == 0
    assert "1 new, 1 reused" in out
    assert {record.status for record in store.read_all()} == {"done"}


@pytest.mark.parametrize(
    ("call", "steps_kept"),
    [
        (3, 1),  # in step 1, after the featurizer's trial: saved because it was asked to stop
        (7, 3),  # in the evaluation after step 3, which is made anew
    ],
)
def test_interrupted_and_continued_equals_never_interrupted(
    sweep, hubconf, store, call, steps_kept
):
    calls, order = hubconf.parent / "calls", hubconf.parent / "order"
    spec = f"{hubconf}:energies"
    sweep(spec, "KS")
    straight, items = one(store), store.read_items(one(store))
    calls_of_a_whole_run = calls.stat().st_size
    for path in store.root.rglob("*.json*"):
        path.unlink()

    calls.write_text("")
    order.write_text(f"interrupt {call}")
    status, out, err = sweep(spec, "KS")
    assert status == 130
    assert "not run: KS × " in out
    assert "stopping after this step" in err
    assert store.read_all() == []

    calls.write_text("")
    status, out, _ = sweep(spec, "KS")
    assert status == 0
    assert calls.stat().st_size == calls_of_a_whole_run - steps_kept
    assert one(store).value == straight.value
    assert one(store).selection == straight.selection
    assert one(store).metrics == straight.metrics
    assert store.read_items(one(store)) == items


def test_interrupted_inside_an_accumulated_step(sweep, hubconf, store, overrides):
    """Gradients that are pending when Ctrl-C comes are not lost: the step is finished first."""
    overrides.write_text(
        "PR:\n  runner:\n    {total_steps: 3, eval_step: 3, save_step: 3, "
        "gradient_accumulate_steps: 2}\n"
    )
    spec = f"{hubconf}:energies"
    sweep(spec, "PR")
    straight, items = one(store), store.read_items(one(store))
    for path in store.root.rglob("*.json*"):
        path.unlink()
    (hubconf.parent / "calls").write_text("")
    (hubconf.parent / "order").write_text("interrupt 5")  # the first half of step 2
    assert sweep(spec, "PR")[0] == 130
    assert sweep(spec, "PR")[0] == 0
    assert one(store).metrics == straight.metrics
    assert store.read_items(one(store)) == items


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_that_dies_fails_its_run_and_the_others_go_on(sweep, hubconf, store):
    (hubconf.parent / "order").write_text("die 6")
    both = f"{hubconf}:energies,{hubconf}:twin"
    status, out, _ = sweep(both, "KS", "--jobs", "2")
    assert status == 1
    assert {record.status for record in store.read_all()} == {"done", "failed"}
    assert "it was ended from outside" in out
    status, out, _ = sweep(both, "KS")
    assert status == 0
    assert "1 new, 1 reused" in out


def test_two_sweeps_into_one_folder_share_the_work(
    sweep, hubconf, store, overrides, tiny_paths_file
):
    words = (
        "sweep", "--upstreams", f"{hubconf}:energies", "--tasks", "KS", "--scale", "embedded",
        "--paths", tiny_paths_file, "--overrides", overrides, "--results", store.root,
    )  # fmt: skip
    for process in [ready_processes.verb(*words) for _ in range(2)]:
        done = process.finished()
        assert done.returncode == 0, done.stderr
    assert one(store).status == "done"


def test_an_untrained_model_by_path_is_the_same_at_every_build(sweep, tmp_path, store):
    (tmp_path / "random.py").write_text(
        "import torch\n"
        "class Random(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(320, 4)\n"
        "    def get_downsample_rates(self, key):\n"
        "        return 320\n"
        "    def forward(self, wavs):\n"
        "        pad = torch.nn.functional.pad\n"
        "        frames = [pad(w, (0, 320)).unfold(0, 320, 320) for w in wavs]\n"
        "        rows = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)\n"
        "        return {'hidden_states': [self.layer(rows)]}\n"
        "def random(ckpt=None, **kwargs):\n"
        "    return Random()\n"
    )
    spec = f"{tmp_path / 'random.py'}:random"
    assert sweep(spec, "KS")[0] == 0
    _, out, _ = sweep(spec, "KS")
    assert "0 new, 1 reused" in out


def test_a_run_leaves_the_processs_arithmetic_as_it_was(sweep, hubconf):
    """Denormals are taken as 0 within a run only."""
    sweep(f"{hubconf}:energies", "KS")
    assert (torch.tensor([1e-38]) / 8).item() > 0


def test_a_task_or_an_upstream_that_is_named_twice_is_run_once(sweep, hubconf, monkeypatch):
    monkeypatch.chdir(hubconf.parent)
    _, out, _ = sweep("hubconf.py:energies", "KS,ks", "--dry-run")
    assert "1 run: 1 to run" in out
    status, _, err = sweep(f"./hubconf.py:energies,{hubconf}:energies", "KS", "--dry-run")
    assert status == 2
    assert "name it once" in err


def test_an_upstream_that_gives_nan_fails_at_once(sweep, hubconf, store):
    hubconf.write_text(hubconf.read_text().replace("torch.tanh(f @", "torch.nan * (f @"))
    assert sweep(f"{hubconf}:energies", "KS")[0] == 1
    assert "NaN or infinity" in one(store).reason
    assert (hubconf.parent / "calls").stat().st_size < 5


def test_killed_and_continued_equals_never_killed(
    sweep, hubconf, store, overrides, tiny_paths_file
):
    spec = f"{hubconf}:energies"
    sweep(spec, "PR")
    straight = one(store)
    for path in store.root.rglob("*.json*"):
        path.unlink()
    whole = (hubconf.parent / "calls").stat().st_size

    (hubconf.parent / "calls").write_text("")
    (hubconf.parent / "order").write_text(f"die {whole - 20}")
    command = [
        sys.executable, "-m", "superbit.benchmark.cli", "sweep", "--upstreams", spec,
        "--tasks", "PR", "--scale", "embedded", "--paths", str(tiny_paths_file),
        "--overrides", str(overrides), "--results", str(store.root),
    ]  # fmt: skip
    died = subprocess.run(command, capture_output=True, check=False)
    assert died.returncode == 1  # the process of the run is not the one that was called
    assert one(store).status == "failed"
    assert "SIGKILL" in one(store).reason
    assert list(store.root.glob("work/runs/*/checkpoint.pt"))

    (hubconf.parent / "calls").write_text("")
    status, out, _ = sweep(spec, "PR")
    assert status == 0
    assert "failed before" in out
    assert (hubconf.parent / "calls").stat().st_size < whole
    assert one(store).value == straight.value
    assert one(store).metrics == straight.metrics
    assert not list(store.root.glob("work/runs/*"))


def test_a_limited_run_never_enters_a_table(sweep, superbit, hubconf, store):
    status, _, _ = sweep(f"{hubconf}:energies", "KS", "--limit", "2")
    assert status == 0
    assert one(store).limited
    assert one(store).items.count < one(store).items.expected
    _, out, _ = superbit(
        "table", "2", "--results", store.root, "--source", "runs", "--format", "csv"
    )
    assert len(out.splitlines()) == 1


def test_a_dry_run_plans_and_writes_no_result(sweep, hubconf, store):
    status, out, _ = sweep(f"{hubconf}:energies,vanilla_nano", "KS,PR", "--dry-run")
    assert status == 0
    assert "4 runs: 4 to run, 0 done before." in out
    assert "× vanilla_nano " in out
    assert store.read_all() == []


def test_a_plan_estimates_training_by_earlier_runs_and_says_where_there_are_none(sweep, hubconf):
    spec = f"{hubconf}:energies"
    _, out, _ = sweep(spec, "KS,PR", "--dry-run")
    assert "training and evaluation of KS, PR: not known, as no run like it was done here" in out
    sweep(spec, "KS")
    _, out, _ = sweep(spec, "KS,PR", "--seed", "2", "--dry-run")
    assert "for 1 of 2 runs, one after the other, by 1 earlier run here (a run: KS " in out
    assert "training and evaluation of PR: not known" in out


def test_several_seeds_are_a_run_each_where_a_head_is_trained(sweep, hubconf, store):
    _, out, _ = sweep(f"{hubconf}:energies", "KS,QbE", "--seed", "7,8,7", "--dry-run")
    assert "3 runs: 3 to run, 0 done before." in out
    assert "KS × energies seed 8" in out.replace(f"{hubconf}:", "")
    status, _, err = sweep(f"{hubconf}:energies", "KS", "--seed", "7,x", "--dry-run")
    assert status == 2
    assert "--seed: 'x'" in err


def test_what_changes_the_key_is_run_again(sweep, hubconf, corpora):
    def runs_anew(*more, paths=corpora):
        _, out, _ = sweep(f"{hubconf}:energies", "KS", *more, "--dry-run", paths=paths)
        return "1 to run" in out

    sweep(f"{hubconf}:energies", "KS", paths=corpora)
    assert not runs_anew()
    assert runs_anew("--seed", "1")
    assert runs_anew("--lr", "0.5")
    assert runs_anew("--limit", "5")
    # The same corpus elsewhere is the same corpus; one changed byte makes another.
    moved = corpora.parent.rename(corpora.parent.with_name("moved")) / corpora.name
    assert not runs_anew(paths=moved)
    clip = next(moved.parent.glob("speech_commands/test/yes/*.wav"))
    other = next(moved.parent.glob("speech_commands/test/no/*.wav"))
    clip.write_bytes(other.read_bytes())
    assert runs_anew(paths=moved)


def test_a_changed_source_is_another_upstream(sweep, hubconf):
    sweep(f"{hubconf}:energies", "KS")
    hubconf.write_text(hubconf.read_text().replace("torch.tanh", "torch.sin"))
    _, out, _ = sweep(f"{hubconf}:energies", "KS", "--dry-run")
    assert "1 to run" in out


@pytest.mark.thorough
def test_s3prls_own_command_line_knows_our_upstreams(tiny_paths, tmp_path):
    import yaml

    from superbit.benchmark.tasks.binding import RunPlaces
    from superbit.benchmark.tasks.catalog import TASKS
    from superbit.benchmark.tasks.configs import resolve

    config = resolve("KS", scale="embedded", limit=2)
    config["runner"] |= {"eval_step": 2, "save_step": 2, "max_keep": 1}
    places = RunPlaces(paths=tiny_paths, work_dir=tmp_path)
    TASKS["KS"].binding.bind(config["downstream_expert"], places)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    main = "import superbit.upstreams; from s3prl.run_downstream import main; main()"
    run = partial(ready_processes.Program, main, "--device", "cpu", folder=tmp_path)
    train = run("-m", "train", "-u", "vanilla_nano", "-d", "speech_commands",
                "-c", "config.yaml", "-p", "exp")  # fmt: skip
    done = train.finished()
    assert done.returncode == 0, done.stderr[-2000:]
    done = run("-m", "evaluate", "-e", "exp/states-2.ckpt").finished()
    assert done.returncode == 0, done.stderr[-2000:]
    assert "test acc: " in done.stdout
    assert Path(tmp_path, "exp", "test_predict.txt").stat().st_size > 0
