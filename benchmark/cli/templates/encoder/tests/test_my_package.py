"""The encoder and its 1-bit twins keep the contract, and a twin holds signs where it says so."""

from pathlib import Path
from typing import Any

import pytest
import torch

from superbit.upstreams import load
from superbit.upstreams.contract import check_upstream, render
from superbit.upstreams.quantization.layers import BinarizedConv1d, BinarizedLinear

FILE = Path(__file__).parents[1] / "my_package" / "hubconf.py"
SPECS = ["depthwise_nano", "bq_depthwise_nano", "depthwise_nano+policy=w1a2"]


@pytest.mark.parametrize("name", SPECS)
def test_it_keeps_the_contract(name):
    spec = f"{FILE}:{name}"
    report = check_upstream(load(spec, train=True), ours=True, build=lambda: load(spec))
    assert report.ok, render(report)
    assert not report.names("warn"), render(report)


def test_a_twin_has_one_bit_where_its_roles_say_so():
    twin: Any = load(f"{FILE}:bq_depthwise_nano").model
    binarized = [
        m for m in twin.encoder.modules() if isinstance(m, BinarizedConv1d | BinarizedLinear)
    ]
    assert len(binarized) == 3 * twin.config.layers
    states = twin(torch.zeros(1, 16_000))
    assert len(states) == twin.config.layers + 1
