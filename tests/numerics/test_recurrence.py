"""LSTMs over padded utterances equal torch's over packed ones, gradients included."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from superbit.upstreams.s3prl.padded_lstm import PaddedLSTM, without_packing


def run(lstm, x, lengths):
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [[5], [7, 7], [3, 9, 1, 9, 4]])
def test_it_equals_torchs(lengths, bidirectional):
    torch.manual_seed(0)
    theirs = nn.LSTM(6, 8, batch_first=True, bidirectional=bidirectional)
    ours = copy.deepcopy(theirs)
    without_packing(ours)
    assert type(ours) is PaddedLSTM
    x = torch.randn(len(lengths), max(lengths), 6, requires_grad=True)
    mine = x.detach().clone().requires_grad_()
    (expected, ends), (found, own_ends) = run(theirs, x, lengths), run(ours, mine, lengths)
    assert ends.tolist() == own_ends.tolist() == lengths
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(expected)  # those at padded frames must count for nothing
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    torch.testing.assert_close(mine.grad, x.grad, rtol=1e-5, atol=1e-6)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_other_lstms_stay_torchs():
    torch.manual_seed(0)
    module = nn.ModuleList([nn.LSTM(4, 4, num_layers=2, batch_first=True), nn.GRU(4, 4)])
    theirs = copy.deepcopy(module)
    without_packing(module)
    x = torch.randn(2, 5, 4)
    assert torch.equal(run(module[0], x, [5, 2])[0], run(theirs[0], x, [5, 2])[0])
    assert torch.equal(module[0](x)[0], theirs[0](x)[0])
    assert type(module[1]) is nn.GRU


def test_padding_changes_nothing():
    torch.manual_seed(0)
    lstm = nn.LSTM(4, 4, batch_first=True, bidirectional=True)
    without_packing(lstm)
    x = torch.randn(2, 6, 4)
    other = x.clone()
    other[1, 3:] = 100.0
    assert torch.equal(run(lstm, x, [6, 3])[0], run(lstm, other, [6, 3])[0])
