"""my_model keeps the contract that superbit and s3prl rely on."""

from pathlib import Path

import torch

from superbit.upstreams import load
from superbit.upstreams.contract import check_upstream, render

SPEC = f"{Path(__file__).parents[1] / 'my_package' / 'hubconf.py'}:my_model"


def test_it_keeps_the_contract():
    model = load(SPEC, train=True)
    report = check_upstream(model, ours=False, build=lambda: load(SPEC, draw_seed=1))
    assert report.ok, render(report)
    assert not report.names("warn"), render(report)


def test_a_checkpoint_gives_its_weights(tmp_path):
    trained = load(SPEC, draw_seed=2)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    loaded = load(f"{SPEC}@{tmp_path / 'weights.pt'}")
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
