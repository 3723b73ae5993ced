"""``superbit distil``: a model's 1-bit twin."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_training

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("distil", help="a model's 1-bit twin; continues what is in --out")
    verb.add_argument("--preset", default="distil", metavar="NAME", help="distil or distil_nano")
    verb.add_argument(
        "--teacher", type=Path, required=True, metavar="DIR", help="an FP32 checkpoint"
    )
    verb.add_argument(
        "--policy",
        default="w1a2,w1a1",
        metavar="POLICY,…",
        help="the steps, each from and by the one before (default: w1a2,w1a1)",
    )
    verb.add_argument(
        "--loss", choices=["kd", "hubert"], help="the teacher's (default), or HuBERT's on --labels"
    )
    verb.add_argument("--manifests", type=Path, metavar="DIR", help="train.tsv and valid.tsv")
    verb.add_argument("--labels", type=Path, metavar="DIR", help="train.km and valid.km")
    verb.add_argument("--out", type=Path, metavar="DIR")
    add_training(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.upstreams.training.command import distil_command

    return distil_command(arguments)
