"""What people typed as ``bq_x`` is printed so, from the plan to the report."""

import pytest

from superbit.benchmark import cli
from superbit.benchmark.records.store import ResultStore


@pytest.fixture
def sweep(tiny_paths_file, tmp_path, capsys):
    results = tmp_path / "results"

    def call(*more, upstreams="bq_vanilla_nano", expect=0):
        words = ["sweep", "--upstreams", upstreams, "--tasks", "IC", "--scale", "embedded"]
        words += ["--limit", "1", "--paths", str(tiny_paths_file), "--results", str(results), *more]
        assert cli.main(words) == expect
        out, err = capsys.readouterr()
        return out + err

    call.results = results
    return call


def test_a_sweep_prints_what_people_type(sweep, capsys):
    cached = ["--cache-dir", str(sweep.results / "cache")]
    said = sweep("--dry-run", *cached)
    assert "IC × bq_vanilla_nano " in said
    assert "features of bq_vanilla_nano: " in said
    said += sweep(*cached)
    assert "run 1 of 1: IC × bq_vanilla_nano" in said
    said += sweep("--lr", "0.1,0.01")
    assert "learning rate of IC × bq_vanilla_nano: " in said
    assert cli.main(["cache", "ls", *cached]) == 0
    assert cli.main(["status", "--results", str(sweep.results)]) == 0
    said += capsys.readouterr().out
    assert "+policy=w1a1" not in said
    # the canonical spelling stays what records are found by
    records = ResultStore(sweep.results).read_all()
    assert {record.identity.upstream for record in records} == {"vanilla_nano+policy=w1a1"}
    # its head says what it takes of the five hidden states, each rate in its own way
    weights = [record.layer_weights for record in records]
    assert all(len(each) == 5 and sum(each) == pytest.approx(1) for each in weights)
    assert len({tuple(each) for each in weights}) == len(records) > 1


def test_so_do_its_failures(sweep, monkeypatch):
    def broken(*_, **__):
        raise ValueError("of somebody's")

    monkeypatch.setattr("superbit.upstreams.expert.UpstreamExpert.forward", broken)
    said = sweep("--no-cache", expect=1)
    assert "failed: IC × bq_vanilla_nano: " in said
    assert "'superbit check bq_vanilla_nano'" in said
    said += sweep("--dry-run", "--no-cache", expect=1)
    assert "would fail: every run of bq_vanilla_nano: " in said
    said += sweep(upstreams="bq_vanilla_nano,vanilla_nano+policy=w1a1", expect=2)
    assert "are both 'bq_vanilla_nano'" in said
    assert "policy=w1a1" not in said.replace("'vanilla_nano+policy=w1a1' are both", "")


def test_so_do_sentences_on_what_a_twin_is_not():
    import superbit.upstreams

    with pytest.raises(superbit.upstreams.InputError, match=r"^upstream 'bq_fbank': '\+policy'"):
        superbit.upstreams.load("bq_fbank")
