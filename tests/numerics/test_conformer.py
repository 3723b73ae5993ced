"""The Conformer: equal to two peers where they see padding, and without it where they leak."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from superbit.upstreams.encoders.attention import SelfAttention
from superbit.upstreams.encoders.batch_norm import MaskedBatchNorm
from superbit.upstreams.encoders.conformer import ConformerLayer, ConvolutionModule
from superbit.upstreams.encoders.relative_attention import (
    RelativeSelfAttention,
    distance_sinusoids,
    from_distance_to_key,
)
from superbit.upstreams.encoders.settings import ConformerSettings
from superbit.upstreams.hubert import Hubert, untrained_model
from superbit.upstreams.s3prl import compat
from superbit.upstreams.variant import size_of

DIM, HEADS, FFN, KERNEL = 48, 4, 80, 7
LENGTHS = [1, 2, 3, 9, 20]  # frames
VALID = torch.arange(20) < torch.tensor(LENGTHS)[:, None]  # (B, T)


def conformer_layer(*, relative=False, bias=False, gated=True):
    """A layer with every weight and statistic off its start."""
    torch.manual_seed(0)
    attention = RelativeSelfAttention if relative else SelfAttention
    layer = ConformerLayer(
        attention(DIM, HEADS),
        ConvolutionModule(DIM, kernel=KERNEL, bias=bias, gated=gated),
        dim=DIM,
        ffn_dim=FFN,
    )
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.2)
    for module in layer.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm1d):
            module.weight.data.add_(1.0)
    norm = layer.convolution.norm
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return layer.eval()


def copy_state(source, target):
    """Copy all parameters and buffers of a module of ours into the same kind of a peer's."""
    target.load_state_dict(source.state_dict())


# peers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 3, 49])
def test_layer_equals_torchaudios(frames):
    compat.apply()  # some builds of torchaudio do not import without it
    from torchaudio.models.conformer import ConformerLayer as Peer

    ours = conformer_layer(bias=True)
    peer = Peer(DIM, FFN, HEADS, KERNEL, use_group_norm=False, convolution_first=False).eval()
    for mine, norm, theirs in (
        (ours.feed_forward_in, ours.feed_forward_in_norm, peer.ffn1),
        (ours.feed_forward_out, ours.feed_forward_out_norm, peer.ffn2),
    ):
        copy_state(norm, theirs.sequential[0])
        copy_state(mine.expand, theirs.sequential[1])
        copy_state(mine.contract, theirs.sequential[4])
    stacked = peer.self_attn
    for third, linear in enumerate(
        (ours.attention.query, ours.attention.key, ours.attention.value)
    ):
        part = slice(DIM * third, DIM * (third + 1))
        stacked.in_proj_weight.data[part] = linear.weight.data
        stacked.in_proj_bias.data[part] = linear.bias.data
    copy_state(ours.attention.output, stacked.out_proj)
    copy_state(ours.attention_norm, peer.self_attn_layer_norm)
    copy_state(ours.convolution_norm, peer.conv_module.layer_norm)
    convolution = peer.conv_module.sequential
    for mine, index in (("pointwise_in", 0), ("depthwise", 2), ("norm", 3), ("pointwise_out", 5)):
        copy_state(getattr(ours.convolution, mine), convolution[index])
    copy_state(ours.final_norm, peer.final_layer_norm)

    x = torch.randn(3, frames, DIM)
    with torch.no_grad():
        expected = peer(x.transpose(0, 1), None).transpose(0, 1)
        assert (ours(x) - expected).abs().max() <= 1e-5


def hugging_faces_layer(ours, *, relative):
    """Hugging Face's layer of the same sizes with the weights of ``ours``, and its positions."""
    compat.apply()  # transformers imports torchaudio where it is installed
    from transformers import Wav2Vec2ConformerConfig
    from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as peers

    config = Wav2Vec2ConformerConfig(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        hidden_act="swish",
        conv_depthwise_kernel_size=KERNEL,
        position_embeddings_type="relative" if relative else None,
        max_source_positions=64,
    )
    config._attn_implementation = "eager"
    peer = peers.Wav2Vec2ConformerEncoderLayer(config).eval()
    pairs = [
        (ours.feed_forward_in_norm, peer.ffn1_layer_norm),
        (ours.feed_forward_in.expand, peer.ffn1.intermediate_dense),
        (ours.feed_forward_in.contract, peer.ffn1.output_dense),
        (ours.attention_norm, peer.self_attn_layer_norm),
        (ours.attention.query, peer.self_attn.linear_q),
        (ours.attention.key, peer.self_attn.linear_k),
        (ours.attention.value, peer.self_attn.linear_v),
        (ours.attention.output, peer.self_attn.linear_out),
        (ours.convolution_norm, peer.conv_module.layer_norm),
        (ours.convolution.pointwise_in, peer.conv_module.pointwise_conv1),
        (ours.convolution.depthwise, peer.conv_module.depthwise_conv),
        (ours.convolution.norm, peer.conv_module.batch_norm),
        (ours.convolution.pointwise_out, peer.conv_module.pointwise_conv2),
        (ours.feed_forward_out_norm, peer.ffn2_layer_norm),
        (ours.feed_forward_out.expand, peer.ffn2.intermediate_dense),
        (ours.feed_forward_out.contract, peer.ffn2.output_dense),
        (ours.final_norm, peer.final_layer_norm),
    ]
    if relative:
        pairs.append((ours.attention.position, peer.self_attn.linear_pos))
        peer.self_attn.pos_bias_u.data.copy_(ours.attention.content_bias)
        peer.self_attn.pos_bias_v.data.copy_(ours.attention.position_bias)
    for mine, theirs in pairs:
        copy_state(mine, theirs)
    positions = peers.Wav2Vec2ConformerRelPositionalEmbedding(config) if relative else None
    return peer, positions


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 3, 49])
def test_layer_equals_hugging_faces(relative, frames):
    ours = conformer_layer(relative=relative)
    peer, positions = hugging_faces_layer(ours, relative=relative)
    x = torch.randn(3, frames, DIM)
    with torch.no_grad():
        expected = peer(x, relative_position_embeddings=positions(x) if relative else None)
        expected = expected[0] if isinstance(expected, tuple) else expected
        assert (ours(x) - expected).abs().max() <= 1e-5


def test_hugging_faces_layer_leaks_padding_where_ours_does_not():
    # what masking is there to prevent: were the first half to fail, so would be the reason
    ours = conformer_layer()
    peer, _ = hugging_faces_layer(ours, relative=False)
    x = torch.randn(len(LENGTHS), 20, DIM)
    other = x.where(VALID[:, :, None], torch.randn(x.shape))
    hidden = torch.zeros(VALID.shape).masked_fill(~VALID, -1e9)[:, None, None, :]
    with torch.no_grad():
        theirs = [peer(given, attention_mask=hidden) for given in (x, other)]
        theirs = [given[0] if isinstance(given, tuple) else given for given in theirs]
        mine = [ours(given, VALID) for given in (x, other)]
    assert (theirs[0] - theirs[1])[VALID].abs().max() > 0.1
    assert torch.equal(mine[0][VALID], mine[1][VALID])


# padding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_a_row_is_the_same_alone_and_in_a_batch(relative, gated):
    layer = conformer_layer(relative=relative, bias=True, gated=gated)
    x = torch.randn(len(LENGTHS), 20, DIM)
    with torch.no_grad():
        batched = layer(x, VALID)
        for row, frames in enumerate(LENGTHS):
            alone = layer(x[row : row + 1, :frames])
            assert (alone[0] - batched[row, :frames]).abs().max() <= 1e-5


@pytest.mark.parametrize("relative", [False, True])
def test_in_training_padding_changes_neither_outputs_statistics_nor_gradients(relative):
    outcomes = []
    x = torch.randn(len(LENGTHS), 20, DIM)
    weigh = torch.randn(len(LENGTHS), 20, DIM)
    for filling in (torch.zeros_like(x), 50 * torch.randn(x.shape)):
        layer = conformer_layer(relative=relative).train()
        y = layer(x.where(VALID[:, :, None], filling), VALID)
        (y * weigh)[VALID].sum().backward()
        gradients = [parameter.grad for parameter in layer.parameters()]
        outcomes.append((y[VALID], layer.convolution.norm.running_mean, *gradients))
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_batch_norm_in_training_is_torchs_over_the_valid_frames_alone():
    torch.manual_seed(0)
    ours, peer = MaskedBatchNorm(6), nn.BatchNorm1d(6)
    for norm in (ours, peer):
        nn.init.constant_(norm.weight, 1.5)
        nn.init.constant_(norm.bias, -0.3)
    x = (3 * torch.randn(5, 6, 20) + 2).requires_grad_()
    same = x.detach().clone().requires_grad_()
    weigh = torch.randn(int(VALID.sum()), 6)
    for _ in range(2):  # running statistics move from where they are
        got = ours(x, VALID).transpose(1, 2)[VALID]  # (frames, channels)
        expected = peer(same.transpose(1, 2)[VALID])
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    (got * weigh).sum().backward()
    (expected * weigh).sum().backward()
    torch.testing.assert_close(x.grad, same.grad, rtol=1e-4, atol=1e-5)
    for name, buffer in peer.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], buffer)
    assert ours.num_batches_tracked == 2


@pytest.mark.parametrize("valid", [None, VALID])
def test_batch_norm_in_evaluation_is_torchs_to_the_bit(valid):
    ours, peer = MaskedBatchNorm(6).eval(), nn.BatchNorm1d(6).eval()
    ours.running_mean.normal_()
    copy_state(ours, peer)
    x = torch.randn(5, 6, 20)
    assert torch.equal(ours(x, valid), peer(x))


@pytest.mark.parametrize("valid", [None, torch.tensor([[True]])])
def test_a_single_frame_can_be_trained_on(valid):
    norm = MaskedBatchNorm(6)
    x = torch.randn(1, 6, 1, requires_grad=True)
    y = norm(x, valid)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(1, 6, 1))
    assert x.grad.isfinite().all()
    assert norm.running_var.isfinite().all()


# relative positions -----------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_scores_by_distance_become_scores_by_key(frames):
    by_distance = torch.randn(2, 3, frames, 2 * frames - 1)
    by_key = from_distance_to_key(by_distance)
    assert by_key.shape == (2, 3, frames, frames)
    for i in range(frames):
        for j in range(frames):
            column = (frames - 1) - (i - j)  # distances T - 1, …, -(T - 1)
            assert torch.equal(by_key[:, :, i, j], by_distance[:, :, i, column])


def test_sinusoids_of_the_distances_by_hand():
    r = distance_sinusoids(3, 4)
    assert r.shape == (5, 4)
    for row, distance in enumerate([2.0, 1.0, 0.0, -1.0, -2.0]):
        d = torch.tensor(distance)
        expected = torch.stack([d.sin(), d.cos(), (d / 100).sin(), (d / 100).cos()])
        torch.testing.assert_close(r[row], expected)


# the whole models -------------------------------------------------------------------------------


def layer_parameters(dim, ffn, kernel):
    feed_forward = 2 * dim * ffn + ffn + dim
    attention = 4 * (dim * dim + dim)
    convolution = dim * 2 * dim + dim * kernel + 2 * dim + dim * dim
    return 2 * feed_forward + attention + convolution + 5 * 2 * dim


def wrapper_parameters(dim, *, front_end, channels, groups=16, taps=128):
    projection = 2 * channels + (0 if channels == dim else channels * dim + dim)
    position = dim * (dim // groups) * taps + taps + dim
    return front_end + projection + position + 2 * dim + dim + (dim * 256 + 256)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("conformer_s", 32_967_760),
        ("conformer_s_fair", 9_884_752),
        ("conformer_nano", 1_406_976),
    ],
)
def test_parameters_counted_by_hand(name, total):
    config = size_of(name)
    nano = name.endswith("_nano")
    by_hand = config.layers * layer_parameters(config.dim, config.ffn_dim, 31)
    by_hand += wrapper_parameters(
        config.dim, front_end=231_808 if nano else 1_843_968, channels=128 if nano else 512
    )
    with torch.device("meta"):
        model = Hubert(config)
    assert sum(p.numel() for p in model.parameters()) == by_hand == total


def test_relative_positions_are_a_choice_of_the_config():
    config = replace(
        size_of("conformer_nano"), own=ConformerSettings(attention_position="relative")
    )
    model = untrained_model(config).eval()
    plain = untrained_model(size_of("conformer_nano"))
    extra = set(model.state_dict()) - set(plain.state_dict())
    assert len(extra) == 4 * 3
    assert all(name.split(".")[-2] in ("attention", "position") for name in extra)
    for layer in model.encoder.layers:
        assert not layer.attention.content_bias.any()
        assert layer.attention.position.weight.std().item() == pytest.approx(0.02, rel=0.05)
        nn.init.normal_(layer.attention.position_bias)
    waveforms = [torch.randn(samples) for samples in (16_000, 400, 7_777)]
    with torch.no_grad():
        batched = model(waveforms)
        for row, waveform in enumerate(waveforms):
            for one, many in zip(model([waveform]), batched, strict=True):
                frames = one.shape[1]
                assert (one[0] - many[row, :frames]).abs().max() <= 1e-5


def test_convolutions_start_as_torch_starts_them_and_statistics_at_0_and_1():
    model = untrained_model(size_of("conformer_nano"))
    for layer in model.encoder.layers:
        convolution = layer.convolution
        for part, fan_in in ((convolution.pointwise_in, 128), (convolution.depthwise, 31)):
            assert part.bias is None
            assert part.weight.abs().max().item() == pytest.approx(fan_in**-0.5, rel=0.01)
            assert part.weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)
        assert torch.equal(convolution.norm.running_mean, torch.zeros(128))
        assert torch.equal(convolution.norm.running_var, torch.ones(128))
