"""Distillation halves the error that calibration alone leaves, for each of the five nano encoders.

By the functions of the benchmark that writes ``results/bench/distillation.jsonl``.
"""

import pytest

from superbit.benchmark.bench import distillation as bench


@pytest.fixture(scope="module")
def speech(tiny_paths_file, tmp_path_factory):
    return bench.embedded_speech(tiny_paths_file, tmp_path_factory.mktemp("manifests"))


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
def test_distillation_halves_the_error_of_unseen_speakers(speech, name, start):
    gain = bench.distillation_gain(name, start, speech, updates=200)
    assert gain.distilled.mean <= 0.5 * gain.calibrated.mean
    assert gain.distilled.last <= 0.5 * gain.calibrated.last
    # not by silencing the blocks, which for a start that hardly uses them would do
    assert gain.distilled.mean < gain.without_blocks.mean
