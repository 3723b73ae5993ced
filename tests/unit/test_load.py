"""``superbit.upstreams.load``: what a notebook gets, and what it says where it cannot."""

import doctest
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import superbit
import superbit.upstreams
from superbit.upstreams import InputError, UpstreamSpec, registry
from superbit.upstreams.errors import BrokenUpstream

RATE = 16_000
# Draws at random in train mode, has trainable weights, and takes tensors only, as s3prl's do.
THEIRS = """
import torch

class Theirs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(320, 8)
        self.dropout = torch.nn.Dropout(0.5)
    def get_downsample_rates(self, key):
        return 320
    def forward(self, wavs):
        assert all(isinstance(wav, torch.Tensor) and wav.dtype == torch.float32 for wav in wavs)
        padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        return {"hidden_states": [self.dropout(self.layer(padded.unfold(1, 320, 320)))]}

def theirs(ckpt=None, **kwargs):
    return Theirs()
"""


@pytest.fixture(scope="module")
def path_spec(tmp_path_factory):
    file = tmp_path_factory.mktemp("theirs") / "hubconf.py"
    file.write_text(THEIRS)
    return f"{file}:theirs"


@pytest.fixture(params=["vanilla_nano", "bq_vanilla_nano", "fbank", "path"])
def spec(request, path_spec):
    return path_spec if request.param == "path" else request.param


@pytest.fixture
def noise():
    return np.random.default_rng(0).uniform(-0.1, 0.1, RATE).astype(np.float32)


def hidden_states(model, waveforms):
    return torch.stack(list(model(waveforms)["hidden_states"]))


def test_what_is_loaded_is_frozen(spec, noise):
    model = superbit.upstreams.load(spec)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    first, second = (hidden_states(model, [torch.from_numpy(noise)]) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


@pytest.mark.parametrize("name", ["vanilla_nano", "path"])
def test_for_fine_tuning_it_trains(name, path_spec, noise):
    model = superbit.upstreams.load(path_spec if name == "path" else name, train=True)
    assert all(module.training for module in model.modules())
    hidden_states(model, [torch.from_numpy(noise)]).square().sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_hub_functions_of_s3prl_stay_as_they_are(noise):
    from s3prl import hub

    model = hub.vanilla_nano()
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_arrays_and_one_waveform_alone_are_taken(spec, noise):
    model = superbit.upstreams.load(spec)
    due = hidden_states(model, [torch.from_numpy(noise)])
    backwards = noise[::-1][::-1]  # an array that torch cannot share memory with
    read_only = noise.copy()
    read_only.flags.writeable = False
    for given in (
        [noise], (noise,), [backwards], [read_only], [noise.astype(np.float64)],
        noise, torch.from_numpy(noise), noise[None],
    ):  # fmt: skip
        assert torch.equal(hidden_states(model, given), due)
    half = torch.from_numpy(noise[: RATE // 2])
    mixed = hidden_states(model, [noise, half])
    assert torch.equal(mixed, hidden_states(model, [torch.from_numpy(noise), half]))


@pytest.mark.parametrize(
    ("waveforms", "said"),
    [
        ([np.zeros(RATE, np.int16)], "holds int16 samples; .* divide 16-bit samples by 32768"),
        ([np.zeros(RATE, np.int64)], "holds int64 samples; floating point"),
        ([torch.zeros(RATE, dtype=torch.int16)], "waveform 0 of 1 holds int16 .* by 32768"),
        (torch.zeros(RATE, dtype=torch.int16), "holds int16 samples; .* by 32768"),
        ([torch.zeros(RATE), torch.zeros(RATE, dtype=torch.int32)], "waveform 1 of 2 holds int32"),
        ([np.zeros((RATE, 2))], r"waveform 0 of 1 has shape \(16000, 2\); one channel"),
        ([np.zeros(RATE), 0.5], "waveform 1 of 2 is float; a 1-D float array or tensor"),
    ],
)
def test_waveforms_that_cannot_be_taken(spec, waveforms, said):
    with pytest.raises(InputError, match=said):
        superbit.upstreams.load(spec)(waveforms)


@pytest.mark.parametrize("given", ["speech.wav", {"a": 1}, None, 3])
def test_what_is_no_list_of_waveforms(given):
    with pytest.raises(InputError, match=f"the waveforms are {type(given).__name__}; a list of"):
        superbit.upstreams.load("vanilla_nano")(given)


def test_the_example_of_its_help():
    """``help(load)`` is all that a notebook user reads, and its example runs."""
    found = doctest.DocTestFinder().find(registry.load, "load", globs={})
    assert [len(each.examples) for each in found] == [7]
    runner = doctest.DocTestRunner()
    for each in found:
        runner.run(each)
    assert runner.summarize(verbose=False).failed == 0
    told = " ".join((registry.load.__doc__ or "").split())
    for word in ("16 kHz", "(samples,)", "(batch, frames, dim)", "20 ms", "eval mode", "CPU"):
        assert word in told


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("vanila_nano", "vanilla_nano"),
        ("bq_vanila_nano", "bq_vanilla_nano"),
        ("hubertt", "hubert"),
        ("bq_vanila_nano+policy=w1a1", "bq_vanilla_nano"),
    ],
)
def test_a_mistyped_name_is_said_as_typed(wrong, meant):
    typed = wrong.partition("+")[0]
    said = f"unknown upstream '{typed}': .*Did you mean '{meant}'"
    for ask in (superbit.upstreams.load, registry.load_upstream):
        with pytest.raises(InputError, match=said):
            ask(wrong)


def noise_of(*words, **environment):
    """What a process prints that is not what it was asked to."""
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", ["vanila_nano", "bq_vanila_nano", "vq_apc_urls"])
def test_a_mistyped_name_brings_nobody_elses_noise(name):
    """Neither what s3prl and transformers print at import, nor their import: it takes seconds."""
    code = (
        "import sys\nfrom superbit.upstreams import InputError, load\n"
        f"try:\n    load({name!r})\nexcept InputError:\n    pass\n"
        "print([name for name in ('torch', 's3prl.hub', 'transformers') if name in sys.modules])"
    )
    assert noise_of("-W", "always", "-c", code) == (0, "[]\n", "")


@pytest.mark.thorough
def test_a_name_that_needs_the_whole_hub_brings_no_noise():
    """``FileLock`` is a name in the hub, no function of its sources, and no upstream."""
    code = (
        "import sys\nfrom superbit.upstreams import foreign\n"
        "assert not foreign.by_hub_name('FileLock') and 's3prl.hub' in sys.modules\n"
        "assert foreign.by_hub_name('fbank')\n"
        "import logging\nlogging.warning('ours')\n"
    )
    assert noise_of("-c", code) == (0, "", "WARNING:root:ours\n")


def test_a_sweep_says_one_line_of_a_mistyped_name(tmp_path):
    command = ("-m", "superbit.benchmark.cli")
    sweep = ("sweep", "--tasks", "KS", "--scale", "superb", "--dry-run", "--assume",
             "superb-sizes", "--results", str(tmp_path))  # fmt: skip
    code, out, err = noise_of(*command, *sweep, "--upstreams", "bq_vanila_nano")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("superbit: ")
    assert "Did you mean" in err


@pytest.mark.parametrize("nothing", [[], (), np.zeros((0, 16_000))])
def test_no_waveform_at_all_is_a_sentence_of_any_upstream(nothing):
    for name in ("fbank", "vanilla_nano"):
        with pytest.raises(InputError, match="the list of waveforms is empty"):
            registry.load(name)(nothing)


def test_arrays_by_name_reach_somebody_elses_upstream(tmp_path):
    (tmp_path / "hubconf.py").write_text(
        "import torch\n"
        "class Model(torch.nn.Module):\n"
        "    def forward(self, wavs):\n"
        "        return {'hidden_states': [torch.stack(wavs)[..., None]]}\n"
        "def mine(ckpt=None, **kwargs):\n    return Model()\n"
    )
    model = registry.load(f"{tmp_path}/hubconf.py:mine")
    wave = np.linspace(-0.5, 0.5, 800)
    by_name, by_place = model(wavs=[wave]), model([wave])
    assert by_name["hidden_states"][0].equal(by_place["hidden_states"][0])
    assert by_name["hidden_states"][0].shape == (1, 800, 1)


def test_a_spec_may_be_a_path_or_parsed_and_nothing_else(path_spec):
    by_path = registry.load(Path(path_spec))
    assert type(by_path).__name__ == "Theirs"
    twin = registry.load(UpstreamSpec.parse("bq_vanilla_nano"))
    assert twin.model.policy.name == "w1a1"
    for wrong in (None, 3, ["vanilla_nano"], b"vanilla_nano"):
        for load in (registry.load, superbit.load):
            with pytest.raises(InputError, match="a spec is needed") as caught:
                load(wrong)
            assert len(str(caught.value).splitlines()) == 1
    assert superbit.load(Path(path_spec)).spec == superbit.load(path_spec).spec
    assert superbit.load(UpstreamSpec.parse("bq_vanilla_nano")).spec == "vanilla_nano+policy=w1a1"


STATELESS = """
import torch

class Stateless(torch.nn.Module):
    def get_downsample_rates(self, key):
        return 320
    def forward(self, wavs):
        return {"hidden_states": [torch.zeros(len(wavs), 50, 8)]}
    def state_dict(self, *args, **kwargs):
        BODY

def model(ckpt=None, **kwargs):
    return Stateless()
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", r"its state_dict\(\) returned NoneType; a mapping from names to tensors"),
        ("raise OSError('gone')", r"its state_dict\(\) raised OSError: gone; a mapping"),
    ],
)
def test_an_upstream_without_a_state_is_one_sentence(body, said, tmp_path):
    (tmp_path / "hubconf.py").write_text(STATELESS.replace("BODY", body))
    for ask in (registry.load, registry.load_upstream):
        with pytest.raises(BrokenUpstream, match=said):
            ask(f"{tmp_path}/hubconf.py:model")


def test_an_empty_checkpoint_is_none():
    with pytest.raises(InputError, match="ckpt is empty"):
        registry.load("vanilla_nano", ckpt="")
