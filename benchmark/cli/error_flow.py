"""``superbit error-flow``: where a 1-bit twin departs from its FP32 model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("error-flow", help="where a 1-bit twin departs from its FP32 model")
    verb.add_argument("spec", metavar="SPEC")
    verb.add_argument("--audio", type=Path, metavar="DIR", help="wav or flac files")
    verb.add_argument(
        "--teacher", type=Path, metavar="DIR", help="the FP32 model of a twin's checkpoint"
    )
    verb.add_argument("--format", choices=["csv", "md", "png"], default="md")
    verb.add_argument("--out", type=Path, metavar="FILE")
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.error_flow_command import error_flow_command

    return error_flow_command(arguments)
