"""``superbit claims``."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from superbit.benchmark.claims.check import check_claims
from superbit.benchmark.claims.data import our_models, read_claims
from superbit.benchmark.claims.figures import models_can_be_built, our_figures
from superbit.benchmark.claims.formats import render_claims
from superbit.benchmark.progress import Reporter


def claims_command(arguments: argparse.Namespace) -> int:
    """Print the claims in ``arguments.format``.

    A base install, without torch, prints them with our models' figures unknown and says so.
    """
    claims = read_claims()
    ours = None
    if models_can_be_built():
        each = partial(Reporter().each, "profiling our models")
        ours = our_figures(our_models(claims), each=each)
    else:
        print("superbit: without torch, our models' figures are unknown.", file=sys.stderr)
    print(render_claims(check_claims(claims, ours=ours), arguments.format), end="")
    return 0
