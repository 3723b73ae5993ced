"""The ten nano checkpoints, from seeds: five encoders in HuBERT's two phases, and their twins.

    superbit corpus speech --out SPEECH --apart-from CORPORA
    python -m superbit.upstreams.pretraining.nano --speech SPEECH --work WORK

``make nano`` says both. Each encoder has one thread, and several are made at a time. What was
stopped goes on: each training from its last checkpoint, each encoder from its last stage.

    WORK/mfcc.safetensors, WORK/labels/                 units of all encoders' first phase
    WORK/NAME/{phase1,phase2,twin}/                     runs, as `superbit pretrain` leaves them
    WORK/NAME/units.safetensors, WORK/NAME/labels/      units of a layer, for the second phase
    OUT/VARIANT/{NAME,bq_NAME}/                         what is shipped, in half precision
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.machine import cores, end_with_parent
from superbit.upstreams.pretraining.features import mfcc_source
from superbit.upstreams.pretraining.nano_package import VARIANTS
from superbit.upstreams.pretraining.nano_recipe import Recipe, longest_first, plan
from superbit.upstreams.pretraining.nano_stages import Places, make_encoder, make_units


def _begin_worker() -> None:
    end_with_parent()
    torch.set_num_threads(1)


def make_all(
    names: Sequence[str],
    recipe: Recipe,
    places: Places,
    *,
    jobs: int,
    settings: dict[str, Any] | None = None,
    device: str = "cpu",
) -> int:
    """Make the checkpoints of some encoders, and return how many encoders failed.

    Raises:
        InputError: the speech is not there or is wrong.
    """
    began = time.monotonic()
    print(plan(names, recipe, jobs), flush=True)
    make_units(
        mfcc_source(),
        speech=places.speech,
        clusters=recipe.clusters,
        seed=recipe.seed,
        units=places.mfcc_units,
        labels=places.mfcc_labels,
        jobs=jobs,
    )
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come; k-means' threads too
    failed = 0
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_begin_worker
    ) as pool:
        pending = {
            pool.submit(make_encoder, name, recipe, places, settings or {}, device): name
            for name in longest_first(names, recipe)
        }
        for future in as_completed(pending):
            error = future.exception()
            if error is None:
                print("\n".join(future.result()), flush=True)
            else:
                failed += 1
                print(f"{pending[future]} failed: {error}", file=sys.stderr, flush=True)
    minutes = (time.monotonic() - began) / 60
    print(f"{len(names) - failed} of {len(names)} encoders and their twins: {minutes:.1f} minutes")
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the module and return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--speech", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parents[1],
        metavar="DIR",
        help="default: the package's own folders",
    )
    parser.add_argument("--encoders", default=",".join(VARIANTS), metavar="NAME,…")
    parser.add_argument("--jobs", type=int, default=min(len(VARIANTS), cores()), metavar="N")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    for field in fields(Recipe):
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "start":
            parser.add_argument(option, choices=["fresh", "phase1"], default=field.default)
        else:
            parser.add_argument(option, type=int, default=field.default, metavar="N")
    arguments = parser.parse_args(argv)
    recipe = Recipe(**{field.name: getattr(arguments, field.name) for field in fields(Recipe)})
    try:
        names = parse_encoders(arguments.encoders)
        if arguments.dry_run:
            print(plan(names, recipe, arguments.jobs))
            return 0
        places = Places(speech=arguments.speech, work=arguments.work, out=arguments.out)
        failed = make_all(
            names, recipe, places, jobs=max(1, arguments.jobs), device=arguments.device
        )
    except InputError as error:
        print(f"nano: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nano: stopped; the same command goes on.", file=sys.stderr)
        return 130
    return 1 if failed else 0


def parse_encoders(words: str) -> list[str]:
    """Return the nano sizes of a comma-separated list.

    Raises `InputError` for another word.
    """
    names = [word for word in words.split(",") if word]
    for name in names:
        if name not in VARIANTS:
            raise InputError(
                f"{name!r} is no nano encoder; there are {', '.join(VARIANTS)}."
                f"{did_you_mean(name, tuple(VARIANTS))}"
            )
    return names


if __name__ == "__main__":
    sys.exit(main())
