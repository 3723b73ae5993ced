"""A run's draws follow from its seed, whatever its process did before."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import superbit.upstreams  # noqa: F401  (s3prl imports only with its shims)
from superbit.benchmark.running import heads
from superbit.upstreams.rng import Draws, seed_everything, undrawn


def draw():
    return [random.random(), float(np.random.rand()), torch.rand(1).item()]


def test_draws_within_the_block_do_not_count():
    seed_everything(3)
    before = Draws()
    with undrawn():
        draw()
        assert Draws().differ(before)
    assert not Draws().differ(before)
    draw()
    assert Draws().differ(before)


@pytest.mark.parametrize("first", [True, False])
def test_what_an_expert_s_import_draws_does_not_count(first, monkeypatch, tmp_path):
    """The first run of a process imports the task's expert after its seed was set."""
    pytest.importorskip("s3prl.downstream.model")
    drawn = []

    class DownstreamExpert(torch.nn.Module):
        def __init__(self, **kwargs):
            super().__init__()
            drawn.extend(draw())

    def import_module(name):
        if first:
            draw()
        return SimpleNamespace(DownstreamExpert=DownstreamExpert)

    monkeypatch.setattr(heads, "importlib", SimpleNamespace(import_module=import_module))
    seed_everything(3)
    heads.build("any", {}, upstream_dim=1, upstream_rate=320, expdir=tmp_path, seed=3, device="cpu")
    seed_everything(3)
    assert drawn == draw()
