"""What the end-to-end tests share: a short config, small upstreams by path, the command line."""

import shutil
import textwrap
from pathlib import Path

import pytest

from superbit.benchmark import cli

OVERRIDES = """
KS:
  runner: {total_steps: 6, eval_step: 3, save_step: 2, log_step: 2}
  downstream_expert: {datarc: {batch_size: 8}}
PR:
  runner: {total_steps: 4, eval_step: 2, save_step: 2}
ASR:
  runner: {total_steps: 2, eval_step: 2, save_step: 2}
"""

# Frame energies through a fixed matrix: an upstream that costs nothing. What it does besides is
# decided by the file beside it, so that a test can make the same upstream fail or die.
HUBCONF = """
import multiprocessing, os, signal
from pathlib import Path
import torch

HERE = Path(__file__).parent

class Energies(torch.nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.register_buffer("matrix", torch.sin(torch.arange(320.0 * width)).view(320, width))

    def get_downsample_rates(self, key):
        return 320

    def forward(self, wavs):
        with open(HERE / "calls", "a") as calls:
            calls.write("x")
        self.misbehave((HERE / "calls").stat().st_size)
        frames = [torch.nn.functional.pad(w, (0, 320)).unfold(0, 320, 320) for w in wavs]
        states = [torch.tanh(f @ self.matrix) for f in frames]
        return {"hidden_states": [torch.nn.utils.rnn.pad_sequence(states, batch_first=True)]}

    def misbehave(self, calls):
        order = HERE / "order"
        try:
            what, _, when = order.read_text().partition(" ")
            if calls < int(when) or (what == "orphan" and not multiprocessing.parent_process()):
                return
            order.unlink()  # of several processes only one can
        except FileNotFoundError:
            return
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "orphan":
            os.kill(os.getppid(), signal.SIGKILL)
        if what == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        if what == "fail":
            raise ValueError("the upstream\\nbroke")

def energies(ckpt=None, **kwargs):
    return Energies()

def twin(ckpt=None, **kwargs):
    return Energies()

def wide(ckpt=None, **kwargs):
    return Energies(width=200)

class Leaking(Energies):
    "Its features depend on how long the longest of the batch is."

    def forward(self, wavs):
        (states,) = super().forward(wavs)["hidden_states"]
        return {"hidden_states": [states * (1 + 1e-3 * states.shape[1])]}

def leaking(ckpt=None, **kwargs):
    return Leaking()
"""


@pytest.fixture
def overrides(tmp_path) -> Path:
    file = tmp_path / "overrides.yaml"
    file.write_text(OVERRIDES)
    return file


@pytest.fixture(scope="session")
def write_hubconf():
    """Write the upstream that costs nothing into a folder; give its file."""

    def write(folder: Path) -> Path:
        (folder / "plugin").mkdir()
        file = folder / "plugin" / "hubconf.py"
        file.write_text(textwrap.dedent(HUBCONF))
        return file

    return write


@pytest.fixture
def hubconf(tmp_path, write_hubconf) -> Path:
    return write_hubconf(tmp_path)


@pytest.fixture
def corpora(tiny_paths_file, tmp_path) -> Path:
    """A copy of the tiny corpora that a test may break; gives its paths file."""
    folder = tmp_path / "corpora"
    shutil.copytree(tiny_paths_file.parent, folder)
    return folder / tiny_paths_file.name


@pytest.fixture
def superbit(capsys):
    """Call the command line in this process: ``superbit("table", "2")`` → status, out, err."""

    def call(*words):
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call
