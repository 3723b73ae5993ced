"""The shims: applied once, before s3prl, and weakening nobody else."""

import argparse
import builtins
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest
import torch

from superbit.upstreams import InputError
from superbit.upstreams.s3prl import compat, sox_effects


def run_python(code: str, **kwargs) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, **kwargs,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def call_as_s3prl(source: str, **names):
    """Run ``source`` in a module whose name says that it is s3prl's."""
    module = types.ModuleType("s3prl.pretended")
    vars(module).update(names, torch=torch)
    exec(source, vars(module))
    return module


def test_importing_upstreams_imports_neither_torch_nor_s3prl():
    out = run_python("""
        import sys, superbit.upstreams
        print([name for name in ("torch", "s3prl", "numpy") if name in sys.modules])
    """)
    assert out.strip() == "[]"


def test_s3prl_imports_and_its_hub_has_our_names():
    out = run_python("""
        import superbit.upstreams
        from s3prl import hub
        import s3prl.run_downstream
        import s3prl.downstream.ctc.corpus.libriphone as supplied
        print(hub.vanilla_nano.__name__, "sparseformer_dn_s" in hub.options(), supplied.__name__)
    """)
    assert out.split()[-3:] == ["vanilla_nano", "True", "s3prl.downstream.ctc.corpus.libriphone"]


def test_applying_twice_changes_nothing_more():
    compat.apply()
    before = (torch.load, torch.save, torch.Tensor.cuda, list(sys.meta_path))
    compat.apply()
    compat.install()
    assert before == (torch.load, torch.save, torch.Tensor.cuda, list(sys.meta_path))


def test_torch_load_is_lenient_for_s3prl_only(tmp_path):
    compat.apply()
    path = str(tmp_path / "states.ckpt")
    torch.save({"Args": argparse.Namespace(seed=1)}, path)
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        torch.load(path)
    assert call_as_s3prl("loaded = torch.load(path)", path=path).loaded["Args"].seed == 1


class _Unpicklable:
    def __reduce__(self):
        raise RuntimeError("killed in the middle")


def test_a_save_of_s3prl_that_dies_leaves_the_old_file(tmp_path):
    compat.apply()
    path = str(tmp_path / "states.ckpt")
    call_as_s3prl("torch.save({'Step': 1}, path)", path=path)
    with pytest.raises(RuntimeError, match="killed"):
        call_as_s3prl("torch.save({'Step': 2, 'x': bad}, path)", path=path, bad=_Unpicklable())
    assert torch.load(path) == {"Step": 1}


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device .cuda() works")
def test_cuda_is_a_no_op_for_s3prl_only():
    compat.apply()
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1).cuda()
    assert call_as_s3prl("x = torch.zeros(1).cuda()").x.device.type == "cpu"


def test_isinstance_stays_pythons():
    from s3prl.utility import helper

    before = builtins.isinstance
    helper.hack_isinstance()
    assert builtins.isinstance is before


def test_the_number_of_workers_survives_the_first_loader(monkeypatch):
    from s3prl.downstream.ctc import data, expert

    seen = []
    monkeypatch.setattr(
        data, "create_dataset",
        lambda split, tokenizer, **corpus: (seen.append(corpus["num_workers"]) or [1], 1),
    )  # fmt: skip
    corpus = {"num_workers": 0, "name": "libriphone"}
    loaders = [expert.load_dataset("dev", None, corpus) for _ in range(3)]
    assert [loader.num_workers for loader in loaders] == seen == [0, 0, 0]


def test_speech_commands_lists_files_in_sorted_order(tmp_path):
    from s3prl.downstream.speech_commands import dataset

    for name in ("b", "a", "c"):
        (tmp_path / name).mkdir()
    assert [p.name for p in dataset.Path(str(tmp_path)).iterdir()] == ["a", "b", "c"]


def test_sox_chain_of_the_tasks(tmp_path):
    import soundfile

    rng = np.random.default_rng(0)
    stereo = rng.uniform(-0.9, 0.9, size=(16000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, 16000, subtype="FLOAT")
    chain = [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]]
    waveform, rate = sox_effects.apply_effects_file(tmp_path / "a.wav", chain)
    expected = stereo.mean(axis=1) * 10 ** (-3 / 20)
    assert rate == 16000
    np.testing.assert_allclose(waveform[0].numpy(), expected, atol=1e-6)


def test_sox_rate_halves_the_samples(tmp_path):
    compat.apply()
    time = torch.arange(32000) / 32000
    tone = torch.sin(2 * torch.pi * 440 * time)[None]
    halved, rate = sox_effects.apply_effects_tensor(tone, 32000, [["rate", "16000"]])
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
    assert rate == 16000
    # Away from the edges, where the resampling filter sees silence.
    assert (halved[0, 100:-100] - expected[100:-100]).abs().max() < 1e-2


def test_an_effect_that_needs_sox_says_so():
    with pytest.raises(InputError, match="'reverb' is not available without sox"):
        sox_effects.apply_effects_tensor(torch.zeros(1, 10), 16000, [["reverb"]])
