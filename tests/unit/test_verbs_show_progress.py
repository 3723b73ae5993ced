"""Every verb that can take seconds says on standard error how far it is; none is forgotten."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from superbit.benchmark import cli
from superbit.benchmark.cli import leaves, parser

EMBEDDED = Path(__file__).resolve().parents[2] / "results" / "embedded"
# What is drawn, and the words behind the verb's name; files in {folder} are made by `folder`.
SHOWN = {
    "manifest": ("reading {folder}", "{folder} --out {out} --held-out 0.3"),
    "units fit": ("features of {folder}/train.tsv", "--clusters 4 --manifest {folder}/train.tsv "
                  "--out {out}/u.safetensors"),
    "units label": ("labels of {folder}/train.tsv", "--units {folder}/units.safetensors "
                    "--manifest {folder}/train.tsv --out {out}/train.km"),
    "import": ("importing {folder}/hf", "--from hf {folder}/hf --out {out}/imported"),
    "pack": ("packing bq_vanilla_nano", "bq_vanilla_nano --out {out}/twin.safetensors"),
    "table 2": ("reading {results}", "--results {results}"),
    "compare": ("reading {results}", "fbank vanilla_nano --results {results}"),
    "report": ("reading {results}", "--results {results} --out {out}/page.html"),
    "figure": ("reading {results}", "layers --results {results} --out {out}/layers.svg"),
    "status": ("reading {results}", "--results {results}"),
    "results verify": ("recomputing values", "{results}"),
}  # fmt: skip
# Held by other tests: test_command_line (bars), test_progress and the end-to-end ones (runs),
# test_nano_checkpoints (stages, each a line).
ELSEWHERE = {
    "profile", "table 1", "claims", "check", "error-flow", "corpus make", "corpus speech",
    "corpus check", "corpus prepare", "sweep", "pretrain", "distil", "nano",
}  # fmt: skip
# However much there is: a list, a folder's sizes, one figure. Packing two thousand runs takes
# seconds, and says of each task what was packed when all is safe.
QUICK = {
    "list",
    "new-upstream",
    "new-encoder",
    "cache ls",
    "cache prune",
    "cancel",
    "curves",
    "results pack",
    "results unpack",
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import HubertConfig, HubertModel

    folder = tmp_path_factory.mktemp("audio")
    random = np.random.default_rng(0)
    for index in range(6):
        soundfile.write(folder / f"{index}.flac", random.normal(0, 0.1, 8_000), 16_000)
    manifest = ["manifest", str(folder), "--out", str(folder), "--held-out", "0.3"]
    fit = ["units", "fit", "--clusters", "4", "--manifest", str(folder / "train.tsv")]
    assert cli.main(manifest) == 0
    assert cli.main([*fit, "--out", str(folder / "units.safetensors")]) == 0
    config = HubertConfig(
        **{"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 256, "conv_dim": (32,) * 7},
    )
    HubertModel(config).save_pretrained(folder / "hf")
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One task's records of those on record."""
    folder = tmp_path_factory.mktemp("records")
    for name in ("QbE.jsonl.gz", "QbE.items.jsonl.gz"):
        (folder / name).symlink_to(EMBEDDED / name)
    return folder


def test_no_verb_is_forgotten():
    names = [leaf.prog.removeprefix("superbit ") for leaf in leaves(parser())]
    assert sorted(names) == sorted([*SHOWN, *ELSEWHERE, *QUICK])


@pytest.mark.parametrize("verb", SHOWN)
def test_a_terminal_shows_how_far_it_is(verb, folder, results, tmp_path, capsys, monkeypatch):
    shown, words = SHOWN[verb]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "400")
    said = []
    for stream in (io.StringIO(), Terminal()):
        out = tmp_path / "out"
        places = {"folder": folder, "results": results, "out": out}
        monkeypatch.setattr(sys, "stderr", stream)
        assert cli.main([*verb.split(), *words.format(**places).split()]) == 0
        said.append((capsys.readouterr().out, stream.getvalue()))
        if out.is_dir():
            shutil.rmtree(out)
    (plain, log), (drawn_out, drawn) = said
    assert plain == drawn_out
    assert plain.strip()
    # in a log nothing, or a line every ten seconds
    assert all(line.startswith(shown.format(**places)) for line in log.splitlines())
    assert shown.format(**places) in drawn
    assert "0:00:0" in drawn
