"""``superbit claims``: the paper's numeric sentences, recomputed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_format

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("claims", help="the paper's numeric sentences, recomputed")
    add_format(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.claims.command import claims_command

    return claims_command(arguments)
