"""MACs of the SUPERB challenge, against what its leaderboard says of HuBERT Base."""

from dataclasses import replace

import pytest

from superbit.benchmark.profiling.challenge import (
    BUCKETS,
    HUBERT_BASE_GMAC,
    LENGTHS,
    challenge_macs,
)
from superbit.benchmark.profiling.counting import count_model, meta_model
from superbit.benchmark.profiling.table1 import table1_rows
from superbit.upstreams.quantization.convert import binarize_
from superbit.upstreams.variant import size_of

WAV2VEC2 = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
# The leaderboard's own figures, by another counter (https://superbbenchmark.org, April 2024).
HUBERT_BASE = {
    "short": 149_255_103_040,
    "medium": 261_280_279_552,
    "long": 422_366_359_296,
    "longer": 836_254_280_960,
}


def test_hubert_base_has_what_the_leaderboard_says():
    """Its twelve layers are alike: two models of fewer layers say what twelve have."""
    base = replace(size_of("vanilla"), conv_layers=WAV2VEC2)
    one, two = (challenge_macs(meta_model(replace(base, layers=n))) for n in (1, 2))
    found = {name: one[name] + 11 * (two[name] - one[name]) for name in (*BUCKETS, "all")}
    for name, published in HUBERT_BASE.items():
        assert found[name] == pytest.approx(published, rel=0.004), name
    assert found["all"] == pytest.approx(sum(HUBERT_BASE.values()), rel=0.004)
    assert sum(HUBERT_BASE.values()) / 1e9 == pytest.approx(HUBERT_BASE_GMAC, rel=1e-6)


def test_it_is_the_sum_over_utterances_and_a_twin_multiplies_as_often():
    assert len(LENGTHS) == 32
    assert list(LENGTHS) == sorted(LENGTHS)
    size = replace(size_of("sparseformer_dn_nano"), layers=1)
    found = challenge_macs(meta_model(size))
    assert found["all"] == sum(found[name] for name in BUCKETS)
    for model in (meta_model(size), binarize_(meta_model(size), "w1a1")):
        longer = sum(count_model(model, samples).macs for samples in LENGTHS[24:])
        assert longer == found["longer"]


def test_a_row_has_them_where_they_are_asked_for():
    asked, plain = (
        table1_rows(["fbank"], accounting="honest", challenge=challenge)[0]
        for challenge in (True, False)
    )
    assert asked["challenge_macs_g"] is None  # not of a module that torch could count
    assert set(asked) - set(plain) == {
        "challenge_macs_g",
        *(f"challenge_macs_{name}_g" for name in BUCKETS),
    }
