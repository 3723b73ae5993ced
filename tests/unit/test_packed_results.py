"""Packed results: the same records, bytes and behaviour as single files, wherever packing stops."""

import gzip
import os
import pickle
import random
import shutil
from pathlib import Path

import pytest

from superbit.benchmark.cli import main
from superbit.benchmark.records import packed
from superbit.benchmark.records.packed import Pack
from superbit.benchmark.records.packing import pack, unpack
from superbit.benchmark.records.rate_search import declared_by
from superbit.benchmark.records.schema import (
    UNKNOWN,
    Corpus,
    RateSearch,
    RunIdentity,
    RunRecord,
    Tried,
)
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.tables.table2 import table2
from superbit.benchmark.tables.table2_rendering import render_table2
from superbit.upstreams.errors import InputError

RATES = (0.1, 0.01)


def identity(task="KS", **changes):
    return RunIdentity(
        **{
            "upstream": "vanilla_nano",
            "weights_sha256": "5d" * 32,
            "upstream_revision": "1",
            "task": task,
            "task_revision": 1,
            "config": {"scale": "embedded", "optimizer": {"lr": 1e-3, "name": "Adam"}},
            "corpus_sha256": "0a" * 32,
            "learning_rate": 1e-3,
            "seed": 1,
            "fold": None,
        }
        | changes
    )


def record(run=None, **changes):
    run = run or identity()
    values = {
        "key": run.key,
        "status": "done",
        "identity": run,
        "scale": "embedded",
        "limited": False,
        "untrained": False,
        "value": 93.1,
        "corpus": Corpus(name="c", kind="real", sha256=run.corpus_sha256, label="größer\u2028"),
    }
    return RunRecord(**(values | changes))


def failed(run=None, **changes):
    return record(run, **{"status": "failed", "value": None, "reason": "a.wav is empty."} | changes)


def items_of(run):
    return [{"id": f"{run.task} {n}", "reference": "äh\u2028\n", "correct": True} for n in range(3)]


def search(rates=RATES):
    tried = [Tried(learning_rate=rate, score=rate) for rate in rates]
    return RateSearch(rule="best on dev", selected_on="dev", tried=tried, chosen=rates[0])


def filled(root):
    """A store with all kinds: done and failed runs, searches that records name and do not."""
    store = ResultStore(root)
    candidates = [identity(learning_rate=rate) for rate in RATES]
    for run in candidates:
        store.write(record(run, search=search()), items_of(run))
    store.declare(declared_by(candidates))
    store.write(record(identity("PR")), items_of(identity("PR")))
    store.write(record(identity("ASR")))
    store.write(failed(identity("ASR", seed=2)))
    store.declare(declared_by(identity("ASR", learning_rate=rate) for rate in RATES))
    return store


def held(root):
    """All that a store tells to those who read it."""
    store = ResultStore(root)
    records = store.read_all()
    return (
        records,
        [store.read_items(each) for each in records],
        sorted(each.key for each in store.read_searches()),
    )


def files(root):
    """Every file but the locks, which lie in the folder of work in progress."""
    of_results = [p for p in root.rglob("*") if p.is_file() and root / "work" not in p.parents]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in of_results}


PACKS = {
    *("ASR.jsonl.gz", "KS.jsonl.gz", "KS.items.jsonl.gz", "PR.jsonl.gz", "PR.items.jsonl.gz"),
    "searches.jsonl.gz",
}


def test_a_packed_store_is_read_as_it_was(tmp_path):
    before = filled(tmp_path)
    records, items, searches = held(tmp_path)
    table = render_table2(table2(records, source="runs", searches=before.read_searches()), "md")
    pack(ResultStore(tmp_path))
    assert files(tmp_path).keys() == PACKS
    # the search of KS is in its records
    kept = [
        key for key in searches if key != declared_by(identity(learning_rate=r) for r in RATES).key
    ]
    assert held(tmp_path) == (records, items, kept)
    store = ResultStore(tmp_path)
    assert (
        render_table2(table2(records, source="runs", searches=store.read_searches()), "md") == table
    )
    for each in records:
        assert store.holds(each.identity)
        assert store.read(each.identity) == each
        assert store.ended(each.identity) == store.find(each.identity)
        assert (store.find(each.identity) is not None) == (each.status == "done")
    absent = identity(seed=99)
    assert not store.holds(absent)
    assert store.find(absent) is store.ended(absent) is None
    with pytest.raises(InputError, match="no such file"):
        store.read(absent)
    assert pickle.loads(pickle.dumps(store)).read_all() == records
    # a reader that has read before somebody packs
    assert before.read_all() == records


def test_unpacking_gives_the_files_back(tmp_path):
    filled(tmp_path)
    before = files(tmp_path)
    # as somebody's editor saved it: it stays that way too
    edited = next(name for name in before if name.startswith("PR/") and name.endswith(".json"))
    (tmp_path / edited).write_bytes(before[edited].replace(b"\n", b"\r\n"))
    before = files(tmp_path)
    pack(ResultStore(tmp_path))
    unpack(ResultStore(tmp_path))
    told = {name for name in before if name.startswith("searches/KS-")}
    assert len(told) == 1
    assert files(tmp_path) == {name: c for name, c in before.items() if name not in told}


def test_the_same_results_give_the_same_bytes(tmp_path):
    filled(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    for path in (tmp_path / "other").rglob("*.*"):
        os.utime(path, (1, 1))
    pack(ResultStore(tmp_path / "one"))
    # in another order, in two goes
    first = sorted((tmp_path / "other").rglob("*.json"))
    random.Random(1).shuffle(first)
    aside = {path: path.read_bytes() for path in first[:3]}
    for path in aside:
        path.unlink()
    pack(ResultStore(tmp_path / "other"))
    for path, content in aside.items():
        path.write_bytes(content)
    pack(ResultStore(tmp_path / "other"))
    assert files(tmp_path / "one") == files(tmp_path / "other")
    assert all(c[4:8] == bytes(4) for c in files(tmp_path / "one").values())  # no time stamp


@pytest.mark.parametrize("forth", [True, False], ids=["pack", "unpack"])
def test_nothing_is_lost_wherever_it_is_killed(tmp_path, monkeypatch, forth):
    filled(tmp_path / "whole")
    if not forth:
        pack(ResultStore(tmp_path / "whole"))
    records, items, searches = held(tmp_path / "whole")
    work = pack if forth else unpack
    shutil.copytree(tmp_path / "whole", tmp_path / "ended")
    work(ResultStore(tmp_path / "ended"))
    real = {"replace": os.replace, "unlink": Path.unlink}
    steps = 0

    class Killed(BaseException):
        pass

    for at in range(1, 100):
        root = tmp_path / f"killed {at}"
        shutil.copytree(tmp_path / "whole", root)
        steps = 0

        def step(name, *arguments, at=at, **options):
            nonlocal steps
            if ".part" not in str(arguments[0]) or name == "replace":
                steps += 1
                if steps == at:
                    raise Killed
            return real[name](*arguments, **options)

        monkeypatch.setattr(os, "replace", lambda *a, **o: step("replace", *a, **o))
        monkeypatch.setattr(Path, "unlink", lambda *a, **o: step("unlink", *a, **o))
        try:
            work(ResultStore(root))
            break
        except Killed:
            monkeypatch.undo()
        found = held(root)
        assert found[:2] == (records, items), at
        assert set(searches) - set(found[2]) <= {
            declared_by(identity(learning_rate=rate) for rate in RATES).key
        }
        work(ResultStore(root))
        assert files(root) == files(tmp_path / "ended"), at
    assert at > len(PACKS)


def test_a_sweep_writes_files_beside_a_pack(tmp_path):
    filled(tmp_path)
    pack(ResultStore(tmp_path))
    packs = files(tmp_path)
    store = ResultStore(tmp_path)
    done, ended = identity(learning_rate=RATES[0]), identity("ASR", seed=2)
    with pytest.raises(FileExistsError):
        store.write(record(done))
    with pytest.raises(FileExistsError):
        store.write(failed(done))
    # a failed one is replaced, by a failure or a result
    store.write(failed(ended, reason="b.wav is empty."))
    assert store.read(ended).reason == "b.wav is empty."
    written = store.write(record(ended), items_of(ended))
    assert store.read(ended) == written
    assert store.read_items(written) == items_of(ended)
    added = store.write(record(identity(seed=5)), items_of(identity(seed=5)))
    assert {name: c for name, c in files(tmp_path).items() if name in packs} == packs
    records = store.read_all()
    assert len(records) == 6
    assert [r.key for r in records] == [
        r.key for task in ("ASR", "KS", "PR") for r in by_name(store, records, task)
    ]
    asked = declared_by(identity("ASR", learning_rate=rate) for rate in RATES)
    store.declare(asked)  # is packed
    assert not list((tmp_path / "searches").glob("*"))
    pack(ResultStore(tmp_path))
    assert files(tmp_path).keys() == PACKS | {"ASR.items.jsonl.gz"}
    assert ResultStore(tmp_path).read_all() == records
    assert ResultStore(tmp_path).read_items(added) == items_of(identity(seed=5))


def by_name(store, records, task):
    of_task = [r for r in records if r.identity.task == task]
    return sorted(of_task, key=lambda r: store.path(r.identity).name)


def test_a_done_packed_record_stands_against_a_failed_file(tmp_path):
    """E.g. of a folder that was copied over another."""
    store = ResultStore(tmp_path)
    done = store.write(record(), items_of(identity()))
    pack(store)
    path = store.path(identity())
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(packed.json_file(failed().model_dump()))
    assert ResultStore(tmp_path).read_all() == [done]
    assert ResultStore(tmp_path).find(identity()) == done
    pack(ResultStore(tmp_path))
    assert files(tmp_path).keys() == {"KS.jsonl.gz", "KS.items.jsonl.gz"}
    assert ResultStore(tmp_path).read_all() == [done]
    assert ResultStore(tmp_path).read_items(done) == items_of(identity())


def test_what_could_not_be_built_is_forgotten_from_a_pack(tmp_path):
    store = ResultStore(tmp_path)
    unbuilt = identity(weights_sha256=UNKNOWN, upstream_revision=UNKNOWN)
    kept = store.write(record(identity(seed=2)))
    store.write(failed(unbuilt))
    pack(store)
    store.forget_unbuilt(identity())
    assert store.read_all() == ResultStore(tmp_path).read_all() == [kept]
    assert not store.holds(unbuilt)


def test_the_newest_of_a_pack_are_those_that_were_started_last(tmp_path):
    store = ResultStore(tmp_path)
    for seed, started in enumerate(("2026-01-02", "2026-01-03", "2026-01-01")):
        store.write(record(identity(seed=seed), provenance={"started": started}))
    pack(store)
    store.write(record(identity(seed=9)))
    newest = store.newest("KS", count=3)
    assert [r.identity.seed for r in newest] == [9, 1, 0]
    assert [r.identity.seed for r in store.newest("KS", count=1)] == [9]


def test_counts_are_checked_before_they_are_packed(tmp_path):
    store = ResultStore(tmp_path)
    written = store.write(record(), items_of(identity()))
    sidecar = tmp_path / "KS" / written.items.file
    sidecar.write_bytes(gzip.compress(b'{"id": "other"}\n'))
    before = files(tmp_path)
    with pytest.raises(InputError, match="are not those the run wrote"):
        pack(store)
    assert files(tmp_path) == before
    # without a sidecar tables work, so packing does
    sidecar.unlink()
    pack(store)
    assert store.read_all() == [written]
    with pytest.raises(InputError, match=r"items\.jsonl\.gz are missing"):
        store.read_items(written)


def test_counts_are_known_by_their_text_where_zlib_compresses_otherwise(tmp_path, monkeypatch):
    def otherwise(text):
        return gzip.compress(text, compresslevel=1, mtime=1)

    store = ResultStore(tmp_path)
    written = store.write(record(), items_of(identity()))
    pack(store)
    monkeypatch.setattr(packed, "compress_items", otherwise)
    assert ResultStore(tmp_path).read_items(written) == items_of(identity())
    before = files(tmp_path)
    with pytest.raises(InputError, match="leave it packed"):
        unpack(ResultStore(tmp_path))
    assert files(tmp_path) == before


def lines_of(path):
    return gzip.decompress(path.read_bytes()).split(b"\n")[:-1]


def edit(change):
    def damage(path):
        lines = lines_of(path)
        lines[1] = change(lines[1])
        path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))

    return damage


DAMAGES = {
    "no gzip file": (lambda p: p.write_bytes(b"oops"), r"no gzip file"),
    "empty": (lambda p: p.write_bytes(p.read_bytes()[:-9]), r"no gzip file"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:100]), r"no gzip file"),
    "a byte": (
        lambda p: p.write_bytes(p.read_bytes()[:60] + b"\x00\xff" + p.read_bytes()[62:]),
        r"gzip file|line \d",
    ),
    "no JSON": (edit(lambda line: b"oops"), r"line 2 is not JSON"),
    "no UTF-8": (edit(lambda line: b"\xff\xfe"), r"line 2 is not JSON"),
    "a list": (edit(lambda line: b"[]"), r"line 2 is no JSON object"),
    "nobody's": (edit(lambda line: b"{}"), r"line 2 does not say whose it is"),
    "nothing": (
        edit(lambda line: line.partition(b",")[0] + b"}"),
        r"line 2 \(.*holds no JSON file",
    ),
    "null": (
        edit(lambda line: line.partition(b",")[0] + b',"json":null}'),
        r"line 2 .*schema_version",
    ),
    "another value": (edit(lambda line: line.replace(b"93.1", b"93.2x")), r"line 2 "),
    "NaN": (edit(lambda line: line.replace(b"93.1", b"NaN")), r"line 2 .*NaN"),
    "another seed": (
        edit(lambda line: line.replace(b'"seed":1', b'"seed":3')),
        r"line 2 .*hash of",
    ),
    "another name": (edit(lambda line: line.replace(b"nano-", b"nano-0", 1)), r"line 2 .*belongs"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_pack_is_named_with_its_line(tmp_path, name):
    damage, says = DAMAGES[name]
    filled(tmp_path)
    pack(ResultStore(tmp_path))
    path = tmp_path / "KS.jsonl.gz"
    damage(path)
    damaged = files(tmp_path)
    store = ResultStore(tmp_path)
    for _again in range(2):  # what was said once is not forgotten
        with pytest.raises(InputError, match=says) as caught:
            store.read_all()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(ResultStore(tmp_path).read_searches()) == 1  # of another pack
    with pytest.raises(InputError, match=says):
        unpack(ResultStore(tmp_path))
    assert files(tmp_path).items() >= {k: v for k, v in damaged.items() if k == path.name}.items()


def test_a_line_that_is_there_twice_is_named(tmp_path):
    filled(tmp_path)
    pack(ResultStore(tmp_path))
    path = tmp_path / "KS.jsonl.gz"
    first = lines_of(path)[0]
    path.write_bytes(gzip.compress(b"\n".join([first, first, b""])))
    with pytest.raises(InputError, match=r"line 2 has .*\.json a second time"):
        ResultStore(tmp_path).read_all()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"true", b"false", r"line 1 .*other per-item counts"),
        (b'"text":', b'"words":', r"line 1 .*other per-item counts"),
        (b'"sha256":"', b'"sha256":"0', r"line 1 .*another run"),
    ],
)
def test_altered_counts_are_named(tmp_path, old, new, says):
    store = ResultStore(tmp_path)
    written = store.write(record(), items_of(identity()))
    pack(store)
    path = tmp_path / "KS.items.jsonl.gz"
    path.write_bytes(gzip.compress(lines_of(path)[0].replace(old, new) + b"\n"))
    with pytest.raises(InputError, match=says) as caught:
        ResultStore(tmp_path).read_items(written)
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(InputError, match="are missing"):
        ResultStore(tmp_path).read_items(written)


def test_a_damaged_search_is_named(tmp_path):
    filled(tmp_path)
    pack(ResultStore(tmp_path))
    path = tmp_path / "searches.jsonl.gz"
    path.write_bytes(gzip.compress(lines_of(path)[0].replace(b'"rates"', b'"speeds"') + b"\n"))
    with pytest.raises(InputError, match=r"searches\.jsonl\.gz .*line 1 .*names no search"):
        ResultStore(tmp_path).read_searches()


def test_counts_are_read_no_further_than_needed(tmp_path):
    """Tables need the counts of a task's first runs only, of packs with megabytes of them."""
    filled(tmp_path)
    pack(ResultStore(tmp_path))
    items = Pack(tmp_path / "KS.items.jsonl.gz")
    first = sorted(Pack(items.path).names())[0]
    assert items.line(first) is not None
    assert list(items._lines) == [first]


def test_the_verb_packs_and_unpacks(tmp_path, capsys):
    filled(tmp_path)
    assert main(["results", "pack", str(tmp_path)]) == 0
    assert "KS: 2 records packed, 2 with per-item counts" in capsys.readouterr().out
    assert main(["results", "pack", str(tmp_path)]) == 0
    assert "Nothing to be packed" in capsys.readouterr().out
    assert main(["status", "--results", str(tmp_path)]) == 0
    assert "KS" in capsys.readouterr().out
    assert main(["results", "unpack", str(tmp_path)]) == 0
    assert "KS: 2 records unpacked" in capsys.readouterr().out
    assert main(["results", "pack", str(tmp_path / "absent")]) == 2
    assert "is no folder" in capsys.readouterr().err
