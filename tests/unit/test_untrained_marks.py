"""Random weights are marked, whoever's they are; weights that somebody trained are not."""

import textwrap

import pytest
import torch

from superbit.benchmark import cli
from superbit.upstreams import InputError, foreign, load, registry
from superbit.upstreams.registry import load_upstream

HUBCONF = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(320, 4)
        self.mask = torch.nn.Parameter(torch.zeros(4))
    def get_downsample_rates(self, key):
        return 320
    def forward(self, wavs):
        rows = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        return {"hidden_states": [self.layer(rows.unfold(1, 320, 320))]}

def trained(model):
    torch.nn.init.constant_(model.layer.weight, 0.5)
    torch.nn.init.constant_(model.layer.bias, 0.25)
    return model

def drawn(ckpt=None, **kwargs):
    return Model()

def buffer(ckpt=None, **kwargs):
    model = trained(Model())
    model.register_buffer("noise", torch.randn(4))
    model.layer.register_forward_hook(lambda module, given, output: output + model.noise)
    return model

def constant(ckpt=None, **kwargs):
    return trained(Model())

def masked(ckpt=None, **kwargs):
    "Only training uses what is drawn."
    model = trained(Model())
    torch.nn.init.normal_(model.mask)
    return model

def loaded(ckpt=None, **kwargs):
    model = Model()
    if ckpt:
        model.load_state_dict(torch.load(ckpt))
    return model

def says_so(ckpt=None, **kwargs):
    model = trained(Model())
    model.untrained = True
    return model

def denies(ckpt=None, **kwargs):
    model = Model()
    model.untrained = False
    return model

def broken(ckpt=None, **kwargs):
    model = Model()
    model.forward = lambda wavs: 1 / 0
    return model

def nothing(ckpt=None, **kwargs):
    return torch.nn.Identity()
"""
RANDOM = ("drawn", "buffer", "loaded", "says_so", "broken")
FIXED = ("constant", "masked", "denies", "nothing")


@pytest.fixture
def hubconf(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hubconf.py").write_text(textwrap.dedent(HUBCONF))
    return "hubconf.py"


@pytest.mark.parametrize("function", RANDOM)
def test_random_weights_are_marked(hubconf, function):
    spec = f"{hubconf}:{function}"
    upstream = load_upstream(spec)
    assert str(upstream.spec) == f"{spec}+untrained"
    # what records hold can be loaded again, and is the same
    again = load_upstream(str(upstream.spec))
    assert (again.spec, again.weights_sha256) == (upstream.spec, upstream.weights_sha256)
    assert again.further == upstream.further


@pytest.mark.parametrize("function", FIXED)
def test_other_weights_are_not(hubconf, function):
    spec = f"{hubconf}:{function}"
    assert str(load_upstream(spec).spec) == spec
    with pytest.raises(InputError, match=r"'\+untrained' is for"):
        load(f"{spec}+untrained")


def test_weights_from_a_checkpoint_are_not(hubconf, tmp_path):
    torch.save(load("hubconf.py:loaded").state_dict(), tmp_path / "w.pt")
    assert not load_upstream("hubconf.py:loaded@w.pt").spec.untrained


@pytest.mark.parametrize("name", ["fbank", "mfcc"])
def test_filter_banks_are_not(name):
    assert not load_upstream(name).spec.untrained


def test_registered_builders_are_marked_too(hubconf, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    builders = {}
    exec(textwrap.dedent(HUBCONF), builders)
    for name in ("drawn", "constant"):
        registry.register(name, builders[name])
    assert load_upstream("drawn").spec.untrained
    assert not load_upstream("constant").spec.untrained


def test_a_process_that_got_the_spec_from_a_plan_builds_once(hubconf, monkeypatch):
    upstream = load_upstream("hubconf.py:drawn")
    monkeypatch.setattr(foreign, "is_untrained", None)
    again = load_upstream(str(upstream.spec), planned=upstream.further)
    assert again.spec == upstream.spec


def test_a_large_model_that_read_its_weights_is_built_once(hubconf, monkeypatch):
    spec = registry.UpstreamSpec.parse("hubconf.py:drawn")
    builder = registry.find(spec.name).build
    built = foreign.build(builder, spec, draw_seed=0)
    read = foreign.Built(expert=built.expert, opened=frozenset({str(hubconf)}))
    assert foreign.is_untrained(builder, spec, read)
    monkeypatch.setattr(foreign, "_BUILT_TWICE_BYTES", 0)
    monkeypatch.setattr(foreign, "_file_size", lambda path: 10_000)
    assert not foreign.is_untrained(builder, spec, read)


def test_check_says_so(hubconf, capsys):
    cli.main(["check", "hubconf.py:drawn"])
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "hubconf.py:drawn+untrained (path, random weights)"
    cli.main(["check", "hubconf.py:constant"])
    assert capsys.readouterr().out.splitlines()[0] == "hubconf.py:constant (path)"
