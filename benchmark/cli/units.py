"""``superbit units``: k-means units, fitted and given to audio."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_group

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    units_verbs = add_group(verbs, "units", help="k-means units: fit them, label audio with them")

    fit = units_verbs.add_parser("fit", help="k-means over MFCC, or over a layer of a checkpoint")
    fit.add_argument("--clusters", type=int, required=True, metavar="K")
    fit.add_argument("--layer", type=int, metavar="N")
    fit.add_argument("--fraction", type=float, default=1.0, help="of the utterances")
    fit.add_argument("--seed", type=int, default=0)
    fit.set_defaults(verb=run_fit)

    label = units_verbs.add_parser("label", help="the unit of every frame, as a .km file")
    label.add_argument("--units", type=Path, required=True, metavar="FILE")
    label.add_argument("--shard", type=int, default=0, metavar="N")
    label.add_argument("--shards", type=int, default=1, metavar="N")
    label.add_argument("--jobs", type=int, default=1, metavar="N")
    label.set_defaults(verb=run_label)

    for verb in (fit, label):
        verb.add_argument("--manifest", type=Path, required=True, metavar="FILE")
        verb.add_argument("--out", type=Path, required=True, metavar="PATH")
        verb.add_argument("--checkpoint", type=Path, metavar="DIR")
        verb.add_argument("--device", default=None)


def run_fit(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.training.command import units_fit_command

    return units_fit_command(arguments, counting=Reporter().counting)


def run_label(arguments: argparse.Namespace) -> int:
    from superbit.benchmark.progress import Reporter
    from superbit.upstreams.training.command import units_label_command

    return units_label_command(arguments, counting=Reporter().counting)
