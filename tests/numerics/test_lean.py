"""Fewer operations, the same bits: against torch's padding and s3prl's mean pooling."""

import pytest
import torch
from torch.nn.utils import rnn

from superbit.upstreams.s3prl import compat
from superbit.upstreams.s3prl.lean_heads import lean, make_lean, pad_sequence

compat.apply()  # s3prl does not import without it
from s3prl.downstream.emotion import expert  # noqa: E402
from s3prl.downstream.model import UtteranceLevel  # noqa: E402


@pytest.mark.parametrize("lengths", [(3, 1, 5), (2, 2), (1,)])
@pytest.mark.parametrize("value", [0.0, -1.5])
def test_padding_and_its_gradient_are_torch_s(lengths, value):
    parts = [torch.randn(n, 4, requires_grad=True) for n in lengths]
    ours, theirs = (
        pad(parts, batch_first=True, padding_value=value)
        for pad in (pad_sequence, rnn.pad_sequence)
    )
    assert torch.equal(ours, theirs)
    weights = torch.randn_like(theirs)
    gradients = [torch.autograd.grad((out * weights).sum(), parts) for out in (ours, theirs)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_what_needs_no_gradient_is_padded_by_torch():
    labels = [torch.tensor([1, 2]), torch.tensor([3])]
    assert torch.equal(pad_sequence(labels), rnn.pad_sequence(labels))
    assert torch.equal(pad_sequence(labels, True, -100), rnn.pad_sequence(labels, True, -100))


@pytest.mark.parametrize("frames", [1, 6])
def test_mean_pooling_is_s3prl_s(frames):
    torch.manual_seed(0)
    plain = UtteranceLevel(8, 3)
    torch.manual_seed(0)
    ours = UtteranceLevel(8, 3)
    make_lean(ours)
    assert list(ours.state_dict()) == list(plain.state_dict())
    features, lengths = torch.randn(4, frames, 8), torch.randint(1, frames + 1, (4,))
    assert torch.equal(ours(features, lengths)[0], plain(features, lengths)[0])


def test_s3prl_keeps_its_own_padding_outside():
    head = expert.DownstreamExpert.__new__(expert.DownstreamExpert)

    def fail_within():
        with lean(head):
            assert expert.pad_sequence is pad_sequence
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_within()
    assert expert.pad_sequence is rnn.pad_sequence
