"""The page and its figures, without a browser: what is in them, and that it is what records say."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from verbs import run_verb

from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.report import inside, quality, training, twins
from superbit.benchmark.report.charts import Axis, around, around_log, nice_step
from superbit.benchmark.report.costs import encoders, make_costs, read_costs
from superbit.benchmark.report.page import page
from superbit.benchmark.report.study import in_families, read_study
from superbit.benchmark.report.svg import chart_svg
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import UpstreamSpec

EMBEDDED = Path(__file__).parents[2] / "results" / "embedded"


@pytest.fixture(scope="module")
def study():
    return read_study([EMBEDDED])


@pytest.fixture(scope="module")
def text(study):
    return page(study, out=EMBEDDED / "report.html")


class Page(HTMLParser):
    """The main table's rows, and every link and identifier."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.links, self.ids, self.opens = [], [], [], []
        self.stack, self.words = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[name] for name in ("href", "src", "srcset") if name in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.opens += [attrs["popovertarget"]] if "popovertarget" in attrs else []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_the_committed_page_is_what_the_records_give(text):
    assert text == (EMBEDDED / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_committed_figures_are_what_the_records_give(study, theme):
    charts = {
        "pareto": quality.pareto(study, TASKS["KS"], quality.COSTS[0]),
        "delta": twins.delta(study),
    }
    for name, chart in charts.items():
        file = EMBEDDED / "figures" / f"{name}-{theme}.svg"
        assert file.read_text(encoding="utf-8") == chart_svg(chart, theme=theme)


def test_it_holds_every_number_of_the_table(text, capsys):
    run_verb("table 2 --format json", results=EMBEDDED)
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    found = {row[0].replace("\n", ""): row[1:] for row in Page(text).rows if len(row) == 11}
    measured = [row for row in rows.values() if "cells" in row]
    assert len(measured) == 12
    for row in measured:
        name = next(n for n in found if re.match(rf"{re.escape(row['model'])}(FP32|$)", n))
        for task, cell in zip(TASKS.values(), found[name], strict=True):
            assert cell.startswith(f"{row[task.column]:.{task.decimals}f}"), (name, task.name)


def test_it_asks_for_nothing_and_links_to_records_that_are_there(text):
    found = Page(text)
    outside = [link for link in found.links if not link.startswith(("#", "data:"))]
    assert {link for link in outside if "://" in link} == set()
    assert {Path(link).name for link in outside} == {f"{task}.jsonl.gz" for task in TASKS}
    assert all((EMBEDDED / link).is_file() for link in outside)
    assert "@import" not in text
    assert "url(" not in text
    assert "/work" not in text
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.opens) <= set(found.ids)
    # twelve upstreams by ten tasks open, each to open and to close
    assert len(found.opens) == 2 * 120
    inside = [link[1:] for link in found.links if link.startswith("#")]
    assert set(inside) <= set(found.ids)


def test_it_is_small_and_made_without_torch(tmp_path):
    out = tmp_path / "page.html"
    code = (
        "import sys\n"
        "for name in ('torch', 's3prl', 'scipy', 'matplotlib'): sys.modules[name] = None\n"
        "from superbit.benchmark.cli import main\n"
        f"sys.exit(main(['report', '--results', {str(EMBEDDED)!r}, '--out', {str(out)!r}]))"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size < 3_000_000
    # ten on a machine that does nothing else; others run meanwhile
    assert time.perf_counter() - began < 60
    assert "SUPERB: 12 upstreams" in out.read_text()


def test_folders_are_read_together_and_others_names_are_escaped(tmp_path):
    """Half of the records in one folder as single files, half in another, and a nasty label."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, tasks in ((one, ("KS", "IC")), (other, ("QbE",))):
        folder.mkdir()
        for task in tasks:
            for kind in ("jsonl", "items.jsonl"):
                shutil.copy(EMBEDDED / f"{task}.{kind}.gz", folder)
    run_verb("results unpack", other)
    out = tmp_path / "pages" / "page.html"
    out.parent.mkdir()
    label = '<b>&"quoted"_=fbank'
    assert run_verb("report", results=f"{one},{other}", out=out, label=label) == 0
    text = out.read_text()
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text
    links = {link for link in Page(text).links if link.startswith("../")}
    assert {"../one/KS.jsonl.gz", "../one/IC.jsonl.gz"} < links
    assert all((out.parent / link).is_file() for link in links)
    assert any(re.fullmatch(r"\.\./other/QbE/fbank-[0-9a-f]{16}\.json", link) for link in links)


def test_nothing_done_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no run that is done"):
        run_verb("report", results=tmp_path / "empty", out=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# --- figures ---------------------------------------------------------------------------------


def test_twins_stand_under_their_parents(study):
    models = [row.model for row in study.measured]
    for name in ("vanilla", "conformer", "squeeze", "sparseformer_dn", "sparseformer_sw"):
        assert models.index(f"bq_{name}_nano") == models.index(f"{name}_nano") + 1
    assert models[-1] == "vanilla_nano+untrained"
    assert in_families(study.measured) == study.measured


def test_a_pareto_front_is_what_nothing_beats(study):
    """By brute force: a point is on it if none is as cheap and better, or cheaper and as good."""
    for task in study.tasks:
        chart = quality.pareto(study, task, quality.COSTS[0])
        points = [
            (cost, value if task.higher_is_better else -value)
            for name, _, value, _, cost in chart.rows
            if cost is not None and "untrained" not in name
        ]
        unbeaten = {
            (c, v)
            for c, v in points
            if not any((a <= c and b > v) or (a < c and b >= v) for a, b in points)
        }
        lines = [m for m in chart.panels[0].marks if type(m).__name__ == "LineMark"]
        drawn = {(c, v if task.higher_is_better else -v) for line in lines for c, v in line.points}
        assert drawn == unbeaten or len(unbeaten) == 1


def test_differences_are_those_of_compare(study, capsys):
    run_verb("compare conformer_nano bq_conformer_nano --format csv", results=EMBEDDED)
    compared = {row["task"]: row for row in csv.DictReader(capsys.readouterr().out.splitlines())}
    rows = [r for r in twins.delta(study).rows if r[0] == "bq_conformer_nano"]
    assert len(rows) == 10
    for _, parent, task, value, low, high, p, adjusted, verdict, on in rows:
        line, sign = compared[task], 1 if TASKS[task].higher_is_better else -1
        assert parent == "conformer_nano"
        assert value == pytest.approx(-sign * float(line["gain"]), abs=1e-3)
        bounds = sorted((-sign * float(line["low"]), -sign * float(line["high"])))
        assert [low, high] == pytest.approx(bounds, abs=1e-3)
        assert p == pytest.approx(float(line["p"]), rel=1e-3)
        assert adjusted == pytest.approx(float(line["p_holm"]), rel=1e-3)
        assert (verdict, on) == (line["verdict"], line["on"])


def test_rates_are_those_of_the_records(study):
    """By hand, of one upstream and task: the mean over seeds, and what was chosen."""
    records = [
        r
        for r in ResultStore(EMBEDDED).read_all()
        if (r.identity.upstream, r.identity.task) == ("squeeze_nano", "KS")
    ]
    rows = [r[2:] for r in training.rates(study).rows if r[:2] == ("squeeze_nano", "KS")]
    assert [rate for rate, _, _ in rows] == [0.001, 0.003, 0.01, 0.03, 0.1]
    for rate, score, chosen in rows:
        on_dev = [r.selection.score for r in records if r.identity.learning_rate == rate]
        assert score == pytest.approx(sum(on_dev) / 3)
        assert chosen == any(r.search.chosen == rate for r in records)


def test_layers_show_weights_that_records_hold(study):
    """The committed records are from before weights were kept: put some in."""
    from dataclasses import replace

    weights = [0.1, 0.2, 0.3, 0.15, 0.25]
    held = tuple(
        r.model_copy(update={"layer_weights": weights}) if r.identity.task == "ER" else r
        for r in study.runs.records
    )
    chart = inside.layers(replace(study, runs=replace(study.runs, records=held)))
    found = [row[2:] for row in chart.rows if row[:2] == ("vanilla_nano", "ER weight")]
    assert found == [(layer, pytest.approx(w)) for layer, w in enumerate(weights)]
    assert any(panel.title.startswith("vanilla_nano:") for panel in chart.panels)
    qbe = [row for row in chart.rows if row[:2] == ("vanilla_nano", "QbE dev MTWV")]
    assert len(qbe) == 5


FILES = {
    "pareto --task SID --cost bop": 12,
    "delta": 50,
    "curves": None,
    "layers": None,
    "rates": None,
    "error-flow": 8 + 8 + 8 + 16 + 16,
}


@pytest.mark.parametrize("words", FILES)
def test_each_figure_is_a_file_with_its_numbers(words, tmp_path, study, monkeypatch):
    from superbit.benchmark.cli import figure

    monkeypatch.setattr(figure, "study_of", lambda _arguments: study)
    out = tmp_path / "f.svg"
    assert run_verb(f"figure {words}", out=out) == 0
    drawn = out.read_text()
    import xml.etree.ElementTree as tree

    assert tree.fromstring(drawn).tag.endswith("svg")
    assert "prefers-color-scheme:dark" in drawn
    assert not re.search(r"[\"\s,(](nan|-?inf)\b", drawn, re.IGNORECASE)
    rows = list(csv.DictReader((tmp_path / "f.csv").open()))
    assert len(rows) == FILES[words] if FILES[words] else len(rows) > 20


@pytest.mark.parametrize("ending", ["pdf", "png"])
def test_a_figure_for_a_paper(ending, tmp_path, study, monkeypatch):
    pytest.importorskip("matplotlib")
    from superbit.benchmark.cli import figure

    monkeypatch.setattr(figure, "study_of", lambda _arguments: study)
    out = tmp_path / f"f.{ending}"
    assert run_verb("figure pareto", out=out) == 0
    start = out.read_bytes()[:4]
    assert start == {"pdf": b"%PDF", "png": b"\x89PNG"}[ending]


def test_what_a_figure_is_asked_for_is_checked(tmp_path, study, monkeypatch):
    from superbit.benchmark.cli import figure

    monkeypatch.setattr(figure, "study_of", lambda _arguments: study)
    with pytest.raises(InputError, match=r"end it in \.svg"):
        run_verb("figure delta", out=tmp_path / "f.jpg")
    with pytest.raises(InputError, match="cost"):
        run_verb("figure pareto --cost euros", out=tmp_path / "f.svg")
    with pytest.raises(InputError, match="ms"):
        run_verb("figure pareto --cost ms", out=tmp_path / "f.svg")


def test_a_chart_s_texts_are_escaped(study):
    from dataclasses import replace

    chart = twins.delta(study)
    nasty = replace(chart, title='<script>"&', panels=chart.panels[:1])
    assert "<script>" not in chart_svg(nasty)


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0.0, 10.0, False, [0, 2, 4, 6, 8, 10]),
        (-0.3, 0.3, False, [-0.2, 0.0, 0.2]),
        (1.4, 6.0, True, [2, 3, 4, 6]),
        (10.0, 2000.0, True, [10, 100, 1000]),
    ],
)
def test_ticks_are_round(low, high, log, expected):
    assert [v for v, _ in Axis(low=low, high=high, log=log).marks()] == pytest.approx(expected)


def test_ranges_hold_their_values():
    assert nice_step(0.3) == 0.5
    low, high = around([1.0, 3.0])
    assert low < 1.0 < 3.0 < high
    low, high = around([5.0])
    assert low < 5.0 < high
    low, high = around_log([2.0, 200.0])
    assert 0 < low < 2.0 < 200.0 < high


# --- costs -----------------------------------------------------------------------------------


def of_the_models(specs):
    packaged = read_costs()
    for row in make_costs(specs):
        assert dict(packaged[str(UpstreamSpec.parse(row["spec"]))]) == row


def test_costs_are_those_of_the_models():
    """Built anew on the meta device: nothing but their modules says what is right."""
    of_the_models(["bq_conformer_nano"])


@pytest.mark.slow
def test_costs_are_those_of_all_models():
    of_the_models(encoders())
    assert {str(UpstreamSpec.parse(each)) for each in encoders()} == set(read_costs())


def test_measured_costs_are_an_axis_of_their_own(study, tmp_path, monkeypatch):
    """What `profile --measure` prints of an encoder and of its twin, measured here and now."""
    from dataclasses import replace

    import superbit
    from superbit.benchmark.profiling import measuring

    # one pass each, and only of what the axes show; a peak takes a process (test_profiling_command)
    shown = {key: measuring.VARIANTS[key] for key in ("fp32", "onednn", "bits")}
    monkeypatch.setattr(measuring, "VARIANTS", shown)
    monkeypatch.setattr(measuring, "_BUDGET", 0.0)
    monkeypatch.setattr(measuring, "peak_memory_mb", lambda spec, **_: 100.0)

    names = ["vanilla_nano", "bq_vanilla_nano"]
    rows = superbit.profile(names, seconds=1, measure=True, threads=1).rows
    file = tmp_path / "measured.json"
    file.write_text(json.dumps([dict(row) for row in rows]))
    with_times = replace(study, costs=read_costs([file]))
    known = {cost.name: cost for cost in quality.costs_known(with_times)}
    assert {"ms", "memory"} < set(known)
    found = {row[0]: row[4] for row in quality.pareto(with_times, TASKS["KS"], known["ms"]).rows}
    assert found["bq_vanilla_nano"] == rows[1]["latency_ms_bits"] > 0
    assert found["vanilla_nano"] == rows[0]["latency_ms_onednn"] > 0
    assert {found[name] for name in found if name not in names} == {None}
    text = page(with_times, out=tmp_path / "page.html")
    assert str(rows[0]["machine"]) in text
    assert "measured time, ms" in text


def test_further_costs_come_first_and_bad_files_are_named(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([{"spec": "bq_vanilla_nano", "latency_ms_bits": 3.5}]))
    row = read_costs([file])["vanilla_nano+policy=w1a1"]
    assert row["latency_ms_bits"] == 3.5
    assert row["honest_storage_mb"] == pytest.approx(1.73696)
    for content, says in (("{}", "no list of rows"), ('[{"model": "x"}]', "no spec"), ("[", "")):
        file.write_text(content)
        with pytest.raises(InputError, match=f"mine.json cannot be used: .*{says}"):
            read_costs([file])
