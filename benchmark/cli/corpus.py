"""``superbit corpus``: make embedded corpora, check and prepare real ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_group, add_results

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    corpus_verbs = add_group(
        verbs, "corpus", help="make embedded corpora, check and prepare real ones"
    )

    verb = corpus_verbs.add_parser("make", help="synthesize corpora in the real layouts")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR")
    verb.add_argument("--size", choices=["tiny", "demo"], default="demo")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(verb=run_make)

    verb = corpus_verbs.add_parser("speech", help="synthesize speech for pre-training")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR")
    verb.add_argument(
        "--apart-from",
        type=Path,
        required=True,
        metavar="DIR",
        help="the embedded corpora, with which it shares no voice and no sentence",
    )
    verb.add_argument("--hours", type=float, default=1.0)
    verb.add_argument("--speakers", type=int, default=120, metavar="N")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--jobs", type=int, default=1, metavar="N")
    verb.set_defaults(verb=run_speech)

    for name, run, text in (
        ("check", run_check, "what is there, against SUPERB's counts"),
        ("prepare", run_prepare, "check, then write what runs derive from the corpora"),
    ):
        verb = corpus_verbs.add_parser(name, help=text)
        verb.add_argument("--paths", type=Path, required=True, metavar="FILE")
        add_results(verb)
        verb.set_defaults(verb=run)


def run_make(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.corpora.commands import make_command

    return make_command(out=arguments.out, size=arguments.size, seed=arguments.seed)


def run_speech(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.corpora.commands import speech_command

    return speech_command(
        out=arguments.out,
        apart_from=arguments.apart_from,
        hours=arguments.hours,
        speakers=arguments.speakers,
        seed=arguments.seed,
        jobs=arguments.jobs,
    )


def run_check(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.corpora.commands import check_command

    return check_command(paths_file=arguments.paths, work_dir=arguments.results / "work")


def run_prepare(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.corpora.commands import prepare_command

    return prepare_command(paths_file=arguments.paths, work_dir=arguments.results / "work")
