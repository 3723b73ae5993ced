"""The command line as a whole: help without a verb, tracebacks on request, progress."""

import argparse
import io
import sys

import pytest

from superbit.benchmark import cli
from superbit.benchmark.cli import leaves, parser


def groups(parser, words=()):
    """The words of everything that has verbs below it, each with its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield list(words), parser
            for word, below in action.choices.items():
                yield from groups(below, (*words, word))


@pytest.mark.parametrize(("words", "group"), list(groups(parser())), ids=lambda x: str(x)[:20])
def test_what_needs_a_verb_and_gets_none_prints_its_help(words, group, capsys):
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (group.format_help(), "")


def test_an_unknown_verb_is_still_a_mistake(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["chekc"])
    assert "invalid choice: 'chekc'" in capsys.readouterr().err


BROKEN = {
    "import": "import helper_of_mine\n",
    "build": "def mine(ckpt=None, **kwargs):\n    return helper(ckpt)\n\n"
    "def helper(ckpt):\n    return 1 / 0\n",
}


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        (BROKEN["import"], "cannot be imported: ModuleNotFoundError", "import helper_of_mine"),
        (BROKEN["build"], "cannot be built: ZeroDivisionError", "return 1 / 0"),
    ],
    ids=BROKEN,
)
@pytest.mark.parametrize("verb", ["check", "profile"])
def test_where_somebody_elses_code_raised_is_shown_on_request(
    verb, text, said, line, tmp_path, capsys
):
    file = tmp_path / "hubconf.py"
    file.write_text(text)
    assert cli.main([verb, f"{file}:mine"]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.endswith(" With --traceback it says where.\n")
    assert len(err.splitlines()) == 1
    assert line not in err
    assert cli.main([verb, f"{file}:mine", "--traceback"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback (most recent call last)" in err
    assert line in err
    assert said in err.splitlines()[-1]
    assert "--traceback" not in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("mine = None\n", "hubconf.py:mine"),
        ("def mine(ckpt=None, **kwargs):\n    return None\n", "hubconf.py:mine"),
        (
            "from superbit.upstreams import InputError\n"
            "def mine(ckpt=None, **kwargs):\n    raise InputError('give a checkpoint.')\n",
            "hubconf.py:mine",
        ),
        (None, "vanila_nano"),
    ],
    ids=["no function", "no module", "a sentence of its own", "mistyped"],
)
def test_where_there_is_nothing_to_see_no_traceback_is_offered(
    text, spec, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "hubconf.py").write_text(text)
    assert cli.main(["check", spec]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "--traceback" not in err


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_a_sweep_of_broken_upstreams_only_offers_it_too(names, tmp_path, capsys, tiny_paths_file):
    for name in names:
        (tmp_path / f"{name}.py").write_text(BROKEN["build"])
    specs = ",".join(f"{tmp_path / name}.py:mine" for name in names)
    words = ["sweep", "--upstreams", specs, "--tasks", "IC", "--scale", "embedded", "--paths"]
    words += [str(tiny_paths_file), "--results", str(tmp_path / "results")]
    assert cli.main(words) == 2
    assert capsys.readouterr().err.endswith(" With --traceback it says where.\n")
    assert cli.main([*words, "--traceback"]) == 2
    assert "return 1 / 0" in capsys.readouterr().err


def test_every_verb_takes_traceback_and_none_is_given_it(monkeypatch):
    assert all("--traceback" in leaf.format_help() for leaf in leaves(parser()))
    given = {}
    monkeypatch.setattr(
        "superbit.benchmark.cli.status.run", lambda arguments: given.update(vars(arguments)) or 0
    )
    assert cli.main(["status", "--traceback"]) == 0
    assert given.keys() == {"verb", "results", "all"}


def test_each_verb_is_carried_out_by_a_function_of_its_module():
    for leaf in leaves(parser()):
        verb = leaf.get_default("verb")
        word = leaf.prog.split()[1].replace("-", "_")
        module = "profile" if leaf.prog.split()[1:] == ["table", "1"] else word
        assert verb.__module__.removeprefix("superbit.benchmark.cli.").rstrip("_") == module
        assert verb.__name__.startswith("run")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("profile vanilla_nano", ["profiling", "1/1"]),
        ("claims", ["profiling our models", "2/2"]),
        ("error-flow vanilla_nano", ["blocks of the encoder", "8/8"]),
        ("check vanilla_nano", ["loading vanilla_nano", "rule 1 of", "rule 11 of 11"]),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_verbs_that_take_seconds_show_how_far_they_are(words, shown, monkeypatch, capsys):
    """On a terminal's standard error, and what goes to standard output is the same as without."""
    if words == "claims":  # which takes all the paper's models otherwise
        monkeypatch.setattr(
            "superbit.benchmark.claims.figures.our_figures",
            lambda models, each: (list(each(list(models)[:2])), None)[1],
        )
    monkeypatch.setenv("TERM", "xterm")
    assert cli.main(words.split()) == 0
    without, lines = capsys.readouterr()
    # in a log what is measured, and then nothing, or a line every ten seconds
    assert all(line.startswith((shown[0], "error flow of ")) for line in lines.splitlines())
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert cli.main(words.split()) == 0
    drawn, out = terminal.getvalue(), capsys.readouterr().out
    for part in shown:
        assert part in drawn
    if "check" in words:  # its last line tells the time
        out, without = (text.rpartition(";")[0] for text in (out, without))
    assert out == without
