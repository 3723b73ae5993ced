"""Denormals are zero in every thread, also in those that were there before."""

import pytest
import torch

from superbit.upstreams.s3prl import denormals

# Enough for several threads to share.
SMALL = torch.full((1_000_000,), 2e-38)


@pytest.fixture(params=[1, 2, 4])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    torch.ones(1_000_000).exp()  # they begin here
    yield request.param
    torch.set_num_threads(before)


def share_of_zeros():
    return ((SMALL * 0.1) == 0).float().mean().item()


def test_every_thread_takes_them_as_zero_and_back(threads):
    assert share_of_zeros() == 0
    with denormals.as_zero():
        assert share_of_zeros() == 1
    assert share_of_zeros() == 0


def test_gradients_too(threads):
    weights = SMALL.clone().requires_grad_()
    with denormals.as_zero():
        (weights * 0.1).backward(SMALL)
    assert torch.count_nonzero(weights.grad) == 0


def test_where_threads_cannot_be_ended_the_asking_one_takes_them_as_zero(monkeypatch):
    def missing(_name):
        raise OSError

    monkeypatch.setattr(denormals.ctypes, "CDLL", missing)
    with denormals.as_zero():
        assert (torch.tensor([2e-38]) * 0.1).item() == 0
    assert (torch.tensor([2e-38]) * 0.1).item() > 0


def test_an_error_within_leaves_arithmetic_as_it_was(threads):
    with pytest.raises(ValueError, match="no"), denormals.as_zero():
        raise ValueError("no")
    assert share_of_zeros() == 0
