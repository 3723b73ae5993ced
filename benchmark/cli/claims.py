"""``superbit claims``: the paper's numeric sentences, recomputed."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_format

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("claims", help="the paper's numeric sentences, recomputed")
    verb.add_argument(
        "--measure",
        action="store_true",
        help="time models on this machine beside the paper's times",
    )
    add_format(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the claims; without torch our models' figures are unknown, and it says so."""
    from superbit.benchmark.claims import figures
    from superbit.benchmark.claims.check import check_claims
    from superbit.benchmark.claims.data import our_models, read_claims
    from superbit.benchmark.claims.rendering import render_claims
    from superbit.benchmark.progress import Reporter

    claims, ours, measured = read_claims(), None, None
    if figures.models_can_be_built():
        each = partial(Reporter().each, "profiling our models")
        ours = figures.our_figures(our_models(claims), each=each)
        if arguments.measure:
            each = partial(Reporter().each, "timing models")
            measured = figures.measured_figures(our_models(claims, "measured"), each=each)
    else:
        print("superbit: without torch, our models' figures are unknown.", file=sys.stderr)
    checked = check_claims(claims, ours=ours, measured=measured)
    print(render_claims(checked, arguments.format, machine=figures.machine_of(measured)), end="")
    return 0
