"""Masks and micro-batches: how much is masked, what depends on what, nothing padded."""

from itertools import pairwise
from math import comb

import numpy as np
import pytest
import soundfile
import torch

from superbit.upstreams.training.configuration import load_config
from superbit.upstreams.training.data import (
    CROP,
    MASK,
    CropBatches,
    epoch_batches,
    equalize,
    item_stream,
    load,
    span_mask,
)
from superbit.upstreams.training.labels import Labels, labels_text
from superbit.upstreams.training.manifest import read_manifest

PAPER = {"probability": 0.8, "span": 10, "at_least": 2}


def frames_of(samples):
    return (samples - 400) // 320 + 1


def masks(frames, count, **changes):
    return [
        span_mask(
            frames,
            **{**PAPER, **changes},
            random=item_stream(seed=0, epoch=0, item=item, purpose=MASK),
        )
        for item in range(count)
    ]


def test_the_realised_share_of_masked_frames():
    """Exactly, from the chance that none of the starts around a frame is drawn."""
    drawn = np.mean(masks(781, 400))
    # int(0.8 · 781 / 10 + u) is 62 or, with a chance of 0.48, 63; starts are 0 … 770
    around = np.array([min(t, 770) - max(t - 9, 0) + 1 for t in range(781)])
    missed = {n: np.mean([comb(771 - c, n) / comb(771, n) for c in around]) for n in (62, 63)}
    assert drawn == pytest.approx(1 - 0.52 * missed[62] - 0.48 * missed[63], abs=0.003)
    assert drawn == pytest.approx(0.566, abs=0.004)  # measured on fairseq's function
    # as many in each of a batch as in its smallest
    streams = [np.random.default_rng(item) for item in range(8)]
    equal = [equalize(masks(781, 400)[i : i + 8], streams).mean() for i in range(0, 400, 8)]
    assert drawn - 0.04 < np.mean(equal) < drawn


def test_spans_are_long_and_start_nowhere_twice():
    for mask in masks(781, 20):
        edges = np.flatnonzero(np.diff(np.pad(mask.astype(int), 1)))
        assert (edges[1::2] - edges[::2]).min() >= 10
    # the count of starts is int(0.8 · 100 / 10 + u), so 8 here, and they cannot coincide
    assert {int(m.sum()) for m in masks(100, 200, span=1, probability=0.08)} == {8}


@pytest.mark.parametrize("frames", [2, 3, 5, 9, 10, 11, 12, 20])
def test_short_utterances_are_masked_in_part(frames):
    for mask in masks(frames, 50):
        assert 1 <= mask.sum() < frames


def test_a_mask_follows_from_seed_epoch_and_item():
    def draw(seed, epoch, item, purpose=MASK):
        random = item_stream(seed=seed, epoch=epoch, item=item, purpose=purpose)
        return span_mask(100, **PAPER, random=random)

    first = draw(0, 0, 0)
    np.random.seed(5)  # somebody else's generator plays no part
    torch.manual_seed(5)
    assert (draw(0, 0, 0) == first).all()
    others = [draw(1, 0, 0), draw(0, 1, 0), draw(0, 0, 1), draw(0, 0, 0, CROP)]
    assert all((other != first).any() for other in others)


def test_equalized_masks_are_parts_of_what_was_drawn():
    drawn = masks(60, 6)
    equal = equalize(drawn, [np.random.default_rng(i) for i in range(6)])
    assert set(equal.sum(axis=1)) == {min(mask.sum() for mask in drawn)}
    assert not (equal & ~np.stack(drawn)).any()


def batches_of(samples, **changes):
    values = {"batch_samples": 10_000, "crop_samples": 4_000, "bucket_samples": 1, "seed": 0}
    return epoch_batches(np.asarray(samples), **{**values, "epoch": 0, **changes})


def test_an_epoch_takes_every_utterance_once_beside_its_like():
    samples = np.random.default_rng(0).integers(500, 8_000, 200)
    for epoch in range(3):
        made = batches_of(samples, epoch=epoch)
        assert sorted(np.concatenate(made)) == list(range(200))
        for batch in made:
            longest = min(int(samples[batch].max()), 4_000)
            assert len(batch) * longest <= 10_000
        # lengths of a batch are neighbours among all lengths
        cropped = [samples[members].clip(max=4_000) for members in made]
        ranges = sorted((lengths.min(), lengths.max()) for lengths in cropped)
        assert all(one[1] <= other[0] for one, other in pairwise(ranges))
    assert len({len(batches_of(samples, epoch=epoch)) for epoch in range(9)}) == 1
    orders = [np.concatenate(batches_of(samples, epoch=epoch)).tolist() for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]


def test_buckets_mix_utterances_of_about_one_length():
    samples = np.random.default_rng(0).integers(500, 4_000, 200)
    of_first = [
        {frozenset(b.tolist()) for b in batches_of(samples, epoch=e, bucket_samples=1_000)}
        for e in (0, 1)
    ]
    assert of_first[0] != of_first[1]
    assert len({len(batches_of(samples, epoch=e, bucket_samples=1_000)) for e in range(9)}) == 1
    for batch in batches_of(samples, bucket_samples=1_000):
        assert len(batch) * samples[batch].max() <= 10_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Ramps: sample i of a file holds i / 32,768, and its labels hold their own index."""
    folder = tmp_path_factory.mktemp("ramps")
    lengths = np.random.default_rng(0).integers(2_000, 8_000, 23)
    for index, length in enumerate(lengths):
        soundfile.write(folder / f"{index}.flac", np.arange(length, dtype=np.int16), 16_000)
    rows = [str(folder), *(f"{index}.flac\t{length}" for index, length in enumerate(lengths))]
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    for rate, step in ((50, 320), (100, 160)):
        text = labels_text([np.arange((length - 400) // step + 1) for length in lengths])
        (folder / f"{rate}.km").write_text(text)
    return folder


def make(corpus, rate=100, at_random=True, **changes):
    values = {"batch_samples": 16_000, "crop_samples": 4_000, "min_samples": 2_500, "units": 60}
    config = load_config("nano", changes={**values, "label_rate": rate, **changes})
    manifest = read_manifest(corpus / "train.tsv")
    labels = Labels(corpus / f"{rate}.km", manifest, rate=rate, units=60)
    return CropBatches(manifest, labels, config, frames=frames_of, crop_at_random=at_random)


@pytest.mark.parametrize("rate", [50, 100])
def test_samples_and_labels_of_a_crop_belong_together(corpus, rate):
    data = make(corpus, rate)
    starts = set()
    for number in range(3 * data.per_epoch):
        batch = data[number]
        assert batch.samples.shape[1] >= 2_500
        assert (
            batch.units.shape
            == batch.mask.shape
            == (
                len(batch.samples),
                frames_of(batch.samples.shape[1]),
            )
        )
        for samples, units in zip(batch.samples, batch.units, strict=True):
            ramp = (samples * 32_768).round().long()
            assert torch.equal(ramp, ramp[0] + torch.arange(len(ramp)))
            times = (ramp[0] + 320 * torch.arange(len(units))) * rate / 16_000
            assert (units - times).abs().max() <= 1
            starts.add(int(ramp[0]))
    assert len(starts) > 20


def test_the_held_out_set_is_the_same_every_time(corpus):
    data = make(corpus, at_random=False)
    for number in range(data.per_epoch):
        batch = data[number]
        assert torch.equal(batch.samples[:, 0], torch.zeros(len(batch.samples)))
        assert torch.equal(batch.mask, make(corpus, at_random=False)[number].mask)


def test_ranks_and_micro_batches_share_one_order(corpus):
    """4 ranks that take one each see what one rank that accumulates 4 sees."""
    data = make(corpus)
    alone = [data[number].samples for number in range(8)]
    ranks = [list(load(make(corpus), range(rank, 8, 4), workers=0, pin=False)) for rank in range(4)]
    for number in range(8):
        assert torch.equal(alone[number], ranks[number % 4][number // 4].samples)


def test_worker_processes_change_nothing(corpus):
    numbers = range(3, 9)
    alone = list(load(make(corpus), numbers, workers=0, pin=False))
    helped = list(load(make(corpus), numbers, workers=2, pin=False))
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.samples, other.samples)
        assert torch.equal(one.mask, other.mask)


def test_a_batch_of_corrupt_files_is_stood_in_for(corpus, tmp_path):
    lines = (corpus / "train.tsv").read_text().splitlines()
    data = make(corpus, batch_samples=4_000)
    first = int(data._batches(0)[0][0])
    lines[0] = str(tmp_path)
    for file in corpus.glob("*.flac"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / f"{first}.flac").write_bytes(b"")
    for rate in (50, 100):
        (tmp_path / f"{rate}.km").write_bytes((corpus / f"{rate}.km").read_bytes())
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    batch = make(tmp_path, batch_samples=4_000)[0]
    assert batch.samples.shape == data[0].samples.shape
    assert len(batch.skipped) == 1
    assert f"{first}.flac" in batch.skipped[0]
