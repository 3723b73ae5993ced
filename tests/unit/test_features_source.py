"""What is not stored: decoded once, computed by itself where its batch would change it."""

from types import SimpleNamespace

import pytest
import torch

from superbit.benchmark.features.source import FeatureReader
from superbit.benchmark.features.store import FeatureStore
from superbit.benchmark.features.waves import AudioFile

NOISE = AudioFile(path="noise.wav", sha256="ab", samples=960_000, rate=16_000)
GAIN = ("effects", ("gain", "-3.0"))


class Upstream:
    """Notes how many waveforms pass together."""

    pooled, rate, device = True, 320, "cpu"

    def __init__(self):
        self.passes = []

    def compute(self, waves):
        self.passes.append(len(waves))
        return [torch.ones(2, 1, 3) for _ in waves]


@pytest.fixture
def make(tmp_path):
    def source(**options):
        return FeatureReader(
            FeatureStore(tmp_path, dtype="float32"),
            files=SimpleNamespace(find=lambda path: NOISE if path == NOISE.path else None),
            upstream=Upstream(), **options,
        )  # fmt: skip

    return source


def test_a_recording_is_decoded_once_however_many_crops_are_taken(make):
    source, reads = make(), []

    def read():
        reads.append("read")
        return torch.arange(10.0), 16_000

    first, rate = source._answer(NOISE.path, GAIN, read)
    assert rate == 16_000
    first += 1  # what a task does to it is its own affair
    second, _ = source._answer(NOISE.path, GAIN, read)
    assert torch.equal(second, torch.arange(10.0))
    assert len(reads) == 1
    source._answer(NOISE.path, ("load",), read)
    source._answer("unknown.wav", GAIN, read)
    source._answer("unknown.wav", GAIN, read)
    assert len(reads) == 4


@pytest.mark.parametrize(("recordings", "decoded"), [(8, 8), (9, 18)])
def test_few_recordings_are_kept(make, recordings, decoded):
    source, reads = make(), []
    for _ in range(2):
        for index in range(recordings):
            source._answer(NOISE.path, ("cut", index, 10), lambda: reads.append("read"))
    assert len(reads) == decoded


@pytest.mark.parametrize("alone", [True, False])
def test_features_that_depend_on_the_batch_are_computed_by_themselves(make, alone):
    source = make(alone=alone)
    source.gather([torch.zeros(16_000)] * 3)
    assert source._upstream.passes == ([1, 1, 1] if alone else [3])
    assert source.looks_ahead == (not alone)
    assert (source.live, source.stored) == (3, 0)


@pytest.mark.parametrize(("device", "passes"), [("cpu", [2, 3, 1]), ("cuda", [6])])
def test_many_seconds_take_several_passes_on_a_cpu(make, device, passes):
    """At most thirty seconds each, padding included, longest first; the order is the batch's."""
    source = make()
    source._upstream.device = device
    source._upstream.compute = lambda waves: (
        passed.append(len(waves)) or [torch.full((2, 1, 3), float(len(wave))) for wave in waves]
    )
    passed, seconds = [], [8, 15, 2, 8, 14, 9]
    gathered = source.gather([torch.zeros(each * 16_000) for each in seconds])
    assert passed == passes
    assert [int(each[0, 0]) for each in gathered.layer(1)] == [each * 16_000 for each in seconds]


def test_what_was_computed_ahead_is_live(make):
    source = make()
    (batch,) = source.compute_ahead([[torch.zeros(16_000), torch.zeros(8_000)]])
    gathered = source.gather(batch)
    assert source._upstream.passes == [2]
    assert gathered.frames == [1, 1]
    assert (source.live, source.stored) == (2, 0)
