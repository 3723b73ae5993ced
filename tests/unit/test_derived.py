"""What is derived and kept is what was written, or is made anew; a value is what its items give."""

import gzip
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from superbit.benchmark import cli
from superbit.benchmark.corpora import iemocap, libri2mix, librispeech, voxceleb1
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.running import checkpoints
from superbit.benchmark.scoring import recompute
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams import derived
from superbit.upstreams.errors import InputError

ROOT = Path(__file__).parents[2]


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def another(file):
    file.write_bytes(file.read_bytes().replace(b"1", b"2"))


@pytest.mark.parametrize("damage", [halve, empty, another, Path.unlink])
def test_what_takes_long_is_made_once_and_again_where_it_was_changed(tmp_path, damage):
    made, file = [], tmp_path / "lengths.json"

    def make():
        made.append(1)
        return '{"a": 11}'

    assert derived.kept_text(file, make) == derived.kept_text(file, make) == '{"a": 11}'
    assert len(made) == 1
    damage(file)
    assert derived.kept_text(file, make) == '{"a": 11}'
    assert len(made) == 2
    damage(derived._hash_of(file))
    assert derived.kept_text(file, make) == '{"a": 11}'


KINDS = {
    "folds": lambda paths, work: iemocap.write_folds(paths.section("iemocap"), work),
    "trials": lambda paths, work: voxceleb1.dev_trials(paths.section("voxceleb1"), work),
    "buckets": lambda paths, work: librispeech.write_length_buckets(
        paths.section("librispeech"), ["train-clean-100", "dev-clean"], work
    ),
    "Kaldi folders": lambda paths, work: libri2mix.bound_dirs(paths.section("libri2mix"), work),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_corpuss_derived_files_are_what_they_were_whatever_became_of_them(
    tiny_paths, tmp_path, kind
):
    KINDS[kind](tiny_paths, tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    if kind == "Kaldi folders" and not before:
        pytest.skip("the tiny corpus names its audio by absolute paths")
    for damage in (halve, empty, Path.unlink):
        for file in before:
            damage(file)
        KINDS[kind](tiny_paths, tmp_path)
        assert {file: file.read_bytes() for file in before} == before


def test_kaldi_folders_with_relative_paths_are_bound_anew(tiny_paths, tmp_path):
    section, root = tiny_paths.section("libri2mix"), tmp_path / "libri2mix"
    shutil.copytree(section.root, root)
    for wavs in root.rglob("wav.scp"):
        rows = [line.split(maxsplit=1) for line in wavs.read_text().splitlines()]
        wavs.write_text("".join(f"{name} {Path(path).name}\n" for name, path in rows))
        for _, path in rows:
            shutil.copy((wavs.parent / path).resolve(), wavs.parent / Path(path).name)
    copied = section.model_copy(update={"root": root})
    folders = libri2mix.bound_dirs(copied, tmp_path / "work")
    whole = (folders["test"] / "wav.scp").read_bytes()
    halve(folders["test"] / "wav.scp")
    assert libri2mix.bound_dirs(copied, tmp_path / "work") == folders
    assert (folders["test"] / "wav.scp").read_bytes() == whole


def test_hashes_that_somebody_changed_are_not_believed(tiny_paths, tmp_path):
    honest = build_manifest("quesst14", tiny_paths, work_dir=tmp_path).sha256
    (memory,) = (tmp_path / "manifests").glob("quesst14-*.json")
    held = json.loads(memory.read_text())
    name = next(iter(held["files"]))
    held["files"][name][3] = "0" * 64
    memory.write_text(json.dumps(held))
    assert build_manifest("quesst14", tiny_paths, work_dir=tmp_path).sha256 == honest


# --- a run's checkpoints --------------------------------------------------------------------------


class Training:
    """An experiment as far as its checkpoints are concerned."""

    def __init__(self):
        self.position, self.loaded = SimpleNamespace(step=0), []

    def state(self):
        return {"progress": {"step": self.position.step}, "weights": torch.arange(4000.0)}

    def load_state(self, state):
        self.position.step = state["progress"]["step"]


@pytest.fixture
def saved(tmp_path):
    """A run's folder after checkpoints at steps 1, 2 and 3."""
    training = Training()
    for step in (1, 2, 3):
        training.position.step = step
        checkpoints.save(tmp_path / checkpoints.CHECKPOINT, training, key="k")
    return tmp_path / checkpoints.CHECKPOINT


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [halve, empty, flip])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_goes_on(saved, damage):
    damage(saved)
    training = Training()
    said = checkpoints.resume(saved, training, key="k")
    assert training.position.step == 2
    assert "checkpoint.pt cannot be read" in said
    assert said.endswith("set aside as checkpoint.damaged.pt; the run goes on from step 2.")
    assert sorted(file.name for file in saved.parent.iterdir()) == [
        "checkpoint.before.pt", "checkpoint.damaged.pt"
    ]  # fmt: skip


def test_two_damaged_checkpoints_begin_the_run_anew(saved):
    for file in (saved, saved.with_name(checkpoints.BEFORE)):
        halve(file)
    training = Training()
    said = checkpoints.resume(saved, training, key="k")
    assert training.position.step == 0
    assert said.endswith("the run begins anew.")
    assert checkpoints.resume(saved, training, key="k") is None


def test_killed_between_two_renamings_the_one_before_goes_on(saved):
    saved.unlink()
    training = Training()
    assert checkpoints.resume(saved, training, key="k") is None
    assert training.position.step == 2


def test_another_runs_checkpoint_is_not_set_aside(saved):
    with pytest.raises(InputError, match="belongs to another run"):
        checkpoints.resume(saved, Training(), key="other")
    assert saved.exists()


# --- values and their items -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def records():
    """One done record a task of the results that come with superbit, with its items."""
    store, found = ResultStore(ROOT / "results" / "embedded"), {}
    for task in TASKS:
        for name in store._records(task).names():
            record = store.read_packed(store.root / task / name)
            if record.status == "done" and record.items is not None:
                found[task] = record, store.read_items(record)
                break
    return found


def test_every_task_gives_its_value_again_by_its_items(records):
    assert set(records) == set(TASKS)
    for task, (record, items) in records.items():
        assert recompute.value_of(task, items) == pytest.approx(record.value, abs=1e-6), task


def test_the_equal_error_rate_by_hand():
    def trials(*scores):
        return [{"score": score, "same_speaker": same} for score, same in scores]

    apart = trials((0.9, True), (0.8, True), (0.2, False), (0.1, False))
    assert recompute.value_of("ASV", apart) == 0.0
    mixed = trials((0.9, True), (0.7, False), (0.5, True), (0.1, False))
    assert recompute.value_of("ASV", mixed) == 50.0


def test_verify_names_what_was_changed(records, tmp_path, capsys):
    store = ResultStore(tmp_path)
    for record, items in list(records.values())[:3]:
        store.write(record.model_copy(update={"items": None}), items)
    assert cli.main(["results", "verify", str(tmp_path)]) == 0
    assert "is what its per-item counts give" in capsys.readouterr().out
    first, second, _ = sorted(tmp_path.glob("*/*.json"))
    held = json.loads(first.read_text())
    held["value"] += 1.0
    first.write_text(json.dumps(held, indent=2))
    items = second.with_name(second.name.removesuffix(".json") + ".items.jsonl.gz")
    lines = gzip.decompress(items.read_bytes()).splitlines(keepends=True)
    items.write_bytes(gzip.compress(b"".join(lines[1:])))
    assert cli.main(["results", "verify", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"{first.name}): the record says" in out
    assert f"{items.name} are not those the run wrote" in out
    assert out.endswith("2 records are not what the run wrote: restore or delete them.\n")
