"""Every verb of the command line: its options, and the function that carries it out, by name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from superbit.benchmark.dispatch import (
    Verbs,
    carried_out_by,
    leaves,
    prints_help,
    vars_but_verb,
)
from superbit.benchmark.verbs_training import add_training

RESULTS = Path("results/local")


class _Version(argparse.Action):
    """Prints the version, which is looked up only where it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **given: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **given)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import superbit

        print(f"superbit {superbit.__version__}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the parser; what it gives has the verb's function as ``verb``."""
    parser = argparse.ArgumentParser(
        prog="superbit",
        description="Measures what an efficient speech encoder costs and what it gives up: "
        "SUPERB over s3prl upstreams.",
    )
    parser.add_argument("--version", action=_Version, help="print superbit's version and stop")
    parser.set_defaults(verb=prints_help(parser))
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    _add_upstreams(verbs)
    _add_corpus(verbs)
    _add_sweep(verbs)
    _add_cache(verbs)
    add_training(verbs)
    _add_tables(verbs)
    _add_packing(verbs)
    for verb in leaves(parser):
        verb.add_argument(
            "--traceback", action="store_true", help="of an error, also where in Python it arose"
        )
    return parser


def _paths_and_work(arguments: argparse.Namespace) -> dict[str, Path]:
    return {"paths_file": arguments.paths, "work_dir": arguments.results / "work"}


def _add_upstreams(verbs: Verbs[argparse.ArgumentParser]) -> None:
    verb = verbs.add_parser("list", help="upstreams, tasks or binarization policies there are")
    verb.add_argument("what", choices=["upstreams", "tasks", "policies"])
    verb.set_defaults(verb=carried_out_by("benchmark.listing:list_command", vars_but_verb))

    verb = verbs.add_parser("check", help="whether an upstream keeps s3prl's contract")
    verb.add_argument("spec", metavar="SPEC", help="NAME[@CHECKPOINT][+untrained][+policy=POLICY]")
    verb.set_defaults(verb=carried_out_by("benchmark.checking:check_command", vars_but_verb))

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
    verb.set_defaults(
        verb=carried_out_by("upstreams.importing.command:import_command", counted=True)
    )


def _add_corpus(verbs: Verbs[argparse.ArgumentParser]) -> None:
    corpus = verbs.add_parser("corpus", help="make embedded corpora, check and prepare real ones")
    corpus.set_defaults(verb=prints_help(corpus))
    corpus_verbs = corpus.add_subparsers(metavar="VERB")

    verb = corpus_verbs.add_parser("make", help="synthesize corpora in the real layouts")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR")
    verb.add_argument("--size", choices=["tiny", "demo"], default="demo")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(verb=carried_out_by("benchmark.corpora.commands:make_command", vars_but_verb))

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
    verb.set_defaults(
        verb=carried_out_by("benchmark.corpora.commands:speech_command", vars_but_verb)
    )

    for name, text in (
        ("check", "what is there, against SUPERB's counts"),
        ("prepare", "check, then write what runs derive from the corpora"),
    ):
        verb = corpus_verbs.add_parser(name, help=text)
        verb.add_argument("--paths", type=Path, required=True, metavar="FILE")
        _add_results(verb)
        verb.set_defaults(
            verb=carried_out_by(f"benchmark.corpora.commands:{name}_command", _paths_and_work)
        )


def _add_sweep(verbs: Verbs[argparse.ArgumentParser]) -> None:
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
    verb.add_argument(
        "--lr",
        metavar="RATE,…|search",
        help="in place of each task's own; several train side by side and the best on dev counts, "
        "search takes each task's list",
    )
    verb.add_argument(
        "--seed", default="1337", metavar="N,…", help="of the heads; with several, a run of each"
    )
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
    _add_cache_folder(verb)
    verb.add_argument("--no-cache", action="store_true", help="run the upstream on every batch")
    verb.add_argument(
        "--cache-budget", metavar="SIZE", help="what the plan may fill of it, e.g. 200GB"
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
    verb.set_defaults(verb=carried_out_by("benchmark.sweeping.command:sweep_command"))

    verb = verbs.add_parser("status", help="what is done, failed and unfinished")
    verb.add_argument("--all", action="store_true", help="a line for each run, however many")
    _add_results(verb)
    verb.set_defaults(verb=carried_out_by("benchmark.listing:status_command", vars_but_verb))


def _add_packing(verbs: Verbs[argparse.ArgumentParser]) -> None:
    results = verbs.add_parser("results", help="pack a folder of results, unpack it")
    results.set_defaults(verb=prints_help(results))
    results_verbs = results.add_subparsers(metavar="VERB")
    for name, text in (
        ("pack", "two files a task in place of two a run; every verb reads both"),
        ("unpack", "two files a run again, each as it was"),
    ):
        verb = results_verbs.add_parser(name, help=text)
        verb.add_argument("folder", type=Path, metavar="DIR")
        verb.set_defaults(
            verb=carried_out_by(f"benchmark.records.packing:{name}_command", vars_but_verb)
        )


def _add_cache(verbs: Verbs[argparse.ArgumentParser]) -> None:
    cache = verbs.add_parser("cache", help="stored features: list them, delete them")
    cache.set_defaults(verb=prints_help(cache))
    cache_verbs = cache.add_subparsers(metavar="VERB")
    verb = cache_verbs.add_parser("ls", help="what is stored, by upstream")
    _add_cache_folder(verb)
    _add_results(verb)
    verb.set_defaults(verb=carried_out_by("benchmark.features.commands:list_command"))
    verb = cache_verbs.add_parser("prune", help="delete features, the oldest first")
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument("--all", action="store_true", help="every upstream's")
    what.add_argument("--upstream", metavar="SPEC", help="one upstream's")
    what.add_argument("--to", metavar="SIZE", help="until no more than this is left, e.g. 50GB")
    _add_cache_folder(verb)
    _add_results(verb)
    verb.set_defaults(verb=carried_out_by("benchmark.features.commands:prune_command"))


def _add_cache_folder(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="folder of stored features (default: work/features in the results)",
    )


def _add_tables(verbs: Verbs[argparse.ArgumentParser]) -> None:
    verb = verbs.add_parser("profile", help="Table 1: storage, FLOP, BOP, time of upstreams")
    _add_profile(verb)

    tables = verbs.add_parser("table", help="print a table of the paper beside ours")
    tables.set_defaults(verb=prints_help(tables))
    numbers = tables.add_subparsers(metavar="NUMBER")
    verb = numbers.add_parser("1", help="what encoders cost: the same as profile")
    _add_profile(verb)
    verb = numbers.add_parser("2", help="the ten tasks")
    verb.add_argument("--source", choices=["paper", "runs", "both"], default="both")
    verb.add_argument(
        "--upstreams", metavar="SPEC,…", help="only these, in this order (default: as swept)"
    )
    _add_where(verb)
    _add_label(verb)
    verb.add_argument("--show-lr", action="store_true", help="print each run's learning rate")
    verb.add_argument(
        "--mean-over-seeds",
        action="store_true",
        help="of runs that differ in the seed, print the mean and the standard deviation",
    )
    _add_format(verb)
    _add_results(verb)
    verb.set_defaults(verb=carried_out_by("benchmark.tables.table2:table2_command", vars_but_verb))

    verb = verbs.add_parser("compare", help="two upstreams, beside the spread over seeds")
    verb.add_argument("first", metavar="SPEC")
    verb.add_argument("second", metavar="SPEC")
    _add_where(verb)
    _add_label(verb)
    _add_format(verb)
    _add_results(verb)
    verb.set_defaults(
        verb=carried_out_by("benchmark.tables.compare:compare_command", vars_but_verb)
    )

    verb = verbs.add_parser("claims", help="the paper's numeric sentences, recomputed")
    _add_format(verb)
    verb.set_defaults(verb=carried_out_by("benchmark.claims.command:claims_command"))

    verb = verbs.add_parser("error-flow", help="where a 1-bit twin departs from its FP32 model")
    verb.add_argument("spec", metavar="SPEC")
    verb.add_argument("--audio", type=Path, metavar="DIR", help="wav or flac files")
    verb.add_argument(
        "--teacher", type=Path, metavar="DIR", help="the FP32 model of a twin's checkpoint"
    )
    verb.add_argument("--format", choices=["csv", "md", "png"], default="md")
    verb.add_argument("--out", type=Path, metavar="FILE")
    verb.set_defaults(verb=carried_out_by("benchmark.error_flow_command:error_flow_command"))


def _add_profile(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("specs", nargs="*", metavar="SPEC", help="none: the paper's ten rows")
    verb.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="of audio (default: 10)"
    )
    verb.add_argument("--accounting", choices=["paper", "honest", "both"], default="both")
    verb.add_argument("--measure", action="store_true", help="time the models on this machine")
    verb.add_argument(
        "--threads", type=int, metavar="N", help="of what is timed (default: the cores)"
    )
    _add_label(verb)
    _add_format(verb)
    verb.set_defaults(verb=carried_out_by("benchmark.profiling.profile_command:profile_command"))


def _add_where(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="only runs whose identity says so, e.g. corpus=NAME; may be repeated",
    )


def _add_label(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=SPEC",
        help="call an upstream NAME; may be repeated",
    )


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
