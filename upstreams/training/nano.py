"""The stages of one nano encoder: units, HuBERT's two phases, the twin, what is shipped."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.machine import cores, end_with_parent
from superbit.upstreams.training.command import run_pretraining
from superbit.upstreams.training.configuration import (
    load_config,
    load_distillation_config,
    model_config,
)
from superbit.upstreams.training.distil_command import (
    load_teacher,
    parse_policies,
    run_distillation,
)
from superbit.upstreams.training.distributed import World, joined
from superbit.upstreams.training.features import FeatureSource, hidden_source, mfcc_source
from superbit.upstreams.training.labelling import LabelJob, label_manifest
from superbit.upstreams.training.manifest import read_manifest
from superbit.upstreams.training.nano_recipe import Recipe, longest_first, package, plan
from superbit.upstreams.training.state import LAST
from superbit.upstreams.training.units import fit_units, load_units, save_units
from superbit.upstreams.variant import nanos

POLICY = "w1a1"
WARM_UP, TWIN_WARM_UP = 0.08, 0.1  # of the updates, as in HuBERT and in BiT


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things are and go: see the module."""

    speech: Path
    work: Path
    out: Path

    @property
    def mfcc_units(self) -> Path:
        """Units of phase 1."""
        return self.work / "mfcc.safetensors"

    @property
    def mfcc_labels(self) -> Path:
        """Folder of phase 1's labels."""
        return self.work / "labels"


def make_units(
    source: FeatureSource,
    *,
    speech: Path,
    clusters: int,
    seed: int,
    units: Path,
    labels: Path,
    checkpoint: Path | None = None,
    jobs: int = 1,
) -> None:
    """Fit units and label both manifests with them; what is there already is used again."""
    if not _are_of(units, source, clusters):
        found, _ = fit_units(
            read_manifest(speech / "train.tsv"), source, clusters=clusters, seed=seed
        )
        save_units(units, found)
    for split in ("train", "valid"):
        job = LabelJob(
            manifest=speech / f"{split}.tsv",
            units=units,
            checkpoint=checkpoint,
            out=labels / f"{split}.km",
            device="cpu",
        )
        label_manifest(job, jobs=jobs)


def _are_of(file: Path, source: FeatureSource, clusters: int) -> bool:
    """Return whether a file holds so many units of just these features."""
    if not file.is_file():
        return False
    found = load_units(file)
    same = (source.kind, source.layer, source.checkpoint)
    info = found.info
    return (info.kind, info.layer, info.checkpoint) == same and len(found.centroids) == clusters


def make_encoder(
    name: str, recipe: Recipe, places: Places, settings: dict[str, Any], device: str
) -> list[str]:
    """Train one encoder and its twin, package them, and return a sentence on each.

    Args:
        name: a nano size.
        recipe: what fixes them.
        places: phase 1's labels are there.
        settings: keys of the presets in place of theirs.
        device: ``"cpu"`` or ``"cuda"``.
    """

    def say(line: str) -> None:
        print(f"{name}: {line}", file=sys.stderr, flush=True)

    own, seed = places.work / name, recipe.seed_of(name)
    first, second = own / "phase1", own / "phase2"
    units, labels = own / "units.safetensors", own / "labels"
    settings = {"seed": seed, **settings}
    with joined(device) as world:

        def pretrain(changes: dict[str, Any], labels: Path, out: Path, init: Path | None) -> None:
            warm_up = {"warm_up_updates": round(WARM_UP * changes["updates"])}
            config = load_config("nano", changes={**changes, **warm_up, **settings})
            run_pretraining(
                config,
                name=name,
                size=model_config(config, name, "nano"),
                manifests=places.speech,
                labels=labels,
                out=out,
                world=world,
                init=init,
                say=lambda line: say(f"{out.name}: {line}"),
            )

        changes = {"phase": 1, "units": recipe.clusters, "label_rate": 100}
        pretrain({**changes, "updates": recipe.updates_1}, places.mfcc_labels, first, None)
        say(f"units of layer {recipe.layer}")
        make_units(
            hidden_source(first / LAST, layer=recipe.layer, device="cpu"),
            speech=places.speech,
            clusters=recipe.layer_clusters,
            seed=seed,
            units=units,
            labels=labels,
            checkpoint=first / LAST,
        )
        changes = {"phase": 2, "units": recipe.layer_clusters, "label_rate": 50}
        init = first / LAST if recipe.start == "phase1" else None
        pretrain({**changes, "updates": recipe.updates_2}, labels, second, init)
        _make_twin(
            recipe,
            settings=settings,
            speech=places.speech,
            labels=labels,
            teacher=second,
            out=own / "twin",
            world=world,
            say=say,
        )
    return package(
        name,
        runs={"phase1": first, "phase2": second, "twin": own / "twin" / POLICY},
        out=places.out,
        speech=places.speech,
        units=[places.mfcc_units, units],
        seed=seed,
        command=recipe.command(),
        device=device,
    )


def _make_twin(
    recipe: Recipe,
    *,
    settings: dict[str, Any],
    speech: Path,
    labels: Path,
    teacher: Path,
    out: Path,
    world: World,
    say: Callable[[str], None],
) -> None:
    updates = recipe.updates_twin
    changes = {"updates": updates, "warm_up_updates": round(TWIN_WARM_UP * updates), **settings}
    outcomes = run_distillation(
        load_distillation_config("distil_nano", changes=changes),
        teacher=load_teacher(teacher / LAST),
        policies=parse_policies(POLICY),
        manifests=speech,
        labels=labels,
        out=out,
        world=world,
        say=lambda line: say(f"twin: {line}"),
    )
    for _ in outcomes:  # each is trained when it is asked for
        pass


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
    parser.add_argument("--encoders", default=",".join(nanos()), metavar="NAME,…")
    parser.add_argument("--jobs", type=int, default=min(len(nanos()), cores()), metavar="N")
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
        if name not in nanos():
            raise InputError(
                f"{name!r} is no nano encoder; there are {', '.join(nanos())}."
                f"{did_you_mean(name, tuple(nanos()))}"
            )
    return names


if __name__ == "__main__":
    sys.exit(main())
