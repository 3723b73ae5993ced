"""The flow of error: hand-made models, the five encoders, and the command."""

import csv
import io
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from verbs import run_verb

from superbit.benchmark.profiling import error_flow as of_verb
from superbit.benchmark.profiling.error_flow import (
    audio_of_folder,
    fixed_signal,
    pair_of,
)
from superbit.upstreams import checkpoint, registry, variant
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.quantization.convert import binarize_, calibrate
from superbit.upstreams.quantization.error_flow import (
    BlockFlow,
    Deviation,
    blocks_of,
    deviation,
    error_flow,
    flow,
    kind_of,
)
from superbit.upstreams.quantization.layers import BinarizedLinear
from superbit.upstreams.quantization.policy import Binarization
from superbit.upstreams.spec import UpstreamSpec
from superbit.upstreams.variant import size_of

SIGNED = Binarization(bits=1, set="signed")
ATTENTION, FEED_FORWARD = "encoder.layers.0.attention", "encoder.layers.0.feed_forward"


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # in another order than they run in
        self.feed_forward = nn.Linear(4, 4, bias=False)
        self.attention = nn.Linear(4, 4, bias=False)

    def forward(self, x):
        return self.feed_forward(self.attention(x))


class _Model(nn.Module):
    """encoder.layers.0, whose attention has weights ±0.5 of mean 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList([_Layer()])
        with torch.no_grad():
            self.encoder.layers[0].attention.weight.copy_(
                0.5
                * torch.tensor([[1, -1, 1, 1], [-1, 1, 1, -1], [1, 1, -1, -1], [-1, 1, -1, -1.0]])
            )


def _twin(model, inputs):
    """The model with both linear layers binarized; α is half of what calibration would choose."""
    twin = _Model()
    twin.load_state_dict(model.state_dict())
    for name, x in inputs.items():
        layer = BinarizedLinear(twin.get_submodule(name), weight=SIGNED, input=SIGNED)
        layer.input_quantizer.calibrate(x / 2)  # α = mean |x|
        twin.set_submodule(name, layer)
    return twin


def test_deviation_by_hand():
    found = [torch.tensor([3.0, -1.0]), torch.tensor([0.0])]
    expected = [torch.tensor([3.0, 1.0]), torch.tensor([2.0])]
    # differences 0, -2, -2; norm² 9 + 1 + 4; signs: same, other, same (0 counts as positive)
    assert deviation(found, expected) == Deviation(
        relative_error=math.sqrt(8 / 14), sign_agreement=2 / 3
    )
    zeros = [torch.zeros(2)]
    assert deviation(zeros, zeros) == Deviation(relative_error=0.0, sign_agreement=1.0)
    assert deviation([torch.ones(2)], zeros).relative_error == math.inf


def test_an_exact_binarization_has_no_error_and_hands_none_on():
    model = _Model()
    x = 0.25 * torch.tensor([[[1.0, -1, 1, 1], [-1, 1, 1, -1], [1, 1, 1, -1]]])
    hidden = model.encoder.layers[0].attention(x).detach()
    twin = _twin(model, {ATTENTION: x, FEED_FORWARD: hidden})
    rows = flow(model, twin, blocks_of(twin), lambda one: [one.encoder.layers[0](x)])

    assert [row.name for row in rows] == [ATTENTION, FEED_FORWARD]  # as they run
    first, second = rows
    nothing = Deviation(relative_error=0.0, sign_agreement=1.0)
    assert first.alone == first.alone_encoder == first.up_to == first.up_to_encoder == nothing
    assert first.growth == second.growth == 1.0
    assert second.up_to == second.alone == second.alone_encoder == second.up_to_encoder

    # the second block's error, from the definitions alone
    weight = model.encoder.layers[0].feed_forward.weight.detach().double().numpy()
    h = hidden[0].double().numpy()
    binary_weight = np.abs(weight).mean() * np.where(weight >= weight.mean(), 1, -1)
    binary_input = np.abs(h).mean() * np.where(h >= 0, 1, -1)
    y, binary_y = h @ weight.T, binary_input @ binary_weight.T
    error = np.linalg.norm(binary_y - y) / np.linalg.norm(y)
    assert second.alone.relative_error == pytest.approx(error, rel=1e-5)
    assert second.alone.sign_agreement == ((y >= 0) == (binary_y >= 0)).mean()


def test_errors_of_blocks_before_are_in_b_and_not_in_a():
    model = _Model()
    x = torch.tensor(
        [[[0.9, -0.1, 0.4, 0.2], [-0.7, 0.3, 0.1, -0.5]]]
    )  # no longer of one magnitude
    layer = model.encoder.layers[0]
    hidden = layer.attention(x).detach()
    twin = _twin(model, {ATTENTION: x, FEED_FORWARD: hidden})
    first, second = flow(model, twin, blocks_of(twin), lambda one: [one.encoder.layers[0](x)])

    assert first.up_to == first.alone
    twin_layer = twin.encoder.layers[0]
    with torch.no_grad():
        exact = [layer(x)]
        assert second.alone == deviation([twin_layer.feed_forward(hidden)], exact)
        assert second.up_to == deviation([twin_layer(x)], exact)
        # alone, what the first block does to the end passes the second in full precision
        assert first.alone_encoder == deviation(
            [layer.feed_forward(twin_layer.attention(x))], exact
        )
    assert first.alone_encoder == first.up_to_encoder
    assert second.up_to != second.alone


@pytest.mark.parametrize(
    ("name", "first", "blocks"),
    [
        ("vanilla_nano", "attention", 4),
        ("conformer_nano", "feed_forward_in", 8),
        ("squeeze_nano", "feed_forward_in", 8),
        ("sparseformer_dn_nano", "attention", 4),
    ],
)
def test_flow_through_an_encoder(name, first, blocks):
    config = replace(size_of(name), layers=2, dim=32, ffn_dim=64)
    if name == "squeeze_nano":
        config = replace(config, layers=3)
        blocks = 12
    model = untrained_model(config)
    torch.manual_seed(0)
    waveforms = [0.1 * torch.randn(8000), 0.1 * torch.randn(9600)]
    twin = binarize_(untrained_model(config), "w1a1")
    calibrate(twin, waveforms)
    before = dict(twin.named_modules())
    rows = error_flow(model, twin, waveforms)

    assert len(rows) == blocks
    assert rows[0].name == f"encoder.layers.0.{first}"
    assert rows[0].up_to == rows[0].alone
    assert rows[0].up_to_encoder == rows[0].alone_encoder
    assert all(row.alone.relative_error > 0 for row in rows)
    kinds = {"attention", "feed-forward"} | ({"convolution"} if blocks > 4 else set())
    assert {row.kind for row in rows} == kinds
    # with the last block, all are binarized: the twin itself
    with torch.no_grad():
        outputs = [
            [one.eval().encode_batch([waveform])[0][-1] for waveform in waveforms]
            for one in (twin, model)
        ]
    whole = deviation(*outputs)
    assert rows[-1].up_to_encoder.relative_error == pytest.approx(whole.relative_error, rel=1e-6)
    assert dict(twin.named_modules()) == before  # and the twin is as it was


def test_kinds():
    assert kind_of("encoder.layers.3.feed_forward_2") == "feed-forward"
    assert kind_of("encoder.layers.3.convolution") == "convolution"
    assert kind_of("encoder.recovery") == "other"


def error_flow_verb(spec="bq_conformer_nano+untrained", **options):
    return run_verb("error-flow", spec, **({"format": "csv"} | options))


@pytest.fixture
def small_conformer(monkeypatch):
    """Two layers of the conformer and a second of signal, so that the command is quick."""
    small = replace(size_of("conformer_nano"), layers=2, dim=32, ffn_dim=64)
    monkeypatch.setitem(variant._declared()["conformer_s"], "conformer_nano", small)
    monkeypatch.setattr(fixed_signal, "__defaults__", (1,))


@pytest.mark.usefixtures("small_conformer")
def test_csv_is_one_header_and_a_row_a_block(capsys):
    assert error_flow_verb() == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 8
    assert rows[0]["module"] == "encoder.layers.0.feed_forward_in"
    assert rows[0]["alone_relative_error"] == rows[0]["up_to_relative_error"]
    assert 0 < float(rows[0]["alone_encoder_sign_agreement"]) <= 1


@pytest.mark.usefixtures("small_conformer")
def test_markdown_says_what_it_shows_and_what_not(capsys, tmp_path):
    error_flow_verb(format="md", out=tmp_path / "flow.md")
    assert capsys.readouterr().out == f"{tmp_path / 'flow.md'}\n"
    text = (tmp_path / "flow.md").read_text("utf-8")
    title = text.splitlines()[0]
    assert title.startswith("**Error flow of conformer_nano+untrained and its w1a1 twin, ")
    assert "made from random weights" in title
    for part in (
        "The FP32 model has random weights",
        "It shows",
        "It does not show",
        "2 × convolution:",
    ):
        assert part in text


@pytest.mark.usefixtures("small_conformer")
def test_figure(capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    error_flow_verb(format="png", spec="conformer_nano+policy=w1a2")
    file = tmp_path / "error-flow-conformer_nano-w1a2.png"
    assert capsys.readouterr().out == f"{file.name}\n"
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 20_000


def test_figure_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r'pip install "superbit\[figures\]"'):
        error_flow_verb(format="png")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"spec": "fbank"}, "comes from s3prl"),
        ({"spec": "vanilla_nano+policy=w1a9"}, "no binarization policy is called 'w1a9'"),
    ],
)
def test_bad_input(given, message):
    with pytest.raises(InputError, match=message):
        error_flow_verb(**given)


def test_a_twins_checkpoint_is_refused(tmp_path):
    config = replace(size_of("vanilla_nano"), layers=1, dim=16, heads=2, ffn_dim=16)
    twin = binarize_(untrained_model(config), "w1a1")
    calibrate(twin, [0.1 * torch.randn(4000)])
    checkpoint.save(tmp_path / "twin", twin)
    with pytest.raises(InputError, match="give that FP32 model with --teacher DIR"):
        error_flow_verb(spec=f"bq_vanilla_nano@{tmp_path / 'twin'}")
    with pytest.raises(InputError, match="holds a twin of policy 'w1a1', but 'vanilla_nano@"):
        pair_of(UpstreamSpec.parse(f"vanilla_nano@{tmp_path / 'twin'}"))
    with pytest.raises(InputError, match="of different sizes"):
        pair_of(UpstreamSpec.parse("bq_vanilla_nano"), teacher=_saved(tmp_path, config))
    with pytest.raises(InputError, match="is for a trained twin"):
        pair_of(UpstreamSpec.parse("vanilla_nano"), teacher=tmp_path / "fp32")


def _saved(folder, config):
    checkpoint.save(folder / "fp32", untrained_model(config, seed=3))
    return folder / "fp32"


def test_a_twins_checkpoint_is_held_against_its_teacher(tmp_path):
    config = replace(size_of("vanilla_nano"), layers=1, dim=16, heads=2, ffn_dim=16)
    teacher = _saved(tmp_path, config)
    twin = binarize_(untrained_model(config, seed=4), "w1a1")
    calibrate(twin, [0.1 * torch.randn(4000)])
    checkpoint.save(tmp_path / "twin", twin)
    spec = UpstreamSpec.parse(f"bq_vanilla_nano@{tmp_path / 'twin'}")
    pair = pair_of(spec, teacher=teacher)
    for found, folder in ((pair.model, teacher), (pair.twin, tmp_path / "twin")):
        kept = checkpoint.load(folder).model.state_dict()
        assert all(torch.equal(found.state_dict()[name], kept[name]) for name in kept)
    assert pair.trained
    assert str(teacher) in pair.weights
    assert str(tmp_path / "twin") in pair.origin


@pytest.mark.parametrize("name", ["vanilla_nano", "conformer_nano"])
def test_the_twin_that_superbit_brings_is_the_one_that_is_measured(name, capsys, monkeypatch):
    """Its last row is the distance of the two shipped models' outputs, computed here by hand."""
    monkeypatch.setattr(fixed_signal, "__defaults__", (1,))
    assert error_flow_verb(spec=f"bq_{name}", format="csv") == 0
    printed = capsys.readouterr()
    first = printed.err.splitlines()[0]
    assert first == f"error flow of {name} and its w1a1 twin, the trained ones that superbit brings"
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    models = [registry.load(spec).model.eval() for spec in (f"bq_{name}", name)]
    waveform = fixed_signal().waveforms[0]
    with torch.no_grad():
        outputs = [[model([waveform])[-1][:, :49]] for model in models]
        # one block of it: the first layer's first feed-forward or attention, on the FP32 input
        x = models[1].encode_batch([waveform])[0][0]
        block = rows[0]["module"]
        if name == "conformer_nano":
            x = models[1].encoder.layers[0].feed_forward_in_norm(x)
        alone = [[model.get_submodule(block)(x)] for model in models]
    for key, pair in (("up_to_encoder", outputs), ("alone", alone)):
        found = float(rows[-1 if key == "up_to_encoder" else 0][f"{key}_relative_error"])
        assert found == pytest.approx(deviation(*pair).relative_error, rel=1e-4)
    assert float(rows[-1]["up_to_encoder_relative_error"]) < 1  # trained: not noise


@pytest.mark.parametrize(
    ("spec", "origin"),
    [
        ("vanilla_nano", "made from the weights that superbit brings"),
        ("vanilla_nano+policy=w1a2", "superbit brings no trained twin of this policy"),
        ("bq_vanilla_nano+untrained", "made from random weights"),
        ("bq_small", "made from random weights; superbit brings no trained twin"),
    ],
)
def test_where_no_twin_is_shipped_the_first_line_says_what_was_made(spec, origin, monkeypatch):
    small = replace(size_of("vanilla_nano"), layers=1, dim=16, heads=2, ffn_dim=16)
    monkeypatch.setitem(variant._declared()["vanilla"], "small", small)
    pair = pair_of(UpstreamSpec.parse(spec))
    assert not pair.trained
    assert origin in pair.origin
    weights = dict(pair.model.named_parameters())
    assert all(
        torch.equal(parameter, weights[name])
        for name, parameter in pair.twin.named_parameters()
        if name in weights
    )


def test_folders_of_audio(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="holds no wav or flac file"):
        audio_of_folder(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        audio_of_folder(tmp_path / "absent")
    for index, ending in enumerate(("flac", "wav", "flac")):
        soundfile.write(tmp_path / f"{index}.{ending}", np.full(16_000, 0.1 * index), 16_000)
    monkeypatch.setattr(of_verb, "AUDIO_SECONDS", 2)
    audio = audio_of_folder(tmp_path)  # two of three fit
    assert [one.mean().item() for one in audio.waveforms] == pytest.approx([0.0, 0.1], abs=1e-4)
    assert audio.meaning.startswith("2 of 3 files of ")
    (tmp_path / "0.flac").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be decoded as audio"):
        audio_of_folder(tmp_path)


def test_the_fixed_signal_is_fixed():
    first, second = fixed_signal().waveforms[0], fixed_signal().waveforms[0]
    assert torch.equal(first, second)
    assert first.shape == (4 * 16_000,)
    assert 0.2 < first.abs().max() < 0.5


def test_growth_without_error():
    none = Deviation(relative_error=0.0, sign_agreement=1.0)
    some = Deviation(relative_error=0.5, sign_agreement=0.9)
    row = BlockFlow(
        name="x", kind="other", alone=none, alone_encoder=none, up_to=some, up_to_encoder=some
    )
    assert row.growth == math.inf
    assert replace(row, up_to=none).growth == 1.0
    assert replace(row, alone=some).growth == 1.0
