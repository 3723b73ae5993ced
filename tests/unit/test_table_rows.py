"""Which rows a table has: one set of corpora each, in the order asked for, called as asked for."""

import csv
import html
import io
import json
import re
from html.parser import HTMLParser

import pytest
from verbs import run_verb

from superbit.benchmark.records.choose import choose, parse_where
from superbit.benchmark.records.naming import read_labels, upstreams_in_order
from superbit.benchmark.records.provenance import Provenance
from superbit.benchmark.records.schema import (
    Chance,
    Corpus,
    Interval,
    RunIdentity,
    RunRecord,
    Selection,
)
from superbit.benchmark.records.store import ResultStore
from superbit.benchmark.tables.corpus_sets import corpus_sets
from superbit.benchmark.tables.table2 import table2
from superbit.benchmark.tables.table2_rendering import render_table2
from superbit.benchmark.tasks.catalog import TASKS
from superbit.upstreams.errors import InputError

FORMATS = ["md", "csv", "json", "latex", "html"]
NASTY = 'a_b & 50% #1 {x} <b> "q" | ~^\\$ --y *z* [w]'


def run(
    task="IC",
    upstream="fbank",
    value=50.0,
    *,
    sha="0a" * 32,
    label=None,
    version=None,
    kind="real",
    started=None,
    command=None,
    level=None,
    **changes,
):
    identity = RunIdentity(
        **{
            "upstream": upstream,
            "weights_sha256": "5d" * 32,
            "upstream_revision": "1",
            "task": task,
            "task_revision": 1,
            "config": {"scale": "embedded"},
            "corpus_sha256": sha,
            "learning_rate": 1e-4,
            "seed": 1337,
            "fold": None,
        }
        | changes
    )
    return RunRecord(
        key=identity.key,
        status="done",
        identity=identity,
        scale=identity.config["scale"],
        limited=False,
        untrained="+untrained" in upstream,
        value=value,
        interval=Interval(low=value - 3, high=value + 2, level=0.95, method="m"),
        chance=None if level is None else Chance(value=level, method="m"),
        selection=Selection(rule="best on dev", selected_on="dev", step=80),
        corpus=Corpus(
            name=TASKS[task].corpus, kind=kind, sha256=sha, label=label, version=version
        ),
        provenance=Provenance(started=started, command=command),
    )  # fmt: skip


def table2_verb(folder, **options):
    return run_verb("table 2 --source runs", results=folder, **options)


def rows(records, **options):
    return table2(records, source="runs", **options).rows


# --- corpora ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ({"label": "asterisk-en"}, {"label": "asterisk-fr"}, ["asterisk-en", "asterisk-fr"]),
        (
            {"kind": "synthesized", "version": "embedded v3, tiny, seed 0"},
            {"kind": "synthesized", "version": "embedded v3, tiny, seed 1"},
            ["embedded v3, tiny, seed 0", "embedded v3, tiny, seed 1"],
        ),
        ({}, {}, ["fluent_speech_commands 111111", "fluent_speech_commands 222222"]),
        (
            {"label": "mine"},
            {"label": "mine"},
            ["mine (fluent_speech_commands 111111)", "mine (fluent_speech_commands 222222)"],
        ),
        ({"label": "mine"}, {}, ["mine", "fluent_speech_commands 222222"]),
    ],
)
@pytest.mark.parametrize("same_upstream", [True, False])
def test_rows_on_other_corpora_stand_apart_and_say_so(one, other, says, same_upstream):
    second = "fbank" if same_upstream else "apc"
    records = [run(sha="1" * 64, **one), run(upstream=second, value=20.0, sha="2" * 64, **other)]
    table = table2(records, source="runs")
    assert [row.corpora for row in table.rows] == says
    assert len({row.group for row in table.rows}) == 2
    assert [
        row.source.endswith(f"; {each}") for row, each in zip(table.rows, says, strict=True)
    ] == [
        True,
        True,
    ]
    text = render_table2(table)
    assert "comparable among rows on the same corpora" in text
    assert "comparable among embedded rows" not in text
    assert [
        line["corpora"] for line in csv.DictReader(io.StringIO(render_table2(table, "csv")))
    ] == says
    shas = [
        row["cells"]["ic_acc"]["corpus"]["sha256"]
        for row in json.loads(render_table2(table, "json"))
    ]
    assert shas == ["1" * 64, "2" * 64]
    assert render_table2(table, "html").count("<tbody>") == 2
    assert render_table2(table, "latex").count(r"\midrule") == 2


def test_one_set_of_corpora_is_one_group_and_the_note_names_it():
    version = {"kind": "synthesized", "version": "embedded v3, tiny, seed 0"}
    table = table2([run(**version), run("KS", "apc", sha="3" * 64, **version)], source="runs")
    assert len({row.group for row in table.rows}) == 1
    text = render_table2(table)
    assert "comparable among embedded rows" in text
    assert "- Corpora: embedded v3, tiny, seed 0." in text


def test_what_stands_in_one_column_of_a_group_is_one_corpus():
    # two folders of corpora without names, of which PR's is the same
    records = [
        run(task, upstream, sha=f"{digit}{TASKS[task].column.encode().hex()}".ljust(64, "0"))
        for upstream, digit in (("fbank", "1"), ("apc", "2"))
        for task in ("IC", "KS", "ER")
    ]
    records += [run("PR", upstream, sha="9" * 64) for upstream in ("fbank", "apc")]
    found = {}
    for row in rows(records):
        for column, cell in row.cells.items():
            found.setdefault((row.group, column), set()).add(cell.record.identity.corpus_sha256)
    assert all(len(hashes) == 1 for hashes in found.values())
    assert len(found) == 2 * 3 + 1
    assert rows(records) == rows(records[::-1])


def test_a_corpus_named_later_is_the_same_corpus():
    records = [
        run(started="2026-01-01T00:00:00+00:00"),
        run(upstream="apc", label="asterisk-en", started="2026-01-02T00:00:00+00:00"),
    ]
    found = rows(records)
    assert [row.corpora for row in found] == ["asterisk-en", "asterisk-en"]
    assert len(corpus_sets(records).sets) == 1


def test_names_of_single_corpora_make_one_row():
    records = [run("IC", label="ic-x", sha="1" * 64), run("KS", label="ks-y", sha="2" * 64)]
    (row,) = rows(records)
    assert set(row.cells) == {"ic_acc", "ks_acc"}
    assert row.corpora == "ic-x (fluent_speech_commands), ks-y (speech_commands)"


def test_a_mean_over_seeds_is_not_taken_over_corpora():
    records = [run(seed=seed, sha=sha * 64) for seed, sha in ((1, "1"), (2, "1"), (3, "2"))]
    found = rows(records, over_seeds=True)
    assert [row.cells["ic_acc"].seeds and row.cells["ic_acc"].seeds.numbers for row in found] == [
        (1, 2),
        None,
    ]


def test_a_search_is_not_over_corpora():
    # the better rate of the other corpus does not win here
    from superbit.benchmark.records.rate_search import declared_by
    from superbit.benchmark.records.schema import Point

    records = [
        run(sha=sha * 64, learning_rate=rate).model_copy(
            update={"curve": [Point(step=80, score=score)]}
        )
        for sha, rate, score in (("1", 0.1, 1), ("1", 0.2, 2), ("2", 0.1, 9), ("2", 0.2, 3))
    ]
    searches = [
        declared_by([r.identity for r in records if r.corpus.sha256 == s * 64]) for s in "12"
    ]
    found = rows(records, searches=searches)
    rates = [row.cells["ic_acc"].record.identity.learning_rate for row in found]
    assert rates == [0.2, 0.1]
    assert all(row.cells["ic_acc"].searched for row in found)


def test_runs_of_a_column_with_another_config_are_named():
    longer = {"scale": "embedded", "runner": {"total_steps": 5}}
    notes = table2([run(), run(upstream="apc", config=longer)], source="runs").notes
    assert any("IC: rows differ in config.runner.total_steps" in note for note in notes)
    alike = table2([run(), run(upstream="apc", learning_rate=0.1)], source="runs").notes
    assert not any("rows differ" in note for note in alike)


@pytest.mark.parametrize(
    "name",
    ["asterisk-en", "ASTERISK-EN", "real", "v1, part 2", "fluent_speech_commands", "1" * 6],
)
def test_a_corpus_is_chosen_by_any_of_its_names(name):
    mine = run(sha="1" * 64, label="asterisk-en", version="v1, part 2")
    other = run("KS", sha="2" * 64, kind="synthesized", version="v1")
    assert choose([mine, other], parse_where([f"corpus={name}"])) == [mine]
    assert choose([mine, other], parse_where([f"corpus!={name}"])) == [other]
    assert choose([mine, other], parse_where([f"corpus={name},v1"])) == [mine, other] or "," in name


def test_a_corpus_that_is_not_there_names_those_that_are():
    with pytest.raises(InputError, match=r"the runs have corpus asterisk-en \(fluent.*1111"):
        choose([run(sha="1" * 64, label="asterisk-en")], parse_where(["corpus=asterisk"]))


# --- order -----------------------------------------------------------------------------------


def sweep(*upstreams):
    return ["superbit", "sweep", "--upstreams", ",".join(upstreams), "--tasks", "IC"]


def test_rows_stand_in_the_order_of_the_sweeps():
    first, second = sweep("wavlm", "bq_vanilla_nano", "apc"), sweep("fbank", "wavlm")
    records = [
        run(upstream="fbank", command=second, started="2026-01-02T00:00:00+00:00"),
        # side by side: the last one asked for began first
        run(upstream="apc", command=first, started="2026-01-01T00:00:00+00:00"),
        run(upstream="wavlm", command=first, started="2026-01-01T00:00:09+00:00"),
        run(
            upstream="vanilla_nano+policy=w1a1",
            command=first,
            started="2026-01-01T00:00:05+00:00",
        ),
    ]
    expected = ["wavlm", "bq_vanilla_nano", "apc", "fbank"]
    assert [row.model for row in rows(records)] == expected
    assert [row.model for row in rows(records[::-1])] == expected


def test_an_upstream_that_was_found_untrained_keeps_its_place():
    command = sweep("mine", "a.py:f", "vanilla_nano", "vanilla_nano+untrained")
    order = ["mine+untrained", "a.py:f+untrained", "vanilla_nano", "vanilla_nano+untrained"]
    records = [run(upstream=upstream, command=command) for upstream in order]
    assert upstreams_in_order(records[::-1]) == order


def test_without_a_command_the_first_one_started_stands_first():
    records = [
        run(upstream="apc", started="2026-01-02T00:00:00+00:00"),
        run(upstream="wavlm", started="2026-01-01T00:00:00+00:00"),
    ]
    assert upstreams_in_order(records) == ["wavlm", "apc"]
    assert upstreams_in_order([run(upstream="b"), run(upstream="a")]) == ["a", "b"]


def test_upstreams_picks_and_orders(tmp_path, capsys):
    store = ResultStore(tmp_path)
    for upstream in ("fbank", "apc", "vanilla_nano+policy=w1a1"):
        store.write(run(upstream=upstream))
    table2_verb(tmp_path, format="csv", upstreams="bq_vanilla_nano, fbank")
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["model"] for line in found] == ["bq_vanilla_nano", "fbank"]
    assert [line["upstream"] for line in found] == ["vanilla_nano+policy=w1a1", "fbank"]
    with pytest.raises(InputError, match=r"--upstreams: 'fbnk'.*Did you mean 'fbank'"):
        table2_verb(tmp_path, upstreams="fbnk")


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["table", "compare"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_twin_is_called_as_it_is_typed(verb, fmt, tmp_path, capsys):
    store = ResultStore(tmp_path)
    for upstream in ("fbank", "vanilla_nano+policy=w1a1", "vanilla_nano+untrained+policy=w1a1"):
        store.write(run(upstream=upstream))
    if verb == "table":
        table2_verb(tmp_path, format=fmt)
    else:
        run_verb("compare fbank bq_vanilla_nano+untrained", results=tmp_path, format=fmt)
    out = capsys.readouterr().out.replace(r"\_", "_")
    assert "bq_vanilla_nano+untrained" in out
    shown = re.sub(r'"upstreams?": (\[[^]]*\]|"[^"]*")', "", out)
    shown = re.sub(r",vanilla_nano\+\S*?policy=w1a1,", ",", shown)  # the CSV's column upstream
    assert "policy=w1a1" not in shown


def strings_of(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_of(inner)


class Texts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.texts, self.tags = [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.texts.append(data)


def unescaped(fmt, text):
    """Every string that a reader of this format sees."""
    if fmt == "csv":
        return [cell for line in csv.reader(io.StringIO(text)) for cell in line]
    if fmt == "json":
        return list(strings_of(json.loads(text)))
    if fmt == "html":
        parser = Texts()
        parser.feed(text)
        assert "b" not in parser.tags
        return parser.texts
    if fmt == "md":
        lines = [line for line in text.splitlines() if line.startswith(("|", "- ", "**"))]
        cells = [cell for line in lines for cell in re.split(r"(?<!\\)\|", line)]
        return [re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell) for cell in cells]
    commands = {
        r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^",
        r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|",
        r"\texttt{\char34}": '"', "-{}": "-",
    }  # fmt: skip
    for command, character in commands.items():
        text = text.replace(command, character)
    return [re.sub(r"\\([&%$#_{}])", r"\1", text)]


@pytest.mark.parametrize("verb", ["table", "compare"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_labels_and_names_of_corpora_are_text_in_every_format(verb, fmt, tmp_path, capsys):
    store = ResultStore(tmp_path)
    path = "some_dir/hubconf.py:my_model"
    corpus = 'c_1 & <i> 100% "d" {e}'
    for value in (
        run(upstream=path, label=corpus),
        run(upstream="fbank", label=corpus),
        run("KS", upstream=path, sha="3" * 64, label="other"),
        run("KS", upstream="fbank", sha="4" * 64, label=corpus),
    ):
        store.write(value)
    label = [f"{NASTY}={path}"]
    if verb == "table":
        table2_verb(tmp_path, format=fmt, label=label)
        wanted = [NASTY, corpus]
    else:
        run_verb("compare", path, "fbank", results=tmp_path, format=fmt, label=label)
        wanted = [NASTY]
        # compare's CSV has no notes, where the corpora stand
        wanted += [corpus] if fmt != "csv" else []
    out = capsys.readouterr().out
    seen = unescaped(fmt, out)
    for text in wanted:
        assert any(text in each for each in seen), (text, out)
    if fmt == "html":
        assert html.escape(NASTY) in out
    if fmt == "latex":
        body = re.sub(r"\{!\}\{%|\\begin.*|\\\\$", "", out, flags=re.M)
        assert not re.search(r"(?<!\\)[%#_~^\"<>|](?! )", body)
        assert not re.search(r"--", body)
    if fmt == "md":
        table = [line for line in out.splitlines() if line.startswith("|")]
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
        assert len(counts) == 1
        assert "<b>" not in out.replace(r"\<b>", "")


def test_a_latex_line_never_begins_as_an_option_of_the_line_before(tmp_path, capsys):
    store = ResultStore(tmp_path)
    for upstream in ("a.py:f", "b.py:f"):
        store.write(run(upstream=upstream))
    table2_verb(tmp_path, format="latex", label=["[x]=a.py:f", "*y=b.py:f"])
    out = capsys.readouterr().out
    assert not re.search(r"\\\\\s*[\[*]", out)
    assert "{[}x]" in out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["mine"], "write NAME=SPEC"),
        (["=fbank"], "write NAME=SPEC"),
        (["mine=fbnk"], "Did you mean 'fbank'"),
        (["mine=fbank", "yours=fbank"], "two labels"),
        (["apc=fbank"], "would both be called 'apc'"),
        (["x=fbank", "x=apc"], "would both be called 'x'"),
    ],
)
def test_labels_that_mislead_are_refused(given, says):
    with pytest.raises(InputError, match=f"--label.*{says}"):
        read_labels(given, ["fbank", "apc"])


def test_a_label_may_name_a_path_found_untrained_and_a_policy():
    known = ["a.py:f+untrained", "vanilla_nano+policy=w1a2", "vanilla_nano+untrained"]
    names = read_labels(["mine=a.py:f", "two=vanilla_nano+policy=w1a2"], known)
    assert names.of(known[0]) == "mine"
    assert names.of(known[1]) == "two"
    with pytest.raises(InputError, match="none of the upstreams there"):
        read_labels(["x=vanilla_nano"], known)


# --- what a folder is asked for --------------------------------------------------------------


def test_a_mean_over_seeds_is_the_default(tmp_path, capsys):
    store = ResultStore(tmp_path / "my results")
    for seed, rate in ((1, 0.1), (2, 0.01)):
        store.write(run(seed=seed, learning_rate=rate))
    asked = {"where": "task=IC", "format": "csv", "show_lr": True}
    assert table2_verb(tmp_path / "my results", **asked) == 0
    printed = capsys.readouterr().out
    assert table2_verb(tmp_path / "my results", mean_over_seeds=True, **asked) == 0
    assert capsys.readouterr().out == printed
    with pytest.raises(InputError, match="--mean-over-seeds takes their mean"):
        table2_verb(tmp_path / "my results", no_mean_over_seeds=True, **asked)
    # two rates of one seed are no mean over seeds, and none is offered
    store.write(run(seed=2, learning_rate=0.5))
    with pytest.raises(InputError) as caught:
        table2_verb(tmp_path / "my results")
    assert "--mean-over-seeds" not in str(caught.value)


@pytest.mark.parametrize("fmt", FORMATS)
def test_chance_is_known_in_every_format(fmt):
    records = [run(value=8.0, level=8.3), run("KS", value=80.0, level=8.3, sha="1" * 64)]
    text = render_table2(table2(records, source="runs"), fmt)
    if fmt in ("md", "html"):
        assert text.count("8.00 [5.0, 10.0] ≤chance") == 1
        assert "≤chance: not better than an answer without listening" in text
        assert "≤chance" not in text.split("80.00")[1][:20]
    elif fmt == "latex":
        assert text.count(r"8.00 [5.0, 10.0] $\leq$chance") == 1
    elif fmt == "csv":
        (line,) = csv.DictReader(io.StringIO(text))
        assert (line["ic_acc_chance"], line["ic_acc_at_chance"]) == ("8.300", "yes")
        assert (line["ks_acc_at_chance"], line["ks_acc_low"], line["sd_der_low"]) == (
            "no",
            "77.000",
            "",
        )
    else:
        cells = json.loads(text)[0]["cells"]
        assert cells["ic_acc"]["chance"] == {"value": 8.3, "method": "m"}
        assert [cells[c]["at_chance"] for c in ("ic_acc", "ks_acc")] == [True, False]


def test_the_csv_has_the_spread_of_a_mean():
    records = [run(value=value, seed=seed) for seed, value in ((1, 60.0), (2, 66.0))]
    text = render_table2(table2(records, source="runs", over_seeds=True), "csv")
    (line,) = csv.DictReader(io.StringIO(text))
    assert (line["ic_acc"], line["ic_acc_sd"], line["ic_acc_low"]) == ("63.00", "4.243", "")


def test_nobody_is_said_to_have_searched_a_rate_that_was_given():
    for note in table2([run()], source="runs").notes:
        assert not re.search(r"learning rate [^;]*(best|chosen|; best on dev)", note)
    (note,) = [n for n in table2([run()], source="runs").notes if n.startswith("IC, measured")]
    assert "learning rate 0.0001, given, not searched" in note


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_papers_rows_are_labelled_paper(fmt):
    # Table 1's labels: test_profiling_command.py
    text = render_table2(table2([run()]), fmt)
    assert "our setup" not in text
    assert text.count("paper; own setup") >= 10
    assert text.count("paper; reported") >= 2


def test_models_of_one_name_are_told_apart_by_all_that_says_which_they_are():
    from superbit.benchmark.tables.table2 import _OF_A_MODEL

    # a field that an identity gains is taken to be about the upstream
    task = {"task", "task_revision", "config", "corpus_sha256", "learning_rate", "seed", "fold"}
    assert set(_OF_A_MODEL) == set(RunIdentity.model_fields) - task
    for field in {"weights_sha256", "upstream_revision"} & set(_OF_A_MODEL):
        with pytest.raises(InputError, match=f"mixes the runs of 2 models.*--where {field}="):
            table2([run("IC"), run("KS", sha="1" * 64, **{field: "9" * 64})], source="runs")
