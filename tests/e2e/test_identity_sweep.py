"""A sweep runs again what has changed, reuses what has not, and marks random weights."""

import json
import sys

import pytest

from superbit.benchmark.records.store import ResultStore

HUBCONF = """
import sys
from pathlib import Path
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "neighbourhood"))
import gain_of_identity_sweep

class Random(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(320, 8)
    def get_downsample_rates(self, key):
        return 320
    def forward(self, wavs):
        frames = [torch.nn.functional.pad(w, (0, 320)).unfold(0, 320, 320) for w in wavs]
        states = [gain_of_identity_sweep.GAIN * torch.tanh(self.layer(f)) for f in frames]
        return {"hidden_states": [torch.nn.utils.rnn.pad_sequence(states, batch_first=True)]}

def one(ckpt=None, **kwargs):
    return Random()

def two(ckpt=None, **kwargs):
    return Random()
"""


@pytest.mark.thorough
@pytest.mark.usefixtures("forked_workers")
def test_random_upstreams_from_plan_to_table_and_again(
    superbit, tiny_paths_file, overrides, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neighbourhood").mkdir()
    helper = tmp_path / "neighbourhood" / "gain_of_identity_sweep.py"
    helper.write_text("GAIN = 1.0\n")
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "hubconf.py").write_text(HUBCONF)
    specs = ["plugin/hubconf.py:one", "plugin/hubconf.py:two"]
    sweep = (
        "sweep", "--upstreams", ",".join(specs), "--tasks", "KS", "--scale", "embedded",
        "--paths", tiny_paths_file, "--overrides", overrides,
        # below the hubconf, where what a sweep writes must not count
        "--results", "plugin/results", "--jobs", "2",
    )  # fmt: skip
    status, out, err = superbit(*sweep)
    assert status == 0, out + err
    assert "2 new, 0 reused" in out
    store = ResultStore("plugin/results")
    marked = [f"{spec}+untrained" for spec in specs]
    assert {record.identity.upstream for record in store.read_all()} == set(marked)
    assert all(record.untrained for record in store.read_all())

    assert "0 new, 2 reused" in superbit(*sweep)[1]
    again = [word.replace(",", "+untrained,") if "," in str(word) else word for word in sweep]
    assert "0 new, 2 reused" in superbit(*again)[1]

    table = ("table", "2", "--source", "runs", "--format", "json", "--results", "plugin/results")
    rows = json.loads(superbit(*table)[1])
    assert [row["source"] for row in rows] == ["measured; embedded; untrained; synthesized"] * 2
    (row,) = json.loads(superbit(*table, "--where", f"upstream={marked[0]}")[1])
    assert row["model"] == marked[0]

    helper.write_text("GAIN = 0.25\n")
    status, out, _ = superbit(*sweep)
    assert "2 new, 0 reused" in out
    status, _, err = superbit(*table)
    assert status == 2
    assert "upstream_files_sha256" in err
    sys.modules.pop("gain_of_identity_sweep", None)
    sys.path[:] = [path for path in sys.path if not path.startswith(str(tmp_path))]
