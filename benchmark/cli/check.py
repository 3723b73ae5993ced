"""``superbit check``: whether an upstream keeps s3prl's contract."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("check", help="whether an upstream keeps s3prl's contract")
    verb.add_argument("spec", metavar="SPEC", help="NAME[@CHECKPOINT][+untrained][+policy=POLICY]")
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.checking import check_command

    return check_command(spec=arguments.spec)
