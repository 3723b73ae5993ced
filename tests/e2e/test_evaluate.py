"""`superbit.evaluate`: modules and specs in one call, reused by the next; its example runs."""

import doctest
import signal

import pytest
import torch

import superbit
from superbit.benchmark.records.store import ResultStore
from superbit.evaluation import evaluate as function
from superbit.upstreams.errors import InputError

SHORT = """
KS: {runner: {total_steps: 6, eval_step: 3, save_step: 2, log_step: 2},
     downstream_expert: {datarc: {batch_size: 8}}}
"""


class Energies(torch.nn.Module):
    """Frame energies through a matrix, with a layer that behaves otherwise in training."""

    def __init__(self, scale=1.0):
        super().__init__()
        matrix = torch.sin(torch.arange(320 * 8.0)).view(320, 8)
        self.matrix = torch.nn.Parameter(scale * matrix)
        self.dropout = torch.nn.Dropout(0.5)
        self.calls = 0

    def get_downsample_rates(self, key):
        return 320

    def forward(self, wavs):
        self.calls += 1
        assert not self.training
        frames = [torch.nn.functional.pad(w, (0, 320)).unfold(0, 320, 320) for w in wavs]
        states = [self.dropout(torch.tanh(f @ self.matrix)) for f in frames]
        return {"hidden_states": [torch.nn.utils.rnn.pad_sequence(states, batch_first=True)]}


@pytest.fixture
def asked(tiny_paths_file, tmp_path):
    """What every call here says."""
    (tmp_path / "short.yaml").write_text(SHORT)
    return {
        "tasks": ["KS"],
        "paths": tiny_paths_file,
        "results": tmp_path / "results",
        "overrides": tmp_path / "short.yaml",
    }


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_module_and_a_spec_are_run_once(asked, tmp_path, capsys):
    module = Energies().train()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = superbit.evaluate(upstreams=[module, "fbank_no_cmvn"], seeds=[1, 2], **asked)
    assert torch.equal(torch.rand(3), expected), "whoever calls keeps his random numbers"
    assert module.training
    assert module.dropout.training
    assert module.matrix.requires_grad
    frame = first.to_pandas()
    assert frame[["upstream", "seed", "status"]].values.tolist() == [
        ["Energies", 1, "done"], ["Energies", 2, "done"],
        ["fbank_no_cmvn", 1, "done"], ["fbank_no_cmvn", 2, "done"],
    ]  # fmt: skip
    assert frame["value"].between(0, 100).all()
    assert first.failed == ()
    assert capsys.readouterr().out == ""
    # features of a module are stored as those of any other
    folders = (tmp_path / "results/work/features").glob("[!.]*-*")
    stored = {folder.name.rpartition("-")[0] for folder in folders}
    assert stored == {"Energies", "fbank_no_cmvn"}
    written = times(tmp_path / "results/KS")
    again = superbit.evaluate(upstreams=[Energies(), "fbank_no_cmvn"], seeds=[1, 2], **asked)
    assert [record.key for record in again.records] == [record.key for record in first.records]
    assert times(tmp_path / "results/KS") == written
    # only what was asked for, while the folder has more
    one = superbit.evaluate(upstreams="fbank_no_cmvn", seeds=2, **asked)
    assert [r.key for r in one.records] == [frame["key"][3]]
    assert len(superbit.load_results(tmp_path / "results")) == 4
    assert "fbank_no_cmvn" in repr(one.table2(source="runs"))
    assert "Energies" in repr(first.compare("Energies", "fbank_no_cmvn"))


def test_a_module_with_other_weights_is_another_run(asked):
    one = superbit.evaluate(upstreams=Energies(), **asked)
    other = superbit.evaluate(upstreams=Energies(scale=2.0), **asked)
    assert one.records[0].key != other.records[0].key


def test_a_search_returns_every_rate_and_tables_take_the_chosen_one(asked):
    results = superbit.evaluate(upstreams="fbank_no_cmvn", learning_rates=[1e-2, 1e-4], **asked)
    frame = results.to_pandas()
    assert sorted(frame["learning_rate"]) == [1e-4, 1e-2]
    table = results.table2(source="runs", show_lr=True).to_text("csv")
    assert sum(f",{rate:g}," in table for rate in frame["learning_rate"]) == 1


def test_a_module_that_fails_does_not_stop_the_others(asked):
    class Broken(Energies):
        def forward(self, wavs):
            raise ValueError("no idea")

    results = superbit.evaluate(upstreams=[Broken(), "fbank_no_cmvn"], **asked)
    assert list(results.to_pandas()["status"]) == ["failed", "done"]
    (failed,) = results.failed
    assert "no idea" in failed.reason


def test_a_module_reaches_no_other_process(asked):
    with pytest.raises(InputError, match="jobs 2: upstream 'Energies' was registered in this"):
        # one run alone would stay in this process
        superbit.evaluate(upstreams=[Energies(), "fbank"], jobs=2, **asked)


def test_stopped_and_called_again(asked):
    class Interrupting(Energies):
        def forward(self, wavs):
            if self.calls == 12:
                signal.raise_signal(signal.SIGINT)
            return super().forward(wavs)

    module = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        superbit.evaluate(upstreams=module, no_cache=True, **asked)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    results = superbit.evaluate(upstreams=module, no_cache=True, **asked)
    assert list(results.to_pandas()["status"]) == ["done"]
    assert len(ResultStore(asked["results"]).read_all()) == 1


def test_the_example_of_help_runs_as_printed(tiny_paths_file, tmp_path):
    given = {"paths_file": tiny_paths_file, "folder": tmp_path / "results"}
    (found,) = doctest.DocTestFinder().find(function, "evaluate", globs=given)
    assert doctest.DocTestRunner(verbose=False).run(found).failed == 0
