"""The package `superbit` as people use it from Python: names, help, results, models, errors."""

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from verbs import run_verb

import superbit
from superbit import messages, modules
from superbit.benchmark.records.store import ResultStore
from superbit.upstreams import registry
from superbit.upstreams.errors import InputError

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "results" / "embedded"
PUBLIC = [name for name in superbit.__all__ if name != "__version__"]
# Their docstring's example runs on synthesized corpora, in the end-to-end tests.
NEEDS_CORPORA = {"evaluate"}


def run_python(code, cwd):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_the_package_is_light_and_knows_its_names(tmp_path):
    lines = run_python(
        "import sys, superbit\n"
        "heavy = ('torch', 'pandas', 'pydantic', 'rich', 'yaml', 'numpy', 'importlib.metadata')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "print(set(superbit.__all__) <= set(dir(superbit)))\n"
        "print(superbit.__version__)\n",
        tmp_path,
    )
    from importlib.metadata import version

    assert lines == ["[]", "True", version("superbit")]


def test_tables_from_python_need_no_torch(tmp_path):
    code = (
        f"import sys, superbit\nresults = superbit.load_results({str(EMBEDDED)!r})\n"
        "results.to_pandas(); results.table2(source='paper')\nprint('torch' in sys.modules)"
    )
    assert run_python(code, tmp_path) == ["False"]


def test_python_dash_m_superbit_is_the_command_line(tmp_path):
    command = [sys.executable, "-m", "superbit"]
    done = subprocess.run([*command, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"superbit {superbit.__version__}\n")
    wrong = subprocess.run(
        [*command, "table", "2", "--results", "nowhere"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("superbit: --results: nowhere does not exist")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        superbit.evalute  # noqa: B018


@pytest.mark.parametrize("name", PUBLIC)
def test_help_says_what_a_name_is(name):
    thing = getattr(superbit, name)
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        text = inspect.getdoc(thing)
        assert "Raises:\n    InputError:" in text
        assert ">>> import superbit" in text
        given = inspect.signature(thing).parameters
        assert all(f"    {each}: " in text for each in given), "each argument is explained"


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in NEEDS_CORPORA])
def test_examples_of_help_run_as_printed(name, monkeypatch, embedded):
    monkeypatch.chdir(ROOT)
    if name == "Results":  # read once for all its methods
        monkeypatch.setattr(superbit, "load_results", lambda path: embedded)
    thing = getattr(superbit, name)
    examples = [each for each in doctest.DocTestFinder().find(thing, name) if each.examples]
    assert examples or name in ("InputError", "Printed", "Profile")
    for each in examples:
        runner = doctest.DocTestRunner(verbose=False)
        assert runner.run(each).failed == 0


def test_a_model_gives_the_hidden_states_of_its_upstream():
    random = np.random.default_rng(0)
    waveforms = [random.uniform(-0.1, 0.1, length).astype("float32") for length in (16_000, 8_000)]
    model = superbit.load("vanilla_nano")
    states = model.hidden_states(waveforms)
    expert = registry.load("vanilla_nano")
    with torch.inference_mode():  # with gradients the front end rounds otherwise
        expected = expert([torch.from_numpy(each) for each in waveforms])["hidden_states"]
    assert all(map(torch.equal, states, expected))
    assert not any(state.requires_grad for state in states)
    assert not model.expert.training
    assert model.samples_per_frame == 320
    mixed = model.hidden_states([torch.from_numpy(waveforms[0]), waveforms[1].astype("float64")])
    assert all(map(torch.allclose, mixed, expected))
    alone = model.hidden_states(waveforms[0])
    assert alone[0].shape[0] == 1
    assert model.to("cpu") is model
    assert "vanilla_nano" in repr(model)


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("bq_vanilla_nano", "vanilla_nano+policy=w1a1"),
        ("vanilla_nano+untrained", "vanilla_nano+untrained"),
        ("conformer_s", "conformer_s+untrained"),
    ],
)
def test_a_model_is_named_as_its_records_would_be(spec, canonical):
    assert superbit.load(spec).spec == canonical
    assert str(registry.load_upstream(spec).spec) == canonical


@pytest.mark.parametrize(
    "waveforms", [[], "a.wav", [np.zeros((2, 3), "float32")], [np.zeros(400, "int16")],
                  [torch.zeros(400, dtype=torch.int16)], [torch.zeros(2, 400)], [[0.0] * 400]],
)  # fmt: skip
def test_no_waveforms_are_refused_in_a_sentence(waveforms):
    with pytest.raises(InputError, match="needed"):
        superbit.load("vanilla_nano").hidden_states(waveforms)


@pytest.fixture(scope="module")
def embedded():
    return superbit.load_results(EMBEDDED)


def test_a_dataframe_has_a_row_a_run_with_the_records_figures(embedded):
    frame = embedded.to_pandas()
    records = ResultStore(EMBEDDED).read_all()
    assert list(frame["key"]) == [record.key for record in records]
    assert list(frame["value"]) == [record.value for record in records]
    # an interval of no width is not what a record's items say
    wide = [record.interval.low < record.interval.high for record in records]
    assert 0 < wide.count(False) < 40
    assert list(frame["low"][wide]) == [
        r.interval.low for r, is_wide in zip(records, wide, strict=True) if is_wide
    ]
    assert (frame["high"] > frame["low"]).all()
    assert list(frame["n"]) == [record.items.count for record in records]
    assert frame["learning_rate"].isna().sum() == sum(r.identity.task == "QbE" for r in records)
    assert set(frame["unit"]) == {"%", "fraction", "x100"}
    assert frame["fold"].dropna().between(1, 5).all()
    assert frame.loc[frame["task"] == "KS", "chance"].between(0, 50, inclusive="neither").all()
    assert "bq_vanilla_nano" in set(frame["upstream"])


def test_a_dataframe_of_failed_runs_and_of_none(tmp_path):
    (tmp_path / "empty").mkdir()
    frame = superbit.load_results(tmp_path / "empty").to_pandas()
    assert len(frame) == 0
    assert list(frame.columns[:3]) == ["upstream", "task", "value"]


def test_tables_are_those_of_the_command_line(embedded, capsys):
    table = embedded.table2(label=["filters=fbank"], paired=True, where=["seed=1337"])
    asked = {"results": EMBEDDED, "label": "filters=fbank", "paired": True, "where": "seed=1337"}
    run_verb("table 2", format="json", **asked)
    assert table.to_text("json") == capsys.readouterr().out
    asked = {"where": ["seed=1337,1338"], "against": "fbank"}
    compared = embedded.compare("vanilla_nano", "bq_vanilla_nano", **asked)
    run_verb("compare vanilla_nano bq_vanilla_nano", format="csv", results=EMBEDDED, **asked)
    assert compared.to_text("csv") == capsys.readouterr().out
    assert {table.to_text(format)[:1] for format in ("md", "csv", "json", "latex", "html")} == set(
        "*m[\\<"
    )


def test_tables_print_in_a_terminal_and_in_a_notebook(embedded):
    compared = embedded.compare("fbank", "vanilla_nano")
    assert repr(compared) == compared.to_text("md").rstrip("\n")
    assert "<table" in compared._repr_html_()
    assert "<table" in embedded._repr_html_()
    assert "1,992 runs" in repr(embedded)
    with pytest.raises(InputError, match="unknown format 'markdown'"):
        compared.to_text("markdown")


def test_messages_name_python_arguments(embedded):
    with pytest.raises(InputError) as raised:
        embedded.table2(mean_over_seeds=False)
    assert "mean_over_seeds takes their mean" in str(raised.value)
    assert "--" not in str(raised.value)
    with pytest.raises(InputError, match=r"^upstreams: 'fbnk' is none"):
        embedded.table2(upstreams=["fbnk"])
    with pytest.raises(InputError, match=r"^where seed is given twice"):
        embedded.compare("fbank", "vanilla_nano", where=["seed=1", "seed=2"])


def test_words_of_options_become_arguments():
    with pytest.raises(InputError) as raised, messages.in_python():
        raise InputError("--seed: no; say --cache-any-upstream (--lr), not a--b or 'x--y'.")
    expected = "seeds: no; say cache_any_upstream (learning_rates), not a--b or 'x--y'."
    assert str(raised.value) == expected


def test_a_folder_that_is_not_there():
    with pytest.raises(InputError, match="there is no such folder"):
        superbit.load_results("nowhere")


def test_a_profile_is_of_models_and_specs():
    of_model = superbit.profile([superbit.load("bq_vanilla_nano"), "vanilla_nano"], seconds=1)
    frame = of_model.to_pandas()
    assert list(frame["spec"]) == ["vanilla_nano+policy=w1a1", "vanilla_nano"]
    expert = registry.load("vanilla_nano")
    count = sum(parameter.numel() for parameter in expert.parameters())
    assert frame["honest_parameters"][1] == count
    assert "vanilla_nano" in repr(of_model)
    assert "<table" in of_model._repr_html_()
    with pytest.raises(InputError, match=r"^threads is of what is timed: add measure"):
        superbit.profile("vanilla_nano", threads=2)
    with pytest.raises(InputError, match="honets"):
        superbit.profile("vanilla_nano", accounting="honets")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"upstreams": []}, "upstreams: name at least one"),
        ({"upstreams": 3}, "an upstream is a spec, a torch module"),
        ({"tasks": []}, "tasks: name at least one"),
        ({"tasks": "KSS"}, "KSS"),
        ({"scale": "small"}, "unknown scale 'small'"),
        ({"scale": "superb"}, "paths: name the file"),
        ({"limit": 0}, "limit: 0 must be at least 1"),
        ({"jobs": 0}, "jobs: 0 must be at least 1"),
        ({"seeds": [1.5]}, "seeds: 1.5 must be a whole number"),
        ({"seeds": ()}, "seeds: name at least one"),
        ({"learning_rates": [0.1, -1]}, "learning_rates: -1 must be a number above 0"),
        ({"learning_rates": "serach"}, "learning_rates: 'serach' is no number"),
        ({"no_cache": True, "cache_budget": "1GB"}, "cache_budget has no effect with no_cache"),
        ({"cache_budget": "much"}, "cache_budget: 'much' is no size"),
        ({"cache_precision": "int8"}, "unknown cache_precision 'int8'"),
    ],
)
def test_what_evaluate_cannot_do_is_said_in_a_sentence(given, sentence, tmp_path, monkeypatch):
    from superbit.benchmark.corpora.embedded import make

    def no_corpora(out, **_):
        return tmp_path / "paths.yaml"

    monkeypatch.setattr(make, "make_corpora", no_corpora)
    (tmp_path / "paths.yaml").write_text("speech_commands: {root: ., test_root: .}\n")
    asked = {"upstreams": "vanilla_nano", "tasks": "KS", "results": tmp_path / "results"}
    with pytest.raises(InputError) as raised:
        superbit.evaluate(**(asked | given))
    assert sentence in str(raised.value)
    assert "--" not in str(raised.value)


def test_evaluate_without_paths_makes_the_demo_corpora_beside_the_results(tmp_path, monkeypatch):
    from superbit.benchmark.corpora.embedded import make

    asked = []

    def make_corpora(out, *, size, on_progress):
        asked.append((out, size))
        return tmp_path / "no.yaml"

    monkeypatch.setattr(make, "make_corpora", make_corpora)
    with pytest.raises(InputError, match=r"no\.yaml"):
        superbit.evaluate(upstreams="vanilla_nano", tasks="KS", results=tmp_path)
    assert asked == [(tmp_path / "corpora", "demo")]


class Part(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(1))
        self.weight = torch.nn.Parameter(torch.ones(2))


class Whole(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.part = Part()


def test_a_module_is_an_upstream_for_as_long_as_it_is_needed_and_stays_as_it_was():
    module = Whole().train()
    weight, scale = module.part.weight.data, module.part.scale
    with modules.as_specs(["fbank", module, superbit.load("bq_vanilla_nano")]) as specs:
        assert specs == ("fbank", "Whole", "vanilla_nano+policy=w1a1")
        entry = registry.find("Whole")
        assert entry.build(ckpt=None) is module
        assert entry.revision == modules.classes_sha256(module)
        module.eval().requires_grad_(False).to(torch.float64)
        module.register_forward_pre_hook(lambda *_: None)
    assert module.training
    assert module.part.training
    assert module.part.weight.requires_grad
    assert module.part.weight.data is not None
    assert module.part.weight.dtype == torch.float32
    assert torch.equal(module.part.weight.data, weight)
    assert module.part.scale is scale
    assert not module._forward_pre_hooks
    with pytest.raises(InputError, match="unknown upstream 'Whole'"):
        registry.find("Whole")


def test_a_modules_source_is_its_revision(tmp_path, monkeypatch):
    def revision(body, number):
        (tmp_path / f"of_somebody_{number}.py").write_text(
            "import torch\nclass Mine(torch.nn.Module):\n"
            f"    def forward(self, x):\n        {body}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        return modules.classes_sha256(__import__(f"of_somebody_{number}").Mine())

    first = revision("return x", 1)
    assert revision("return x", 2) == first
    assert revision("return 2 * x", 3) != first
    assert modules.classes_sha256(torch.nn.Linear(1, 1)) == modules.classes_sha256(torch.nn.ReLU())


def test_names_of_modules_that_are_taken():
    taken = type("fbank", (Whole,), {})()
    with (
        pytest.raises(InputError, match="has the name of another upstream"),
        modules.as_specs([taken]),
    ):
        pass
    with pytest.raises(InputError, match="both called"), modules.as_specs([Whole(), Whole()]):
        pass
    assert "Whole" not in registry.names()
