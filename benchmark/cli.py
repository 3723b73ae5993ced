"""The command line: verbs and their options; nothing heavy is imported before a verb runs.

Exit status: 0 all went well; 1 something failed (a run, a rule, or superbit itself); 2 the user's
mistake, said in one sentence; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from superbit.upstreams.errors import InputError

EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130
RESULTS = Path("results/local")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    # Threads that spin while they wait make torch many times slower beside any other process.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = _parser().parse_args(argv)
    try:
        return arguments.verb(arguments)
    except InputError as error:
        print(f"superbit: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("superbit: stopped.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAILED


def _list(arguments: argparse.Namespace) -> int:
    from superbit.benchmark import listing

    print(listing.upstreams() if arguments.what == "upstreams" else listing.tasks())
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.checking import check_command

    return check_command(arguments.spec)


def _corpus_make(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.corpora.commands import make_command

    make_command(arguments.out, size=arguments.size, seed=arguments.seed)
    return 0


def _corpus_check(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.corpora.commands import check_command

    return check_command(arguments.paths, work_dir=arguments.results / "work")


def _corpus_prepare(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.corpora.commands import prepare_command

    return prepare_command(arguments.paths, work_dir=arguments.results / "work")


def _sweep(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.sweeping import sweep_command

    return sweep_command(arguments)


def _status(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.listing import status

    print(status(arguments.results))
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from superbit.upstreams.importing.command import import_command

    return import_command(arguments)


def _profile(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.profiling.profile_command import profile_command

    return profile_command(arguments)


def _claims(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.claims.command import claims_command

    return claims_command(arguments)


def _table(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.results import ResultStore
    from superbit.benchmark.tables import render, table2
    from superbit.benchmark.where import parse_where

    records = [] if arguments.source == "paper" else ResultStore(arguments.results).read_all()
    table = table2(records, source=arguments.source, where=parse_where(arguments.where))
    print(render(table, arguments.format), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="superbit",
        description="Measures what an efficient speech encoder costs and what it gives up: "
        "SUPERB over s3prl upstreams.",
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    verb = verbs.add_parser("list", help="upstreams or tasks there are")
    verb.add_argument("what", choices=["upstreams", "tasks"])
    verb.set_defaults(verb=_list)

    verb = verbs.add_parser("check", help="whether an upstream keeps s3prl's contract")
    verb.add_argument("spec", metavar="SPEC", help="NAME[@CHECKPOINT][+untrained][+policy=POLICY]")
    verb.set_defaults(verb=_check)

    corpus = verbs.add_parser("corpus", help="make embedded corpora, check and prepare real ones")
    corpus_verbs = corpus.add_subparsers(required=True, metavar="VERB")
    verb = corpus_verbs.add_parser("make", help="synthesize corpora in the real layouts")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR")
    verb.add_argument("--size", choices=["tiny", "demo"], default="demo")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(verb=_corpus_make)
    verb = corpus_verbs.add_parser("check", help="what is there, against SUPERB's counts")
    verb.add_argument("--paths", type=Path, required=True, metavar="FILE")
    _add_results(verb)
    verb.set_defaults(verb=_corpus_check)
    verb = corpus_verbs.add_parser(
        "prepare", help="check, then write what runs derive from the corpora"
    )
    verb.add_argument("--paths", type=Path, required=True, metavar="FILE")
    _add_results(verb)
    verb.set_defaults(verb=_corpus_prepare)

    _add_sweep(verbs)

    verb = verbs.add_parser("status", help="what is done, failed and unfinished")
    _add_results(verb)
    verb.set_defaults(verb=_status)

    verb = verbs.add_parser("import", help="make HuBERT base weights of others an upstream")
    verb.add_argument(
        "--from",
        dest="source",
        choices=["hf", "torchaudio", "fairseq"],
        required=True,
        help="who wrote them",
    )
    verb.add_argument("path", type=Path, metavar="PATH", help="a folder (hf) or a file")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR")
    verb.set_defaults(verb=_import)

    verb = verbs.add_parser("profile", help="Table 1: storage, FLOP, BOP, time of upstreams")
    verb.add_argument("specs", nargs="*", metavar="SPEC", help="none: the paper's ten rows")
    _add_profile(verb)
    verb.set_defaults(verb=_profile)

    verb = verbs.add_parser("claims", help="the paper's numeric sentences, recomputed")
    _add_format(verb)
    verb.set_defaults(verb=_claims)

    tables = verbs.add_parser("table", help="print a table of the paper beside ours")
    numbers = tables.add_subparsers(required=True, metavar="NUMBER")
    verb = numbers.add_parser("1", help="what encoders cost: the same as profile")
    verb.add_argument("specs", nargs="*", metavar="SPEC", help="none: the paper's ten rows")
    _add_profile(verb)
    verb.set_defaults(verb=_profile)
    verb = numbers.add_parser("2", help="the ten tasks")
    verb.add_argument("--source", choices=["paper", "runs", "both"], default="both")
    _add_format(verb)
    verb.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="only runs whose identity says so; may be repeated",
    )
    _add_results(verb)
    verb.set_defaults(verb=_table)
    return parser


def _add_sweep(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verb = verbs.add_parser("sweep", help="run tasks over upstreams; reuses what is done")
    verb.add_argument("--upstreams", required=True, metavar="SPEC,…")
    verb.add_argument("--tasks", required=True, metavar="TASK,…")
    verb.add_argument(
        "--scale",
        choices=["superb", "embedded"],
        required=True,
        help="the benchmark's protocol, or the small one",
    )
    verb.add_argument(
        "--paths",
        type=Path,
        required=True,
        metavar="FILE",
        help="where the corpora lie (downstream_configs/paths.example.yaml)",
    )
    verb.add_argument(
        "--overrides",
        type=Path,
        metavar="FILE",
        help="config overrides, laid out like embedded.yaml",
    )
    verb.add_argument("--lr", type=float, metavar="RATE", help="in place of each task's own")
    verb.add_argument("--seed", type=int, default=1337)
    verb.add_argument("--device", default=None, help="cpu or cuda; cuda where there is one")
    verb.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time, each in a process with its share of the cores",
    )
    verb.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="at most N steps and evaluation batches; enters no table",
    )
    verb.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    _add_results(verb)
    verb.set_defaults(verb=_sweep)


def _add_profile(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="of audio (default: 10)"
    )
    verb.add_argument("--accounting", choices=["paper", "honest", "both"], default="both")
    verb.add_argument("--measure", action="store_true", help="time the models on this machine")
    verb.add_argument(
        "--threads", type=int, metavar="N", help="of what is timed (default: the cores)"
    )
    _add_format(verb)


def _add_format(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--format", choices=["md", "csv", "json", "latex", "html"], default="md")


def _add_results(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help=f"folder of results (default: {RESULTS})",
    )


if __name__ == "__main__":
    sys.exit(main())
