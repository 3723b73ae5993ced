"""Kernels over several threads: every item once, and the same bits as with one."""

import os
import threading
from dataclasses import replace

import pytest
import torch

pytest.importorskip("numba")

from small_twins import SMALL

from superbit.upstreams.expert import untrained_twin
from superbit.upstreams.quantization.bits import attention
from superbit.upstreams.quantization.kernels import products, threads
from superbit.upstreams.quantization.kernels.threads import spread


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def parts(count, step):
    """Return the parts of a range, and the threads they were worked on by."""
    found, lock = [], threading.Lock()

    def work(start, stop):
        with lock:
            found.append((start, stop, threading.get_ident(), torch.is_grad_enabled()))

    spread(count, step, work)
    return sorted(found)


@pytest.mark.parametrize(("count", "step"), [(1, 1), (7, 1), (100, 8), (100, 33), (5, 100)])
def test_every_item_is_worked_on_once(three_threads, count, step):
    found = parts(count, step)
    assert [item for start, stop, *_ in found for item in range(start, stop)] == list(range(count))
    assert len(found) == min(3, -(-count // step))
    assert found[0][2] == threading.get_ident()
    assert all(stop % step == 0 for _, stop, *_ in found[:-1])


def test_a_part_does_not_spread_again(three_threads):
    inner = []
    spread(3, 1, lambda start, stop: inner.append(parts(10, 1)))
    assert [len(each) for each in inner] == [1, 1, 1]
    assert len(parts(10, 1)) == 3


def test_what_a_part_raises_is_raised(three_threads):
    def work(start, stop):
        if stop == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        spread(3, 1, work)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_threads_of_its_own(three_threads):
    parts(10, 1)
    child = os.fork()
    if child == 0:
        os._exit(len(parts(10, 1)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["vanilla", "sparseformer", "conformer"])
def test_a_twin_has_the_same_hidden_states(encoder, monkeypatch, three_threads):
    model = untrained_twin(replace(SMALL, encoder=encoder), "w1a1").eval()
    generator = torch.Generator().manual_seed(0)
    waves = [0.1 * torch.randn(samples, generator=generator) for samples in (30_000, 9_000)]
    spreads = []
    for module in (products, attention):
        monkeypatch.setattr(module, "WORTH_A_THREAD", 1)
        monkeypatch.setattr(
            module, "spread", lambda *given: (spreads.append(given[0]), threads.spread(*given))
        )
    by_three = model(waves)
    assert len(spreads) > 10
    torch.set_num_threads(1)
    assert all(map(torch.equal, by_three, model(waves)))
