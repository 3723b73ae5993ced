"""Shards: whole or not at all, checked when read, never shared by what differs."""

import json
import os

import numpy as np
import pytest

from superbit.benchmark.features import store as stores
from superbit.benchmark.features.store import CacheError, Features, FeatureStore, write_shard


def features(key, *, seed, frames=7, dtype="float16"):
    states = np.random.default_rng(seed).standard_normal((3, frames, 4)).astype(dtype)
    return Features(key=key, states=states, samples=320 * frames, rate=16_000)


def test_what_is_written_is_read(tmp_path):
    written = [features(f"wave {n}", seed=n, frames=3 + n) for n in range(5)]
    write_shard(tmp_path, written[:2])
    write_shard(tmp_path, written[2:])
    store = FeatureStore(tmp_path, dtype="float16")
    assert len(store) == 5
    assert (store.layers, store.dim) == (3, 4)
    for each in written:
        np.testing.assert_array_equal(store.read(each.key), each.states)
        assert store.find(each.key).samples == each.samples
    assert "wave 9" not in store
    assert not list(tmp_path.glob("*.partial"))


def test_a_store_of_another_precision_is_not_read(tmp_path):
    write_shard(tmp_path, [features("a", seed=0)])
    assert len(FeatureStore(tmp_path, dtype="float32")) == 0


def test_an_altered_entry_is_noticed_and_the_others_are_read(tmp_path):
    index = write_shard(tmp_path, [features("a", seed=0), features("b", seed=1)])
    data = index.with_suffix(".bin")
    content = bytearray(data.read_bytes())
    content[5] ^= 1
    data.write_bytes(content)
    store = FeatureStore(tmp_path, dtype="float16")
    assert store.read("a") is None
    assert store.damaged == 1
    assert "a" not in store
    assert store.read("b") is not None
    anew = features("a", seed=2)
    store.put([anew])
    np.testing.assert_array_equal(store.read("a"), anew.states)
    # And for the next process, which sees both shards.
    again = FeatureStore(tmp_path, dtype="float16")
    np.testing.assert_array_equal(again.read("a"), anew.states)


def test_a_truncated_shard_keeps_what_is_whole(tmp_path):
    index = write_shard(tmp_path, [features("a", seed=0), features("b", seed=1)])
    data = index.with_suffix(".bin")
    os.truncate(data, data.stat().st_size - 1)
    store = FeatureStore(tmp_path, dtype="float16")
    assert store.read("a") is not None
    assert "b" not in store


def test_a_shard_truncated_behind_our_back_is_absent(tmp_path):
    index = write_shard(tmp_path, [features("a", seed=0)])
    store = FeatureStore(tmp_path, dtype="float16")
    os.truncate(index.with_suffix(".bin"), 2)
    assert store.read("a") is None


@pytest.mark.parametrize("change", ["{", '{"version": 1}', None])
def test_a_damaged_index_counts_for_nothing_and_is_cleared(tmp_path, change):
    index = write_shard(tmp_path, [features("a", seed=0)])
    if change is None:  # still JSON, one number changed
        content = json.loads(index.read_text())
        content["entries"]["a"][2] += 1
        change = json.dumps(content)
    index.write_text(change)
    assert len(FeatureStore(tmp_path, dtype="float16")) == 0
    stores.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_extraction_are_cleared(tmp_path):
    index = write_shard(tmp_path, [features("a", seed=0)])
    (tmp_path / "1-1.bin.partial").write_bytes(b"half")
    (tmp_path / "2-1.bin").write_bytes(b"whole, but its index was never written")
    stores.remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([index, index.with_suffix(".bin")])


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    write_shard(tmp_path, [features("a", seed=0)])
    before = sorted(tmp_path.iterdir())

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stores.os, "fsync", full)
    with pytest.raises(CacheError, match="the disk is full: free some space"):
        write_shard(tmp_path, [features("b", seed=1)])
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="--no-cache"):
        write_shard(tmp_path / "file" / "store", [features("a", seed=0)])
