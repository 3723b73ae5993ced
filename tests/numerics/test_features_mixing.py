"""Weighted sums of stored layers against s3prl's own featurizer, alone and several at once."""

import pytest
import torch
from torch import nn

from superbit.benchmark.features import mixing
from superbit.benchmark.features.mixing import Batch, Room, WeightedSums

LAYERS, DIM = 4, 6
FRAMES = (7, 1, 0, 23, 5)


class Featurizer(nn.Module):
    """What of s3prl's a sum needs."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.Parameter(torch.randn(LAYERS, generator=generator))


def states(frames=FRAMES, layers=LAYERS, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(layers, each, DIM, generator=generator).to(dtype) for each in frames]


@pytest.fixture(params=[1, 3, 8, 1000], ids=lambda frames: f"{frames}-frames-a-chunk")
def chunked(request, monkeypatch):
    monkeypatch.setattr(mixing, "_CHUNK_BYTES", 4 * LAYERS * DIM * request.param)
    return request.param


def trained(batch, featurizers):
    """Sums of each featurizer, and its gradient of a loss that weighs frames unlike."""
    sums = WeightedSums(batch, featurizers)
    found = [sums.of(each) for each in featurizers]
    for own in found:
        (torch.cat(own).cumsum(0).sin() * 2.0).sum().backward()
    sums.backward()
    return [([part.detach() for part in own], each.weights.grad.clone())
            for own, each in zip(found, featurizers, strict=True)]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sums_and_gradients_are_s3prls(chunked, dtype):
    interfaces = pytest.importorskip("s3prl.upstream.interfaces")
    given = states(dtype=dtype)
    ((found, gradient),) = trained(Batch(given, room=Room("cpu")), [Featurizer(1)])
    theirs = Featurizer(1)
    theirs.layer_num, theirs.normalize = LAYERS, False
    layers = list(torch.cat(given, dim=1).float())
    wanted = interfaces.Featurizer._weighted_sum(theirs, layers)
    (wanted.cumsum(0).sin() * 2.0).sum().backward()
    assert [len(each) for each in found] == list(FRAMES)
    torch.testing.assert_close(torch.cat(found), wanted.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, theirs.weights.grad, rtol=1e-5, atol=1e-5)


def test_several_featurizers_get_what_each_gets_alone(chunked):
    given = states(dtype=torch.float16)
    together = trained(Batch(given, room=Room("cpu")), [Featurizer(seed) for seed in range(5)])
    for seed, (sums, gradient) in enumerate(together):
        ((alone, own),) = trained(Batch(given, room=Room("cpu")), [Featurizer(seed)])
        assert torch.equal(torch.cat(sums), torch.cat(alone))
        assert torch.equal(gradient, own)


def test_several_batches_share_a_room(chunked):
    """One after the other, of other sizes."""
    room = Room("cpu")
    for frames in (FRAMES, (40, 2), (3,)):
        featurizer = Featurizer(3)
        ((found, gradient),) = trained(Batch(states(frames), room=room), [featurizer])
        ((fresh, wanted),) = trained(Batch(states(frames), room=Room("cpu")), [Featurizer(3)])
        assert torch.equal(torch.cat(found), torch.cat(fresh))
        assert torch.equal(gradient, wanted)


def test_gradients_of_several_batches_add_up():
    featurizer, alone = Featurizer(2), []
    for frames in ((5, 4), (6,)):
        one = Featurizer(2)
        alone.append(trained(Batch(states(frames), room=Room("cpu")), [one])[0][1])
        trained(Batch(states(frames), room=Room("cpu")), [featurizer])
    torch.testing.assert_close(featurizer.weights.grad, sum(alone))


def test_a_head_that_failed_leaves_the_others_their_gradients():
    featurizers = [Featurizer(1), Featurizer(2)]
    sums = WeightedSums(Batch(states(), room=Room("cpu")), featurizers)
    torch.cat(sums.of(featurizers[1])).sum().backward()
    sums.backward()
    assert featurizers[0].weights.grad is None
    assert featurizers[1].weights.grad.abs().sum() > 0


def test_what_fits_a_chunk_is_read_once(monkeypatch):
    """Means over time: a batch of them is a few kilobytes."""
    taken = []
    take = Room.take
    monkeypatch.setattr(
        Room, "take", lambda room, *shape: (taken.append(shape), take(room, *shape))[1]
    )
    trained(Batch(states((1, 1, 1)), room=Room("cpu")), [Featurizer(1), Featurizer(2)])
    assert taken == [(LAYERS, 3, DIM)]


def test_a_single_layer_is_given_as_it_is():
    given = states(layers=1)
    featurizer = nn.Module()  # s3prl's has no weights then
    sums = WeightedSums(Batch(given, room=Room("cpu")), [featurizer])
    for found, wanted in zip(sums.of(featurizer), given, strict=True):
        assert torch.equal(found, wanted[0])
    assert not any(each.requires_grad for each in sums.of(featurizer))
    sums.backward()


def test_evaluation_keeps_no_graph():
    featurizer = Featurizer(1)
    with torch.no_grad():
        sums = WeightedSums(Batch(states(), room=Room("cpu")), [featurizer])
    assert not any(each.requires_grad for each in sums.of(featurizer))


def test_layers_are_copies():
    room, given = Room("cpu"), states(dtype=torch.float32)
    layer = Batch(given, room=room).layer(2)
    before = [each.clone() for each in layer]
    for each in given:
        each.zero_()
    assert all(torch.equal(*each) for each in zip(layer, before, strict=True))
