"""``superbit profile``: formats, unknown cells, foreign upstreams, measurements, mistakes."""

import csv
import io
import json

import pytest
import torch
from torch import nn
from verbs import run_verb

from superbit.benchmark.profiling import footprint, measuring
from superbit.benchmark.profiling.honest_accounting import foreign_cells
from superbit.benchmark.profiling.rendering import render_table1
from superbit.benchmark.profiling.table1 import table1_rows
from superbit.upstreams import checkpoint, registry
from superbit.upstreams.errors import InputError
from superbit.upstreams.hubert import untrained_model
from superbit.upstreams.hubert_config import HubertConfig, fastconv_layers
from superbit.upstreams.packed import pack


def profile(capsys, *specs, **options):
    assert run_verb("profile", *specs, **({"format": "json"} | options)) == 0
    return capsys.readouterr().out


def test_json_is_a_list_of_rows_with_the_papers_columns(capsys):
    rows = json.loads(profile(capsys, "vanilla", "bq_sparseformer_dn_s"))  # all ten: test_table1
    assert len(rows) == 2
    columns = ("storage_mb", "flop_g", "bop_nonq_g", "bop_bq_g", "nvda_est_time_1e-4s")
    for row in rows:
        for column in columns:
            assert {column, f"{column}_paper", f"{column}_ratio"} <= row.keys()
    assert rows[0]["bop_bq_g"] is None
    assert rows[0]["storage_mb_paper"] == 184.42
    assert rows[0]["honest_storage_mb"] == 368.848384


def test_csv_is_one_header_and_one_row_a_model(capsys):
    text = profile(capsys, "vanilla,bq_vanilla_nano", "conformer_nano", format="csv")
    lines = list(csv.reader(io.StringIO(text)))
    assert len(lines) == 4
    assert '"' not in text
    assert {len(line) for line in lines} == {len(lines[0])}
    assert [line[0] for line in lines[1:]] == [
        "Vanilla Trans",
        "bq_vanilla_nano",
        "conformer_nano",
    ]
    row = dict(zip(lines[0], lines[1], strict=True))
    assert float(row["storage_mb_ratio"]) == pytest.approx(1, abs=1e-4)
    assert row["bop_bq_g"] == ""
    place = lines[0].index("bop_bq_g")
    assert lines[0][place + 1 : place + 3] == ["bop_bq_g_paper", "bop_bq_g_ratio"]


@pytest.mark.parametrize(
    ("fmt", "marks"),
    [
        ("md", ["| Vanilla Trans", "[pinned]", "[inferred]", "[fitted]", "184.42", "368.85"]),
        ("latex", [r"\toprule", "Vanilla Trans &", "[fitted]"]),
        ("html", ["<table>", "<td>Vanilla Trans</td>", '<td class="figure">184.42</td>']),
    ],
)
def test_printed_formats_have_figures_and_legend(capsys, fmt, marks):
    text = profile(capsys, "vanilla", format=fmt)
    for mark in marks:
        assert mark in text


def test_honest_and_both_agree(capsys):
    alone = json.loads(profile(capsys, "bq_squeeze_nano", accounting="honest"))[0]
    both = json.loads(profile(capsys, "bq_squeeze_nano"))[0]
    assert alone["macs_g"] == both["honest_macs_g"]
    assert alone["quantized_parameters"] == both["honest_quantized_parameters"] > 0


def test_figures_at_another_length_are_not_held_against_the_paper():
    row = table1_rows(accounting="paper", specs=["vanilla"], seconds=5)[0]
    assert row["storage_mb_ratio"] is not None
    assert row["flop_g_ratio"] is None
    assert row["flop_g"] < 0.55 * 110.54


@pytest.mark.parametrize("seconds", [0.025, 0.065, 3600.0])
def test_a_single_frame_an_odd_number_and_an_hour(seconds):
    rows = table1_rows(
        accounting="both", specs=["squeeze_nano", "bq_sparseformer_dn_nano"], seconds=seconds
    )
    assert all(row["flop_g"] > 0 and row["honest_flop_g"] > 0 for row in rows)


def test_a_checkpoint_is_counted_by_its_own_sizes(tmp_path):
    config = HubertConfig(
        encoder="vanilla", layers=2, dim=32, heads=2, ffn_dim=64, position_kernel=8,
        conv_layers=fastconv_layers(*[8] * 13),
    )  # fmt: skip
    model = untrained_model(config)
    checkpoint.save(tmp_path / "small", model)
    row = table1_rows(accounting="honest", specs=[f"vanilla@{tmp_path / 'small'}"])[0]
    assert row["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert (row["layers"], row["dim"]) == (2, 32)
    assert row["model"] == row["spec"]  # it is not the paper's vanilla
    assert row["storage_mb_paper"] is None


class Recurrent(nn.Module):
    """An upstream of a convolution, an LSTM and torch's fused attention."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 400, stride=320)
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.spectrum = False

    def forward(self, wavs):
        x = self.conv(torch.stack(list(wavs))[:, None]).transpose(1, 2)
        x, _ = self.lstm(x)
        x = nn.functional.scaled_dot_product_attention(x, x, x)
        if self.spectrum:
            x = torch.fft.rfft(x).abs()
        return {"hidden_states": [x]}


def test_a_foreign_upstream_is_counted_by_what_runs():
    cells = foreign_cells(Recurrent(), 16_000)
    frames = 49
    convolution = frames * 400 * 8
    lstm = frames * 4 * 16 * (8 + 16)
    attention = 2 * frames * frames * 16
    assert cells.macs["convolution"] == convolution
    assert cells.total_macs == convolution + lstm + attention
    assert cells.macs["other"] == lstm + attention
    assert cells.macs["linear"] is None
    assert cells.flop is None  # nobody counted its element-wise operations


def test_what_torch_does_not_tell_makes_the_total_unknown():
    upstream = Recurrent()
    upstream.spectrum = True
    cells = foreign_cells(upstream, 16_000)
    assert cells.total_macs is None
    assert cells.bop is None
    assert cells.macs["convolution"] == 49 * 400 * 8
    assert cells.parameters == sum(parameter.numel() for parameter in upstream.parameters())


def test_fbank_of_s3prl_is_unknown_and_not_free(capsys):
    row = json.loads(profile(capsys, "fbank", seconds=1.0))[0]
    assert row["storage_mb"] is None
    assert row["honest_macs_g"] is None
    assert row["honest_flop_g"] is None
    assert row["honest_macs_front_end_g"] is None
    assert row["honest_parameters"] == 0
    assert "—: cannot be known" in profile(capsys, "fbank", seconds=1.0, format="md")


def test_measured_columns(capsys, monkeypatch):
    monkeypatch.setattr(measuring, "_BUDGET", 0.0)
    monkeypatch.setattr(measuring, "FOOTPRINTS", ("fp32",))
    row = json.loads(
        profile(
            capsys, "vanilla_nano+untrained", seconds=0.5, measure=True, threads=1,
            accounting="honest",
        )
    )[0]  # fmt: skip
    assert row["threads"] == 1
    assert row["untrained"] is True
    printed = render_table1([row], accounting="honest", format="md", seconds=0.5)
    assert "Timed with random weights: vanilla_nano+untrained;" in printed
    assert "Files and memory" in printed
    assert row["machine"]
    for variant in ("fp32", "onednn", "bf16"):
        low, median, high = (row[f"latency_ms_{variant}{end}"] for end in ("_q1", "", "_q3"))
        assert 0 < low <= median <= high
        assert row[f"real_time_factor_{variant}"] == pytest.approx(median / 500)
    assert row["speed_up_onednn"] == pytest.approx(
        row["latency_ms_fp32"] / row["latency_ms_onednn"]
    )
    assert row["difference_onednn"] < 1e-5
    # more than the weights, less than a process that holds torch
    weights = 4 * row["parameters"] / 1e6
    assert weights < row["peak_memory_mb_fp32"] < 200
    assert weights < row["file_mb_fp32"] < 1.02 * weights + 0.1


@pytest.mark.thorough
def test_a_twin_takes_the_bytes_of_its_packed_file_and_less_memory_than_its_simulation(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(measuring, "FOOTPRINTS", ("fp32", "bits"))
    monkeypatch.setattr(measuring, "_BUDGET", 0.0)
    own = {key: measuring.VARIANTS[key] for key in ("fp32", "bits")}
    monkeypatch.setattr(measuring, "VARIANTS", own)
    row = measuring.measure("bq_vanilla_nano+untrained", seconds=0.5, samples=8_000, threads=1)
    loaded = registry.load_upstream("bq_vanilla_nano+untrained")
    size = pack(loaded.expert.model, tmp_path / "twin.safetensors", weights=loaded.weights_sha256)
    assert row["file_mb_bits"] == pytest.approx(size.file / 1e6, rel=1e-3)
    assert row["file_mb_bits"] < row["peak_memory_mb_bits"] < row["peak_memory_mb_fp32"]


def test_files_of_fewer_bits_are_smaller():
    expert = registry.load_upstream("vanilla_nano+untrained").expert
    whole, half, quarter = (
        footprint.file_bytes(measuring.VARIANTS[key].make(expert))
        for key in ("fp32", "bf16", "int8")
    )
    assert half < 0.55 * whole
    assert quarter < half + 20_000  # only linear layers, and with their scales
    with footprint.packed("vanilla_nano+untrained", expert) as twin:
        assert twin is None


def test_a_twin_that_cannot_run_is_unknown_in_every_measured_column(monkeypatch):
    def refuse(spec):
        raise InputError("no twin")

    monkeypatch.setattr(registry, "load_upstream", refuse)
    row = measuring.measure("bq_vanilla_nano", seconds=0.5, samples=8_000, threads=1)
    assert {row[key] for key in row if key not in ("threads", "machine", "torch")} == {None}
    with pytest.raises(InputError, match="no twin"):
        measuring.measure("vanilla_nano", seconds=0.5, samples=8_000, threads=1)


def test_prepacking_changes_the_layers_and_not_the_result():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(24, 40), nn.Tanh(), nn.Linear(40, 8, bias=False))

        def forward(self, wavs):
            return {"hidden_states": [self.layers(wavs[0])]}

    model = Two().eval()
    with torch.inference_mode():
        x = torch.randn(3, 5, 24)
        packed = measuring.prepacked(model)
        kinds = [type(module) for module in packed.layers]
        assert kinds == [measuring.PrepackedLinear, nn.Tanh, measuring.PrepackedLinear]
        assert type(model.layers[0]) is nn.Linear
        torch.testing.assert_close(
            packed([x])["hidden_states"][0], model([x])["hidden_states"][0], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    ("specs", "options", "said"),
    [
        (["vanila_nano"], {}, "Did you mean 'vanilla_nano'"),
        (["vanilla_nano"], {"seconds": 0.02}, "320 samples; at least 400"),
        (["vanilla_nano"], {"seconds": -1.0}, "a number above 0"),
        (["vanilla_nano"], {"seconds": float("nan")}, "a number above 0"),
        (["vanilla_nano+policy=w1b1"], {}, "Did you mean 'w1a1'"),
        (["vanilla@no/such/folder"], {}, "no checkpoint"),
        (["vanilla_nano"], {"threads": 2}, "add --measure"),
        (["vanilla_nano"], {"threads": 0}, "--threads is 0"),
        (["fbank"], {"seconds": 0.001}, "cannot encode 16 samples"),
    ],
)
def test_mistakes_are_said_in_one_sentence(capsys, specs, options, said):
    with pytest.raises(InputError, match=said):
        profile(capsys, *specs, **options)


def test_what_the_parser_would_refuse_is_refused_from_python_too():
    with pytest.raises(InputError, match="Did you mean 'paper'"):
        table1_rows(["vanilla_nano"], accounting="papers")
    with pytest.raises(InputError, match="unknown format 'xml'"):
        render_table1([], accounting="paper", seconds=1.0, format="xml")


@pytest.mark.parametrize("fmt", ["md", "latex", "html"])
def test_figures_are_the_papers_or_superbits_and_nobodys_ours(capsys, fmt):
    text = profile(capsys, "vanilla", format=fmt)
    assert "storage MB: paper" in text
    assert "superbit" in text
    assert "ours" not in text.replace("hours", "")


def test_models_are_called_as_typed_or_by_their_label(capsys):
    rows = json.loads(
        profile(capsys, "bq_vanilla_nano,vanilla_nano,vanilla", label=["a & b=vanilla_nano"])
    )
    assert [row["model"] for row in rows] == ["bq_vanilla_nano", "a & b", "Vanilla Trans"]
    assert rows[0]["spec"] == "vanilla_nano+policy=w1a1"
    with pytest.raises(InputError, match="--label: 'apc'"):
        profile(capsys, "vanilla_nano", label=["x=apc"])


def test_a_twins_checkpoint_is_not_counted_as_full_precision(capsys):
    from superbit.upstreams.expert import packaged_checkpoint

    folder = packaged_checkpoint("bq_vanilla_nano")
    with pytest.raises(
        InputError, match=r"holds a twin of policy 'w1a1', .*'bq_vanilla_nano' loads it"
    ):
        profile(capsys, f"vanilla_nano@{folder}")
    assert profile(capsys, f"bq_vanilla_nano@{folder}")
