"""``superbit pretrain``: HuBERT pre-training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.cli.options import add_training

if TYPE_CHECKING:
    from superbit.benchmark.cli.options import Verbs


def add(verbs: Verbs) -> None:
    verb = verbs.add_parser("pretrain", help="HuBERT pre-training; continues what is in --out")
    verb.add_argument("--preset", required=True, metavar="NAME", help="phase1, phase2 or nano")
    verb.add_argument("--model", required=True, metavar="NAME", help="one of superbit's sizes")
    verb.add_argument("--manifests", type=Path, metavar="DIR", help="train.tsv and valid.tsv")
    verb.add_argument("--labels", type=Path, metavar="DIR", help="train.km and valid.km")
    verb.add_argument("--out", type=Path, metavar="DIR")
    verb.add_argument("--init", type=Path, metavar="DIR", help="a checkpoint to begin with")
    add_training(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from superbit.upstreams.training.command import pretrain_command

    return pretrain_command(arguments)
