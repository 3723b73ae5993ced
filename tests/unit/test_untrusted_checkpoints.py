"""Checkpoints that are programs: s3prl's entries read their weights and run nothing of them."""

import argparse
import os
import pathlib
from collections import defaultdict

import numpy as np
import pytest
import torch

import superbit.upstreams
from superbit.upstreams import foreign
from superbit.upstreams.errors import InputError
from superbit.upstreams.registry import load
from superbit.upstreams.s3prl import untrusted
from superbit.upstreams.trusting import trusting

# Entries that read a file given as their checkpoint by torch.load, one of each family of experts.
FAMILIES = (
    "apc", "audio_albert", "cpc", "data2vec", "decoar", "decoar2", "decoar_layers", "distiller",
    "hubert", "lighthubert", "mae_ast", "mockingjay", "multires_hubert", "npc", "tera",
    "unispeech_sat", "wav2vec", "wav2vec2", "wavlm",
)  # fmt: skip


class Program:
    """Its pickle makes a folder when it is read."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def owned(tmp_path):
    return tmp_path / "owned"


@pytest.fixture(params=[True, False], ids=["archive", "old format"])
def evil(request, tmp_path, owned):
    file = tmp_path / "evil.pt"
    content = {"model": {}, "args": argparse.Namespace(), "more": Program(owned)}
    torch.save(content, file, _use_new_zipfile_serialization=request.param)
    return file


@pytest.mark.parametrize("family", FAMILIES)
def test_no_entry_runs_what_a_file_contains(evil, owned, family):
    assert f"{family}_local" in foreign.hub_names()
    with pytest.raises(InputError) as error:
        load(f"{family}_local@{evil}")
    assert not owned.exists()
    assert "posix.mkdir, which no checkpoint needs; nothing of it was run" in str(error.value)
    assert "--trust-checkpoint" in str(error.value)


def called_by_s3prl(file):
    """What ``torch.load(file)`` gives in a module of s3prl's."""
    found = {"__name__": "s3prl.somewhere", "torch": torch}
    exec(f"content = torch.load({str(file)!r}, map_location='cpu')", found)
    return found["content"]


def test_who_trusts_it_runs_it(evil, owned):
    with trusting():
        called_by_s3prl(evil)
    assert owned.is_dir()
    assert "SUPERBIT_TRUST_CHECKPOINT" not in os.environ


def test_what_s3prls_own_checkpoints_carry_is_read(tmp_path):
    """A Namespace, paths, numpy's numbers and arrays, defaultdicts: as its training writes them."""
    counts = defaultdict(list)
    counts["train"].append(1)
    content = {
        "Args": argparse.Namespace(config="c.yaml", out=pathlib.PurePosixPath("a/b"), seed=1),
        "Config": {"rate": np.float64(0.5), "steps": np.int64(3), "mean": np.arange(3.0)},
        "Optimizer": {"state": {0: {"step": 1, "exp_avg": torch.ones(2)}}},
        "records": counts,
        "Transformer": torch.nn.Linear(2, 2).state_dict(),
    }
    torch.save(content, tmp_path / "states.ckpt")
    found = called_by_s3prl(tmp_path / "states.ckpt")
    assert found["Args"] == content["Args"]
    assert found["records"] == counts
    assert found["Config"]["rate"] == 0.5
    assert found["Config"]["mean"].tolist() == [0.0, 1.0, 2.0]
    assert torch.equal(found["Transformer"]["weight"], content["Transformer"]["weight"])


@pytest.mark.parametrize(
    "text",
    [
        "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] * 2",
        "[(64, 10, 5)] + [(128, 3, 1)] * 2",
        "{'a': [1, -2.5], 'b': None}",
        "[]",
        "True",
    ],
)
def test_strings_of_a_config_are_what_python_makes_of_them(text):
    assert untrusted.evaluate(text) == eval(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('owned')",
        "[x for x in ().__class__.__mro__]",
        "(lambda: 1)()",
        "[1] * 10**9",
        "[1] " + "+ [1]" * 50_000,
        "(" * 5_000,
        "open",
        "",
    ],
)
def test_strings_that_are_programs_are_not_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="it was not run"):
        untrusted.evaluate(text)
    assert not (tmp_path / "owned").exists()


def test_every_module_of_s3prl_that_evaluates_a_config_is_guarded():
    """Found in s3prl's own text: ``eval(`` on something that is no constant of the module."""
    import re
    from importlib import import_module
    from pathlib import Path

    import s3prl.upstream

    root = Path(s3prl.upstream.__file__).parent
    found = set()
    for file in root.rglob("*.py"):
        arguments = re.findall(r"(?<![.\w])eval\(([^)]*)\)", file.read_text(encoding="utf-8"))
        # a hook's place, which the expert's own code says
        if [each for each in arguments if each and each not in ("module_name", "hook.module_path")]:
            found.add(".".join(file.relative_to(root).with_suffix("").parts))
    assert found == set(untrusted.EVALUATING)
    module = import_module("s3prl.upstream.hubert.hubert_model")
    assert vars(module)["eval"] is untrusted.evaluate
    assert superbit.upstreams is not None
