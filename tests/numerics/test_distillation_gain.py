"""Distillation halves the error that calibration alone leaves, for each of the five nano encoders.

By the functions of the benchmark that writes ``results/bench/distillation.jsonl``.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "perf" / "bench_distillation.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_distillation", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the types of their fields
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def speech(bench, tiny_paths_file):
    return bench.embedded_speech(tiny_paths_file)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["hubert", "fan_in"])
@pytest.mark.parametrize(
    "name",
    [
        "vanilla_nano",
        "conformer_nano",
        "squeeze_nano",
        "sparseformer_dn_nano",
        "sparseformer_sw_nano",
    ],
)
def test_distillation_halves_the_error_of_unseen_speakers(bench, speech, name, start):
    gain = bench.distillation_gain(name, start, speech, steps=200)
    assert gain.distilled.mean <= 0.5 * gain.calibrated.mean
    assert gain.distilled.last <= 0.5 * gain.calibrated.last
    # not by silencing the blocks, which for a start that hardly uses them would do
    assert gain.distilled.mean < gain.without_blocks.mean
