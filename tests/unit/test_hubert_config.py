"""HubertConfig: what it accepts, what it says of what it does not, and the named sizes."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert_config import FASTCONV, FASTCONV_NANO, NAMED_SIZES, HubertConfig

NAMES = sorted(NAMED_SIZES)
SQUEEZE = {"encoder": "squeezeformer", "layers": 4}


def small(**changes):
    return HubertConfig(
        **{"encoder": "vanilla", "layers": 2, "dim": 64, "heads": 4, "ffn_dim": 128, **changes}
    )


def test_importing_the_config_needs_no_torch():
    code = "import sys, superbit.upstreams.hubert_config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", NAMES)
def test_every_named_size_survives_json(name):
    config = NAMED_SIZES[name]
    values = json.loads(json.dumps(config.to_dict()))
    assert set(values) == {field.name for field in fields(HubertConfig)}
    assert HubertConfig.from_dict(values) == config


def test_optional_fields_may_be_absent_from_a_dict():
    values = {"encoder": "vanilla", "layers": 2, "dim": 64, "heads": 4, "ffn_dim": 128}
    assert HubertConfig.from_dict(values) == small()


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        small().layers = 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": "sparse_former"}, ["encoder", "'sparse_former'", "Did you mean 'sparsef"]),
        ({"encoder": 7}, ["encoder is 7"]),
        ({"padding": "fairsec"}, ["padding", "Did you mean 'fairseq'"]),
        ({"layers": 0}, ["layers is 0", "at least 1"]),
        ({"layers": "12"}, ["layers is '12'", "integer"]),
        ({"layers": True}, ["layers is True", "integer"]),
        ({"dim": 64.0}, ["dim is 64.0", "integer"]),
        ({"heads": 5}, ["heads is 5", "dim 64"]),
        ({"position_groups": 3}, ["position_groups is 3", "dim 64"]),
        ({"sparse_stride": 1, "sparse_expressivity": 1}, ["sparse_stride is 1", "at least 2"]),
        ({"sparse_stride": 4, "sparse_expressivity": 5}, ["sparse_expressivity is 5", "4 frames"]),
        ({"depthwise_kernel": 30}, ["depthwise_kernel is 30", "odd"]),
        ({"depthwise_kernel": 0}, ["depthwise_kernel is 0", "at least 1"]),
        ({"attention_position": "relativ"}, ["attention_position", "Did you mean 'relative'"]),
        ({"attention_position": "relative"}, ["attention_position", "the vanilla encoder"]),
        ({"reduction_kernel": 1}, ["reduction_kernel is 1", "at least 2"]),
        ({"reduce_before": 1}, ["reduce_before is 1", "the vanilla encoder"]),
        ({**SQUEEZE, "layers": 1}, ["layers of a Squeezeformer is 1", "at least 2"]),
        ({**SQUEEZE, "reduce_before": -1}, ["reduce_before is -1", "at least 0"]),
        ({**SQUEEZE, "reduce_before": "1"}, ["reduce_before is '1'", "integer"]),
        ({**SQUEEZE, "reduce_before": 3}, ["reduce_before is 3", "recover_before 3", "below"]),
        ({**SQUEEZE, "recover_before": 4}, ["recover_before 4", "the 4 layers"]),
        ({"dropout": 1.0}, ["dropout is 1.0", "below 1"]),
        ({"attention_dropout": -0.1}, ["attention_dropout is -0.1"]),
        ({"input_dropout": "0.1"}, ["input_dropout is '0.1'"]),
        ({"conv_layers": []}, ["conv_layers"]),
        ({"conv_layers": "fastconv"}, ["conv_layers is 'fastconv'"]),
        ({"conv_layers": [[64, 10]]}, ["conv_layers holds [64, 10]", "[channels, kernel, stride]"]),
        ({"conv_layers": [[64, 10, 0]]}, ["stride of [64, 10, 0] is 0"]),
    ],
)
def test_a_value_no_model_can_have_is_named(changes, words):
    with pytest.raises(InputError) as caught:
        small(**changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_expressivity_of_the_whole_window_is_allowed():
    assert small(sparse_stride=4, sparse_expressivity=4).sparse_expressivity == 4


def test_an_unknown_key_is_named_with_its_nearest():
    with pytest.raises(InputError, match=r"'ffn_dims'.*Did you mean 'ffn_dim'"):
        HubertConfig.from_dict({**small().to_dict(), "ffn_dims": 3})


def test_missing_keys_are_named():
    values = small().to_dict()
    del values["heads"], values["dim"]
    with pytest.raises(InputError, match="lacks dim, heads"):
        HubertConfig.from_dict(values)


@pytest.mark.parametrize("layers", [FASTCONV, FASTCONV_NANO])
def test_fastconv_sees_400_samples_every_320(layers):
    config = small(conv_layers=layers)
    assert config.hop == 320
    assert config.receptive_field == 400
    # lengths of the specification; wav2vec 2.0 has the same
    counts = {399: 0, 400: 1, 800: 2, 16000: 49, 160000: 499, 250000: 781}
    assert {n: config.convolution_frames(n) for n in counts} == counts


def test_the_nano_front_end_has_the_design_pages_channels():
    assert [width for width, _, _ in FASTCONV_NANO] == [32] + [64] * 4 + [128] * 8
    assert [layer[1:] for layer in FASTCONV_NANO] == [layer[1:] for layer in FASTCONV]


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_nano")])
def test_a_nano_is_its_encoder_at_four_layers_of_128(name):
    config = NAMED_SIZES[name]
    # two feed-forwards of half the width where a layer has two
    ffn_dim = 512 if config.encoder in ("vanilla", "sparseformer") else 256
    assert (config.layers, config.dim, config.heads, config.ffn_dim) == (4, 128, 4, ffn_dim)
    assert config.conv_layers == FASTCONV_NANO
    vanilla = NAMED_SIZES["vanilla_nano"]
    assert replace(vanilla, encoder=config.encoder, ffn_dim=ffn_dim) == config


@pytest.mark.parametrize(
    ("layers", "half"),
    [(2, range(0, 1)), (3, range(1, 2)), (4, range(1, 3)), (5, range(2, 4)), (16, range(7, 15))],
)
def test_a_squeezeformer_runs_the_half_of_its_layers_before_the_last_at_half_the_rate(layers, half):
    for kind in ("squeezeformer", "squeezeformer_faithful"):
        config = small(encoder=kind, layers=layers)
        assert config.half_rate_layers == half
        assert len(config.half_rate_layers) == layers // 2
    assert not small(encoder="conformer", layers=layers).half_rate_layers


def test_where_time_is_halved_and_doubled_can_be_chosen():
    config = small(encoder="squeezeformer", layers=8, reduce_before=0, recover_before=5)
    assert config.half_rate_layers == range(0, 5)
    assert HubertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("encoder", ["conformer", "squeezeformer", "squeezeformer_faithful"])
def test_relative_positions_are_for_the_encoders_with_convolutions(encoder):
    assert small(encoder=encoder, attention_position="relative").attention_position == "relative"


def test_a_fair_feed_forward_is_four_times_the_width():
    for name in NAMES:
        if name.endswith(("_fair", "_faithful")):
            assert NAMED_SIZES[name].ffn_dim == 4 * NAMED_SIZES[name].dim
    assert NAMED_SIZES["conformer_s"].ffn_dim == NAMED_SIZES["squeeze_xs"].ffn_dim == 3072
