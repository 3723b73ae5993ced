"""The paper's sentences: formulas, verdicts against hand-computed values, and formats."""

import csv
import io
import json
import math
import subprocess
import sys
from decimal import Decimal
from functools import cache
from importlib import resources
from pathlib import Path

import pytest
from verbs import run_verb

from superbit.benchmark.claims import figures
from superbit.benchmark.claims.check import (
    LIKENESS,
    VERDICTS,
    CheckedClaim,
    CheckedFigure,
    check_claims,
)
from superbit.benchmark.claims.data import Claim, Figure, our_models, read_claims
from superbit.benchmark.claims.figures import our_figures, paper_figures
from superbit.benchmark.claims.formula import evaluate_formula, models_of
from superbit.benchmark.claims.rendering import render_claims
from superbit.upstreams.errors import InputError

PAPER = resources.files("superbit.results") / "paper"
# Parameters, and those of the twin's binarized weights.
SIZES = {
    "vanilla": (92_212_096, 84_934_656),
    "conformer_s": (32_967_760, 30_705_408),
    "conformer_s_fair": (9_884_752, 7_702_272),
    "squeeze_xs": (33_010_096, 30_705_408),
    "squeeze_xs_fair": (9_927_088, 7_702_272),
    "sparseformer_dn_s": (15_203_712, 12_582_912),
    "sparseformer_sw_s": (29_294_720, 25_165_824),
}
SHAPES = {
    "vanilla": (12, 768, 12),
    "sparseformer_dn_s": (16, 256, 4),
    "sparseformer_sw_s": (8, 512, 4),
}
# Parameters of a weight-normed convolution of 128 frames in 16 groups.
POSITIONS = {256: 524_672, 512: 2_097_792}


def fake_ours() -> dict[str, dict[str, object]]:
    """Storage by hand from the parameters; the other keys only exist."""
    rows: dict[str, dict[str, object]] = {}
    for name, (parameters, binarized) in SIZES.items():
        layers, dim, heads = SHAPES.get(name, (16, 144, 4))
        common = {
            "layers": layers,
            "dim": dim,
            "heads": heads,
            "parameters": parameters,
            "positional_parameters": POSITIONS.get(dim, 1),
            "macs_attention_g": 0.645,
            "flop_g": parameters / 1e6,
            "precision": "FP32",
        }
        full = parameters * 1024 / 1e6
        rows[name] = common | {
            "storage_mb": 4 * parameters / 1e6,
            "quantized_parameters": 0,
            "bop_g": full,
            "bop_full_precision_g": full,
            "bop_low_bit_g": 0,
        }
        rest = parameters - binarized
        rows[f"bq_{name}"] = common | {
            "storage_mb": (binarized / 8 + 4 * rest) / 1e6,
            "quantized_parameters": binarized,
            "bop_g": (rest * 1024 + binarized) / 1e6,
            "bop_full_precision_g": rest * 1024 / 1e6,
            "bop_low_bit_g": binarized / 1e6,
        }
    return rows


@cache
def the_claims() -> tuple[Claim, ...]:
    return read_claims()


@cache
def checked_by_hand() -> tuple[CheckedClaim, ...]:
    return check_claims(the_claims(), ours=fake_ours())


def checked(claim: str, what: str, **arguments: object) -> CheckedFigure:
    claims = check_claims(the_claims(), **arguments) if arguments else checked_by_hand()
    for each in claims:
        if each.claim.id == claim:
            return next(figure for figure in each.figures if figure.figure.what == what)
    raise AssertionError(f"no claim {claim!r}")


def rounded(value: Decimal | None) -> str:
    assert value is not None
    return f"{value:.2f}"


def changed_tables(folder: Path, file: str, old: str, new: str) -> Path:
    for name in ("table1.csv", "table2.csv"):
        text = (PAPER / name).read_text("utf-8")
        if name == file:
            assert text.count(old) == 1
            text = text.replace(old, new)
        (folder / name).write_text(text, "utf-8")
    return folder


# --- formulas


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("1 + 2 * 3", "7"),
        ("-(1 - 4) / 4", "0.75"),
        ("0.1 + 0.2", "0.3"),
        ("reduction(12.10, 25.23)", "52.041221"),
        ("min(3, 1, 2) + max(5, 4)", "6"),
        ("paper.vanilla.storage_mb", "184.42"),
        ("paper2.vanilla_reported.asr_wer - paper2.vanilla.asr_wer", "0.17"),
        ("paper.bq_squeeze_xs.nvda_est_time_1e_4s", "3.28"),
        # KS, QbE and ASV are worse of ten
        ("wins(paper2.bq_sparseformer_dn_s, paper2.bq_conformer_s)", "7"),
        # equal SF counts for neither
        ("wins(paper2.sparseformer_sw_s, paper2.sparseformer_dn_s)", "4"),
        ("wins(paper2.sparseformer_dn_s, paper2.sparseformer_sw_s)", "5"),
    ],
)
def test_a_formula_has_the_value_computed_by_hand(formula, value):
    assert evaluate_formula(formula, paper_figures()) == pytest.approx(
        Decimal(value), abs=Decimal("1e-5")
    )


def test_a_formula_over_an_empty_cell_has_no_value():
    assert evaluate_formula("1 + paper.vanilla.bop_bq_g", paper_figures()) is None
    assert evaluate_formula("ours.vanilla.flop_g", {"ours": None}) is None


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').getcwd()",
        "paper.vanilla.__class__.__mro__",
        "2 ** 9",
        "[1][0]",
        "1 if 2 else 3",
        "'text'",
        "True",
        "(lambda: 1)()",
        "1 < 2",
        "paper",
        "paper.vanilla",
        "min(*[1, 2])",
        "max(1, key=2)",
        "min()",
        "reduction(1)",
        "wins(paper2.vanilla.sd_der, paper2.vanilla.sd_der)",
        "1 +",
        "1 / 0",
        "0 / 0",
    ],
)
def test_what_is_not_of_the_language_is_an_input_error_that_names_the_formula(formula):
    with pytest.raises(InputError) as error:
        evaluate_formula(formula, paper_figures())
    assert repr(formula) in str(error.value)


@pytest.mark.parametrize(
    ("formula", "wrong", "right"),
    [
        ("papr.vanilla.flop_g", "papr", "paper"),
        ("paper.vanila.flop_g", "vanila", "vanilla"),
        ("paper.vanilla.flops_g", "flops_g", "flop_g"),
        ("reduce(1, 2)", "reduce", "reduction"),
    ],
)
def test_an_unknown_name_is_an_input_error_with_the_nearest_one(formula, wrong, right):
    with pytest.raises(InputError, match=f"'{wrong}'.*Did you mean '{right}'"):
        evaluate_formula(formula, paper_figures())


def test_the_models_of_a_formula():
    formula = "reduction(ours.a.x, min(paper.b.x, ours.c.x))"
    assert sorted(models_of(formula, "ours")) == ["a", "c"]


# --- the rules


@pytest.mark.parametrize(
    ("relation", "printed", "tables", "verdict"),
    [
        ("equal", "52.1%", ["52.05"], "holds"),
        ("equal", "52.1%", ["52.149"], "holds"),
        ("equal", "52.1%", ["52.04"], "rounds differently"),
        ("equal", "52.1%", ["52.0"], "table says otherwise"),
        ("equal", "50%", ["49.5"], "holds"),
        ("equal", "12.10", ["12.1"], "holds"),
        ("equal", "20.52", ["20.52", "20.53"], "tables disagree"),
        ("equal", "20.52", ["20.53", "20.53"], "table says otherwise"),
        ("more than", "more than 90%", ["90"], "table says otherwise"),
        ("more than", "more than 90%", ["90.01"], "holds"),
        ("less than", "below 3", ["2"], "holds"),
        ("whole", "786 / 12", ["786 / 12"], "table says otherwise"),
        ("whole", "768 / 12", ["768 / 12"], "holds"),
        ("equal", "1", ["paper.vanilla.bop_bq_g"], "cannot be checked"),
    ],
)
def test_the_verdict_follows_its_rule(relation, printed, tables, verdict):
    formulas = {str(place): formula for place, formula in enumerate(tables)}
    assert one_figure(printed=printed, relation=relation, tables=formulas).verdict == verdict


@pytest.mark.parametrize(
    ("relation", "printed", "value", "likeness"),
    [
        ("equal", "93.4%", "94.3", "same direction and size"),
        ("equal", "93.4%", "96.68", "same direction, larger"),
        ("equal", "74%", "62.3", "same direction, smaller"),
        ("equal", "7.7%", "-24", "opposite direction"),
        ("equal", "0.5", "0.5", "same figure"),
        ("equal", "184.42", "368.85", "another figure"),
        ("more than", "90%", "93", "holds"),
        ("more than", "90%", "89", "does not hold"),
    ],
)
def test_like_for_like_follows_its_rule(relation, printed, value, likeness):
    ours = {"ours": "ours.model.key"}
    figure = one_figure(
        {"model": {"key": float(value)}},
        printed=printed,
        relation=relation,
        tables={"-": "1"},
        ours=ours,
    )
    assert figure.like_for_like == likeness
    assert likeness in LIKENESS


def test_what_this_machine_measures_stands_beside_the_paper_where_it_was_asked_for():
    rows = {
        "bq_sparseformer_dn_s": {"latency_ms_bits": 50.0},
        "sparseformer_dn_s": {"latency_ms_fp32": 200.0, "latency_ms_bf16": 100.0},
        "vanilla": {"latency_ms_fp32": 500.0, "latency_ms_onednn": 400.0, "latency_ms_bf16": None},
    }
    claims = tuple(claim for claim in the_claims() if claim.id == "against_vanilla")
    machine = "this machine: a Z80, 1 thread."
    printed = render_claims(check_claims(claims, measured=rows), machine=machine)
    time = printed[printed.index("- time saved") :].replace("\n    ", " ")
    assert "this machine, 1 bit against Vanilla in torch's FP32: 90.0% (90.00%)" in time
    assert "against Vanilla in oneDNN's FP32: 87.5% (87.50%)" in time
    assert "so what 1 bit alone saves: 75.0% (75.00%)" in time
    assert "against the same encoder in bf16: 50.0% (50.00%)" in time
    assert "against Vanilla in bf16" not in time  # that did not run
    assert "a Z80" in printed
    assert "machine" not in render_claims(check_claims(claims))
    assert set(our_models(claims, "measured")) == set(rows)


def one_figure(rows: dict[str, dict[str, object]] | None = None, **keys: object) -> CheckedFigure:
    figure = Figure.model_validate({"what": "a quantity", **keys})
    claim = Claim(id="one", place="§0", says="a sentence", figures=(figure,))
    return check_claims((claim,), ours=rows)[0].figures[0]


# --- the paper's sentences


@pytest.mark.parametrize(
    ("claim", "what", "value", "verdict"),
    [
        ("conformer_savings", "storage saved", "28.49", "table says otherwise"),
        ("conformer_savings", "FLOP saved", "80.01", "table says otherwise"),
        ("against_bq_conformer", "storage saved", "6.06", "table says otherwise"),
        ("against_bq_conformer", "BOP_BQ saved", "32.87", "holds"),
        ("against_vanilla", "storage saved", "93.44", "holds"),
        ("against_vanilla", "FLOP saved", "93.35", "holds"),
        ("against_vanilla", "BOP saved", "90.35", "holds"),
        ("against_vanilla", "time saved", "91.16", "rounds differently"),
        ("against_vanilla", "BOP of BQ-Sparseformer-DN-S in G", "118.61", "holds"),
        ("against_bq_vanilla", "storage saved", "52.04", "rounds differently"),
        ("against_bq_vanilla", "FLOP saved", "37.82", "holds"),
        ("against_bq_vanilla", "BOP saved", "49.84", "holds"),
        ("against_bq_vanilla", "BOP of BQ-Vanilla in G", "236.45", "holds"),
        ("intro_savings", "the least saving among FLOP, BOP and time", "90.35", "holds"),
        ("intro_wer", "word error rate, Vanilla", "6.89", "tables disagree"),
        ("sparseformer_wer", "word error rate, Sparseformer-DN-S", "8.44", "holds"),
        ("sparseformer_better", "word error rate, BQ-Conformer-S", "20.52", "tables disagree"),
        ("table2_results", "word error rate, BQ-Conformer-S", "20.53", "tables disagree"),
        ("table1_results", "diarization error rate, Vanilla", "6.32", "tables disagree"),
        ("table2_results", "diarization error rate, BQ-Vanilla", "7.80", "tables disagree"),
        ("table1_dimension", "dimension of one head", "65.50", "table says otherwise"),
        ("table1_precision", "bits a parameter, Vanilla", "16.00", "table says otherwise"),
        ("table1_precision", "bits a parameter, Sparseformer-DN-S", "32.00", "holds"),
        # 6.291 of 56.37 MB, and of 7.61 MB
        (
            "shape_positions",
            "share of the additional storage, FP32",
            "11.16",
            "table says otherwise",
        ),
        ("shape_positions", "share of the additional storage, quantized", "82.67", "holds"),
    ],
)
def test_the_paper_s_tables_give_what_was_computed_by_hand(claim, what, value, verdict):
    figure = checked(claim, what)
    assert rounded(figure.tables[0].value) == value
    assert figure.verdict == verdict


def test_the_readings_that_explain_a_figure():
    storage = checked("conformer_savings", "storage saved")
    assert [(rounded(r.value), r.agrees) for r in storage.explained] == [("64.25", True)]
    flop = checked("conformer_savings", "FLOP saved")
    assert [rounded(r.value) for r in flop.explained] == ["73.19", "73.19"]
    quantized = checked("against_bq_vanilla", "storage saved")
    # 25.23 MB becomes 39.84 MB
    assert [rounded(r.value) for r in quantized.explained] == ["69.63"]


def test_like_for_like_storage_from_parameters_counted_by_hand():
    storage = checked("against_vanilla", "storage saved")
    assert rounded(storage.ours[0].value) == "96.73"  # 12.056 of 368.848 MB
    assert storage.like_for_like == "same direction, larger"
    conformer = checked("against_bq_conformer", "storage saved")
    # the Conformer that is not given HuBERT's feed-forward is the smaller one: 12.056 to 9.693 MB
    assert rounded(conformer.ours[0].value) == "-24.38"
    assert conformer.like_for_like == "opposite direction"
    positions = checked("shape_positions", "share of the additional storage, FP32")
    assert rounded(positions.ours[0].value) == "11.16"
    assert positions.like_for_like == "does not hold"


def test_a_changed_cell_of_table_1_changes_the_verdict(tmp_path):
    before = checked("against_bq_conformer", "storage saved")
    # 12.10 of 13.11 MB is 7.70 % less
    tables = changed_tables(tmp_path, "table1.csv", "FP32-W1A1,12.88,", "FP32-W1A1,13.11,")
    after = checked("against_bq_conformer", "storage saved", tables=tables)
    assert (before.verdict, after.verdict) == ("table says otherwise", "holds")
    assert rounded(after.tables[0].value) == "7.70"


def test_a_changed_cell_of_table_2_makes_the_tables_agree(tmp_path):
    tables = changed_tables(tmp_path, "table2.csv", "FP32-W1A1,20.53,", "FP32-W1A1,20.52,")
    figure = checked("sparseformer_better", "word error rate, BQ-Conformer-S", tables=tables)
    assert figure.verdict == "holds"
    figure = checked("table2_results", "word error rate, BQ-Conformer-S", tables=tables)
    assert figure.verdict == "table says otherwise"


def test_an_emptied_cell_cannot_be_checked_and_a_word_is_an_error(tmp_path):
    tables = changed_tables(tmp_path, "table1.csv", "15.94", "")
    figure = checked("against_bq_conformer", "BOP_BQ saved", tables=tables)
    assert figure.verdict == "cannot be checked"
    tables = changed_tables(tmp_path, "table1.csv", "15.94", "n/a")
    with pytest.raises(InputError, match="bop_bq_g of BQ-Conformer-S is 'n/a'"):
        check_claims(tables=tables)


def test_a_folder_without_the_tables_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"table1\.csv cannot be read"):
        check_claims(tables=tmp_path)


def test_our_figures_are_unknown_when_they_are_not_asked_for():
    figure = checked("against_vanilla", "storage saved", ours=None)
    assert (figure.verdict, figure.like_for_like) == ("holds", "unknown")


def test_every_printed_figure_of_the_issue_is_there():
    printed = {f.printed for claim in read_claims() for f in claim.figures}
    asked = (
        "64% 74% 93.4% 90.3% 91.1% 118.61 1228.64 52.1% 37.8% 50% 236.45 7.7% 32.9% 6.89 8.44 "
        "19.33 20.52 20.53 6.32 6.63 7.62 7.80"
    )
    assert set(asked.split()) <= printed
    assert any("786" in each for each in printed)


def test_table_2_claims_have_no_figure_of_ours():
    for claim in read_claims():
        for figure in claim.figures:
            if any("_wer" in f or "_der" in f or "wins" in f for f in figure.tables.values()):
                assert figure.ours == "not measured"


def test_our_own_models_give_the_like_for_like_figures():
    """The profiler's honest rows have every key, and the storage that was computed by hand."""
    claims = read_claims()
    ours = our_figures(our_models(claims))
    storage = checked("against_vanilla", "storage saved", ours=ours)
    # beside signs and FP32 weights, scales and shifts of the activations take 0.2 MB
    assert rounded(storage.ours[0].value) == "96.68"
    stored = checked("conformer_savings", "storage saved", ours=ours).ours[1]
    assert rounded(stored.value) == "64.25"
    bits = checked("table1_precision", "bits a parameter, Vanilla", ours=ours)
    assert rounded(bits.tables[0].value) == "16.00"
    unknown = [
        (each.claim.id, figure.figure.what)
        for each in check_claims(claims, ours=ours)
        for figure in each.figures
        if figure.like_for_like == "unknown"
    ]
    assert unknown == []


# --- the data file


def test_the_claims_file_must_be_complete(tmp_path):
    file = tmp_path / "claims.yaml"
    claim = {"id": "a", "place": "§1", "says": "b", "figures": [{"what": "c", "printed": "1"}]}
    for change, message in (
        ({}, "either tables or because"),
        ({"tables": {"t": "1"}, "because": "no"}, "either tables or because"),
        ({"tables": {"t": "1"}, "colour": "red"}, "colour"),
        ({"tables": {"t": "1"}, "relation": "about"}, "relation"),
        ({"tables": {"t": "1"}, "printed": "some"}, "printed holds no number"),
        ({"tables": {"t": "1"}, "ours": "soon"}, "ours"),
    ):
        figure = claim["figures"][0] | change
        file.write_text(json.dumps({"claims": [claim | {"figures": [figure]}]}), "utf-8")
        with pytest.raises(InputError, match=message) as error:
            read_claims(file)
        assert str(file) in str(error.value)
    figure = claim["figures"][0] | {"tables": {"t": "1"}}
    twice = [claim | {"figures": [figure]}] * 2
    file.write_text(json.dumps({"claims": twice}), "utf-8")
    with pytest.raises(InputError, match="two claims have the id 'a'"):
        read_claims(file)


# --- formats


@pytest.fixture
def claims():
    return checked_by_hand()


def test_markdown_shows_both_roundings_and_fits_a_terminal(claims):
    text = render_claims(claims, "md")
    assert "Table 1: 52.0% (52.04%)" in text
    assert "Table 1: 91.2% (91.16%)" in text
    assert "Table 1: 50% (49.84%)" in text
    assert "64% (64.25%), the printed" in text
    assert max(map(len, text.splitlines())) <= 100
    for claim in read_claims():
        assert f"**{claim.id}**" in text


def test_csv_has_a_row_for_each_figure_and_plain_numbers(claims):
    rows = list(csv.DictReader(io.StringIO(render_claims(claims, "csv"))))
    assert len(rows) == sum(len(each.figures) for each in claims)
    row = next(r for r in rows if r["claim"] == "against_bq_vanilla")
    assert (row["printed"], row["table"], row["verdict"]) == (
        "52.1%",
        "52.04",
        "rounds differently",
    )
    for each in rows:
        for column in ("table", "other_table", "superbit"):
            assert not each[column] or math.isfinite(float(each[column]))
        assert each["verdict"] in VERDICTS
        assert each["like_for_like"] in LIKENESS


def test_json_holds_every_formula_and_value(claims):
    data = json.loads(render_claims(claims, "json"))
    by_id = {each["claim"]: each for each in data}
    storage = by_id["conformer_savings"]["figures"][0]
    assert storage["tables"][0]["formula"].startswith("reduction(paper.conformer_s.storage_mb")
    assert storage["tables"][0]["value"] == pytest.approx(28.4947, abs=1e-4)
    assert storage["tables"][0]["as_printed"] == "28% (28.49%)"
    assert storage["explained"][0]["agrees"] is True


def test_latex_and_html_hold_every_figure(claims):
    count = sum(len(each.figures) for each in claims)
    tex = render_claims(claims, "latex")
    # booktabs' header line, then one line a figure, in one table a section
    tables = tex.count(r"\begin{table*}")
    assert tables == tex.count(r"\end{table*}") > 1
    assert tex.count(r" \\") == count + tables
    assert r"52.1\%" in tex
    page = render_claims(claims, "html")
    assert page.count("<tr>") == count + 1
    assert "19.33 &lt; 20.52" in page


def test_an_unknown_format_is_an_input_error(claims):
    with pytest.raises(InputError, match="Did you mean 'json'"):
        render_claims(claims, "jsn")


def test_the_command_without_torch_says_that_our_figures_are_unknown(monkeypatch, capsys):
    monkeypatch.setattr(figures, "models_can_be_built", lambda: False)
    assert run_verb("claims", format="csv") == 0
    printed = capsys.readouterr()
    assert "our models' figures are unknown" in printed.err
    row = next(
        r for r in csv.DictReader(io.StringIO(printed.out)) if r["claim"] == "against_vanilla"
    )
    assert (row["verdict"], row["superbit"], row["like_for_like"]) == ("holds", "", "unknown")


def test_reading_and_printing_claims_imports_no_torch():
    code = (
        "import sys\n"
        "from superbit.benchmark.claims.check import check_claims\n"
        "from superbit.benchmark.claims.rendering import render_claims\n"
        "render_claims(check_claims())\n"
        "print([name for name in ('torch', 's3prl', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
