"""After ``import superbit.upstreams`` torchaudio, transformers and s3prl import in any order.

Each case is an interpreter of its own. Where torchaudio's extension loads, the cases pass without
the shims; ``broken`` puts a torchaudio that does not in front of it.
"""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.thorough

# What every order must lead to: nobody notices whether the extension loaded, or who asked first.
HOLDS = """
import torch, torchaudio, torchaudio.sox_effects, torchaudio._internal, torchaudio.transforms
from torchaudio._extension import utils, fail_if_no_align
assert torchaudio._internal is sys.modules["torchaudio._internal"]
assert torchaudio.set_audio_backend("soundfile") is None
wave = torch.linspace(-0.5, 0.5, 1600)[None]
soundfile.write("a.wav", wave[0].numpy(), 16000, subtype="FLOAT")
read, rate = torchaudio.load("a.wav")
assert rate == 16000 and torch.equal(read, wave)
read, rate = torchaudio.sox_effects.apply_effects_file("a.wav", [["channels", "1"]])
assert rate == 16000 and torch.allclose(read, wave, atol=1e-6)
assert torchaudio.functional.lfilter(wave, torch.ones(2), torch.ones(2)).shape == wave.shape
print("held")
"""
TRY = "try:\n    {}\nexcept (OSError, ImportError, RuntimeError):\n    pass\n"


def run_python(code, tmp_path, *arguments, in_front=()):
    paths = [*map(str, in_front), *filter(None, [os.environ.get("PYTHONPATH")])]
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], cwd=tmp_path, capture_output=True,
        text=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


SUPERBIT, HUBERT = "import superbit.upstreams", "from transformers import HubertModel"
HUB = "import s3prl.hub; assert s3prl.hub.vanilla_nano"


@pytest.mark.parametrize(
    "order",
    [
        [SUPERBIT, "import torchaudio"],
        pytest.param([SUPERBIT, HUBERT, HUB], marks=pytest.mark.slow),
        pytest.param(
            ["import torch, transformers, s3prl", SUPERBIT, HUBERT], marks=pytest.mark.slow
        ),
        # Tried before superbit was there: what an attempt that failed leaves must not matter.
        [*map(TRY.format, ("import torchaudio", HUBERT, HUB)), SUPERBIT, HUB, HUBERT],
    ],
    ids=["torchaudio", "transformers", "superbit last", "tried before"],
)
def test_any_order(order, tmp_path):
    code = "\n".join(["import sys, soundfile", *order, HOLDS])
    assert run_python(code, tmp_path).split()[-1] == "held"


@pytest.fixture
def broken(tmp_path):
    """A folder with a torchaudio whose extension does not load, as beside a torch for CPUs."""
    package = tmp_path / "broken" / "torchaudio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from . import _extension, _align\ntheirs = True\n")
    (package / "_extension.py").write_text(
        "try:\n    raise OSError('libc10_cuda.so: no such file')\n"
        "except OSError as error:\n    raise OSError('Could not load this library') from error\n"
    )
    (package / "_align.py").write_text(
        "from torchaudio._extension import fail_if_no_align\n"
        "@fail_if_no_align\ndef forced_align():\n    return 'aligned'\n"
    )
    return package.parent


def test_an_extension_that_does_not_load_is_done_without(broken, tmp_path):
    code = """
        import sys
        try:
            import torchaudio
        except OSError:
            print("fails")
        import superbit.upstreams
        assert not [name for name in ("torch", "numpy") if name in sys.modules]
        import torchaudio, torchaudio.sox_effects
        print(torchaudio.theirs, torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE)
        try:
            torchaudio._align.forced_align()
        except RuntimeError as error:
            print(error)
    """
    out = run_python(textwrap.dedent(code), tmp_path, in_front=[broken]).splitlines()
    assert out[:2] == ["fails", "True False"]
    assert out[2].startswith("forced_align needs torchaudio's compiled extension")
    assert out[2].endswith("libc10_cuda.so: no such file")


def test_another_error_of_torchaudio_is_not_hidden(broken, tmp_path):
    (broken / "torchaudio" / "_align.py").write_text("raise OSError('their own')\n")
    code = "import superbit.upstreams\n"
    code += "try:\n    import torchaudio\nexcept OSError as error:\n    print(error)\n"
    assert run_python(code, tmp_path, in_front=[broken]) == "their own\n"


def test_a_torchaudio_that_loads_is_left_alone(tmp_path):
    package = tmp_path / "whole" / "torchaudio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from . import _extension\n"
        "def load(uri): return 'theirs'\ndef set_audio_backend(name): return 'theirs'\n"
    )
    (package / "_extension.py").write_text("_IS_TORCHAUDIO_EXT_AVAILABLE = 'theirs'\n")
    (package / "sox_effects.py").write_text("theirs = 'theirs'\n")
    for order in ("superbit.upstreams, torchaudio", "torchaudio, superbit.upstreams"):
        code = f"import {order}, torchaudio._extension, torchaudio.sox_effects\n"
        code += "print(torchaudio.load('x'), torchaudio.set_audio_backend('y'))\n"
        code += "print(torchaudio.sox_effects.theirs)\n"
        code += "print(torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE)\n"
        assert set(run_python(code, tmp_path, in_front=[package.parent]).split()) == {"theirs"}


HUBCONF = """
import torchaudio
from transformers import HubertConfig, HubertModel
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        small = HubertConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
        self.model = HubertModel(small)
        self.mel = torchaudio.transforms.MelSpectrogram()

    def get_downsample_rates(self, key):
        return 320

    def forward(self, wavs):
        given = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        return {"hidden_states": self.model(given, output_hidden_states=True).hidden_states}


def theirs(ckpt=None, **kwargs):
    return Model()
"""
LOAD = """
import multiprocessing, sys


def states(spec):
    import torch
    from superbit.upstreams import load

    with torch.no_grad():
        return len(load(spec)([torch.zeros(1600)])["hidden_states"])


if __name__ == "__main__":
    here, there = sys.argv[1:]
    print(states(here))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(*pool.map(states, [there]))
"""


def test_foreign_upstreams_are_imported_behind_the_shims(tmp_path):
    """A hubconf that imports torchaudio and transformers, here and in a spawned process."""
    site = tmp_path / "site"
    info = site / "theirs-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "their_hubconf.py").write_text(HUBCONF)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[superbit.upstreams]\ntheirs = their_hubconf:theirs\n")
    by_path = f"{site / 'their_hubconf.py'}:theirs"
    # the entry point here, the path there: both doors, both processes
    assert run_python(LOAD, tmp_path, "theirs", by_path, in_front=[site]).split() == ["2", "2"]


def test_modules_of_ours_and_theirs_may_be_reloaded(tmp_path):
    """As notebooks do: nothing is asked twice, and what is ours in s3prl's hub is no clash."""
    code = """
        import importlib, sys, warnings
        import superbit.upstreams as ours
        import superbit.upstreams.s3prl.compat as compat
        warnings.simplefilter("error", UserWarning)
        for modules in ((ours,), (compat, ours)):
            for module in modules:
                importlib.reload(module)
        import torchaudio, s3prl.hub
        for module in (compat, ours, s3prl.hub, torchaudio):
            importlib.reload(module)
        print(sum("S3prlFinder" in type(each).__name__ for each in sys.meta_path))
        print(s3prl.hub.bq_vanilla_nano.__doc__)
    """
    out = run_python(textwrap.dedent(code), tmp_path).splitlines()
    assert out[-2:] == ["1", "1-bit twin of vanilla_nano"]
