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


def _sweep(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.sweeping import sweep_command

    return sweep_command(arguments)


def _cache_ls(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.features.commands import list_command

    return list_command(arguments)


def _cache_prune(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.features.commands import prune_command

    return prune_command(arguments)


def _status(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.listing import status

    print(status(arguments.results))
    return 0


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

    corpus = verbs.add_parser("corpus", help="make embedded corpora, check real ones")
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

    _add_sweep(verbs)

    _add_cache_verbs(verbs)

    verb = verbs.add_parser("status", help="what is done, failed and unfinished")
    _add_results(verb)
    verb.set_defaults(verb=_status)

    verb = verbs.add_parser("table", help="print a table of the paper beside measured rows")
    verb.add_argument("number", choices=["2"], help="2: the ten tasks")
    verb.add_argument("--source", choices=["paper", "runs", "both"], default="both")
    verb.add_argument("--format", choices=["md", "csv", "json", "latex", "html"], default="md")
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
    verb.add_argument(
        "--assume",
        choices=["superb-sizes"],
        help="with --dry-run: plan features for SUPERB's corpora without having them",
    )
    _add_cache(verb)
    verb.add_argument("--no-cache", action="store_true", help="run the upstream on every batch")
    verb.add_argument(
        "--cache-budget", metavar="SIZE", help="at most so much in the cache, e.g. 200GB"
    )
    verb.add_argument(
        "--cache-precision",
        choices=["float16", "float32"],
        default="float16",
        help="of frames; means over time are float32 (default: float16)",
    )
    verb.add_argument(
        "--cache-any-upstream",
        action="store_true",
        help="also store features that depend on the batch; each is then computed alone",
    )
    _add_results(verb)
    verb.set_defaults(verb=_sweep)


def _add_cache_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    cache = verbs.add_parser("cache", help="stored features: list them, delete them")
    cache_verbs = cache.add_subparsers(required=True, metavar="VERB")
    verb = cache_verbs.add_parser("ls", help="what is stored, by upstream")
    _add_cache(verb)
    _add_results(verb)
    verb.set_defaults(verb=_cache_ls)
    verb = cache_verbs.add_parser("prune", help="delete features, the oldest first")
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument("--all", action="store_true", help="every upstream's")
    what.add_argument("--upstream", metavar="SPEC", help="one upstream's")
    what.add_argument("--to", metavar="SIZE", help="until no more than this is left, e.g. 50GB")
    _add_cache(verb)
    _add_results(verb)
    verb.set_defaults(verb=_cache_prune)


def _add_cache(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="folder of stored features (default: work/features in the results)",
    )


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
