"""A sweep from the command line to Table 2: reuse, failure, interruption, continuation."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from superbit.benchmark.results import ResultStore


@pytest.fixture
def sweep(superbit, tiny_paths_file, overrides, tmp_path):
    """``sweep("SPEC,SPEC", "KS", …)`` at the short config, into one results folder."""

    def call(upstreams, tasks, *more, paths=tiny_paths_file):
        return superbit(
            "sweep", "--upstreams", upstreams, "--tasks", tasks, "--scale", "embedded",
            "--paths", paths, "--overrides", overrides, "--results", tmp_path / "results", *more,
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
    (hubconf.parent / "order").write_text("fail 5")
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
        (2, 1),  # in step 1, after the featurizer's trial: saved because it was asked to stop
        (6, 2),  # in the evaluation after step 3: continues from the checkpoint of step 2
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
    assert died.returncode == -9
    assert store.read_all() == []
    assert list(store.root.glob("work/runs/*/checkpoint.pt"))

    (hubconf.parent / "calls").write_text("")
    status, out, _ = sweep(spec, "PR")
    assert status == 0
    assert "unfinished" in out
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
    assert "vanilla_nano+untrained" in out
    assert store.read_all() == []


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


def test_s3prls_own_command_line_knows_our_upstreams(tiny_paths, tmp_path):
    import yaml

    from superbit.benchmark.bindings import BINDINGS
    from superbit.benchmark.configs import resolve

    config = resolve("KS", scale="embedded", limit=2)
    config["runner"] |= {"eval_step": 2, "save_step": 2, "max_keep": 1}
    section = config["downstream_expert"]
    config["downstream_expert"] = BINDINGS["KS"].bind(section, tiny_paths, tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    main = "import superbit.upstreams; from s3prl.run_downstream import main; main()"
    run = [sys.executable, "-c", main, "--device", "cpu"]
    train = [*run, "-m", "train", "-u", "vanilla_nano", "-d", "speech_commands",
             "-c", "config.yaml", "-p", "exp"]  # fmt: skip
    done = subprocess.run(train, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    test = [*run, "-m", "evaluate", "-e", "exp/states-2.ckpt"]
    done = subprocess.run(test, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "test acc: " in done.stdout
    assert Path(tmp_path, "exp", "test_predict.txt").stat().st_size > 0
