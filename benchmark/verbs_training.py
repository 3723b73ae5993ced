"""The verbs that train encoders: manifest, units, pretrain, distil, curves."""

from __future__ import annotations

import argparse
from pathlib import Path

from superbit.benchmark.dispatch import Verbs, carried_out_by, prints_help


def add_training(verbs: Verbs[argparse.ArgumentParser]) -> None:
    verb = verbs.add_parser("manifest", help="list a folder's audio as fairseq does")
    verb.add_argument("root", type=Path, metavar="ROOT")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR")
    verb.add_argument("--held-out", type=float, default=0.01, metavar="SHARE", help="for valid.tsv")
    verb.add_argument("--held-out-by", choices=["file", "folder"], default="file")
    verb.add_argument("--must-contain", default="", metavar="TEXT", help="in a file's path")
    verb.add_argument("--min-samples", type=int, default=400, metavar="N")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(
        verb=carried_out_by("upstreams.training.command:manifest_command", counted=True)
    )

    _add_units(verbs)

    verb = verbs.add_parser("pretrain", help="HuBERT pre-training; continues what is in --out")
    verb.add_argument("--preset", required=True, metavar="NAME", help="phase1, phase2 or nano")
    verb.add_argument("--model", required=True, metavar="NAME", help="one of superbit's sizes")
    verb.add_argument("--manifests", type=Path, metavar="DIR", help="train.tsv and valid.tsv")
    verb.add_argument("--labels", type=Path, metavar="DIR", help="train.km and valid.km")
    verb.add_argument("--out", type=Path, metavar="DIR")
    verb.add_argument("--init", type=Path, metavar="DIR", help="a checkpoint to begin with")
    _add_run(verb)
    verb.set_defaults(verb=carried_out_by("upstreams.training.command:pretrain_command"))

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
    _add_run(verb)
    verb.set_defaults(verb=carried_out_by("upstreams.training.distil_command:distil_command"))

    verb = verbs.add_parser("curves", help="the logs of trainings as one figure")
    verb.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a training")
    verb.add_argument("--out", type=Path, default=Path("curves.png"), metavar="FILE")
    verb.set_defaults(verb=carried_out_by("upstreams.training.curves:curves_command"))


def _add_run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    verb.add_argument("--device", default=None)
    verb.add_argument("--tensorboard", action="store_true")
    verb.add_argument("--dry-run", action="store_true", help="print the plan and its time")
    verb.add_argument(
        "--hardware",
        choices=["v100", "l4", "a100", "h100", "h200", "two_cores"],
        default="a100",
        help="of the time that --dry-run estimates",
    )
    verb.add_argument("--devices", type=int, default=1, metavar="N", help="for the same estimate")


def _add_units(verbs: Verbs[argparse.ArgumentParser]) -> None:
    units = verbs.add_parser("units", help="k-means units: fit them, label audio with them")
    units.set_defaults(verb=prints_help(units))
    units_verbs = units.add_subparsers(metavar="VERB")

    fit = units_verbs.add_parser("fit", help="k-means over MFCC, or over a layer of a checkpoint")
    fit.add_argument("--clusters", type=int, required=True, metavar="K")
    fit.add_argument("--layer", type=int, metavar="N")
    fit.add_argument("--fraction", type=float, default=1.0, help="of the utterances")
    fit.add_argument("--seed", type=int, default=0)
    fit.set_defaults(
        verb=carried_out_by("upstreams.training.command:units_fit_command", counted=True)
    )

    label = units_verbs.add_parser("label", help="the unit of every frame, as a .km file")
    label.add_argument("--units", type=Path, required=True, metavar="FILE")
    label.add_argument("--shard", type=int, default=0, metavar="N")
    label.add_argument("--shards", type=int, default=1, metavar="N")
    label.add_argument("--jobs", type=int, default=1, metavar="N")
    label.set_defaults(
        verb=carried_out_by("upstreams.training.command:units_label_command", counted=True)
    )

    for verb in (fit, label):
        verb.add_argument("--manifest", type=Path, required=True, metavar="FILE")
        verb.add_argument("--out", type=Path, required=True, metavar="PATH")
        verb.add_argument("--checkpoint", type=Path, metavar="DIR")
        verb.add_argument("--device", default=None)
