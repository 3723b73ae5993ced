"""What a verb says where the packages of an extra are not installed."""

import argparse
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from superbit.benchmark import cli
from superbit.upstreams import extras

ROOT = Path(__file__).parents[2]
# Distributions whose module has another name.
NAMES = {
    "scikit-learn": "sklearn", "pyannote.metrics": "pyannote", "dtw-python": "dtw",
    "espeakng-loader": "espeakng_loader",
}  # fmt: skip


def without(modules, code):
    """Run ``code`` where ``modules`` cannot be imported."""
    absent = f"import sys\nsys.modules.update(dict.fromkeys({list(modules)!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", absent + code], capture_output=True, text=True, check=False
    )


def test_the_modules_are_those_of_the_extras_in_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    for extra, modules in extras.MODULES.items():
        lines = config["options.extras_require"][extra].split("\n")
        wanted = [re.split(r"[<>=#]", line)[0].strip() for line in lines]
        assert {NAMES.get(name, name) for name in wanted if name} == set(modules)


@pytest.mark.slow  # `make wheel-test` does the same in an environment that is one
def test_every_verb_in_a_base_install():
    """As in the wheel's environment: it works, or one sentence names the extra; no traceback."""
    absent = [module for modules in extras.MODULES.values() for module in modules]
    code = f"sys.path.insert(0, {str(ROOT / 'tests' / 'helpers')!r})\n"
    code += "import base_install\nsys.exit(base_install.main())"
    done = without(absent, code)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "absent", "said"),
    [
        (["profile", "fbank"], "s3prl", "unknown upstream 'fbank': .*{run}"),
        (["profile", "vanila_nano"], "s3prl", "{run}. Did you mean 'vanilla_nano'?"),
        (["profile", "vanilla_nano"], "safetensors", "'run': {run}"),
        (["error-flow", "vanilla_nano", "--format", "png"], "matplotlib", "{figures}"),
        (["corpus", "make", "--out", "there", "--size", "tiny"], "espeakng_loader", "{embedded}"),
    ],
)
def test_part_of_an_extra_is_missing(words, absent, said, tmp_path):
    code = f"import os; os.chdir({str(tmp_path)!r})\n"
    code += f"from superbit.benchmark.cli import main\nsys.exit(main({words!r}))"
    done = without([absent], code)
    lines = {extra: f'pip install "superbit[{extra}]"' for extra in extras.MODULES}
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert re.search(re.sub(r"([\[\]?])", r"\\\1", said.format(**lines)), done.stderr)


def test_a_module_that_is_no_extras_is_not_spoken_of(tmp_path, capsys, monkeypatch):
    """Neither one that a hubconf wants, nor a part that an installed package lacks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hubconf.py").write_text("import their_own_library\n")
    assert cli.main(["check", "hubconf.py:mine"]) == 2
    said = capsys.readouterr().err
    assert "hubconf.py cannot be imported: ModuleNotFoundError: No module named 'their_own" in said
    assert "pip install" not in said
    for name in ("their_own_library", "torch.no_such_part", None):
        assert extras.how_to_install(ModuleNotFoundError(name=name)) is None
    assert extras.how_to_install(ImportError(name="torch")) is None

    def verb(_arguments):
        import superbit.no_such_module  # noqa: F401

    parsed = argparse.Namespace(verb=verb)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda *_: parsed)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        cli.main([])
