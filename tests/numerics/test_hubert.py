"""The whole models: sizes, independence of the batch, frames, gradients, and two peers."""

import json
from dataclasses import replace
from importlib.resources import files

import pytest
import torch

from superbit.upstreams.encoder_kinds import ENCODERS
from superbit.upstreams.encoders.vanilla import TransformerEncoder
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import ENCODER_CLASSES, Hubert, untrained_model
from superbit.upstreams.hubert_config import FASTCONV, HubertConfig
from superbit.upstreams.s3prl import compat
from superbit.upstreams.variant import size_of, sizes

TABLE1_KEYS = {
    "vanilla": "vanilla",
    "conformer_s": "conformer",
    "squeeze_xs": "squeeze",
    "sparseformer_dn_s": "sparse_dn",
    "sparseformer_sw_s": "sparse_sw",
}
NANOS = [
    "vanilla_nano",
    "conformer_nano",
    "squeeze_nano",
    "sparseformer_dn_nano",
    "sparseformer_sw_nano",
]
TRANSFORMER_NANOS = [NANOS[0], *NANOS[3:]]
FULL_RATE_NANOS = [name for name in NANOS if name != "squeeze_nano"]
# 0.025 s, the shortest there is, to 2.5 s; one pair of equals
LENGTHS = [16_000, 400, 800, 7_777, 40_000, 480, 12_345, 16_000]


def speechlike(samples):
    """Noise in bursts: in the pauses, the norms amplify every rounding error."""
    waveform = 1e-4 * torch.randn(samples)
    for start in range(0, samples, 6000):
        waveform[start : start + 2500] *= 2000
    return waveform


def trained_like(name):
    """A model whose biases are not 0, so that padding would show wherever it is let through."""
    torch.manual_seed(1)
    model = untrained_model(size_of(name)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=NANOS)
def nano(request):
    return untrained_model(size_of(request.param)).eval()


@pytest.mark.parametrize(("name", "key"), TABLE1_KEYS.items())
def test_parameters_are_those_of_table_1_to_the_unit(name, key):
    table = json.loads(files("superbit.upstreams").joinpath("table1_configs.json").read_text())
    row = table["encoders"][key]
    config = size_of(name)
    with torch.device("meta"):
        model = Hubert(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == row["params_total"]
    sizes = {"layers": config.layers, "dim": config.dim, "heads": config.heads}
    assert sizes == {key: row[key] for key in sizes}
    # every weight that a 1-bit twin will hold is in a linear layer or a convolution of a layer
    multiplied = (torch.nn.Linear, torch.nn.Conv1d)
    leaves = [m for m in model.encoder.layers.modules() if isinstance(m, multiplied)]
    assert sum(m.weight.numel() for m in leaves) == row["params_quantised_in_BQ_twin"]


@pytest.mark.parametrize("nano", TRANSFORMER_NANOS, indirect=True)
def test_nano_parameters_counted_by_hand(nano):
    front_end = 231_808
    position = 128 * 8 * 128 + 128 + 128
    layer = 4 * (128 * 128 + 128) + (128 * 512 + 512) + (512 * 128 + 128) + 4 * 128
    norms = 2 * 2 * 128
    pretraining = 128 + (128 * 256 + 256)
    total = front_end + position + 4 * layer + norms + pretraining
    assert sum(parameter.numel() for parameter in nano.parameters()) == total == 1_189_888


def test_the_encoder_kinds_named_without_torch_are_those_there_are():
    assert tuple(ENCODER_CLASSES) == ENCODERS


@pytest.mark.parametrize("name", [*NANOS, "sparseformer_dn_s"])
def test_an_utterance_has_the_same_states_alone_and_in_any_batch(name):
    model = trained_like(name)
    waveforms = [speechlike(samples) for samples in LENGTHS]
    with torch.no_grad():
        batched = model(waveforms)
        for row, waveform in enumerate(waveforms):
            alone = model([waveform])
            frames = round(len(waveform) / 320)
            assert alone[0].shape[1] == frames
            for one, many in zip(alone, batched, strict=True):
                assert (one[0] - many[row, :frames]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", NANOS)
def test_a_neighbours_content_changes_nothing_to_the_bit(name):
    nano = trained_like(name)
    mine = speechlike(7_777)
    with torch.no_grad():
        quiet = nano([mine, torch.zeros(16_000)])
        loud = nano([mine, 50 * torch.randn(16_000)])
    for a, b in zip(quiet, loud, strict=True):
        assert torch.equal(a[0], b[0])


def test_fairseq_padding_does_depend_on_the_neighbours_length():
    # what independent padding is there to prevent: were this test to fail, so would be the reason
    torch.manual_seed(0)
    model = untrained_model(replace(size_of("vanilla_nano"), padding="fairseq")).eval()
    mine = torch.randn(16_000)
    with torch.no_grad():
        alone, batched = model([mine])[0], model([mine, torch.randn(40_000)])[0]
    assert (alone[0, :49] - batched[0, :49]).abs().max() > 0.1


@pytest.mark.parametrize(
    "samples", [400, 479, 480, 481, 560, 719, 720, 799, 800, 1120, 1440, 1_761, 16_000, 16_159]
)
def test_frames_are_those_that_s3prl_cuts_to(nano, samples):
    states = nano([torch.randn(samples)])
    assert len(states) == 5
    assert {tuple(state.shape) for state in states} == {(1, round(samples / 320), 128)}


def test_frames_after_an_utterances_own_repeat_its_last(nano):
    waveforms = [torch.randn(16_000), torch.randn(5_000)]  # 50 and 16 frames; convolutions: 49, 15
    with torch.no_grad():
        for state in nano(waveforms):
            assert state.shape == (2, 50, 128)
            assert torch.equal(state[0, 49], state[0, 48])
            assert not torch.equal(state[0, 48], state[0, 47])
            assert torch.equal(state[1, 15:], state[1, 14].expand(35, -1))
            assert not torch.equal(state[1, 14], state[1, 13])


@pytest.mark.parametrize("mode", [True, False])
def test_as_many_states_in_training_as_in_evaluation(nano, mode):
    nano.train(mode)
    try:
        for _ in range(3):
            states = nano([torch.randn(8_000), torch.randn(8_000)])
            assert [state.shape for state in states] == [(2, 25, 128)] * 5
    finally:
        nano.eval()


@pytest.mark.parametrize("nano", FULL_RATE_NANOS, indirect=True)
def test_states_are_the_input_of_every_layer_and_the_output(nano):
    inputs = []
    hooks = [
        layer.register_forward_pre_hook(lambda _module, given: inputs.append(given[0]))
        for layer in nano.encoder.layers
    ]
    output = []
    hooks.append(
        nano.encoder.layers[-1].register_forward_hook(lambda _m, _g, result: output.append(result))
    )
    states = nano([torch.randn(720)])  # 2 frames, as the convolutions give: none is repeated
    for hook in hooks:
        hook.remove()
    for state, seen in zip(states, [*inputs, *output], strict=True):
        assert torch.equal(state, seen)


# 3 frames, so 2 at half the rate: attention over a single one has no gradient
@pytest.mark.parametrize("samples", [[1_120], [16_000, 4_321]])
def test_gradients_reach_every_weight_that_is_used(nano, samples):
    nano.zero_grad()
    torch.manual_seed(0)
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        states = nano([torch.randn(n) for n in samples])
        # a plain sum of a LayerNorm's outputs is constant: weigh them
        sum((state * torch.randn_like(state)).sum() for state in states).backward()
    for name, parameter in nano.named_parameters():
        if name.startswith(("mask_emb", "final_proj")):  # pre-training's
            assert parameter.grad is None, name
        elif name.endswith("attention.key.bias"):  # a softmax does not see it
            assert parameter.grad.abs().max() < 1e-4, name
        else:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 1e-7, name
    nano.zero_grad()


def test_untrained_weights_follow_from_the_seed_and_leave_the_global_generator_alone():
    config = size_of("vanilla_nano")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = untrained_model(config)
    assert torch.equal(torch.rand(3), expected)
    torch.rand(17)
    two = untrained_model(config)
    other = untrained_model(config, seed=1)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    assert not torch.equal(one.final_proj.weight, other.final_proj.weight)


def test_weights_start_as_huberts_pretraining_does():
    model = untrained_model(size_of("sparseformer_dn_s"))
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linears) == 16 * 6 + 2
    for linear in linears:
        assert not linear.bias.any()
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert abs(linear.weight.mean().item()) < 0.001
    for block, (_, kernel, _) in zip(model.front_end.blocks, FASTCONV, strict=True):
        fan_in = block.conv.in_channels * kernel
        assert block.conv.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)):
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert not norm.bias.any()
    assert 0 <= model.mask_emb.min() < 0.05
    assert 0.95 < model.mask_emb.max() < 1


@pytest.mark.parametrize(
    ("waveforms", "words"),
    [
        ([], "empty"),
        ([torch.randn(500), torch.randn(399)], r"waveform 1 of 2 has 399 samples; at least 400"),
        ([torch.randn(1, 16_000)], r"shape \(1, 16000\)"),
        ([torch.zeros(500, dtype=torch.int16)], "torch.int16"),
    ],
)
def test_audio_without_a_frame_or_of_another_form_is_an_input_error(nano, waveforms, words):
    with pytest.raises(InputError, match=words):
        nano(waveforms)


def test_double_precision_audio_is_taken(nano):
    waveform = torch.randn(2_000)
    for a, b in zip(nano([waveform]), nano([waveform.double()]), strict=True):
        assert torch.equal(a, b)


def test_encoder_can_be_traced_as_one_graph(nano):
    compiled = torch.compile(nano.encode, backend="eager", fullgraph=True)
    x = torch.randn(2, 21, 128)
    valid = torch.arange(21) < torch.tensor([[21], [9]])
    with torch.no_grad():
        for a, b in zip(compiled(x, valid), nano.encode(x, valid), strict=True):
            torch.testing.assert_close(a, b)


# peers ------------------------------------------------------------------------------------------


def copy_weights(source, weight, bias):
    """Copy weight and bias of a module of ours over those of a peer."""
    weight.data.copy_(source.weight)
    bias.data.copy_(source.bias)


def test_vanilla_layers_equal_torchs_transformer_layers():
    config = HubertConfig(encoder="vanilla", layers=2, dim=48, heads=4, ffn_dim=96)
    torch.manual_seed(0)
    ours = TransformerEncoder(config).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(3, 19, 48)
    valid = torch.arange(19) < torch.tensor([[19], [7], [1]])
    states = ours(x, valid)
    assert torch.equal(states[0], x)
    for layer, state in zip(ours.layers, states[1:], strict=True):
        peer = torch.nn.TransformerEncoderLayer(
            48, 4, 96, activation="gelu", batch_first=True, norm_first=False
        ).train()  # evaluation mode takes a fused path, dropout is zeroed instead
        for module in peer.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        peer.self_attn.dropout = 0.0
        attention = layer.attention
        for third, linear in enumerate((attention.query, attention.key, attention.value)):
            part = slice(48 * third, 48 * (third + 1))
            stacked = peer.self_attn  # query, key and value in one matrix
            copy_weights(linear, stacked.in_proj_weight[part], stacked.in_proj_bias[part])
        for mine, theirs in (
            (attention.output, peer.self_attn.out_proj),
            (layer.feed_forward.expand, peer.linear1),
            (layer.feed_forward.contract, peer.linear2),
            (layer.attention_norm, peer.norm1),
            (layer.feed_forward_norm, peer.norm2),
        ):
            copy_weights(mine, theirs.weight, theirs.bias)
        x = peer(x, src_key_padding_mask=~valid)
        torch.testing.assert_close(state[valid], x[valid], rtol=1e-4, atol=1e-5)


def torchaudio_peer(model):
    """Torchaudio's HuBERT of the same sizes with the weights of ``model``."""
    compat.apply()  # some builds of torchaudio do not import without it
    from torchaudio.models import wav2vec2_model

    config = model.config
    peer = wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=list(config.conv_layers),
        extractor_conv_bias=False,
        encoder_embed_dim=config.dim,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=config.position_kernel,
        encoder_pos_conv_groups=config.position_groups,
        encoder_num_layers=config.layers,
        encoder_num_heads=config.heads,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=config.ffn_dim,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    ).eval()
    theirs = dict(peer.named_parameters())
    renamed = {
        "front_end.blocks": "feature_extractor.conv_layers",
        ".norm.": ".layer_norm.",
        "front_end_norm": "encoder.feature_projection.layer_norm",
        "post_extract_proj": "encoder.feature_projection.projection",
        "position.conv": "encoder.transformer.pos_conv_embed.conv",
        "encoder_norm": "encoder.transformer.layer_norm",
        "encoder.layers": "encoder.transformer.layers",
        "attention.query": "attention.q_proj",
        "attention.key": "attention.k_proj",
        "attention.value": "attention.v_proj",
        "attention.output": "attention.out_proj",
        "attention_norm": "layer_norm",
        "feed_forward_norm": "final_layer_norm",
        "feed_forward.expand": "feed_forward.intermediate_dense",
        "feed_forward.contract": "feed_forward.output_dense",
    }
    for name, parameter in model.named_parameters():
        if name.startswith(("mask_emb", "final_proj")):
            continue
        for mine, other in renamed.items():
            name = name.replace(mine, other)
        target = theirs.pop(name)
        target.data.copy_(parameter.data)
    assert not theirs, f"not set: {sorted(theirs)}"
    return peer


@pytest.mark.parametrize("padding", ["independent", "fairseq"])
def test_the_whole_model_equals_torchaudios(padding):
    config = HubertConfig(
        encoder="vanilla", layers=3, dim=96, heads=4, ffn_dim=160, padding=padding
    )
    model = untrained_model(config, seed=5).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():  # off their starting points, where biases hide
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    peer = torchaudio_peer(model)
    waveform = torch.randn(16_000)
    with torch.no_grad():
        states = model([waveform])
        expected, _ = peer.extract_features(waveform[None])
    for state, other in zip(states[1:], expected, strict=True):
        # 49 frames of the convolutions; independent padding repeats the last
        torch.testing.assert_close(state[:, :49], other, rtol=1e-4, atol=2e-5)
        assert state.shape[1] == (50 if padding == "independent" else 49)


def test_padding_as_in_fairseq_leaks_as_torchaudios_does():
    config = HubertConfig(
        encoder="vanilla", layers=2, dim=96, heads=4, ffn_dim=160, padding="fairseq"
    )
    model = untrained_model(config, seed=5).eval()
    peer = torchaudio_peer(model)
    # fairseq counts 326 samples a frame here, torchaudio 320: at 14,990 both count 46 frames
    lengths = [16_000, 14_990]
    torch.manual_seed(0)
    waveforms = [torch.randn(n) for n in lengths]
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    with torch.no_grad():
        states = model(waveforms)
        expected, frames = peer.extract_features(padded, torch.tensor(lengths))
    assert frames.tolist() == [49, 46]
    for state, other in zip(states[1:], expected, strict=True):
        for row, count in enumerate(frames):
            torch.testing.assert_close(state[row, :count], other[row, :count], rtol=1e-4, atol=2e-5)


def test_true_size_vanilla_with_fairseq_padding_has_the_shapes_of_hubert_base():
    with torch.device("meta"):
        model = Hubert(replace(size_of("vanilla"), padding="fairseq")).eval()
        features, frames = model.features([torch.empty(160_000), torch.empty(80_000)])
        states = model.encode(model.project(features), torch.ones(2, 499, dtype=torch.bool))
    assert features.shape == (2, 499, 512)
    assert frames == [499, 250]
    assert [tuple(state.shape) for state in states] == [(2, 499, 768)] * 13


@pytest.mark.parametrize("name", [name for name in sizes() if name.endswith("_nano")])
def test_bfloat16_is_float32_with_less_precision(name):
    """A convolution of oneDNN was another one in bfloat16: half-precision training lost by it."""
    model = untrained_model(size_of(name)).eval()
    waveforms = list(0.1 * torch.randn(2, 16_000))
    with torch.no_grad():
        exact = model(waveforms)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(waveforms)
    for layer, (one, other) in enumerate(zip(exact, half, strict=True)):
        assert (one - other.float()).norm() < 0.05 * one.norm(), layer
