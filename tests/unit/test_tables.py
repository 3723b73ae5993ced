"""Table 2: the paper's digits, measured rows beneath, and nothing chosen silently."""

import csv
import io
import json
import re
from importlib import resources

import numpy as np
import pandas as pd
import pytest
import torch

import superbit.upstreams
from superbit.benchmark.records.choose import choose, parse_where
from superbit.benchmark.records.schema import (
    FURTHER_FIELDS,
    Corpus,
    Interval,
    Items,
    RunIdentity,
    RunRecord,
    Selection,
)
from superbit.benchmark.tables.table2 import paper_rows, table2
from superbit.benchmark.tables.table2_rendering import render_table2
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.errors import InputError

PAPER_CSV = (resources.files("superbit.results") / "paper" / "table2.csv").read_text("utf-8")
# The file's words for its two sources, with "paper" before them: what every printed table says.
PAPER_PRINTED = PAPER_CSV.replace(",reported,", ",paper; reported,").replace(
    ",our setup,", ",paper; own setup,"
)
COLUMNS = PAPER_CSV.splitlines()[0].split(",")[3:]


def run(
    task: str = "KS",
    upstream: str = "vanilla_nano+untrained",
    value: float = 93.125,
    *,
    scale: str = "embedded",
    kind: str = "synthesized",
    status: str = "done",
    limit: int | None = None,
    selected_on: str = "dev",
    interval: bool = True,
    seen: int = 96,
    **changes: object,
) -> RunRecord:
    config = {"scale": scale} if limit is None else {"scale": scale, "limit": limit}
    identity = RunIdentity(
        **{
            "upstream": upstream,
            "weights_sha256": "5d" * 32,
            "upstream_revision": "1",
            "task": task,
            "task_revision": 1,
            "config": config | {"runner": {"total_steps": 100}},
            "corpus_sha256": "0a" * 32,
            "learning_rate": 1e-4,
            "seed": 1337,
            "fold": None,
        }
        | changes
    )
    done = status == "done"
    return RunRecord(
        key=identity.key,
        status=status,
        identity=identity,
        scale=scale,
        limited=limit is not None,
        untrained="+untrained" in upstream,
        value=value if done else None,
        reason=None if done else "a.wav is empty.",
        interval=Interval(low=value - 3, high=value + 2, level=0.95, method="Wilson score")
        if interval
        else None,
        items=Items(file="f", sha256="0" * 64, count=seen, expected=96) if done else None,
        selection=Selection(rule=f"best on {selected_on}", selected_on=selected_on, step=80),
        corpus=Corpus(name="c", kind=kind, sha256=identity.corpus_sha256),
    )


def lines_of(table: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]


def cell(table_json: str, row: int, column: str) -> dict:
    return json.loads(table_json)[row]["cells"][column]


# --- the paper -------------------------------------------------------------------------------


def test_the_paper_s_table_comes_out_as_it_went_in() -> None:
    assert render_table2(table2(source="paper"), "csv") == PAPER_PRINTED
    assert len(paper_rows()) == 12


@pytest.mark.parametrize("fmt", ["md", "json"])
def test_every_digit_of_the_paper_is_printed(fmt: str) -> None:
    text = render_table2(table2(source="paper"), fmt)
    expected = list(csv.reader(io.StringIO(PAPER_PRINTED)))[1:]
    if fmt == "md":
        assert lines_of(text)[2:] == expected
    else:
        # numbers read as text keep their digits: 65.00, not 65.0
        rows = json.loads(text, parse_float=str)
        assert [list(row.values()) for row in rows] == expected


def test_figures_that_can_be_looked_up_in_the_paper() -> None:
    by_name = {(row.model, row.source): row.cells for row in paper_rows()}
    vanilla = by_name["Vanilla Trans", "paper; own setup"]
    assert (vanilla["asr_wer"].text, vanilla["er_acc"].text) == ("6.89", "63.83")
    assert by_name["BQ-Sparseformer-DN-S", "paper; own setup"]["sd_der"].text == "9.64"
    assert by_name["Vanilla Trans", "paper; reported"]["sf_f1"].text == "0.89"


def test_columns_and_arrows_are_the_paper_s() -> None:
    header = lines_of(render_table2(table2(source="paper")))[0]
    assert header[3:] == ["ASR↓", "KS↑", "SF↑", "SID↑", "PR↓", "QbE↑", "IC↑", "ASV↓", "SD↓", "ER↑"]
    assert [task.column for task in TASKS.values()] == COLUMNS
    measured = render_table2(table2([run()]), "csv").splitlines()[0]
    assert measured.startswith(PAPER_CSV.splitlines()[0] + ",upstream,corpora,asr_wer_low,")
    assert list(json.loads(render_table2(table2(source="paper"), "json"))[0]) == [
        "model", "source", "precision", *COLUMNS,
    ]  # fmt: skip


# --- measured rows ---------------------------------------------------------------------------


def test_a_measured_row_stands_beneath_with_its_marks() -> None:
    text = render_table2(table2([run(), run("PR", value=41.0, interval=False)]))
    last = lines_of(text)[-1]
    assert last[:3] == [
        "vanilla_nano+untrained", "measured; embedded; untrained; synthesized", "FP32",
    ]  # fmt: skip
    by_column = dict(zip(COLUMNS, last[3:], strict=True))
    assert by_column["ks_acc"] == "93.12 [90.1, 95.1]"
    assert by_column["pr_per"] == "41.00"
    assert {v for k, v in by_column.items() if k not in ("ks_acc", "pr_per")} == {""}
    for explained in ("- embedded:", "- untrained:", "- synthesized:", "- [low, high]: 95 %"):
        assert explained in text
    assert "not with the paper's figures" in text
    assert (
        "KS, measured: 96 test items; checkpoint: best on dev; "
        "learning rate 0.0001, given, not searched." in text
    )


def test_a_full_run_on_real_data_has_no_marks() -> None:
    text = render_table2(
        table2([run(upstream="fbank", scale="superb", kind="real")], source="runs")
    )
    assert lines_of(text)[-1][:3] == ["fbank", "measured", "FP32"]
    assert not any(word in text for word in ("embedded", "untrained", "synthesized", "[14]"))


def test_a_twin_s_precision_is_its_policy() -> None:
    table = table2([run(upstream="vanilla_nano+policy=w1a1")], source="runs")
    assert table.rows[0].precision == "FP32-W1A1"


def test_lines_of_the_markdown_table_are_equally_long() -> None:
    rows = [run(), run("PR", value=5.0), run("SF", value=0.5), run(upstream="a|b/hubconf.py:x")]
    lines = [line for line in render_table2(table2(rows)).splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert "a\\|b" in lines[-2] + lines[-1]


def test_a_fraction_keeps_two_digits_in_its_interval() -> None:
    record = run("SF", value=0.8749).model_copy(
        update={"interval": Interval(low=0.861, high=0.889, level=0.95, method="m")}
    )
    assert "0.87 [0.86, 0.89]" in render_table2(table2([record]))


def test_chosen_on_the_test_set_is_footnoted() -> None:
    text = render_table2(table2([run("ASV", value=7.0, selected_on="test"), run()], source="runs"))
    by_column = dict(zip(COLUMNS, lines_of(text)[-1][3:], strict=True))
    assert by_column["asv_eer"].endswith("]*")
    assert not by_column["ks_acc"].endswith("*")
    assert "- Marked *: chosen on the test set" in text


def test_missing_test_items_are_noted() -> None:
    assert "90 of 96 test items" in render_table2(table2([run(seen=90)]))


@pytest.mark.parametrize("source", ["both", "runs"])
def test_the_csv_reads_as_numbers(source: str) -> None:
    text = render_table2(table2([run(), run("PR", upstream="fbank")], source=source), "csv")
    frame = pd.read_csv(io.StringIO(text))
    assert list(frame.columns)[:13] == PAPER_CSV.splitlines()[0].split(",")
    assert all(pd.api.types.is_numeric_dtype(frame[column]) for column in COLUMNS)
    assert '"' not in text
    assert len(frame) == (14 if source == "both" else 2)
    row = frame[frame.model == "vanilla_nano+untrained"].iloc[0]
    assert row.ks_acc == 93.12
    assert row[[c for c in COLUMNS if c != "ks_acc"]].isna().all()
    assert (row.ks_acc_low, row.ks_acc_high) == (90.125, 95.125)
    assert row[["pr_per_low", "pr_per_high", "ks_acc_sd", "ks_acc_chance"]].isna().all()


def test_the_json_s_cells_know_their_runs() -> None:
    record = run(learning_rate=0.001)
    rows = json.loads(render_table2(table2([record], source="runs"), "json"))
    assert rows[0]["ks_acc"] == 93.125
    assert rows[0]["asr_wer"] is None
    assert (rows[0]["scale"], rows[0]["untrained"], rows[0]["synthesized"]) == (
        "embedded", True, True,
    )  # fmt: skip
    assert rows[0]["cells"] == {
        "ks_acc": {
            "value": 93.125, "low": 90.125, "high": 95.125, "level": 0.95,
            "method": "Wilson score", "chance": None, "at_chance": None, "n": 96, "expected": 96,
            "learning_rate": 0.001, "searched": False, "seed": 1337, "fold": None,
            "selection": "best on dev", "selected_on": "dev",
            "checkpoint": None, "step": 80, "corpus": record.corpus.model_dump(), "key": record.key,
        }
    }  # fmt: skip


def test_failed_and_limited_runs_never_enter() -> None:
    out = [run(status="failed", interval=False), run(limit=3), run("PR", limit=3)]
    kept = run(upstream="fbank")
    table = table2([*out, kept], source="runs")
    assert [row.model for row in table.rows] == ["fbank"]
    assert "Left out: 1 failed and 2 limited" in render_table2(table)
    assert render_table2(table, "csv") == render_table2(table2([kept], source="runs"), "csv")


def test_scales_and_kinds_of_corpora_are_rows_of_their_own() -> None:
    records = [
        run(upstream="fbank", scale="embedded"),
        run(upstream="fbank", scale="superb"),
        run(upstream="fbank", scale="superb", kind="real", corpus_sha256="0c" * 32),
    ]
    sources = [row.source for row in table2(records, source="runs").rows]
    assert sources == ["measured", "measured; synthesized", "measured; embedded; synthesized"]


def test_a_table_does_not_depend_on_the_order_of_records() -> None:
    records = [run(task, upstream) for task in ("KS", "PR") for upstream in ("fbank", "apc")]
    assert table2(records).rows == table2(records[::-1]).rows
    assert table2([*records, *records]).rows == table2(records).rows


def test_no_runs_is_an_empty_table_that_says_so() -> None:
    table = table2([], source="runs")
    assert table.rows == ()
    assert "superbit sweep" in render_table2(table)
    assert json.loads(render_table2(table, "json")) == []
    assert render_table2(table, "csv") == PAPER_CSV.splitlines()[0] + "\n"


# --- choosing --------------------------------------------------------------------------------

TWO_RATES = [run(learning_rate=1e-4, value=90.0), run(learning_rate=1e-3, value=91.0)]


def test_a_cell_that_two_runs_could_fill_names_them() -> None:
    with pytest.raises(InputError) as caught:
        table2(TWO_RATES)
    message = str(caught.value)
    for record in TWO_RATES:
        assert record.key[:12] in message
    for expected in ("KS", "vanilla_nano+untrained", "learning_rate 0.0001", "0.001", "--where"):
        assert expected in message
    assert "seed" not in message


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ({"learning_rate": 0.001}, 91.0),
        (["learning_rate=1e-3"], 91.0),
        (["KS.learning_rate=0.0001"], 90.0),
        (["ks.learning_rate=0.0001"], 90.0),
        ([f"key={TWO_RATES[1].key[:8]}"], 91.0),
        ([f"key!={TWO_RATES[1].key[:8]}"], 90.0),
        (["learning_rate=0.0001,0.01"], 90.0),
        (["seed=1337", "learning_rate!=0.001"], 90.0),
    ],
)
def test_where_chooses(where: object, value: float) -> None:
    conditions = parse_where(where) if isinstance(where, list) else where
    table = render_table2(table2(TWO_RATES, source="runs", where=conditions), "json")
    assert cell(table, 0, "ks_acc")["value"] == value


def test_the_suggested_conditions_work() -> None:
    with pytest.raises(InputError) as caught:
        table2(TWO_RATES)
    suggested = [word.rstrip(",.") for word in re.findall(r"--where (\S+)", str(caught.value))[1:]]
    assert len(suggested) == 2
    for condition in suggested:
        assert len(table2(TWO_RATES, source="runs", where=parse_where([condition])).rows) == 1


def test_a_condition_on_one_task_keeps_the_others() -> None:
    records = [*TWO_RATES, run("PR", learning_rate=1e-2)]
    both = table2(records, source="runs", where={"KS.learning_rate": 1e-3}).rows[0]
    assert set(both.cells) == {"ks_acc", "pr_per"}
    one = table2(records, source="runs", where={"learning_rate": 1e-3}).rows[0]
    assert set(one.cells) == {"ks_acc"}


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("upstream", ("fbank", "apc")),
        ("weights_sha256", ("1" * 64, "2" * 64)),
        ("upstream_revision", ("1", "10")),
        ("upstream_revision", ("1" * 64, "2" * 64)),
        ("task", ("KS", "PR")),
        ("task_revision", (1, 2)),
        ("corpus_sha256", ("1" * 64, "2" * 64)),
        ("learning_rate", (None, 0.1)),
        ("seed", (0, 1)),
        ("fold", (None, 1)),
        ("upstream_files_sha256", ("1" * 64, None)),
        ("upstream_config_sha256", ("1" * 64, "2" * 64)),
        ("upstream_fingerprint", (None, "2" * 64)),
    ],
)
def test_every_field_of_the_identity_can_choose(field: str, values: tuple) -> None:
    records = [run(**{field: value}) for value in values]
    for record, value in zip(records, values, strict=True):
        text = value[:6] if isinstance(value, str) and len(value) == 64 else str(value)
        assert choose(records, {field: text}) == [record]


def test_the_config_can_choose_and_tell_apart() -> None:
    longer = run(config={"scale": "embedded", "runner": {"total_steps": 200}})
    with pytest.raises(InputError, match=r"config\.runner\.total_steps 100.*total_steps 200"):
        table2([run(), longer])
    assert choose([run(), longer], {"config.runner.total_steps": "200"}) == [longer]
    other_kind = run(config={"scale": "embedded"})
    assert choose([longer, other_kind], {"config.runner.total_steps": "none"}) == [other_kind]


def test_a_twin_may_be_called_by_its_short_name() -> None:
    twin = run(upstream="vanilla_nano+policy=w1a1")
    assert choose([run(), twin], {"upstream": "bq_vanilla_nano"}) == [twin]


def test_one_row_is_one_model() -> None:
    before = run("KS", "vanilla@runs/best", weights_sha256="1" * 64)
    after = run("PR", "vanilla@runs/best", weights_sha256="2" * 64)
    with pytest.raises(InputError, match=r"mixes the runs of 2 models.*111111111111.*222222222222"):
        table2([before, after])
    only = table2([before, after], source="runs", where={"weights_sha256": "2222"})
    assert set(only.rows[0].cells) == {"pr_per"}


@pytest.mark.parametrize("field", FURTHER_FIELDS)
def test_one_row_is_one_model_whatever_tells_them_apart(field: str) -> None:
    before, after = (
        run("KS", "vanilla@runs/best"),
        run("PR", "vanilla@runs/best", **{field: "2" * 64}),
    )
    with pytest.raises(InputError, match=rf"2 models.*{field} none.*{field} 222222222222"):
        table2([before, after])
    only = table2([before, after], source="runs", where={field: "none"})
    assert set(only.rows[0].cells) == {"ks_acc"}


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ({"learnin_rate": "1"}, "learning_rate"),
        ({"config.runner.total_step": "1"}, "config.runner.total_steps"),
        ({"seed": "7"}, "the runs have seed 1337"),
        ({"learning_rate": "fast"}, "leaves no run"),
        ({"PR.seed": "1337"}, "none of that task"),
        ({"learning_rate": "0.001", "key": TWO_RATES[0].key}, "together"),
        ({"key!": ",".join(r.key for r in TWO_RATES)}, "leaves no run"),
    ],
)
def test_conditions_that_fit_no_run_are_an_error(where: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        table2(TWO_RATES, where=where)


@pytest.mark.parametrize("conditions", [["seed"], ["=1"], ["seed=1", "seed=2"]])
def test_conditions_that_cannot_be_read_are_an_error(conditions: list[str]) -> None:
    with pytest.raises(InputError, match="--where"):
        parse_where(conditions)


def test_unknown_formats_and_sources_name_the_nearest() -> None:
    with pytest.raises(InputError, match="'md'"):
        render_table2(table2(), "mdd")
    with pytest.raises(InputError, match="'paper'"):
        table2(source="papers")


# --- folds -----------------------------------------------------------------------------------


def test_five_folds_are_one_cell_with_their_mean() -> None:
    values = [60.0, 62.0, 64.0, 66.0, 68.0]
    folds = [run("ER", value=v, fold=i) for i, v in enumerate(values, start=1)]
    made = json.loads(render_table2(table2(folds, source="runs"), "json"))[0]
    assert made["er_acc"] == 64.0
    assert made["cells"]["er_acc"]["low"] == pytest.approx(64 - 2.7764451 * 2**0.5)
    assert made["cells"]["er_acc"]["n"] == sum(r.items.count for r in folds)


def test_five_equal_folds_have_the_interval_of_their_items() -> None:
    """As of a model that always gives one answer: five equal folds say nothing of other items."""
    from scipy.stats import binomtest

    folds = [
        run("ER", value=25.0, fold=i).model_copy(
            update={"items": Items(file="f", sha256="0" * 64, count=96)}
        )
        for i in range(1, 6)
    ]
    found = cell(render_table2(table2(folds, source="runs"), "json"), 0, "er_acc")
    bounds = binomtest(120, 480).proportion_ci(method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((100 * bounds.low, 100 * bounds.high))
    assert found["method"] == "Wilson score"


def test_an_incomplete_set_of_folds_fills_no_cell_and_is_named() -> None:
    folds = [run("ER", value=60.0, fold=i) for i in (1, 2, 4)]
    text = render_table2(table2([*folds, run("KS")], source="runs"))
    assert lines_of(text)[-1][-1] == ""
    assert "ER of vanilla_nano+untrained, of which 3 of 5 folds are done" in text


# --- markup ----------------------------------------------------------------------------------


def test_a_mean_over_seeds_has_its_spread_and_its_runs() -> None:
    runs = [run(value=v, seed=s, learning_rate=r) for v, s, r in
            ((70.0, 1, 1e-2), (76.0, 2, 1e-3), (73.0, 3, 1e-2))]  # fmt: skip
    table = table2(runs, source="runs", over_seeds=True, show_rates=True)
    assert "73.00 ±3.00 lr 0.01/0.001" in lines_of(render_table2(table))[2][4]
    found = cell(render_table2(table, "json"), 0, "ks_acc")
    assert found["value"] == 73.0
    assert found["deviation"] == 3.0
    assert [each["seed"] for each in found["seeds"]] == [1, 2, 3]
    assert [each["key"] for each in found["seeds"]] == [each.key for each in runs]
    assert any("3 seeds of the head (1, 2, 3)" in note for note in table.notes)


def test_the_folds_of_each_seed_are_merged_before_the_seeds() -> None:
    runs = [
        run("ER", value=60.0 + 10 * (seed - 1) + fold, seed=seed, fold=fold)
        for fold in range(1, 6)
        for seed in (1, 2)
    ]
    table = table2(runs, source="runs", over_seeds=True)
    assert float(table.rows[0].cells["er_acc"].text) == 68.0
    assert table.rows[0].cells["er_acc"].seeds.values == (63.0, 73.0)


def test_a_cell_of_fewer_seeds_is_named() -> None:
    runs = [run(task, value=1.0, seed=s) for task in ("KS", "SID", "IC") for s in (1, 2)]
    table = table2(runs[:-1], source="runs", over_seeds=True)
    assert any(note == "IC of vanilla_nano+untrained: seed 1 only." for note in table.notes)
    assert table.rows[0].cells["ic_acc"].seeds is None


def test_a_mean_over_seeds_does_not_choose_between_learning_rates() -> None:
    runs = [run(value=1.0, seed=1, learning_rate=rate) for rate in (0.1, 0.01)]
    with pytest.raises(InputError, match="could be filled by 2 runs"):
        table2(runs, source="runs", over_seeds=True)


def test_several_seeds_without_a_mean_say_that_there_is_one() -> None:
    with pytest.raises(InputError, match="--mean-over-seeds"):
        table2([run(seed=1), run(seed=2)], source="runs", over_seeds=False)


def test_latex_holds_every_figure_and_escapes_what_latex_reads() -> None:
    text = render_table2(table2([run()]), "latex")
    assert text.count(r" \\") == 1 + 12 + 1
    assert r"vanilla\_nano+untrained & measured; embedded" in text
    assert r"93.12 [90.1, 95.1]" in text
    assert r"ASR$\downarrow$" in text
    assert not re.search(r"(?<!\\)[%_#&](?! )", text.replace("{!}{%", ""))
    for begun in re.findall(r"\\begin\{(\S+?)\}", text):
        assert rf"\end{{{begun}}}" in text


def test_html_holds_the_same_cells_as_markdown() -> None:
    table = table2([run()])
    cells = re.findall(r"<td[^>]*>(.*?)</td>", render_table2(table, "html"))
    printed = [cell for line in lines_of(render_table2(table))[2:] for cell in line]
    assert cells == printed


def test_filter_banks_at_chance_by_construction_are_told():
    def notes(*records):
        return [note for note in table2(records).notes if "CMVN" in note]

    assert notes(run("KS", "vanilla_nano"), run("PR", "fbank")) == []
    (note,) = notes(run("KS", "fbank"), run("PR", "fbank"), run("SID", "fbank"))
    assert "at chance on KS, SID by construction; fbank_no_cmvn is" in note
    (note,) = [n for n in table2([run("ASR", "fbank_no_cmvn")]).notes if "learn nothing" in n]
    assert note.startswith("fbank_no_cmvn on ASR: ")
    # What the note says, by s3prl's own filter banks: only one of the two has a mean.
    samples = torch.from_numpy(np.random.default_rng(0).standard_normal(8000, dtype="float32"))
    for name, silent in (("fbank", True), ("fbank_no_cmvn", False)):
        (states,) = superbit.upstreams.load(name)([samples])["hidden_states"][-1:]
        assert (states.mean(dim=1).abs().max() < 1e-4) == silent


def test_what_says_nothing_about_encoders_at_the_small_scale_is_told():
    def notes(*records):
        return [note for note in table2(records).notes if "does not discriminate" in note]

    assert notes(run("KS")) == notes(run("SD", scale="superb")) == []
    (note,) = notes(run("KS"), run("SD"))
    assert note.startswith("SD does not discriminate at the embedded scale: ")
