"""A checkpoint that a spec names runs, or the spec is refused."""

import textwrap

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from superbit.upstreams import InputError, load, registry
from superbit.upstreams.identity.sources import opened_files

# Each function takes a checkpoint in its own way; the models have no weights where they need none.
HUBCONF = """
import json
from pathlib import Path
import torch
from safetensors.numpy import load_file

class Scaled(torch.nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = float(scale)
    def get_downsample_rates(self, key):
        return 320
    def forward(self, wavs):
        rows = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        return {"hidden_states": [self.scale * rows.unfold(1, 320, 320)]}

class Weighted(Scaled):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(320, 4)
    def forward(self, wavs):
        (rows,) = super().forward(wavs)["hidden_states"]
        return {"hidden_states": [self.layer(rows)]}

def drops(ckpt=None, **kwargs):
    return Scaled()

def overwrites(ckpt=None, **kwargs):
    return Weighted()

def opens(ckpt=None, **kwargs):
    return Scaled(json.loads(Path(ckpt).read_text())["scale"] if ckpt else 1.0)

def opens_below(ckpt=None, **kwargs):
    return opens(f"{ckpt}/config.json" if ckpt else None)

def reads_unseen(ckpt=None, **kwargs):
    return Scaled(load_file(ckpt)["scale"][0] if ckpt else 1.0)

def weighs_unseen(ckpt=None, **kwargs):
    model = Weighted()
    if ckpt:
        model.layer.bias.data[:] = float(load_file(ckpt)["scale"][0])
    return model

def needs(ckpt, **kwargs):
    return Scaled(load_file(ckpt)["scale"][0])

def lazy(ckpt=None, **kwargs):
    raise_here = Path(ckpt).exists()
    return Scaled()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "hubconf.py").write_text(textwrap.dedent(HUBCONF))
    (tmp_path / "config.json").write_text('{"scale": 2}')
    save_file({"scale": np.array([3.0], np.float32)}, tmp_path / "w.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("function", "file"),
    [
        ("opens", "config.json"),
        ("opens_below", "."),
        ("reads_unseen", "w.safetensors"),
        ("weighs_unseen", "w.safetensors"),
        ("needs", "w.safetensors"),
    ],
)
def test_a_checkpoint_that_is_used_loads(folder, function, file):
    wave = torch.ones(1600)
    with_it = load(f"{folder}/hubconf.py:{function}@{folder / file}")([wave])["hidden_states"][0]
    assert with_it.shape[:2] == (1, 5)
    if function != "weighs_unseen":
        assert float(with_it.max()) == {"config.json": 2, ".": 2, "w.safetensors": 3}[file]


@pytest.mark.parametrize("function", ["drops", "overwrites"])
@pytest.mark.parametrize("file", ["config.json", ".", "w.safetensors"])
def test_a_checkpoint_that_is_dropped_is_refused(folder, function, file):
    with pytest.raises(InputError, match=rf"{function}@.*did not use the checkpoint"):
        load(f"{folder}/hubconf.py:{function}@{folder / file}")
    with pytest.raises(InputError, match="did not use the checkpoint"):
        load(f"{folder}/hubconf.py:{function}", ckpt=str(folder / file))


def test_an_address_that_is_dropped_is_refused(folder):
    with pytest.raises(InputError, match="did not use the checkpoint"):
        load(f"{folder}/hubconf.py:drops@https://example.org/w.pt")


def test_a_look_whether_the_file_is_there_is_no_use(folder):
    # Without a checkpoint this one cannot be built, so it is believed: nobody can tell better.
    load(f"{folder}/hubconf.py:lazy@{folder / 'config.json'}")


def test_registered_builders_are_held_to_it_too(folder, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    builders = {}
    exec(textwrap.dedent(HUBCONF), builders)
    for name in ("drops", "opens"):
        registry.register(name, builders[name])
    assert load(f"opens@{folder / 'config.json'}").scale == 2
    with pytest.raises(InputError, match="did not use the checkpoint"):
        load(f"drops@{folder / 'config.json'}")


def test_no_named_entry_of_s3prls_hub_takes_a_checkpoint(folder, monkeypatch):
    """They overwrite it with the address of their own, which this test must not ask for."""
    from s3prl import hub

    named = {
        name
        for name in set(hub.options(only_registered_ckpt=True)) - set(registry.names())
        if getattr(hub, name).__module__.startswith("s3prl.")
    }
    assert len(named) > 80
    for name in sorted(named):
        with pytest.raises(InputError, match="takes no checkpoint"):
            load(f"{name}@{folder / 'config.json'}")


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ("hubert@{}/config.json", "hubert_local@{}/config.json"),
        ("hubert_base@{}", "hf_hubert_custom@{}"),
        ("xlsr_53@{}", "hf_wav2vec2_custom@{}"),
        ("vq_wav2vec@{}/config.json", "vq_wav2vec_custom@{}/config.json"),
        ("distilhubert@{}/config.json", "distiller_local@{}/config.json"),
        ("wavlm@https://example.org/w.pt", "wavlm_url@https://example.org/w.pt"),
    ],
)
def test_the_sentence_names_what_fits(folder, spec, fits):
    with pytest.raises(InputError) as refused:
        load(spec.format(folder))
    assert repr(fits.format(folder)) in str(refused.value)


def test_filter_banks_have_nothing_that_fits(folder):
    with pytest.raises(InputError, match=r"takes no checkpoint[^;]*$"):
        load(f"fbank@{folder / 'config.json'}")


def test_opened_files_are_those_that_are_read(folder, monkeypatch):
    monkeypatch.chdir(folder)
    torch.save({}, "w.pt")
    with opened_files() as outer, opened_files() as inner:
        torch.load("w.pt")
        with open("log.txt", "a"), open("new.txt", "w"):
            pass
    (folder / "config.json").read_text()
    assert outer == inner == {str(folder / "w.pt")}


def test_superbits_own_refuse_s3prls_model_config(folder):
    from s3prl import hub

    with pytest.raises(InputError, match="model_config"):
        hub.vanilla_nano(ckpt=None, model_config=str(folder / "config.json"), refresh=False)


def test_s3prls_hub_passes_every_argument_to_other_builders(folder, monkeypatch):
    from s3prl import hub

    given = []
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(hub, "my_own", None, raising=False)
    registry.register("my_own", lambda **arguments: given.append(arguments))
    hub.my_own(ckpt="w.pt", model_config="m.yaml", refresh=True)
    assert given == [{"ckpt": "w.pt", "model_config": "m.yaml", "refresh": True}]
