"""The rules say what s3prl does: its own classes refuse what fails, and run what passes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from superbit.upstreams import load

MOCKS = Path(__file__).parent / "mocks" / "hubconf.py"
WAVS = [0.1 * torch.randn(samples) for samples in (16_000, 40_000)]


def featurize(expert: nn.Module, steps: int = 1) -> list[torch.Tensor]:
    """The features of the last of ``steps`` training steps, as s3prl's runner makes them."""
    from s3prl.upstream.interfaces import Featurizer

    featurizer = Featurizer(expert, upstream_device="cpu")
    expert.train()
    return [featurizer(WAVS, expert(WAVS)) for _ in range(steps)][-1]


def test_s3prl_runs_the_good_upstream():
    features = featurize(load(f"{MOCKS}:good"))
    assert [tuple(f.shape) for f in features] == [(50, 8), (125, 8)]


def test_s3prl_cannot_stack_unequal_shapes():
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        featurize(load(f"{MOCKS}:unequal_shapes"))


def test_s3prl_refuses_the_frame_count_of_a_wrong_rate():
    with pytest.raises(AssertionError, match="125 >= 5"):
        featurize(load(f"{MOCKS}:wrong_rate"))


def test_s3prl_refuses_a_state_that_is_missing_in_train_mode():
    expert = load(f"{MOCKS}:layerdrop")
    with pytest.raises(AssertionError, match="layerdrop"):
        featurize(expert, steps=300)  # a state is missing in one of ten


def test_s3prl_nn_refuses_a_rate_that_is_no_int(monkeypatch):
    from s3prl import hub
    from s3prl.nn import S3PRLUpstream

    def float_rate(**kwargs):
        expert = load(f"{MOCKS}:good")
        expert.get_downsample_rates = lambda key: 320.0
        return expert

    monkeypatch.setattr(hub, "float_rate", float_rate, raising=False)
    monkeypatch.setattr(hub, "int_rate", lambda **kwargs: load(f"{MOCKS}:good"), raising=False)
    assert S3PRLUpstream("int_rate").downsample_rates == [320, 320, 320]
    with pytest.raises(ValueError):  # noqa: PT011 (s3prl raises it without a message)
        S3PRLUpstream("float_rate")
