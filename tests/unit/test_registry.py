"""Names of upstreams: four sources, lazy, and a clear word when there is none."""

import subprocess
import sys
import types

import pytest
import torch

import superbit.upstreams
from superbit.upstreams import InputError, foreign, registry

HUBCONF = """
import torch
from .parts import DIM

class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(320, DIM)
    def get_downsample_rates(self, key):
        return 320
    def forward(self, wavs):
        longest = max(len(w) for w in wavs)
        rows = [torch.nn.functional.pad(w, (0, longest - len(w))) for w in wavs]
        return {"hidden_states": [self.layer(torch.stack(rows).unfold(1, 320, 320))]}

def tiny(ckpt=None, **kwargs):
    return Tiny()
"""


@pytest.fixture
def hubconf(tmp_path):
    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "parts.py").write_text("DIM = 8\n")
    (folder / "hubconf.py").write_text(HUBCONF)
    return folder / "hubconf.py"


@pytest.fixture
def registered():
    yield
    registry._registered.pop("my_model", None)
    hub = sys.modules.get("s3prl.hub")
    if hub is not None and hasattr(hub, "my_model"):
        del hub.my_model


def add_plugin(path, monkeypatch, *, name: str, value: str, dist: str) -> None:
    info = path / f"{dist}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[superbit.upstreams]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(str(path))


def test_upstream_by_path_with_relative_imports(hubconf):
    expert = superbit.upstreams.load(f"{hubconf}:tiny")
    assert expert([torch.zeros(1600)])["hidden_states"][0].shape == (1, 5, 8)


def test_revision_of_a_path_is_the_hash_of_its_source(hubconf):
    first = registry.find(f"{hubconf}:tiny").revision
    # another size: bytecode of the same second and size would count
    (hubconf.parent / "parts.py").write_text("DIM = 9  # wide\n")
    second = registry.find(f"{hubconf}:tiny").revision
    assert first != second
    assert superbit.upstreams.load(f"{hubconf}:tiny").layer.out_features == 9


def test_loaded_upstream_has_a_hash_that_follows_the_weights(hubconf):
    first = registry.load_upstream(f"{hubconf}:tiny").weights_sha256
    # Whatever the generators, and they stay as they are.
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert registry.load_upstream(f"{hubconf}:tiny").weights_sha256 == first
    assert torch.equal(torch.get_rng_state(), before)
    hubconf.write_text(hubconf.read_text().replace("return Tiny()", "m = Tiny()\n"
        "    m.layer.bias.data += 1\n    return m"))  # fmt: skip
    assert registry.load_upstream(f"{hubconf}:tiny").weights_sha256 != first


def test_register_reaches_superbit_and_s3prls_hub(registered):
    from s3prl import hub

    made = []
    expert = torch.nn.Identity()
    superbit.upstreams.register("my_model", lambda ckpt=None, **_: made.append(ckpt) or expert)
    assert superbit.upstreams.load("my_model") is expert
    assert hub.my_model(ckpt="w.pt", model_config=None, refresh=False) is expert
    assert made == [None, "w.pt"]


@pytest.mark.parametrize("name", ["vanilla", "not a name", "1model", "bq_model"])
def test_register_refuses_names_that_are_taken_or_no_names(name):
    with pytest.raises(InputError, match=r"upstream name"):
        superbit.upstreams.register(name, lambda **_: None)


def test_entry_points_are_found(tmp_path, monkeypatch):
    module = types.ModuleType("good_plugin")
    plugged = torch.nn.Identity()
    module.build = lambda ckpt=None, **_: plugged
    monkeypatch.setitem(sys.modules, "good_plugin", module)
    add_plugin(tmp_path, monkeypatch, name="plugged", value="good_plugin:build", dist="good")
    assert "plugged" in superbit.upstreams.names()
    assert superbit.upstreams.load("plugged") is plugged
    assert registry.find("plugged").origin == "good"


def test_a_broken_plugin_warns_and_is_skipped(tmp_path, monkeypatch):
    add_plugin(tmp_path, monkeypatch, name="broken", value="no_such_module:build", dist="bad")
    with pytest.warns(UserWarning, match=r"plug-in upstream 'broken' of bad cannot be imported"):
        names = [entry.name for entry in registry.entries()]
    assert "broken" not in names
    assert "vanilla_nano" in names
    with pytest.raises(InputError, match="'broken' of bad cannot be imported"):
        superbit.upstreams.load("broken")


@pytest.mark.parametrize(("wrong", "meant"), [("vanila_nano", "vanilla_nano"), ("fbnk", "fbank")])
def test_an_unknown_name_asks_did_you_mean(wrong, meant):
    with pytest.raises(InputError, match=f"unknown upstream '{wrong}'.*Did you mean '{meant}'"):
        superbit.upstreams.load(wrong)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("no/such/hubconf.py:tiny", "no file 'no/such/hubconf.py'"),
        ("fbank+untrained", "for superbit's own encoders"),
        ("fbank+policy=w1a1", "for superbit's own encoders"),
        ("fbank@no/such/file", "no checkpoint 'no/such/file'"),
        ("vanilla_nano@no/such/folder", "no/such/folder"),
        ("vanilla_nano+policy=w9a9", "w9a9"),
    ],
)
def test_specs_that_cannot_be_loaded(spec, said):
    with pytest.raises(InputError, match=said.replace("+", r"\+")):
        superbit.upstreams.load(spec)


def test_source_in_folders_below_counts(hubconf):
    below = hubconf.parent / "layers"
    below.mkdir()
    (below / "core.py").write_text("SCALE = 1\n")
    first = registry.find(f"{hubconf}:tiny").revision
    (below / "core.py").write_text("SCALE = 0\n")
    assert registry.find(f"{hubconf}:tiny").revision != first


def test_a_path_without_that_function(hubconf):
    with pytest.raises(InputError, match=r"no function 'tinny'.*Did you mean 'tiny'"):
        superbit.upstreams.load(f"{hubconf}:tinny")


def test_weights_are_given_once():
    with pytest.raises(InputError, match="give the weights once"):
        superbit.upstreams.load("vanilla_nano@a", ckpt="b")


def test_untrained_weights_are_marked_and_always_the_same():
    first, second = (registry.load_upstream("vanilla_nano+untrained") for _ in range(2))
    assert str(first.spec) == "vanilla_nano+untrained"
    assert first.weights_sha256 == second.weights_sha256


def test_a_name_found_without_the_whole_hub_is_the_hubs():
    from s3prl import hub

    found = {name: foreign.by_hub_name(name) for name in hub.options()}
    assert all(build in (None, getattr(hub, name)) for name, build in found.items())
    assert {"fbank", "mfcc", "wavlm_base", "hubert", "wav2vec2_local", "hf_hubert_custom"} <= {
        name for name, build in found.items() if build is not None
    }
    assert foreign.by_hub_name("options") is None
    assert foreign.by_hub_name("fban.") is None


def test_filter_banks_import_no_other_upstream():
    script = (
        "import sys; from superbit.upstreams import load; load('fbank'); "
        "print('transformers' in sys.modules, 's3prl.hub' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]
