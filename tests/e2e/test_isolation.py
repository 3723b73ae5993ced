"""One broken upstream in a sweep: its runs fail and say why, the others go on, whatever breaks."""

import os
import textwrap

import pytest

from superbit.benchmark import recording
from superbit.benchmark.features import extraction
from superbit.benchmark.features.store import CacheError
from superbit.benchmark.records import UNKNOWN
from superbit.benchmark.results import ResultStore

OVERRIDES = """
IC: {runner: {total_steps: 5, eval_step: 5, save_step: 5, log_step: 5}}
KS: {runner: {total_steps: 5, eval_step: 5, save_step: 5, log_step: 5}}
"""

# An upstream that keeps the contract but for what is put in the places of its three pieces.
UPSTREAM = '''
import multiprocessing, os, sys
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("matrix", torch.sin(torch.arange(320 * 4.0)).view(320, 4))

    def {rate}(self, key):
        return {hop}

    def forward(self, wavs):
        {before}
        frames = [torch.nn.functional.pad(w, (0, 320)).unfold(0, 320, 320) for w in wavs]
        states = [torch.tanh(f @ self.matrix) for f in frames]
        states = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
        return {output}

def model(ckpt=None, **kwargs):
    {build}
    return Model()
'''
PIECES = {
    "rate": "get_downsample_rates",
    "hop": "320",
    "before": "pass",
    "output": '{"hidden_states": [states]}',
    "build": "pass",
}
RAISES = "raise ValueError('it broke')"
IN_A_PROCESS_OF_ITS_OWN = "multiprocessing.parent_process() is not None"
# what is other than it should be → what the record's reason says
BROKEN = {
    "the builder raises": ({"build": RAISES}, "cannot be built: ValueError: it broke"),
    "the builder exits": ({"build": "sys.exit(3)"}, "cannot be built: SystemExit: 3"),
    "the builder gives no module": ({"build": "return 7"}, "returned int; it must return a torch"),
    "forward raises": (
        {"before": RAISES},
        "breaks the contract's rule hidden-states: the forward pass raised ValueError",
    ),
    "forward exits": ({"before": "sys.exit(3)"}, "SystemExit: 3"),
    "forward raises for batches": (
        {"before": f"if len(wavs) > 1: {RAISES}"},
        "breaks the contract's rule hidden-states: the forward pass raised ValueError for a batch",
    ),
    "forward raises for what is long": (
        {"before": f"if max(map(len, wavs)) > 44_000: {RAISES}"},
        "the forward pass raised ValueError for a batch of",
    ),
    "no hidden states": (
        {"output": '{"feats": states}'},
        "rule hidden-states: a dict with the keys ['feats']; needed: a dict whose",
    ),
    "hidden states of two shapes": (
        {"output": '{"hidden_states": [states, states[..., :2]]}'},
        "breaks the contract's rule hidden-states: hidden state 0 has shape",
    ),
    "NaN": (
        {"output": '{"hidden_states": [states * torch.nan]}'},
        "breaks the contract's rule finite: the upstream gave NaN or infinity",
    ),
    "no rate": (
        {"rate": "get_another_rate"},
        "rule downsample-rate: there is no method get_downsample_rates",
    ),
    "a rate of zero": ({"hop": "0"}, "breaks the contract's rule downsample-rate: 0 (int)"),
    "a wrong rate": ({"hop": "160"}, "breaks the contract's rule frame-count: "),
}
WAYS = {"stored": (), "live": ("--no-cache",), "processes": ("--jobs", "2")}


@pytest.fixture
def broken(tmp_path):
    """Write an upstream some pieces of which are other than they should be; give its spec."""

    def write(name="broken", **pieces):
        file = tmp_path / f"{name}.py"
        text = UPSTREAM
        for piece, code in (PIECES | pieces).items():
            text = text.replace(f"{{{piece}}}", code)
        file.write_text(text)
        return f"{file}:model"

    return write


@pytest.fixture
def sweep(superbit, tiny_paths_file, tmp_path):
    (tmp_path / "overrides.yaml").write_text(textwrap.dedent(OVERRIDES))

    def call(upstreams, *more, tasks="IC"):
        return superbit(
            "sweep", "--upstreams", upstreams, "--tasks", tasks, "--scale", "embedded",
            "--paths", tiny_paths_file, "--overrides", tmp_path / "overrides.yaml",
            "--results", tmp_path / "results", *more,
        )  # fmt: skip

    return call


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


def by_upstream(store):
    return {record.identity.upstream: record for record in store.read_all()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_upstream_fails_its_runs_only(sweep, broken, store, what, way):
    pieces, said = BROKEN[what]
    spec = broken(**pieces)
    status, out, err = sweep(f"{spec},fbank", *WAYS[way])
    assert status == 1, out + err
    assert "Traceback" not in err
    records = by_upstream(store)
    assert records["fbank"].status == "done"
    assert set(records) == {spec, "fbank"}
    assert records[spec].status == "failed"
    assert said in records[spec].reason
    (named,) = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert named.startswith(f"failed: IC × {spec}: ")
    assert said in named


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("way", ["stored", "live"])
def test_a_dry_run_names_it_and_writes_nothing(sweep, broken, store, what, way):
    pieces, said = BROKEN[what]
    spec = broken(**pieces)
    status, out, err = sweep(f"{spec},fbank", "--dry-run", *WAYS[way])
    if what == "forward raises for what is long" and way == "stored":
        assert status == 0, out + err  # planning passes three seconds at most
        return
    assert status == 1, out + err
    (named,) = [line for line in out.splitlines() if line.startswith("would fail: ")]
    assert named.startswith(f"would fail: every run of {spec}: ")
    assert said in named or "breaks the contract's rule" in named
    assert "IC × fbank" in out
    assert store.read_all() == []
