"""Runs every verb in an environment that has superbit without extras; tests/wheel.sh calls it.

    PYTHON_OF_THAT_ENVIRONMENT tests/helpers/base_install.py

A verb works, or says in one sentence which extra it needs and how to install it, with exit status
2; none ends in a traceback. The verbs are the parser's own: one that is not below fails here.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import traceback
import wave
from collections.abc import Iterator
from pathlib import Path

from superbit.benchmark import cli
from superbit.benchmark.cli import parser

RECORDS = Path(__file__).resolve().parents[2] / "results" / "embedded"
# Verbs, each with arguments that are right; what is needed is made by `make_inputs`.
ARGUMENTS = {
    "list": ["upstreams", "tasks"],
    "new-upstream": ["my_upstream"],
    "new-encoder": ["my_kind"],
    "check": ["vanilla_nano", "fbank", "hubconf.py:mine"],
    "import": ["--from hf hf_model --out imported"],
    "corpus make": ["--out corpora --size tiny"],
    "corpus speech": ["--out speech"],
    "corpus check": ["--paths paths.yaml"],
    "corpus prepare": ["--paths paths.yaml"],
    "sweep": [
        f"--upstreams {upstreams} --tasks KS --scale embedded --paths paths.yaml{dry_run}"
        for upstreams in ("vanilla_nano", "fbank", "hubconf.py:mine")
        for dry_run in ("", " --dry-run")
    ],
    "status": ["--results RECORDS"],
    "cancel": ["--results RECORDS"],
    "cache ls": [""],
    "cache prune": ["--all"],
    "manifest": ["audio --out manifests"],
    "units fit": ["--manifest train.tsv --clusters 2 --out units"],
    "units label": ["--units units.npz --manifest train.tsv --out labels"],
    "pretrain": [
        f"--preset nano --model vanilla_nano --manifests . --labels . --out run{dry_run}"
        for dry_run in ("", " --dry-run")
    ],
    "distil": [
        f"--teacher teacher --manifests . --out twin{dry_run}" for dry_run in ("", " --dry-run")
    ],
    "pack": ["bq_vanilla_nano --out twin.safetensors"],
    "nano": [f"--speech . --work nano{dry_run}" for dry_run in ("", " --dry-run")],
    "curves": ["run_with_log --out curves.png"],
    "profile": ["", "vanilla_nano", "fbank", "vanilla_nano --measure"],
    "table 1": ["", "--format csv"],
    "table 2": [
        "--source paper",
        "--results RECORDS --paired",
        "--results RECORDS --no-mean-over-seeds --where seed=1337 --format csv",
    ],
    "compare": ["vanilla_nano bq_vanilla_nano --against fbank --results RECORDS"],
    "report": ["--results RECORDS --out report.html"],
    "figure": [
        "delta --results RECORDS --out delta.svg",
        "delta --results RECORDS --out delta.pdf",
    ],
    "results pack": ["packed"],
    "results verify": ["RECORDS"],
    "results unpack": ["packed"],
    "claims": [""],
    "error-flow": ["vanilla_nano", "vanilla_nano --format png"],
}
# What the base install is for.
WORK = {
    "list",
    "status",
    "cancel",
    "table 2",
    "compare",
    "results pack",
    "results unpack",
    "results verify",
}


def verbs_of(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[str]:
    """Every verb that can be typed, its words joined by blanks."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield " ".join(words)
    for action in below:
        for word, inner in action.choices.items():
            yield from verbs_of(inner, (*words, word))


def make_inputs() -> None:
    """Make in the working folder whatever the arguments name."""
    for folder in ("audio", "hf_model", "apart", "teacher", "run_with_log", "commands", "packed"):
        Path(folder).mkdir()
    with wave.open("audio/a.wav", "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(32_000))
    for split in ("train", "valid"):
        Path(f"{split}.tsv").write_text(f"{Path('audio').resolve()}\na.wav\t16000\n")
        Path(f"{split}.km").write_text(" ".join(["0"] * 50) + "\n")
    Path("units.npz").touch()
    Path("paths.yaml").write_text("speech_commands_v1: commands\n")
    Path("hubconf.py").write_text("import torch\ndef mine(ckpt=None, **kwargs): ...\n")


def fault(verb: str, arguments: str) -> str | None:
    """What is wrong with how a verb ended, None if nothing."""
    words = [*verb.split(), *arguments.replace("RECORDS", str(RECORDS)).split()]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(words)
        except BaseException:
            status = None
            traceback.print_exc()
    if status == 0:
        return None
    lines = err.getvalue().splitlines()
    one_sentence = len(lines) == 1 and lines[0].startswith("superbit: ")
    names_the_line = 'pip install "superbit[' in err.getvalue()
    if verb in WORK or status != 2 or not (one_sentence and names_the_line):
        return f"exit status {status}:\n{out.getvalue()}{err.getvalue()}"
    print(f"  superbit {verb} {arguments}\n    {lines[0]}")
    return None


def main() -> int:
    """Run all of them and return how many are wrong."""
    there = set(verbs_of(parser()))
    if there != set(ARGUMENTS):
        print("The parser and this file differ in", *sorted(there ^ set(ARGUMENTS)), sep="\n")
        return 1
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_inputs()
        for verb, several in ARGUMENTS.items():
            for arguments in several:
                found = fault(verb, arguments)
                if found is not None:
                    faults += 1
                    print(f"superbit {verb} {arguments}: {found}")
    return min(faults, 100)


if __name__ == "__main__":
    sys.exit(main())
