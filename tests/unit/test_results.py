"""Records and their store: what changes a key, what is found again, what is refused."""

import copy
import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from superbit.benchmark.records import schema
from superbit.benchmark.records.canonical import canonical_json
from superbit.benchmark.records.provenance import Provenance
from superbit.benchmark.records.schema import (
    FURTHER_FIELDS,
    Chance,
    Corpus,
    Interval,
    Items,
    Point,
    RateSearch,
    RunIdentity,
    RunRecord,
    Selection,
    Tried,
)
from superbit.benchmark.records.store import ResultStore
from superbit.upstreams.errors import InputError

RESULTS_V1 = Path(__file__).parent / "data" / "results_v1"
README = Path(__file__).parents[2] / "results" / "README.md"

IDENTITY = {
    "upstream": "vanilla_nano+untrained",
    "weights_sha256": "5d" * 32,
    "upstream_revision": "1",
    "task": "KS",
    "task_revision": 1,
    "config": {"scale": "embedded", "runner": {"total_steps": 100}},
    "corpus_sha256": "0a" * 32,
    "learning_rate": 1e-4,
    "seed": 1337,
    "fold": None,
    "upstream_files_sha256": None,
    "upstream_config_sha256": "c0" * 32,
    "upstream_fingerprint": "f0" * 32,
}
OTHER_IDENTITY = {
    "upstream": "sparseformer_dn_nano+untrained",
    "weights_sha256": "5e" * 32,
    "upstream_revision": "2",
    "task": "PR",
    "task_revision": 2,
    "config": {"scale": "embedded", "runner": {"total_steps": 101}},
    "corpus_sha256": "0b" * 32,
    "learning_rate": 1e-3,
    "seed": 1338,
    "fold": 1,
    "upstream_files_sha256": "1e" * 32,
    "upstream_config_sha256": None,
    "upstream_fingerprint": "f1" * 32,
}
# every field of a record that is no part of its identity, with another value than `record` has
OTHER_CIRCUMSTANCES = {
    "value": 12.0,
    "metrics": {"test-acc": 0.12},
    "chance": Chance(value=8.3, method="the most frequent label, always: up"),
    "interval": Interval(low=0.0, high=1.0, level=0.9, method="other"),
    "items": Items(file="x.items.jsonl.gz", sha256="1" * 64, count=3, expected=4),
    "selection": Selection(rule="other", selected_on="test", step=1, score=0.1, checkpoint="last"),
    "corpus": Corpus(name="other", kind="real", version="9", sha256="0a" * 32, label="x"),
    "traceback": "RuntimeError: other",
    "layer_weights": [0.25, 0.75],
    "curve": [Point(step=1, score=0.5)],
    "diverged": 3,
    "search": RateSearch(rule="other", selected_on="dev", tried=[Tried(learning_rate=0.1)]),
    "provenance": Provenance(hostname="other"),
}
# fields that follow from the identity or from whether the run was done
DEPENDENT = {
    "schema_version",
    "key",
    "identity",
    "scale",
    "limited",
    "untrained",
    "status",
    "reason",
}
OTHER_PROVENANCE = {
    "features": {"kind": "pooled", "stored": 3},
    "superbit": "9.9",
    "commit": "f" * 40,
    "dirty": True,
    "python": "3.99",
    "versions": {"torch": "9.9"},
    "platform": "Other",
    "hostname": "other",
    "cpu": "other",
    "cpu_count": 999,
    "threads": 999,
    "gpu": "other",
    "command": ["other"],
    "started": "1999-01-01T00:00:00+00:00",
    "seconds": 99.0,
}


def identity(**changes: object) -> RunIdentity:
    return RunIdentity(**(IDENTITY | changes))


def record(run: RunIdentity | None = None, **changes: object) -> RunRecord:
    run = run or identity()
    values = {
        "key": run.key,
        "status": "done",
        "identity": run,
        "scale": run.config["scale"],
        "limited": "limit" in run.config,
        "untrained": "+untrained" in run.upstream,
        "value": 93.1,
        "metrics": {"test-acc": 0.931},
        "corpus": Corpus(name="speech_commands", kind="synthesized", sha256=run.corpus_sha256),
    }
    return RunRecord(**(values | changes))


def failed(run: RunIdentity | None = None, **changes: object) -> RunRecord:
    return record(
        run, **({"status": "failed", "value": None, "reason": "a.wav is empty."} | changes)
    )


# --- the key ---------------------------------------------------------------------------------


def test_the_identity_has_exactly_the_fields_of_the_run_key() -> None:
    assert set(RunIdentity.model_fields) == set(IDENTITY) == set(OTHER_IDENTITY)


@pytest.mark.parametrize("field", RunIdentity.model_fields)
def test_another_identity_is_another_run(field: str, tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.write(record())
    changed = identity(**{field: OTHER_IDENTITY[field]})
    assert changed.key != identity().key
    assert store.find(changed) is None
    assert store.find(identity()) is not None


@pytest.mark.parametrize("field", IDENTITY)
@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
def test_a_changed_copy_has_its_own_key(field: str, deep: bool) -> None:
    """What is cached of an identity is of its fields: no copy may bring it along."""
    first = identity()
    assert first.key_without_rate != first.key  # now both are cached
    changed = first.model_copy(update={field: OTHER_IDENTITY[field]}, deep=deep)
    afresh = identity(**{field: OTHER_IDENTITY[field]})
    assert (changed.key, changed.key_without_rate) == (afresh.key, afresh.key_without_rate)
    assert changed.key_without_rate == changed.without_rate.key
    assert changed.key != first.key == identity().key


def test_a_cached_key_is_no_part_of_what_an_identity_is() -> None:
    hashed, afresh = identity(), identity()
    key = hashed.key
    assert hashed == afresh
    assert hashed.model_dump() == afresh.model_dump()
    assert hashed.model_dump_json() == afresh.model_dump_json()
    for copied in (copy.copy(hashed), copy.deepcopy(hashed), hashed.model_copy()):
        assert copied == hashed
        assert copied.__dict__.keys() == RunIdentity.model_fields.keys()
    assert pickle.loads(pickle.dumps(hashed)).key == key
    for field in ("key", "without_rate", "seed"):
        with pytest.raises((AttributeError, ValidationError)):
            setattr(hashed, field, 1)
    assert hashed.key == key


def test_an_identity_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr(schema, "canonical_json", lambda v: hashed.append(v) or canonical_json(v))
    once = identity()
    of_the_config = len(hashed)
    assert len({once.key for _ in range(5)}) == 1
    assert len({once.without_rate.key for _ in range(5)}) == 1
    assert len(hashed) == of_the_config + 2
    assert len({once.key_without_rate for _ in range(5)}) == 1
    assert len(hashed) == of_the_config + 3


@pytest.mark.parametrize("field", sorted(set(RunRecord.model_fields) - DEPENDENT))
def test_other_circumstances_are_the_same_run(field: str, tmp_path: Path) -> None:
    changed = record(**{field: OTHER_CIRCUMSTANCES[field]})
    assert getattr(changed, field) != getattr(record(), field)
    store = ResultStore(tmp_path)
    store.write(changed)
    assert changed.key == record().key
    assert store.find(identity()) == changed


@pytest.mark.parametrize("field", Provenance.model_fields)
def test_other_provenance_is_the_same_run(field: str, tmp_path: Path) -> None:
    elsewhere = Provenance(**{field: OTHER_PROVENANCE[field]})
    assert elsewhere != Provenance()
    store = ResultStore(tmp_path)
    store.write(record(provenance=elsewhere))
    found = store.find(identity())
    assert found is not None
    assert found.provenance == elsewhere


def test_the_key_is_the_sha256_of_sorted_compact_json() -> None:
    # written out by hand and hashed by coreutils' sha256sum
    text = (
        '{"config":{"scale":"superb"},"corpus_sha256":"b","fold":null,"learning_rate":1e-05,'
        '"seed":0,"task":"KS","task_revision":1,"upstream":"fbank","upstream_revision":"1",'
        '"weights_sha256":"a"}'
    )
    run = RunIdentity(
        upstream="fbank", weights_sha256="a", upstream_revision="1", task="KS", task_revision=1,
        config={"scale": "superb"}, corpus_sha256="b", learning_rate=1e-5, seed=0, fold=None,
    )  # fmt: skip
    assert canonical_json(run.model_dump()) == text
    assert run.key == "eca3081a9200241a3a24b951d9833a6abe3631741fa7b93f188dde7e3bbd8576"


@pytest.mark.parametrize("field", FURTHER_FIELDS)
def test_what_an_older_record_lacks_is_no_part_of_its_key(field: str) -> None:
    older = identity(**dict.fromkeys(FURTHER_FIELDS))
    assert not set(FURTHER_FIELDS) & set(older.model_dump())
    lacks_them = {k: v for k, v in IDENTITY.items() if k not in FURTHER_FIELDS}
    assert RunIdentity(**lacks_them).key == older.key
    newer = older.model_copy(update={field: "1e" * 32})
    assert newer.key != older.key
    assert RunIdentity.model_validate(newer.model_dump()) == newer


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


def _reversed(value: object) -> object:
    if isinstance(value, dict):
        return {k: _reversed(value[k]) for k in reversed(value)}
    return [_reversed(v) for v in value] if isinstance(value, list) else value


@settings(max_examples=50, deadline=None)
@given(config=st.dictionaries(st.text(st.characters(codec="utf-8")), json_values, max_size=4))
def test_the_key_survives_key_order_and_the_disk(config: dict) -> None:
    run = identity(config=config)
    assert identity(config=_reversed(config)).key == run.key
    on_disk = json.dumps(run.model_dump(), ensure_ascii=False).encode()
    assert RunIdentity.model_validate(json.loads(on_disk)).key == run.key


@pytest.mark.parametrize(
    "config", [{"lr": float("nan")}, {"lr": [float("inf")]}, {1: "one"}, {"path": Path("x")}]
)
def test_a_config_that_json_cannot_hold_is_refused(config: dict) -> None:
    with pytest.raises(ValidationError, match="config"):
        identity(config=config)


def test_a_config_changed_outside_does_not_change_the_key() -> None:
    config = {"scale": "embedded", "runner": {"total_steps": 100}}
    run = identity(config=config)
    before = run.key
    config["runner"]["total_steps"] = 5
    assert run.key == before


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("upstream", "bq_vanilla_nano", "vanilla_nano\\+policy=w1a1"),
        ("upstream", "a+policy=x+untrained", "canonical spelling"),
        ("upstream", "@weights.pt", "grammar"),
        ("task", "ks", "not one of ASR, KS"),
        ("seed", "1337", "integer"),
        ("learning_rate", "1e-4", "number"),
    ],
)
def test_an_identity_that_could_be_spelled_two_ways_is_refused(
    field: str, value: object, says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        identity(**{field: value})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"key": "0" * 64}, "hash of identity"),
        ({"value": None}, "needs a value"),
        ({"value": float("nan")}, "finite"),
        ({"metrics": {"test-acc": float("inf")}}, "finite"),
        ({"reason": "but why."}, "no reason"),
        ({"status": "failed"}, "needs a reason"),
        ({"status": "failed", "reason": "x.", "value": 1.0}, "no value"),
        ({"status": "failed", "reason": "a\nb", "value": None}, "one line"),
        ({"scale": "superb"}, "scale"),
        ({"limited": True}, "limited"),
        ({"untrained": False}, "untrained"),
        ({"corpus": None}, "corpus"),
        ({"corpus": Corpus(name="c", kind="real", sha256="other")}, "corpus"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        record(**changes)


def test_an_interval_upside_down_is_refused() -> None:
    with pytest.raises(ValidationError, match="above"):
        Interval(low=2.0, high=1.0, level=0.95, method="Wilson score")


# --- the store -------------------------------------------------------------------------------


def results_in(folder: Path) -> list[Path]:
    """Every file but the locks, which lie in the folder of work in progress."""
    return [p for p in folder.rglob("*") if p.is_file() and folder / "work" not in p.parents]


ITEMS = [{"id": "a", "correct": True}, {"id": "ü\u2028", "correct": False, "label": "yes"}]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    written = store.write(record(), ITEMS, expected_items=3)
    assert (written.items.count, written.items.expected) == (2, 3)
    assert store.find(identity()) == written
    assert store.read_all() == [written]
    assert store.read_items(written) == ITEMS
    files = sorted(p.relative_to(tmp_path).as_posix() for p in results_in(tmp_path))
    stem = f"KS/vanilla_nano-untrained-{identity().key[:16]}"
    assert files == [f"{stem}.items.jsonl.gz", f"{stem}.json"]


def test_the_same_items_give_the_same_bytes(tmp_path: Path) -> None:
    reordered = [dict(reversed(item.items())) for item in ITEMS]
    first = ResultStore(tmp_path / "a").write(record(), ITEMS)
    second = ResultStore(tmp_path / "b").write(record(), reordered)
    assert first == second
    packed = (tmp_path / "a" / "KS" / first.items.file).read_bytes()
    assert packed == (tmp_path / "b" / "KS" / first.items.file).read_bytes()
    assert len(gzip.decompress(packed).splitlines()) == 2


@pytest.mark.parametrize("successor", [record, failed])
def test_a_done_record_is_never_overwritten(tmp_path: Path, successor) -> None:
    store = ResultStore(tmp_path)
    store.write(record(), ITEMS)
    before = {p: p.read_bytes() for p in results_in(tmp_path)}
    later = successor(metrics={"test-acc": 0.5})
    with pytest.raises(FileExistsError, match="never overwritten"):
        store.write(later, [{"id": "z"}] if later.status == "done" else None)
    assert {p: p.read_bytes() for p in results_in(tmp_path)} == before


def test_a_failed_record_is_no_result_and_may_be_replaced(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.write(failed(corpus=None))
    assert store.find(identity()) is None
    store.write(failed(reason="b.wav is empty."))
    assert [r.reason for r in store.read_all()] == ["b.wav is empty."]
    done = store.write(record(), ITEMS)
    assert store.read_all() == [done]


def test_of_two_that_finish_at_once_one_wins_whole(tmp_path: Path) -> None:
    refused = []
    start = threading.Barrier(4)

    def finish(number: int) -> None:
        start.wait()
        try:
            ResultStore(tmp_path).write(
                record(metrics={"writer": float(number)}), [{"writer": number}] * 50
            )
        except FileExistsError:
            refused.append(number)

    threads = [threading.Thread(target=finish, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = ResultStore(tmp_path)
    (winner,) = store.read_all()
    assert len(refused) == 3
    assert {item["writer"] for item in store.read_items(winner)} == {winner.metrics["writer"]}


@pytest.mark.parametrize("crash_at", [1, 2])
def test_a_crash_while_writing_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    store = ResultStore(tmp_path)
    calls = []

    def crash(source: object, target: object, real=os.replace) -> None:
        calls.append(target)
        if len(calls) == crash_at:
            raise OSError("no space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="no space"):
        store.write(record(), ITEMS)
    monkeypatch.undo()
    assert store.read_all() == []
    assert store.find(identity()) is None
    left = [p.name for p in results_in(tmp_path)]
    assert [name for name in left if not name.endswith(".items.jsonl.gz")] == []
    assert store.read_items(store.write(record(), ITEMS)) == ITEMS


@pytest.mark.parametrize("item", [{"score": float("nan")}, {"path": Path("x")}, {1: 2}])
def test_an_item_that_json_cannot_hold_writes_nothing(tmp_path: Path, item: dict) -> None:
    with pytest.raises(ValueError, match="value"):
        ResultStore(tmp_path).write(record(), [item])
    assert not any(p.is_file() for p in tmp_path.rglob("*"))


def test_items_of_a_failed_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="done record"):
        ResultStore(tmp_path).write(failed(), ITEMS)


def test_records_come_in_the_paper_s_order_and_other_folders_do_not_matter(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for task in ("PR", "KS", "ASR"):
        store.write(record(identity(task=task)))
    for folder in ("work", "tables"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "state.json").write_text("not a record")
    (tmp_path / "KS" / ".half.json.0.part").write_text("{")
    assert [r.identity.task for r in store.read_all()] == ["ASR", "KS", "PR"]


def test_no_folder_is_no_results_and_a_file_is_a_mistake(tmp_path: Path) -> None:
    assert ResultStore(tmp_path / "absent").read_all() == []
    with pytest.raises(InputError, match="does not exist"):
        ResultStore(tmp_path / "absent").require_folder()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give the folder"):
        ResultStore(tmp_path / "file").read_all()


def test_an_upstream_given_by_path_makes_one_file_in_the_task_s_folder(tmp_path: Path) -> None:
    run = identity(upstream="../a b/hubconf.py:my_model@/weights/" + "w" * 300 + ".pt")
    store = ResultStore(tmp_path)
    store.write(record(run))
    assert store.path(run).parent == tmp_path / "KS"
    assert len(store.path(run).name) < 128
    assert store.find(run) is not None


# --- damage ----------------------------------------------------------------------------------


def _edit(change) -> object:
    def damage(path: Path) -> None:
        raw = json.loads(path.read_text())
        change(raw)
        path.write_text(json.dumps(raw))

    return damage


DAMAGES = {
    "not JSON": (lambda p: p.write_text("oops"), "not JSON"),
    "empty": (lambda p: p.write_text(""), "not JSON"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:200]), "not JSON"),
    "binary": (lambda p: p.write_bytes(b"\xff\xfe\x00"), "not JSON"),
    "NaN": (lambda p: p.write_text(p.read_text().replace("93.1", "NaN")), "NaN"),
    "a list": (lambda p: p.write_text("[]"), "schema_version"),
    "a later schema": (_edit(lambda r: r.update(schema_version=2)), "schema_version is 2, not 1"),
    "no schema": (_edit(lambda r: r.pop("schema_version")), "schema_version"),
    "another key": (_edit(lambda r: r.update(key="0" * 64)), "hash of identity"),
    "an edited identity": (_edit(lambda r: r["identity"].update(seed=1)), "hash of identity"),
    "a key too many": (_edit(lambda r: r.update(note="x")), "note"),
    "a key too few": (_edit(lambda r: r.pop("status")), "status"),
    "a number as text": (_edit(lambda r: r.update(value="93")), "value"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_record_is_named_and_never_used_or_replaced(tmp_path: Path, name: str) -> None:
    damage, says = DAMAGES[name]
    store = ResultStore(tmp_path)
    store.write(record())
    path = store.path(identity())
    damage(path)
    damaged = path.read_bytes()
    for use in (store.read_all, lambda: store.find(identity()), lambda: store.write(record())):
        with pytest.raises(InputError, match=says) as caught:
            use()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == damaged


def test_a_renamed_record_is_named(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.write(record())
    path = store.path(identity())
    shutil.copy(path, path.with_name("copy of it.json"))
    with pytest.raises(InputError, match=r"copy of it\.json.*belongs"):
        store.read_all()


def test_altered_or_missing_items_are_named(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    written = store.write(record(), ITEMS)
    sidecar = tmp_path / "KS" / written.items.file
    sidecar.write_bytes(gzip.compress(b'{"id":"a","correct":false}\n'))
    with pytest.raises(InputError, match=r"items\.jsonl\.gz are not those"):
        store.read_items(written)
    sidecar.unlink()
    with pytest.raises(InputError, match=r"items\.jsonl\.gz are missing"):
        store.read_items(written)
    assert store.read_items(record()) == []


# --- what stays ------------------------------------------------------------------------------


def test_records_of_schema_version_1_still_load(tmp_path: Path) -> None:
    shutil.copytree(RESULTS_V1, tmp_path / "copy")
    store = ResultStore(tmp_path / "copy")
    broken, done = store.read_all()
    assert (broken.status, broken.reason) == ("failed", "a.wav holds no samples.")
    # written down when the fixture was made: the key of a run must never move
    assert done.key == "7e5cc75baf49237d6d79f1ba7152d2829652ab0cef3d29cdfe7e751a2f2d1c55"
    assert done.value == 37.5
    counts = [(item["errors"], item["length"]) for item in store.read_items(done)]
    assert counts == [(1, 2), (2, 6)]
    assert store.find(done.identity) == done


@pytest.mark.parametrize(
    "model",
    [
        *(RunRecord, RunIdentity, Selection, Interval, Items, Corpus, Provenance, Point),
        *(RateSearch, Tried),
    ],
)
def test_every_key_is_explained_in_the_readme(model: type) -> None:
    text = README.read_text()
    assert [field for field in model.model_fields if f"`{field}`" not in text] == []


def test_results_and_tables_load_neither_torch_nor_s3prl_nor_scipy() -> None:
    code = (
        "import sys; import superbit.benchmark.tables.table2, superbit.benchmark.records.store; "
        "import superbit.benchmark.scoring.statistics; "
        "import superbit.benchmark.records.provenance as p; p.collect();"
        "print([m for m in ('torch', 's3prl', 'scipy', 'torchaudio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
