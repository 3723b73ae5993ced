"""A kind of encoder that superbit does not know, in a file of its own: its models and its twins."""

import csv
import io
import json
import re
import shutil
import sys
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_settings import TINY_SETTINGS
from torch import nn

import superbit.upstreams
from superbit.benchmark.cli import main
from superbit.benchmark.profiling import error_flow
from superbit.benchmark.profiling.rendering import render_table1
from superbit.benchmark.profiling.table1 import table1_rows
from superbit.benchmark.records.store import ResultStore
from superbit.upstreams import checkpoint, encoder_kinds, expert, registry, variant
from superbit.upstreams.contract import check_upstream
from superbit.upstreams.contract import render as render_report
from superbit.upstreams.errors import BrokenUpstream, InputError
from superbit.upstreams.hubert import Hubert, untrained_model
from superbit.upstreams.hubert_config import HubertConfig
from superbit.upstreams.quantization.convert import binarize_, binarized_modules, calibrate
from superbit.upstreams.quantization.error_flow import deviation
from superbit.upstreams.quantization.policy import (
    load_policy,
    parse_policy,
    policy_from_dict,
    read_policy,
)
from superbit.upstreams.training.command import parse_policies
from superbit.upstreams.training.distil import DistillationBatch, distillation_losses
from superbit.upstreams.training.distil_objective import student_of
from superbit.upstreams.training.objective import Pretrainer, dropped_layers
from superbit.upstreams.variant import size_of, sizes

PLUGIN = Path(__file__).parents[2] / "benchmark" / "cli" / "templates" / "encoder"
DEPTHWISE = (PLUGIN / "my_package" / "hubconf.py").read_text(encoding="utf-8")

# Gates over time in a loop, a parameter of its own, and a product outside of any module.
GATED = """
import torch
import torch.nn as nn

import superbit.upstreams


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate = nn.Linear(config.dim, config.dim)
        self.value = nn.Linear(config.dim, config.dim)
        self.start = nn.Parameter(torch.empty(config.dim))
        self.mixing = nn.Parameter(torch.empty(config.dim, config.dim))
        self.norm = nn.LayerNorm(config.dim)
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.normal_(self.start)
        nn.init.orthogonal_(self.mixing)

    def forward(self, x, valid=None):
        gate, value = self.gate(x).sigmoid(), self.value(x)
        state, states = self.start.expand(len(x), -1), []
        for time in range(x.shape[1]):
            state = gate[:, time] * state + (1 - gate[:, time]) * value[:, time]
            states.append(state)
        return self.norm(x + torch.stack(states, dim=1) @ self.mixing)


class GatedEncoder(nn.Module):
    roles = {"linear": ("gate", "value")}

    def __init__(self, config):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, x, valid=None):
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], valid))
        return states


superbit.upstreams.register_encoder(
    "gated", GatedEncoder,
    sizes={"gated_nano": {"layers": 2, "dim": 64, "heads": 1, "ffn_dim": 64}},
)
"""
KINDS = {"depthwise": DEPTHWISE, "gated": GATED}
SAMPLES, FRAMES = 16_000, 49


@pytest.fixture
def no_kinds(monkeypatch):
    """What is registered in a test is gone after it."""
    registered = {}
    monkeypatch.setattr(encoder_kinds, "_registered", registered)
    yield
    if "s3prl.hub" in sys.modules:
        for kind in registered.values():
            for name in kind.sizes:
                for attribute in (name, f"bq_{name}"):
                    vars(sys.modules["s3prl.hub"]).pop(attribute, None)


@pytest.fixture
def installed(no_kinds, tmp_path, monkeypatch):
    """A package that brings both kinds by entry points, and has not been imported."""
    folder, metadata = tmp_path / "site", tmp_path / "site" / "my_kinds-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-kinds\nVersion: 1.0\n")
    lines = ["[superbit.encoders]", *(f"{kind} = my_{kind}" for kind in KINDS)]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    for kind, text in KINDS.items():
        (folder / f"my_{kind}.py").write_text(text)
        monkeypatch.delitem(sys.modules, f"my_{kind}", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for kind in KINDS:
        sys.modules.pop(f"my_{kind}", None)


def audio(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [0.1 * torch.randn(length, generator=generator) for length in lengths]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "bq_"])
def test_a_new_kind_and_its_twin_keep_the_contract_of_superbits_own(kind, prefix):
    spec = f"{prefix}{kind}_nano"
    loaded = registry.load_upstream(spec)
    assert loaded.entry.ours
    assert str(loaded.spec) == f"{kind}_nano+untrained" + ("+policy=w1a1" if prefix else "")
    assert loaded.entry.revision != registry.find("vanilla_nano").revision
    report = check_upstream(loaded.expert, ours=True, build=lambda: registry.load(spec))
    assert report.ok, render_report(report)
    assert not report.names("warn")


@pytest.mark.usefixtures("no_kinds")
def test_sizes_of_a_registered_kind_are_names_of_s3prls_hub():
    from s3prl import hub

    exec(DEPTHWISE, {})
    assert "bq_depthwise_nano" in superbit.upstreams.names()
    found = hub.bq_depthwise_nano(ckpt=None, model_config=None, refresh=False)
    assert found.model.policy.name == "w1a1"
    assert hub.depthwise_nano(ckpt=None).model.policy is None


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("kind", KINDS)
def test_random_weights_follow_from_the_seed_and_none_is_left_as_memory_was(kind):
    registry.find(f"{kind}_nano")
    size = size_of(f"{kind}_nano")
    first, again, other = (untrained_model(size, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if not torch.equal(first[name], other[name])]
    assert all(tensor.isfinite().all() for tensor in first.values())
    if kind == "gated":
        assert {"encoder.layers.0.start", "encoder.layers.1.mixing"} <= set(drawn)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("kind", "binarized"),
    [("depthwise", ["mix", "expand", "contract"]), ("gated", ["gate", "value"])],
)
@pytest.mark.parametrize("policy", ["w1a1", "w1a2"])
def test_a_twin_of_a_new_kind_is_saved_loaded_and_asked_for(kind, binarized, policy, tmp_path):
    registry.find(f"{kind}_nano")
    model = binarize_(untrained_model(size_of(f"{kind}_nano")), policy)
    assert [name.split(".", 3)[3] for name in binarized_modules(model)] == 2 * binarized
    if kind == "depthwise":
        assert isinstance(model.encoder.layers[1].activation, nn.ReLU)
    calibrate(model, audio(9_000, 7_000))
    checkpoint.save(tmp_path / "twin", model)
    again = registry.load(f"{kind}_nano@{tmp_path / 'twin'}+policy={policy}").model
    waveforms = audio(8_000, 5_000, seed=1)
    for got, due in zip(again.eval()(waveforms), model.eval()(waveforms), strict=True):
        assert torch.equal(got, due)
    stored = json.loads((tmp_path / "twin" / "config.json").read_text())["policy"]
    assert all("role" not in rule for rule in stored["rules"])
    assert "attention" not in json.dumps(stored)
    wrong = "w1a2" if policy == "w1a1" else "w1a1"
    with pytest.raises(InputError, match=f"holds a twin of policy '{policy}'"):
        registry.load(f"{kind}_nano@{tmp_path / 'twin'}+policy={wrong}")


@pytest.mark.usefixtures("installed")
def test_a_twin_is_the_same_alone_and_padded_in_a_batch():
    # in double precision no rounding flips a bit
    model = registry.load("bq_depthwise_nano").model.double().eval()
    with torch.no_grad():
        x = torch.randn(1, 20, 64, generator=torch.Generator().manual_seed(2)).double()
        alone = model.encode(x, None)[-1]
        padded = torch.cat([x, torch.ones(1, 5, 64).double()], dim=1)
        valid = torch.arange(25)[None] < 20
        batch = model.encode(padded, valid)[-1][:, :20]
    assert torch.allclose(alone, batch, atol=1e-9)


@pytest.mark.usefixtures("installed")
def test_table_1_counts_a_new_kind_by_hand_and_the_papers_accounting_has_dashes():
    specs = ["depthwise_nano", "bq_depthwise_nano", "gated_nano", "bq_gated_nano"]
    rows = table1_rows(accounting="both", specs=[*specs, "vanilla_nano"], seconds=1.0)
    for row in rows[:4]:
        for column in ("storage_mb", "flop_g", "bop_nonq_g", "bop_bq_g", "nvda_est_time_1e-4s"):
            assert row[column] is row[f"{column}_paper"] is row[f"{column}_ratio"] is None
    assert rows[4]["storage_mb"] > 0
    lines = render_table1(rows, accounting="paper", format="md", seconds=1.0).splitlines()
    for spec in ("depthwise_nano ", "bq_gated_nano "):
        cells = next(line for line in lines if line.startswith(f"| {spec}")).split("|")
        assert {cell.strip() for cell in cells[3:-1]} == {"—"}

    def macs(row, part):
        return round(1e9 * row[f"honest_macs_{part}"])

    front = sum(macs(rows[0], f"{part}_g") for part in ("front_end", "positional"))
    projection = FRAMES * 512 * 64  # of FastConv's channels
    mix, feed_forward = FRAMES * 64 * 31, FRAMES * 2 * 64 * 128
    gates, mixing = FRAMES * 2 * 64 * 64, FRAMES * 64 * 64
    expected = {  # convolution, linear, other; of them 1-bit
        "depthwise_nano": (2 * mix, 2 * feed_forward, 0, 2 * (mix + feed_forward)),
        "gated_nano": (0, 2 * gates, 2 * mixing, 2 * gates),
    }
    for row in rows[:4]:
        convolution, linear, other, one_bit = expected[row["spec"].partition("+")[0]]
        assert macs(row, "convolution_g") == convolution
        assert macs(row, "linear_g") == linear + projection
        assert (macs(row, "other_g"), macs(row, "attention_g")) == (other, 0)
        assert macs(row, "g") == front + projection + convolution + linear + other
        twin = row["quantized"] == "yes"
        assert macs(row, "low_bit_g") == (one_bit if twin else 0)
        full = macs(row, "g") - macs(row, "low_bit_g")
        assert round(1e9 * row["honest_bop_full_precision_g"]) == 1024 * full
        assert round(1e9 * row["honest_bop_low_bit_g"]) == macs(row, "low_bit_g")
    signs = {row["spec"]: round(1e6 * row["honest_storage_signs_mb"]) for row in rows}
    assert signs["depthwise_nano+policy=w1a1"] == 2 * (64 * 31 + 2 * 64 * 128) // 8
    assert signs["gated_nano+policy=w1a1"] == 2 * 2 * 64 * 64 // 8


@pytest.mark.parametrize(
    "spec",
    [
        "squeeze_xs_faithful",  # the paper has Conformer's layers
        "vanilla_nano+policy=w8a8",
        "vanilla_nano+policy=w1a2",
    ],
)
def test_the_papers_rules_say_nothing_of_kinds_and_bits_that_it_lacks(spec):
    row = table1_rows(accounting="both", specs=[spec], seconds=1.0)[0]
    assert row["storage_mb"] is None
    assert row["nvda_est_time_1e-4s"] is None
    assert row["honest_storage_mb"] > 0


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("kind", KINDS)
def test_error_flow_and_training_take_a_new_kind(kind):
    pair = error_flow.pair_of(superbit.upstreams.UpstreamSpec.parse(f"bq_{kind}_nano"))
    pair.model.eval(), pair.twin.eval()
    sound = error_flow.Audio(waveforms=audio(8_000), meaning="noise")
    rows = error_flow.flow_of_pair(pair, sound)
    layers = [row.name.split(".")[2] for row in rows]
    assert layers == sorted(layers)
    # with the last block it is the whole twin
    with torch.no_grad():
        twin, model = (
            each.encode_batch(sound.waveforms)[0][-1] for each in (pair.twin, pair.model)
        )
    whole = deviation([twin], [model]).relative_error
    assert rows[-1].up_to_encoder.relative_error == pytest.approx(whole, rel=1e-5)
    assert whole > 0
    student = student_of(pair.model, load_policy("w1a1"))
    calibrate(student, sound.waveforms)
    batch = DistillationBatch(waveforms=torch.stack(audio(8_000, 8_000)))
    distillation_losses(student, pair.model, batch).hidden.backward()
    assert all(
        parameter.grad.abs().sum() > 0
        for name, parameter in student.named_parameters()
        if name.startswith("encoder.layers") and name.endswith("weight")
    )
    model = pair.model.train()
    pretrainer = Pretrainer(model, units=5)
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[:, 3:9] = True
    with dropped_layers(model.encoder.layers, [True, False]):
        sums = pretrainer(audio(8_000)[0][None], torch.zeros(1, 24, dtype=torch.long), mask)
    assert sums.masked_loss.isfinite()


def test_a_file_that_is_not_installed_brings_a_kind_by_its_path(no_kinds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("kind.py").write_text(DEPTHWISE)
    for spec in ("kind.py:depthwise_nano+policy=w1a1", "kind.py:bq_depthwise_nano"):
        twin = registry.load_upstream(spec)
        assert twin.expert.model.policy.name == "w1a1"
        assert "+untrained" in str(twin.spec)
        row = table1_rows(accounting="both", specs=[spec], seconds=1.0)[0]
        assert row["honest_quantized_parameters"] == 2 * (64 * 31 + 2 * 64 * 128)
        assert (row["storage_mb"], row["precision"]) == (None, "FP32-W1A1")
    Path("plain.py").write_text(PLAIN)
    with pytest.raises(InputError, match=r"'\+policy' is for superbit's own encoders"):
        registry.load("plain.py:mine+policy=w1a1")


PLAIN = """
from superbit.upstreams.expert import build


def mine(ckpt=None, untrained=False, **kwargs):
    return build("depthwise_nano", ckpt=ckpt, untrained=untrained)
"""


@dataclass(frozen=True, kw_only=True)
class OddSettings:
    width: int = 3
    depthwise_kernel: int = 31  # the name of a setting of superbit's own kinds: nothing forbids it

    def __post_init__(self):
        if self.width % 2 == 0:
            raise ValueError("width must be odd")

    def check(self, config):
        if self.width > config.dim:
            raise InputError(f"width is {self.width}, more than dim {config.dim}.")


@pytest.mark.usefixtures("no_kinds")
def test_what_a_kind_has_of_its_own_is_named_checked_and_stored_flat(tmp_path):
    own = {"odd_nano": {**SIZES["odd_nano"], "width": 5}}
    superbit.upstreams.register_encoder("odd", _encoder(), sizes=own, settings=OddSettings)
    size = size_of("odd_nano")
    assert size.own == OddSettings(width=5)
    flat = size.to_dict()
    assert (flat["width"], flat["depthwise_kernel"], flat["sparse_stride"]) == (5, 31, 32)
    checkpoint.save(tmp_path / "odd", untrained_model(size))
    assert registry.load(f"odd_nano@{tmp_path / 'odd'}").model.config == size
    for changes, said in (
        ({"width": 4}, "OddSettings: width must be odd"),
        ({"width": 17}, "width is 17, more than dim 16"),
        ({"widht": 3}, "Did you mean 'width'"),
        ({"sparse_stride": 4}, "sparse_stride is 4, which is not for the odd encoder"),
    ):
        with pytest.raises(InputError, match=said):
            HubertConfig.from_dict({**flat, **changes})


@pytest.mark.usefixtures("no_kinds")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (make_dataclass("Loose", [("width", int, 3)]), "a frozen dataclass is needed"),
        ({"width": 3}, "a frozen dataclass is needed"),
        (make_dataclass("Same", [("dim", int, 3)], frozen=True), "'dim', which all encoders share"),
    ],
)
def test_settings_that_are_none_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        superbit.upstreams.register_encoder("odd", _encoder(), settings=settings)
    assert encoder_kinds.kinds() == encoder_kinds.ENCODERS


@pytest.mark.usefixtures("no_kinds")
def test_a_pair_of_a_registered_kind_names_it_and_one_of_superbits_kinds_does_not():
    register = superbit.upstreams.register_encoder
    register("odd", _encoder())
    size = HubertConfig(encoder="odd", **SIZES["odd_nano"])
    functions = superbit.upstreams.pair("odd_nano", size)
    assert [function.__name__ for function in functions] == ["odd_nano", "bq_odd_nano"]
    assert {"odd_nano", "bq_odd_nano"} <= set(superbit.upstreams.names())
    assert functions[0](untrained=True).name == "odd_nano"
    for name, said in (("vanilla_nano", "is taken"), ("bq_odd", "does not begin with 'bq_'")):
        with pytest.raises(InputError, match=said):
            superbit.upstreams.pair(name, size)
    with (
        registry.registered("mine", functions[0]),
        pytest.raises(InputError, match="is another upstream's"),
    ):
        superbit.upstreams.pair("mine", size)
    small = replace(size_of("vanilla_nano"), layers=1)
    plain, _ = superbit.upstreams.pair("vanilla_nano", small)
    assert len(plain(untrained=True).model.encoder.layers) == 1
    assert size_of("vanilla_nano").layers == 4


def test_the_command_line_checks_a_kind_of_an_installed_package(installed, capfd, monkeypatch):
    assert main(["check", "bq_depthwise_nano"]) == 0
    assert capfd.readouterr().out.startswith(
        "bq_depthwise_nano+untrained (registered, random weights)"
    )
    assert main(["list", "upstreams"]) == 0
    listed = capfd.readouterr().out
    assert re.search(r"^bq_gated_nano +registered +1-bit twin of gated_nano", listed, re.MULTILINE)


def test_a_checkpoint_finds_its_kind_and_a_broken_package_is_named(installed, tmp_path):
    registry.find("gated_nano")
    checkpoint.save(tmp_path / "gated", untrained_model(size_of("gated_nano")))
    encoder_kinds._registered.clear()
    sys.modules.pop("my_gated")
    assert checkpoint.load(tmp_path / "gated").model.config.encoder == "gated"  # as distil does
    encoder_kinds._registered.clear()
    sys.modules.pop("my_gated")
    (installed / "my_gated.py").write_text("import nothing_of_that_name")
    said = r"'gated' of my-kinds cannot be imported: ModuleNotFound"
    with pytest.raises(BrokenUpstream, match=said) as caught:
        checkpoint.load(tmp_path / "gated")
    assert isinstance(caught.value.__cause__.__cause__, ModuleNotFoundError)  # for --traceback
    (installed / "my_gated.py").write_text("x = 1")
    sys.modules.pop("my_gated", None)
    with pytest.raises(BrokenUpstream, match="my_gated registers no such kind"):
        checkpoint.load(tmp_path / "gated")
    shutil.rmtree(installed / "my_kinds-1.0.dist-info")
    with pytest.raises(InputError, match="encoder is 'gated'; known are vanilla"):
        checkpoint.load(tmp_path / "gated")


def _encoder(**parts):
    """A class of an encoder whose one layer has some modules more."""

    class Layer(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.linear = nn.Linear(config.dim, config.dim)
            for name, make in parts.items():
                setattr(self, name, make(config.dim))

    class Encoder(nn.Module):
        roles: ClassVar = {"linear": ("linear",)}

        def __init__(self, config):
            super().__init__()
            self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    return Encoder


SIZES = {"odd_nano": {"layers": 2, "dim": 16, "heads": 1, "ffn_dim": 16}}


class _Holder(nn.Module):
    def __init__(self, dim, *, buffer=False):
        super().__init__()
        if buffer:
            self.register_buffer("table", torch.zeros(dim), persistent=False)
        else:
            self.vector = nn.Parameter(torch.zeros(dim))


@pytest.mark.usefixtures("no_kinds")
def test_what_could_not_be_drawn_or_loaded_is_refused():
    register = superbit.upstreams.register_encoder
    register("odd", _encoder(own=_Holder), sizes=SIZES)
    with pytest.raises(InputError, match=r"layers\.0\.own \(_Holder\) .* no reset_parameters"):
        registry.load("odd_nano")
    register("odd", _encoder(own=lambda dim: _Holder(dim, buffer=True)), sizes=SIZES)
    with pytest.raises(InputError, match=r"layers\.0\.own has buffers outside .* \(table\)"):
        registry.load("odd_nano")
    one = nn.Linear(16, 16)

    class Shared(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.layers = nn.ModuleList([one] * config.layers)

    for build in (Shared, lambda config: nn.Identity()):
        register("odd", build, sizes=SIZES)
        with pytest.raises(
            InputError, match=r"needs 'layers', an nn\.ModuleList of the config's 2"
        ):
            registry.load("odd_nano")


@pytest.mark.usefixtures("no_kinds")
@pytest.mark.parametrize(
    ("kind", "roles", "sizes", "said"),
    [
        ("vanilla", {}, SIZES, "not one of superbit's own"),
        ("Odd-1", {}, SIZES, "a kind is a word of small letters"),
        ("odd", {}, {"vanilla_nano": {}}, "the name 'vanilla_nano' is taken"),
        ("odd", {}, {"bq_odd": {}}, "does not begin with 'bq_'"),
        ("odd", {}, {"odd_nano": {"layers": 2}}, "sizes: a model's config lacks dim"),
        ("odd", {}, {"odd_nano": {**SIZES["odd_nano"], "leyers": 2}}, "Did you mean 'layers'"),
        ("odd", {"linaer": ("a",)}, SIZES, "Did you mean 'linear'"),
        ("odd", {"linear": "a"}, SIZES, "a tuple of globs"),
    ],
)
def test_a_kind_that_is_wrong_is_one_sentence_and_leaves_nothing(kind, roles, sizes, said):
    build = _encoder()
    build.roles = roles
    before = variant.sizes()
    with pytest.raises(InputError, match=said):
        superbit.upstreams.register_encoder(kind, build, sizes=sizes)
    assert before == variant.sizes()
    assert encoder_kinds.kinds() == encoder_kinds.ENCODERS


@pytest.mark.usefixtures("no_kinds")
def test_roles_that_are_none_or_match_nothing_are_named():
    register = superbit.upstreams.register_encoder
    build = _encoder()
    build.roles = {}
    register("odd", build, sizes=SIZES)
    with pytest.raises(InputError, match=r"kind 'odd' states no roles: nothing would be binarized"):
        binarize_(Hubert(size_of("odd_nano")), "w1a1")
    build.roles = {"linear": ("lin",)}
    with pytest.raises(InputError, match=r"'encoder\.layers\.\*\.lin' matches no module .* 'odd'"):
        binarize_(Hubert(size_of("odd_nano")), "w1a1")


@pytest.mark.usefixtures("no_kinds")
def test_a_layer_that_sees_one_frame_at_a_time_is_refused_and_not_scaled_wrongly():
    class Layer(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.recurrent = nn.Linear(config.dim, config.dim)

        def forward(self, x, valid=None):
            state, states = torch.zeros_like(x[:, :1]), []
            for time in range(x.shape[1]):
                state = (x[:, time : time + 1] + self.recurrent(state)).tanh()
                states.append(state)
            return torch.cat(states, dim=1)

    class Encoder(nn.Module):
        roles: ClassVar = {"linear": ("recurrent",)}

        def __init__(self, config):
            super().__init__()
            self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

        def forward(self, x, valid=None):
            states = [x]
            for layer in self.layers:
                states.append(layer(states[-1], valid))
            return states

    superbit.upstreams.register_encoder("odd", Encoder, sizes=SIZES)
    with pytest.raises(InputError, match="only what sees all of them in one call"):
        registry.load("bq_odd_nano")


@pytest.mark.usefixtures("no_kinds")
def test_a_kind_that_is_registered_again_takes_the_place_of_the_first():
    register = superbit.upstreams.register_encoder
    register("odd", _encoder(), sizes=SIZES)
    wider = {"odd_wide": {**SIZES["odd_nano"], "dim": 32}}
    register("odd", _encoder(), sizes=wider, revision=2)
    assert "odd_nano" not in sizes()
    assert registry.find("odd_wide").revision.endswith("odd 2")
    with pytest.raises(InputError, match="the name 'odd_wide' is taken"):
        register("other", _encoder(), sizes=wider)


W3 = """
name: mine
rules:
- {role: linear, weight: {bits: 3, set: signed}, input: {bits: 3, set: signed, shift: true}}
"""


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["vanilla_nano", "depthwise_nano"])
def test_a_policy_s_file_is_taken_by_every_verb(name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(error_flow.fixed_signal, "__defaults__", (1,))
    Path("mine.yaml").write_text(W3)
    spec = f"{name}+untrained+policy=./mine.yaml"
    assert main(["check", spec]) == 0
    printed = capfd.readouterr().out
    assert printed.startswith(f"{name}+untrained+policy=mine.yaml (")
    assert main(["profile", spec, "--seconds", "1", "--format", "json"]) == 0
    row = json.loads(capfd.readouterr().out)[0]
    assert (row["precision"], row["storage_mb"]) == ("FP32-MINE", None)
    weights = row["honest_quantized_parameters"]
    assert weights > 0
    assert row["honest_bop_low_bit_g"] == 9 * row["honest_macs_low_bit_g"]
    assert row["honest_storage_signs_mb"] == 3 * weights / 8 / 1e6
    assert main(["error-flow", spec, "--format", "csv"]) == 0
    printed = capfd.readouterr()
    assert "its mine.yaml twin, made from random weights" in printed.err
    assert len(list(csv.DictReader(io.StringIO(printed.out)))) > 1
    assert parse_policies("w1a2,mine.yaml")[1].name == "mine"
    with pytest.raises(InputError, match="has mine twice"):
        parse_policies("mine.yaml,./mine.yaml")


def test_two_files_of_one_name_are_two_models_and_either_checkpoint_needs_its_own(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    # other bits of a tensor without its own numbers: the weights do not tell
    Path("a.yaml").write_text(W3)
    Path("b.yaml").write_text(W3.replace("input: {bits: 3", "input: {bits: 4"))
    models = {
        file: registry.load(f"vanilla_nano+policy={file}").model for file in ("a.yaml", "b.yaml")
    }
    assert models["a.yaml"].policy.name == models["b.yaml"].policy.name == "mine"
    assert models["a.yaml"].policy.to_dict() != models["b.yaml"].policy.to_dict()
    checkpoint.save(tmp_path / "a", models["a.yaml"])
    assert not registry.load("vanilla_nano@a+policy=a.yaml").untrained
    with pytest.raises(InputError, match="with other rules than the policy of that name"):
        registry.load("vanilla_nano@a+policy=b.yaml")
    with pytest.raises(InputError, match=r"'vanilla_nano\+policy=PATH\.yaml' loads it"):
        registry.load("vanilla_nano@a")
    for spec in ("vanilla_nano@a", "bq_vanilla_nano@a", "vanilla_nano@a+policy=b.yaml"):
        with pytest.raises(InputError, match="holds a twin of policy 'mine'"):
            table1_rows(accounting="honest", specs=[spec])  # not another twin's figures
    Path("same.yaml").write_text(json.dumps({**models["a.yaml"].policy.to_dict(), "name": "other"}))
    assert not registry.load("vanilla_nano@a+policy=same.yaml").untrained  # by what it does


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "p.yaml is not there: it should be a policy"),
        (
            "name: p\nrules: [{role: linaer, replace: relu}]",
            "p.yaml, rule 1: role is 'linaer'.*'linear'",
        ),
        ("name: p\nrules: [{role: linear, modules: [a], replace: relu}]", "p.yaml, rule 1: .*both"),
        (
            "name: ../p\nrules: [{role: activation, replace: relu}]",
            r"p.yaml: name is '\.\./p'; a word",
        ),
        ("name: p\nsummary: [1]\nrules: [{role: activation, replace: relu}]", "p.yaml: summary is"),
        ("name: p\nrules: [{role: convolution, replace: relu}]", "kind 'vanilla' has the roles"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_file_and_key(text, said, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("p.yaml").write_text(text)
    for verb in ("check", "profile", "error-flow"):
        assert main([verb, "vanilla_nano+policy=p.yaml"]) == 2
        printed = capfd.readouterr().err.strip().splitlines()
        assert re.search(said, printed[-1])
        assert len([line for line in printed if not line.startswith("error flow of")]) == 1


def test_a_policy_s_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "p.yaml").write_text(W3, encoding="utf-8-sig")
    assert read_policy(tmp_path / "p.yaml").name == "mine"


NANOS = [name for name in sizes() if name.endswith("_nano")]


@pytest.mark.parametrize("name", NANOS)
def test_a_policy_that_gains_rules_for_other_kinds_leaves_the_shipped_twins_alone(
    name, no_kinds, monkeypatch
):
    superbit.upstreams.register_encoder("odd", _encoder(), sizes=SIZES)
    file = Path(registry.__file__).parent / "quantization" / "policies" / "w1a1.yaml"
    more = """
  - encoders: [odd]
    modules: [encoder.layers.*.linear]
    weight: {bits: 2, set: signed}
"""
    edited = parse_policy(file.read_text("utf-8") + more, where="w1a1.yaml")
    assert edited != load_policy("w1a1")
    before = registry.load_upstream(f"bq_{name}")
    monkeypatch.setattr(expert, "load_policy", lambda _: edited)
    after = registry.load_upstream(f"bq_{name}")
    assert after.weights_sha256 == before.weights_sha256
    assert after.expert.model.policy.to_dict() == before.expert.model.policy.to_dict()
    # a rule that does something here is another twin
    rules = tuple(rule for rule in edited.rules if rule.replace is None)
    monkeypatch.setattr(expert, "load_policy", lambda _: replace(edited, rules=rules))
    with pytest.raises(InputError, match="other rules than superbit's policy of that name"):
        registry.load_upstream(f"bq_{name}")


@pytest.fixture(scope="module")
def of_runs():
    folder = Path(superbit.upstreams.__file__).resolve().parents[1] / "results" / "embedded"
    return [record.identity for record in ResultStore(folder).read_all()]


@pytest.mark.parametrize("name", NANOS)
def test_shipped_twins_have_the_weights_that_their_records_name(name, of_runs):
    spec = f"{name}+policy=w1a1"
    recorded = {each.weights_sha256 for each in of_runs if each.upstream == spec}
    loaded = registry.load_upstream(f"bq_{name}")
    assert recorded == {loaded.weights_sha256}
    # what the checkpoint stores is what the roles give, module by module
    model = Hubert(loaded.expert.model.config)
    kind = model.config.encoder
    stored = loaded.expert.model.policy
    assert stored.effect(model, encoder=kind) == load_policy("w1a1").effect(model, encoder=kind)


def test_the_list_of_policies_says_bits_and_that_a_path_works(capsys):
    assert main(["list", "policies"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^w1a2 +1 bit +2 bit +BiT's first step", printed, re.MULTILINE)
    for role in encoder_kinds.ROLES:
        assert re.search(rf"^{role} +", printed, re.MULTILINE)
    assert "path that ends in .yaml" in printed


def _tiny(kind):
    return HubertConfig(
        encoder=kind, layers=2, dim=16, heads=2, ffn_dim=24, conv_layers=((8, 10, 5), (16, 8, 4)),
        position_kernel=8, position_groups=4, own=TINY_SETTINGS.get(kind),
    )  # fmt: skip


_bits = st.integers(1, 8)
_activation = st.fixed_dictionaries(
    {"bits": _bits, "set": st.sampled_from(["signed", "unsigned"]), "shift": st.booleans()}
)
_weight = st.one_of(
    st.fixed_dictionaries({"bits": _bits, "set": st.just("signed")}),
    st.just({"bits": 1, "set": "signed", "per_channel": True}),
)
_layer = st.fixed_dictionaries({}, optional={"weight": _weight, "input": _activation}).filter(bool)
_product = st.fixed_dictionaries({"left": _activation, "right": _activation})
_rules = st.fixed_dictionaries(
    {"linear": _layer},
    optional={
        "activation": st.just({"replace": "relu"}),
        "rectified_linear": _layer,
        "convolution": _layer,
        "scores": _product,
        # probabilities have no channels to shift
        "contexts": _product.map(lambda rule: {**rule, "left": {**rule["left"], "shift": False}}),
    },
).map(lambda rules: [{"role": role, **rule} for role, rule in rules.items()])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kind=st.sampled_from([*encoder_kinds.ENCODERS, *KINDS]), rules=_rules)
def test_any_policy_on_any_kind_survives_a_checkpoint(installed, tmp_path, kind, rules):
    policy = policy_from_dict({"name": "any", "rules": rules}, where="any.yaml")
    model = binarize_(untrained_model(_tiny(kind)), policy)
    calibrate(model, audio(500, 300))
    checkpoint.save(tmp_path / "any", model)
    again = checkpoint.load(tmp_path / "any").model
    assert again.policy == model.policy
    for got, due in zip(again.eval()(audio(400)), model.eval()(audio(400)), strict=True):
        assert torch.equal(got, due)
    fresh = Hubert(_tiny(kind))
    assert again.policy.effect(fresh, encoder=kind) == policy.effect(fresh, encoder=kind)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(encoder_kinds.ENCODERS),
    rules=_rules,
    more=st.lists(_layer, min_size=1, max_size=2),
    data=st.data(),
)
def test_rules_for_other_kinds_and_their_roles_change_nothing(kind, rules, more, data):
    with torch.device("meta"):
        model = Hubert(_tiny(kind))
    others = [other for other in encoder_kinds.ENCODERS if other != kind]
    added = [
        {"modules": [f"encoder.layers.*.other_{index}"], "encoders": others, **rule}
        for index, rule in enumerate(more)
    ]
    place = data.draw(st.integers(0, len(rules)))
    first, second = (
        policy_from_dict({"name": "any", "rules": each}, where="any.yaml")
        for each in (rules, [*rules[:place], *added, *rules[place:]])
    )
    assert first != second
    assert first.effect(model, encoder=kind) == second.effect(model, encoder=kind)
    lacked = {rule["role"] for rule in rules} - type(model.encoder).roles.keys()
    kept = [rule for rule in rules if rule["role"] not in lacked]
    without = policy_from_dict({"name": "any", "rules": kept}, where="any.yaml")
    assert first.resolved(model, encoder=kind) == without.resolved(model, encoder=kind)
