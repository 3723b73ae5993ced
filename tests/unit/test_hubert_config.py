"""HubertConfig: what it accepts, what it says of what it does not, and the named sizes."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from tiny_settings import TINY_SETTINGS

from superbit.upstreams import hubert_config
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert_config import FASTCONV, FASTCONV_NANO, HubertConfig
from superbit.upstreams.variant import size_of, sizes

NAMES = sorted(sizes())
PACKAGE = Path(hubert_config.__file__).parent
SQUEEZE = {"encoder": "squeezeformer", "layers": 4}
SPARSE, CONFORMER = {"encoder": "sparseformer"}, {"encoder": "conformer"}


def small(**changes):
    """A model's config from the flat form that is on disk."""
    return HubertConfig.from_dict(
        {"encoder": "vanilla", "layers": 2, "dim": 64, "heads": 4, "ffn_dim": 128, **changes}
    )


def test_importing_the_config_needs_no_torch():
    code = "import sys, superbit.upstreams.hubert_config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", NAMES)
def test_every_named_size_survives_json(name):
    config = size_of(name)
    values = json.loads(json.dumps(config.to_dict()))
    assert tuple(values) == KEYS
    assert HubertConfig.from_dict(values) == config


# of every config.json since the format's first version, whatever the kind of encoder
KEYS = (
    "encoder", "layers", "dim", "heads", "ffn_dim", "conv_layers", "position_kernel",
    "position_groups", "sparse_stride", "sparse_expressivity", "depthwise_kernel",
    "attention_position", "reduction_kernel", "reduce_before", "recover_before", "padding",
    "final_dim", "dropout", "attention_dropout", "activation_dropout", "input_dropout",
)  # fmt: skip


@pytest.mark.parametrize("folder", sorted(PACKAGE.glob("*/*_nano")), ids=lambda each: each.name)
def test_the_shipped_configs_are_written_again_as_they_are(folder):
    stored = json.loads((folder / "config.json").read_text("utf-8"))["model"]
    again = HubertConfig.from_dict(stored).to_dict()
    assert list(again.items()) == list(stored.items())


def test_settings_of_another_kind_are_refused_for_a_config_in_python_too():
    with pytest.raises(InputError, match="one of SqueezeformerSettings is needed"):
        replace(size_of("squeeze_nano"), own=TINY_SETTINGS["sparseformer"])
    with pytest.raises(InputError, match="None is needed for the vanilla encoder"):
        replace(size_of("sparseformer_dn_nano"), encoder="vanilla")


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
        (
            {**SPARSE, "sparse_stride": 1, "sparse_expressivity": 1},
            ["sparse_stride is 1", "at least 2"],
        ),
        (
            {**SPARSE, "sparse_stride": 4, "sparse_expressivity": 5},
            ["sparse_expressivity is 5", "4 frames"],
        ),
        ({**CONFORMER, "depthwise_kernel": 30}, ["depthwise_kernel is 30", "odd"]),
        ({**CONFORMER, "depthwise_kernel": 0}, ["depthwise_kernel is 0", "at least 1"]),
        (
            {**CONFORMER, "attention_position": "relativ"},
            ["attention_position", "Did you mean 'relative'"],
        ),
        ({"attention_position": "relative"}, ["attention_position", "the vanilla encoder"]),
        ({**SQUEEZE, "reduction_kernel": 1}, ["reduction_kernel is 1", "at least 2"]),
        ({"reduce_before": 1}, ["reduce_before is 1", "the vanilla encoder"]),
        ({**SQUEEZE, "sparse_stride": 8}, ["sparse_stride is 8", "it is for sparseformer"]),
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
    assert small(**SPARSE, sparse_stride=4, sparse_expressivity=4).own.sparse_expressivity == 4


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
    config = size_of(name)
    # two feed-forwards of half the width where a layer has two
    ffn_dim = 512 if config.encoder in ("vanilla", "sparseformer") else 256
    assert (config.layers, config.dim, config.heads, config.ffn_dim) == (4, 128, 4, ffn_dim)
    assert config.conv_layers == FASTCONV_NANO
    vanilla = size_of("vanilla_nano")
    assert replace(vanilla, encoder=config.encoder, ffn_dim=ffn_dim, own=None) == config


@pytest.mark.parametrize(
    ("layers", "half"),
    [(2, range(0, 1)), (3, range(1, 2)), (4, range(1, 3)), (5, range(2, 4)), (16, range(7, 15))],
)
def test_a_squeezeformer_runs_the_half_of_its_layers_before_the_last_at_half_the_rate(layers, half):
    for kind in ("squeezeformer", "squeezeformer_faithful"):
        config = small(encoder=kind, layers=layers)
        assert config.own.half_rate_layers(layers) == half
        assert len(half) == layers // 2


def test_where_time_is_halved_and_doubled_can_be_chosen():
    config = small(encoder="squeezeformer", layers=8, reduce_before=0, recover_before=5)
    assert config.own.half_rate_layers(8) == range(0, 5)
    assert HubertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("encoder", ["conformer", "squeezeformer", "squeezeformer_faithful"])
def test_relative_positions_are_for_the_encoders_with_convolutions(encoder):
    config = small(encoder=encoder, attention_position="relative")
    assert config.own.attention_position == "relative"


def test_a_fair_feed_forward_is_four_times_the_width():
    for name in NAMES:
        if name.endswith(("_fair", "_faithful")):
            assert size_of(name).ffn_dim == 4 * size_of(name).dim
    assert size_of("conformer_s").ffn_dim == size_of("squeeze_xs").ffn_dim == 3072
