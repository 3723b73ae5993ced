"""Table 1: the paper's cells come back; the honest counts equal formulas written by hand."""

import csv
import json
from dataclasses import replace
from importlib.resources import files

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from superbit.benchmark.paper import ENCODERS
from superbit.benchmark.profiling.counting import count_model, meta_model, sparse_visits
from superbit.benchmark.profiling.honest_accounting import honest_cells
from superbit.benchmark.profiling.paper_accounting import paper_cells
from superbit.benchmark.profiling.table1 import table1_rows
from superbit.upstreams.encoders import frontend
from superbit.upstreams.encoders.frozen import as_trained
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.quantization.convert import binarize_
from superbit.upstreams.quantization.policy import parse_policy
from superbit.upstreams.variant import size_of

SAMPLES, FRAMES = 160_000, 499
PAPER = list(
    csv.DictReader(files("superbit.results").joinpath("paper/table1.csv").read_text().splitlines())
)
CELLS = ("storage_mb", "flop_g", "bop_nonq_g", "bop_bq_g", "nvda_est_time_1e-4s")
FRONT_END = 3_295_436_160  # MACs in 10 s, as table1_configs.json has them


def twin_of(config):
    return binarize_(meta_model(config), "w1a1")


@pytest.fixture(scope="module")
def rows():
    return table1_rows(accounting="paper")


def test_the_ten_rows_are_the_papers_in_its_order(rows):
    assert [row["model"] for row in rows] == [line["model"] for line in PAPER]
    for row, line in zip(rows, PAPER, strict=True):
        assert row["precision"] == line["precision"]
        assert row["quantized"] == line["quantized"]
        assert (str(row["layers"]), str(row["heads"])) == (line["layers"], line["heads"])


def test_every_cell_of_the_paper_comes_back(rows):
    compared = 0
    for row, line in zip(rows, PAPER, strict=True):
        for cell in CELLS:
            if not line[cell]:
                assert row[cell] is None
                continue
            compared += 1
            tolerance = 0.001 if cell == "storage_mb" else 0.01
            assert row[cell] == pytest.approx(float(line[cell]), rel=tolerance), (line, cell)
            assert row[f"{cell}_paper"] == float(line[cell])
            assert row[f"{cell}_ratio"] == pytest.approx(row[cell] / float(line[cell]))
    assert compared == 45


def test_storage_is_equal_to_two_decimals_in_nine_rows(rows):
    equal = [
        f"{row['storage_mb']:.2f}" == line["storage_mb"]
        for row, line in zip(rows, PAPER, strict=True)
    ]
    assert sum(equal) >= 9


@pytest.mark.parametrize("name", [name for _, name, _ in ENCODERS])
@pytest.mark.parametrize("twin", [False, True])
def test_one_layer_less_moves_every_cell(name, twin):
    config = replace(size_of(name), layers=4)  # as wide as it is, but counted in a moment

    def cells(config):
        return vars(paper_cells((twin_of if twin else meta_model)(config), SAMPLES))

    whole, shorter = cells(config), cells(replace(config, layers=config.layers - 1))
    for cell, value in whole.items():
        if twin or cell != "bop_bq_g":
            # least of all the full-precision part of a twin, in which only norms are the layer's
            assert shorter[cell] < (1 - 1e-4) * value, cell


@pytest.mark.parametrize(("_label", "name", "key"), ENCODERS)
def test_the_policy_binarizes_as_many_parameters_as_the_paper(_label, name, key):
    table = json.loads(files("superbit.upstreams").joinpath("table1_configs.json").read_text())
    found = honest_cells(twin_of(size_of(name)), SAMPLES).quantized_parameters
    assert found == table["encoders"][key]["params_quantised_in_BQ_twin"]


def frontend_elements(layers, samples):
    """GELU of every layer, and 5 an element of the first layer's norm."""
    total = 0
    for index, (channels, kernel, stride) in enumerate(layers):
        samples = (samples - kernel) // stride + 1
        total += channels * samples * (6 if index == 0 else 1)
    return total


def prologue(config, frames):
    """MACs and element-wise operations of what stands before the layers."""
    width, dim = config.feature_dim, config.dim
    macs = {
        "front_end": FRONT_END,
        # an even kernel gives one frame too many
        "positional": dim * (dim // 16) * 128 * (frames + 1),
        "linear": 0 if width == dim else frames * width * dim,
    }
    elements = frontend_elements(config.conv_layers, SAMPLES) + 5 * frames * width
    return macs, elements + dim * frames + 5 * frames * dim


def check(config, *, linear, convolution, attention, elements):
    found = honest_cells(meta_model(config), SAMPLES)
    macs, before = prologue(config, FRAMES)
    macs["linear"] += linear
    wanted = {**macs, "convolution": convolution, "attention": attention, "other": 0}
    assert found.macs == wanted
    assert found.total_macs == sum(wanted.values())
    assert found.flop == 2 * sum(wanted.values()) + before + elements
    assert found.bop == 1024 * sum(wanted.values())
    assert found.storage_bytes == 4 * found.parameters


def test_vanilla_by_hand():
    t, d, f, layers, heads = FRAMES, 768, 3072, 12, 12
    check(
        size_of("vanilla"),
        linear=layers * t * (4 * d * d + 2 * d * f),
        convolution=0,
        attention=layers * 2 * t * t * d,
        elements=layers * (2 * 5 * t * d + t * f + heads * t * t),
    )


def visits_by_definition(frames, stride, expressivity):
    """The pairs of Child et al.'s fixed pattern, window and summaries, from their definition."""
    summaries = {
        j
        for j in range(frames)
        if any(k * stride - expressivity <= j <= k * stride for k in range(1, frames // stride + 3))
    }
    pairs = 0
    for i in range(frames):
        window = max(-(-i // stride) - 1, 0) if i else 0
        last = min((window + 1) * stride, frames - 1)
        pairs += len(summaries | set(range(window * stride, last + 1)))
    return pairs


def test_key_visits_are_those_of_the_definition():
    for frames in (1, 2, 5, 31, 32, 33, 34, 64, 65, 130):
        for stride, expressivity in ((2, 1), (2, 2), (4, 1), (8, 8), (32, 8), (64, 63)):
            found = sparse_visits(frames, stride=stride, expressivity=expressivity)
            assert found == visits_by_definition(frames, stride, expressivity)


@pytest.mark.parametrize(
    ("name", "layers", "d"), [("sparseformer_dn_s", 16, 256), ("sparseformer_sw_s", 8, 512)]
)
def test_sparseformer_by_hand(name, layers, d):
    t, f = FRAMES, 4 * d
    visits = visits_by_definition(t, 32, 8)
    assert 0.3 < visits / t**2 < 0.33
    check(
        size_of(name),
        linear=layers * t * (4 * d * d + 2 * d * f),
        convolution=0,
        attention=layers * 2 * visits * d,
        elements=layers * (2 * 5 * t * d + t * f + 4 * visits),
    )


def conformer_layer(t, d, f, heads=4):
    """Linear, convolution, attention MACs and element-wise operations of one layer."""
    elements = (
        5 * 5 * t * d  # layer norms
        + 2 * t * f  # Swish of both feed-forwards
        + heads * t * t
        + t * d  # gate
        + 2 * t * d  # batch norm
        + t * d  # Swish
    )
    return t * (4 * d * d + 4 * d * f), t * d * (3 * d + 31), 2 * t * t * d, elements


@pytest.mark.parametrize(("name", "f"), [("conformer_s", 3072), ("conformer_s_fair", 576)])
def test_conformer_by_hand(name, f):
    linear, convolution, attention, elements = (
        16 * part for part in conformer_layer(FRAMES, 144, f)
    )
    check(
        size_of(name),
        linear=linear,
        convolution=convolution,
        attention=attention,
        elements=elements,
    )


@pytest.mark.parametrize(("name", "f"), [("squeeze_xs", 3072), ("squeeze_xs_fair", 576)])
def test_squeezeformer_by_hand(name, f):
    half = 250  # of 499 frames, rounded up
    full, reduced = conformer_layer(FRAMES, 144, f), conformer_layer(half, 144, f)
    linear, convolution, attention, elements = (
        8 * (whole + part) for whole, part in zip(full, reduced, strict=True)
    )
    check(
        size_of(name),
        linear=linear + FRAMES * 144 * 144,  # recovery
        convolution=convolution + half * 144 * (3 + 144),  # reduction
        attention=attention,
        elements=elements,
    )


def test_faithful_squeezeformer_by_hand():
    d, f, half = 144, 576, 250

    def layer(t):
        elements = 4 * 5 * t * d + 2 * t * f + 4 * t * t + t * 2 * d * (1 + 2 + 1)
        convolution = t * (d * 2 * d + 2 * d * 31 + 2 * d * d)
        return t * (4 * d * d + 4 * d * f), convolution, 2 * t * t * d, elements

    linear, convolution, attention, elements = (
        8 * (whole + part) for whole, part in zip(layer(FRAMES), layer(half), strict=True)
    )
    check(
        size_of("squeeze_xs_faithful"),
        linear=linear + FRAMES * d * d,
        convolution=convolution + half * d * (5 + d),
        attention=attention,
        elements=elements,
    )


def test_a_twin_by_hand():
    """Sparseformer-DN-S: bytes and bit operations of its 1-bit twin."""
    t, d, f, layers = FRAMES, 256, 1024, 16
    found = honest_cells(twin_of(size_of("sparseformer_dn_s")), SAMPLES)
    weights = layers * (4 * d * d + 2 * d * f)
    assert found.quantized_parameters == weights
    assert found.sign_bytes == weights // 8
    assert found.scale_bytes == 4 * 6 * layers
    # inputs of six linears, then query, key, value and probabilities
    assert found.activation_bytes == 4 * layers * ((5 * (d + 1) + f + 1) + 3 * (d + 1) + 1)
    assert found.full_precision_bytes == 4 * (15_203_712 - weights)
    one_bit = layers * (t * (4 * d * d + 2 * d * f) + 2 * visits_by_definition(t, 32, 8) * d)
    assert found.low_bit_macs == found.low_bit_bop == one_bit
    assert found.full_precision_bop == 1024 * (found.total_macs - one_bit)
    assert found.flop == 2 * (found.total_macs - one_bit) + found.elementwise


@pytest.mark.parametrize("bits", [(1, 1), (1, 8), (2, 4)])
def test_bits_are_read_from_the_modules(bits):
    """A policy of the linear layers alone: bit operations and packed bytes follow its bits."""
    weight_bits, input_bits = bits
    policy = parse_policy(
        "name: p\nrules:\n- modules: [encoder.layers.*.feed_forward.expand]\n"
        f"  weight: {{bits: {weight_bits}, set: signed}}\n"
        f"  input: {{bits: {input_bits}, set: signed}}\n",
        where="p.yaml",
    )
    found = honest_cells(binarize_(meta_model(size_of("vanilla_nano")), policy), SAMPLES)
    assert found.quantized_parameters == 4 * 128 * 512
    assert found.low_bit_macs == FRAMES * found.quantized_parameters
    assert found.low_bit_bop == weight_bits * input_bits * found.low_bit_macs
    assert found.sign_bytes == weight_bits * found.quantized_parameters // 8
    # one scale a weight and one an input, in each of the four layers
    assert found.scale_bytes == found.activation_bytes == 4 * 4


DENSE = ["vanilla_nano", "conformer_nano", "squeeze_nano", "squeeze_xs_faithful"]


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("samples", [16_000, 15_680, 400])
def test_torchs_own_counter_sees_the_same_products(name, samples, monkeypatch):
    """On a real forward pass; torch counts the operations that run, ours the modules."""
    monkeypatch.setattr(frontend, "_LENGTH_STEP", 1)  # no samples beyond the waveform's end
    config = size_of(name)
    model = untrained_model(config).eval()
    waveform = torch.randn(samples)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), as_trained():
        model([waveform])
    assert counter.get_total_flops() == 2 * count_model(meta_model(config), samples).macs


def test_sparse_attention_computes_no_less_than_it_is_counted(monkeypatch):
    """The gathered form pads its blocks, so torch sees a few products more, and far from dense."""
    monkeypatch.setattr(frontend, "_LENGTH_STEP", 1)
    config = size_of("sparseformer_dn_nano")
    counts = count_model(meta_model(config), SAMPLES)
    attention = sum(count.macs for count in counts.modules.values() if count.kind == "product")
    dense = config.layers * 2 * FRAMES**2 * config.dim
    with FlopCounterMode(display=False) as counter, torch.no_grad(), as_trained():
        untrained_model(config).eval()([torch.randn(SAMPLES)])
    computed = counter.get_total_flops() // 2 - (counts.macs - attention)
    assert attention <= computed < 1.1 * attention < 0.4 * dense


@pytest.mark.parametrize("name", ["vanilla_nano", "conformer_nano", "squeeze_nano"])
def test_deepspeed_counts_the_same(name, monkeypatch):
    """DeepSpeed's profiler where it is installed: the same MACs, and FLOP that differ by

    - the biases of convolutions, which it adds and we leave out (a linear layer's it leaves out);
    - softmax as a method of a tensor, and the gated linear unit, neither of which it patches.

    It never restores ``torch.Tensor.__matmul__``, so that the k-th profile of a process counts
    ``@`` k times: put back here.
    """
    flops_profiler = pytest.importorskip("deepspeed.profiling.flops_profiler")
    monkeypatch.setattr(torch.Tensor, "__matmul__", torch.Tensor.__matmul__)
    model = untrained_model(size_of(name)).eval()
    flop, macs, _ = flops_profiler.get_model_profile(
        model=model,
        args=[[torch.randn(16_000)]],
        print_profile=False,
        as_string=False,
        warm_up=0,
    )
    counts = count_model(model, 16_000)
    modules = {key: model.get_submodule(key) for key in counts.modules}
    biases = sum(
        module.out_channels * counts.modules[key].frames
        for key, module in modules.items()
        if isinstance(module, torch.nn.Conv1d) and module.bias is not None
    )
    unseen = sum(
        counts.modules[key].elementwise
        for key, module in modules.items()
        if key in counts.attentions or isinstance(module, torch.nn.GLU)
    )
    assert macs == counts.macs
    assert flop == 2 * counts.macs + counts.elementwise + biases - unseen
