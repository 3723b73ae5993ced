"""Stored features in a sweep: same numbers, and what happens when something goes wrong."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import ready_processes
import torch

from superbit.benchmark.features import extraction
from superbit.benchmark.features.store import FeatureStore
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.running import checkpoints

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("forked_workers")]

SHORT = """
KS: {runner: {total_steps: 40, eval_step: 40, save_step: 4, log_step: 2}}
PR: {runner: {total_steps: 40, eval_step: 20, save_step: 20}}
"""


@pytest.fixture
def words(tiny_paths_file, tmp_path):
    """The words of a sweep over an upstream, for this process or another."""
    (tmp_path / "short.yaml").write_text(SHORT)

    def of(upstream, tasks, *more, paths=tiny_paths_file, results="results"):
        return [
            "sweep", "--upstreams", upstream, "--tasks", tasks, "--scale", "embedded",
            "--paths", paths, "--overrides", tmp_path / "short.yaml",
            "--results", tmp_path / results, *more,
        ]  # fmt: skip

    return of


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


def shards(tmp_path, results="results"):
    return sorted((tmp_path / results / "work" / "features").glob("*/*/*.json"))


def all_features(tmp_path, results):
    """(kind, waveform) → bytes; each waveform is stored once."""
    found = {}
    for folder in {index.parent for index in shards(tmp_path, results)}:
        store = FeatureStore(folder, dtype=folder.name.split("-")[1])
        keys = [k for i in folder.glob("*.json") for k in json.loads(i.read_text())["entries"]]
        assert len(keys) == len(set(keys)) == len(store)
        found |= {(folder.name, key): store.read(key).tobytes() for key in keys}
    return found


def test_a_stored_sweep_gives_the_live_sweeps_numbers(superbit, words, hubconf, store, tmp_path):
    spec = f"{hubconf}:energies"
    status, out, _ = superbit(*words(spec, "KS,PR"))
    assert status == 0
    assert "stored: mean over time of" in out
    calls = (hubconf.parent / "calls").stat().st_size
    (hubconf.parent / "calls").write_text("")
    superbit(*words(spec, "KS,PR", "--no-cache", results="live"))
    assert calls < (hubconf.parent / "calls").stat().st_size
    live = ResultStore(tmp_path / "live").read_all()
    for mine, theirs in zip(store.read_all(), live, strict=True):
        # The key is the same: features are provenance.
        assert mine.key == theirs.key
        items = zip(store.read_items(mine), ResultStore(tmp_path / "live").read_items(theirs),
                    strict=True)  # fmt: skip
        assert sum(a != b for a, b in items) <= 1
        assert theirs.provenance.features is None
        assert mine.provenance.features["stored"] > 0
        assert mine.provenance.features["deviation"] == 0.0
    kinds = {r.identity.task: r.provenance.features["precision"] for r in store.read_all()}
    assert kinds == {"KS": "float32", "PR": "float16"}


def test_ls_and_prune(superbit, words, hubconf, tmp_path):
    spec = f"{hubconf}:energies"
    superbit(*words(spec, "KS"))
    where = ("--results", tmp_path / "results")
    _, out, _ = superbit("cache", "ls", *where)
    assert "energies" in out
    status, _, err = superbit("cache", "prune", "--upstream", "vanilla", *where)
    assert status == 2
    assert "energies" in err
    _, out, _ = superbit("cache", "prune", "--to", "1GB", *where)
    assert out == "0 B freed.\n"
    _, out, _ = superbit("cache", "prune", "--all", *where)
    assert "deleted: " in out
    assert shards(tmp_path) == []


def test_other_bytes_at_one_path_are_other_features(superbit, words, hubconf, corpora, tmp_path):
    spec = f"{hubconf}:energies"
    superbit(*words(spec, "KS", paths=corpora))

    def known():
        return {
            key for index in shards(tmp_path) for key in json.loads(index.read_text())["entries"]
        }

    before = known()
    yes = sorted((corpora.parent / "speech_commands" / "train" / "yes").glob("*.wav"))
    shutil.copy(yes[0], yes[1])
    superbit(*words(spec, "KS", paths=corpora))
    # The copy's bytes are known already: nothing new, and the changed path reads the right ones.
    assert known() == before
    shutil.copy(next((corpora.parent / "IEMOCAP").rglob("*.wav")), yes[1])
    superbit(*words(spec, "KS", paths=corpora))
    assert len(known()) == len(before) + 1


def test_killed_in_extraction_and_continued(superbit, words, hubconf, store, tmp_path):
    spec = f"{hubconf}:energies"
    (hubconf.parent / "order").write_text("die 25")
    died = ready_processes.verb(*words(spec, "KS,PR")).finished()
    assert died.returncode == -9
    written = {index: index.read_bytes() for index in shards(tmp_path)}
    assert written
    status, out, _ = superbit(*words(spec, "KS,PR"))
    assert status == 0, out
    assert {record.status for record in store.read_all()} == {"done"}
    for index, content in written.items():  # what was written before counts
        assert index.read_bytes() == content
    assert not list((tmp_path / "results" / "work" / "features").rglob("*.partial"))
    superbit(*words(spec, "KS,PR", results="straight"))
    assert all_features(tmp_path, "results") == all_features(tmp_path, "straight")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupted_in_extraction_and_continued(superbit, words, hubconf, store, jobs):
    both = words(f"{hubconf}:energies,{hubconf}:twin", "KS", "--jobs", jobs)
    (hubconf.parent / "order").write_text("interrupt 20")
    status, out, err = superbit(*both)
    assert status == 130
    assert "stopping after this step" in err
    assert out.count("not run: KS × ") == 2
    assert store.read_all() == []
    assert superbit(*both)[0] == 0
    assert [record.status for record in store.read_all()] == ["done", "done"]


def test_killed_while_other_processes_extract_and_continued(
    superbit, words, hubconf, store, tmp_path
):
    spec = f"{hubconf}:energies"
    (hubconf.parent / "order").write_text("orphan 60")
    script = (
        "import sys; from superbit.benchmark import cli; "
        "from superbit.benchmark.features import extraction, supply; "
        "supply._SECONDS_WORTH_PROCESSES = 0; extraction._SHORT_CHUNK_SECONDS = 5; "
        "cli.main(sys.argv[1:])"
    )
    two = words(spec, "KS", "--jobs", "2")
    died = ready_processes.Program(script, *two).finished()
    assert died.returncode == -9, died.stderr
    written = {index: index.read_bytes() for index in shards(tmp_path)}
    assert written
    status, out, _ = superbit(*words(spec, "KS"))
    assert status == 0, out
    assert [record.status for record in store.read_all()] == ["done"]
    for index, content in written.items():
        assert index.read_bytes() == content
    superbit(*words(spec, "KS", results="straight"))
    assert all_features(tmp_path, "results") == all_features(tmp_path, "straight")


def test_a_cache_that_another_sweep_fills_meanwhile(
    superbit, words, hubconf, store, tmp_path, monkeypatch
):
    spec, cache = f"{hubconf}:energies", tmp_path / "shared"
    monkeypatch.setattr(extraction, "CHUNK_SECONDS", 20.0)
    compute_chunk = extraction.compute_chunk

    def and_another_fills(*arguments):
        with (cache / "another").open("wb") as file:
            file.truncate(extraction.SHARD_BYTES)
        return compute_chunk(*arguments)

    monkeypatch.setattr(extraction, "compute_chunk", and_another_fills)
    status, _, err = superbit(
        *words(spec, "KS", "--cache-dir", cache, "--cache-budget", extraction.SHARD_BYTES)
    )
    assert status == 0
    assert "the cache is full by now" in err
    (record,) = store.read_all()
    used = record.provenance.features
    assert 0 < used["stored"] < used["live"]
    superbit(*words(spec, "KS", "--no-cache", results="live"))
    (live,) = ResultStore(tmp_path / "live").read_all()
    assert record.value == live.value


def test_killed_in_training_continues_at_the_step_of_its_checkpoint(
    superbit, words, hubconf, store, monkeypatch, tmp_path
):
    spec = f"{hubconf}:energies"
    superbit(*words(spec, "KS", results="straight"))
    (straight,) = ResultStore(tmp_path / "straight").read_all()
    shutil.copytree(tmp_path / "straight" / "work" / "features", tmp_path / "features")
    cache = ("--cache-dir", tmp_path / "features")
    # With all else stored, the upstream runs for silence crops only: nearly once a step.
    (hubconf.parent / "calls").write_text("")
    (hubconf.parent / "order").write_text("die 30")
    died = ready_processes.verb(*words(spec, "KS", *cache)).finished()
    assert died.returncode == -9
    (checkpoint,) = store.root.glob("work/runs/*/checkpoint.pt")
    step = torch.load(checkpoint, weights_only=False)["progress"]["step"]

    resumed_at = []
    load = checkpoints.load

    def noting(file, experiment, *, key):
        load(file, experiment, key=key)
        resumed_at.append(experiment.position.step)

    monkeypatch.setattr(checkpoints, "load", noting)
    status, _, _ = superbit(*words(spec, "KS", *cache))
    assert status == 0
    assert step > 0
    assert resumed_at == [step]
    (record,) = store.read_all()
    assert (record.value, record.metrics) == (straight.value, straight.metrics)


def test_two_sweeps_compute_each_feature_once(words, hubconf, tmp_path):
    spec, cache = f"{hubconf}:energies", ("--cache-dir", tmp_path / "shared")
    sweeps = [
        ready_processes.verb(*words(spec, "KS,PR", *cache, results=f"results{n}")) for n in (1, 2)
    ]
    for sweep in sweeps:
        done = sweep.finished()
        assert done.returncode == 0, done.stderr
    for folder in (tmp_path / "shared").glob("*/*-float*"):
        keys = [
            key
            for index in folder.glob("*.json")
            for key in json.loads(index.read_text())["entries"]
        ]
        assert len(keys) == len(set(keys)) > 0
        store = FeatureStore(folder, dtype=folder.name.split("-")[1])
        assert all(store.read(key) is not None for key in keys)
    values = [
        [record.value for record in ResultStore(tmp_path / f"results{n}").read_all()]
        for n in (1, 2)
    ]
    assert values[0] == values[1]


def test_a_damaged_shard_is_computed_anew(superbit, words, hubconf, store, tmp_path):
    spec = f"{hubconf}:energies"
    superbit(*words(spec, "KS"))
    (straight,) = store.read_all()
    for path in store.root.glob("KS/*"):
        path.unlink()
    for data in store.root.glob("work/features/*/pooled*/*.bin"):
        content = bytearray(data.read_bytes())
        content[::101] = bytes(b ^ 255 for b in content[::101])
        data.write_bytes(content)
    status, _, _ = superbit(*words(spec, "KS"))
    (record,) = store.read_all()
    assert status == 0
    assert record.provenance.features["damaged"] > 0
    assert record.value == straight.value


def test_a_full_disk(words, superbit, hubconf, tmp_path, monkeypatch):
    spec = f"{hubconf}:wide"
    monkeypatch.setattr(extraction, "SHARD_BYTES", 2**20)
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs needs the right to mount one")
    try:
        status, _, err = superbit(*words(spec, "PR", "--cache-dir", small))
        assert status == 0  # what is not stored is computed live: a night is not lost
        assert "what is not stored stays live: " in err
        assert "the disk is full: free some space" in err
        assert not list(small.rglob("*.partial"))
        written = {file: file.read_bytes() for file in small.rglob("*.bin")}
        assert len(written) > 1
        subprocess.run(["mount", "-o", "remount,size=500m", small], check=True)
        status, _, _ = superbit(*words(spec, "PR", "--cache-dir", small, results="anew"))
        assert status == 0
        assert len(list(small.rglob("*.bin"))) > len(written)
        assert {file: file.read_bytes() for file in written} == written
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_upstream_that_depends_on_the_batch_is_stored_if_asked_for(
    superbit, words, hubconf, store
):
    spec = f"{hubconf}:leaking"
    _, out, _ = superbit(*words(spec, "KS", "--dry-run"))
    assert "live: an utterance's features depend on its batch" in out
    assert "--cache-any-upstream" in out
    status, _, _ = superbit(*words(spec, "KS", "--cache-any-upstream"))
    assert status == 0
    (record,) = store.read_all()
    assert record.provenance.features["stored"] > 0
    assert 1e-3 < record.provenance.features["deviation"] < 1


def test_a_plan_says_what_is_stored_and_what_it_costs(superbit, words, hubconf, tmp_path):
    status, out, _ = superbit(*words(f"{hubconf}:energies", "KS,PR", "--dry-run"))
    assert status == 0
    assert not shards(tmp_path)
    waveforms = 512
    size = f"{waveforms * 1 * 8 * 4 / 1000:.1f} kB"  # one layer, eight wide, float32
    assert f"KS   stored: mean over time of {waveforms} waveforms, 0.14 h of audio" in out
    assert f"({waveforms} to compute, {size}); live: random crops of 8 files, 8.3 %" in out
    assert "PR   stored: all frames of 228 waveforms, 0.11 h of audio" in out
    assert "each waveform is used 1.9 times" in out  # PR: (40 × 8 + 64 + 2 × 24) of 228
    assert "1 h of audio takes" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cache-budget", "1MB"), "hold not even one shard"),
        (("--cache-budget", "much"), "'much' is no size"),
        (("--cache-dir", "FILE/features"), "cannot be written to"),
        (("--assume", "superb-sizes"), "say --dry-run"),
    ],
)
def test_bad_options(superbit, words, tmp_path, options, said):
    (tmp_path / "FILE").write_text("")
    options = [str(tmp_path / o) if o.startswith("FILE") else o for o in options]
    status, _, err = superbit(*words("vanilla_nano", "KS", *options))
    assert status == 2
    assert said in err
    assert err.count("\n") == 1


def test_a_plan_for_superb_without_any_corpus(superbit, tmp_path):
    status, out, _ = superbit(
        "sweep", "--dry-run", "--assume", "superb-sizes", "--upstreams", "vanilla_nano",
        "--tasks", "PR,SID,KS", "--scale", "superb", "--results", tmp_path / "r",
    )  # fmt: skip
    assert status == 0
    assert "PR   stored: all frames of 33,862 waveforms, 111.40 h of audio" in out
    assert "live: random crops of 6 files, 8.3 % of training draws" in out
    assert not Path(tmp_path / "r").exists()
    assert os.listdir(tmp_path) == []
