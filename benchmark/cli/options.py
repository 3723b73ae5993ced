"""What several verbs share: options, and the group that stands in for a verb that was not said."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.upstreams.trusting import OPTION

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

RESULTS = Path("results/local")


def add_group(verbs: Verbs, name: str, *, help: str, metavar: str = "VERB") -> Verbs:
    """Add a verb that has verbs below it, and return what takes those."""
    group = verbs.add_parser(name, help=help)
    group.set_defaults(verb=prints_help(group))
    return group.add_subparsers(metavar=metavar)


def prints_help(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Return what stands in for a verb that was not said: the help that lists them."""

    def verb(_arguments: argparse.Namespace) -> int:
        parser.print_help()
        return 0

    return verb


def add_trust(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        OPTION,
        action="store_true",
        help="let checkpoints of s3prl's entries run the code they contain",
    )


def add_results(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help=f"folder of results (default: {RESULTS})",
    )


def add_cache_folder(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="folder of stored features (default: work/features in the results)",
    )


def add_table_options(verb: argparse.ArgumentParser) -> None:
    """Add what a table of runs is asked for by: which runs, what they are called, how printed."""
    verb.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="only runs whose identity says so, e.g. corpus=NAME; may be repeated",
    )
    add_label(verb)
    add_format(verb)
    add_results(verb)


def add_label(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=SPEC",
        help="call an upstream NAME; may be repeated",
    )


def add_format(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--format", choices=["md", "csv", "json", "latex", "html"], default="md")


def add_stopping(verb: argparse.ArgumentParser) -> None:
    """Add how often long work is saved, and when it stops by itself."""
    verb.add_argument(
        "--checkpoint-minutes",
        type=_above_zero,
        default=15.0,
        metavar="M",
        help="save after so long, beside the steps that the config names (default: 15)",
    )
    verb.add_argument(
        "--max-hours",
        type=_above_zero,
        metavar="H",
        help="save, and stop with status 130, before so long is over",
    )


def seconds(text: str) -> float:
    """Read a length of time with its unit: s, min or h."""
    found = re.fullmatch(r"([0-9.]+) *(s|min|h)", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number with s, min or h behind it")
    return _above_zero(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value


def add_training(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    verb.add_argument("--device", default=None)
    verb.add_argument("--tensorboard", action="store_true")
    add_stopping(verb)
    verb.add_argument("--dry-run", action="store_true", help="print the plan and its time")
    verb.add_argument(
        "--hardware",
        choices=["v100", "l4", "a100", "h100", "h200", "two_cores"],
        default="a100",
        help="of the time that --dry-run estimates",
    )
    verb.add_argument("--devices", type=int, default=1, metavar="N", help="for the same estimate")
