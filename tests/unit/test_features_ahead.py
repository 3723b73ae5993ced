"""Live waveforms of several batches pass through the upstream together."""

import contextlib

import torch

from superbit.benchmark.features.source import SECONDS, Ahead

SECOND = torch.zeros(16_000)


class Source:
    """Counts what passes together; a string stands for what is stored."""

    def __init__(self):
        self.passes = []

    def reading(self):
        return contextlib.nullcontext()

    def live_seconds(self, wavs):
        return sum(len(wav) for wav in wavs if not isinstance(wav, str)) / 16_000

    def compute_ahead(self, batches):
        self.passes.append([len(wavs) for wavs in batches])
        return [[w if isinstance(w, str) else ("computed", len(w)) for w in wavs]
                for wavs in batches]  # fmt: skip


def batches(count, *, live=1):
    return iter([([SECOND] * live + ["stored"], number) for number in range(count)])


def test_a_group_is_of_eight_batches():
    source = Source()
    got = list(Ahead(batches(20), source))
    assert source.passes == [[2] * 8, [2] * 8, [2] * 4]
    assert [number for _, number in got] == list(range(20))
    assert got[7][0] == [("computed", 16_000), "stored"]


def test_a_batch_with_much_live_audio_passes_alone():
    source = Source()
    list(Ahead(batches(3, live=int(SECONDS)), source))
    assert source.passes == [[33], [33], [33]]


def test_what_comes_after_a_resume_is_computed_in_the_same_groups():
    straight = Source()
    wanted = list(Ahead(batches(20, live=5), straight))
    assert straight.passes == [[6] * 7, [6] * 7, [6] * 6]
    for count in (0, 1, 6, 7, 8, 13, 14, 19, 20):
        source = Source()
        resumed = Ahead(batches(20, live=5), source)
        resumed.skip(count)
        assert list(resumed) == wanted[count:]
        # The group that it stopped in is computed again as a whole, unless nothing of it is left.
        left = straight.passes[count // 7 :] if count < 20 else []
        assert source.passes == left


def test_a_batch_is_given_before_the_next_group_is_read():
    read = []

    def slow():
        for batch in batches(20):
            read.append(batch)
            yield batch

    given = iter(Ahead(slow(), Source()))
    for _ in range(8):
        next(given)
    assert len(read) == 8
