"""The nano encoders: from speech to what is shipped, units, HuBERT's two phases, twin, package.

Every stage goes on where it
was stopped, and what is done is not done again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from superbit.upstreams import checkpoint, stopping
from superbit.upstreams.machine import (
    cores,
    end_with_parent,
    multiplies_bfloat16,
)
from superbit.upstreams.quantization.policy import load_policy
from superbit.upstreams.stopping import Pace, Stopped
from superbit.upstreams.training.configuration import (
    load_config,
    load_distillation_config,
    model_config,
)
from superbit.upstreams.training.distributed import World, joined
from superbit.upstreams.training.features import UnitFeatures, hidden_source, mfcc_source
from superbit.upstreams.training.manifest import read_manifest
from superbit.upstreams.training.nano_package import package
from superbit.upstreams.training.nano_recipe import (
    NanoRecipe,
    longest_first,
    parse_encoders,
    plan,
)
from superbit.upstreams.training.runs import load_teacher, run_distillation, run_pretraining
from superbit.upstreams.training.state import LAST
from superbit.upstreams.training.units import (
    LabelJob,
    fit_units,
    label_manifest,
    load_units,
    save_units,
)
from superbit.upstreams.variant import nanos

POLICY = "w1a1"
WARM_UP, TWIN_WARM_UP = 0.08, 0.1  # of the updates, as in HuBERT and in BiT
_SECONDS_BETWEEN_LOOKS = 0.5  # at whether to stop


@dataclass(frozen=True, kw_only=True)
class NanoFolders:
    """Where things are and go.

    Attributes:
        speech: folder of ``train.tsv`` and ``valid.tsv``, of ``superbit corpus speech``.
        work: folder of units, labels and runs.
        out: checkpoints go to ``OUT/VARIANT/NAME``.
    """

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


def nano_command(arguments: argparse.Namespace) -> int:
    """Run ``superbit nano`` and return its exit status."""
    given = vars(arguments)
    recipe = NanoRecipe(
        **{
            field.name: given[field.name]
            for field in fields(NanoRecipe)
            if given[field.name] is not None
        }
    )
    names = parse_encoders(arguments.encoders) if arguments.encoders else list(nanos())
    jobs = max(1, arguments.jobs or min(len(nanos()), cores()))
    if arguments.dry_run:
        print(plan(names, recipe, jobs))
        return 0
    places = NanoFolders(
        speech=arguments.speech,
        work=arguments.work,
        out=arguments.out or Path(checkpoint.__file__).parent,
    )
    deadline = stopping.deadline_after(arguments.max_hours, began=time.monotonic())
    with stopping.gently(_to_stderr, deadline=deadline) as stop:
        pace = Pace(stop=stop, save_seconds=60 * arguments.checkpoint_minutes)
        failed = make_all(names, recipe, places, jobs=jobs, device=arguments.device, pace=pace)
    return 1 if failed else 0


def make_units(
    source: UnitFeatures,
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


def _are_of(file: Path, source: UnitFeatures, clusters: int) -> bool:
    """Return whether a file holds so many units of just these features."""
    if not file.is_file():
        return False
    found = load_units(file)
    same = (source.kind, source.layer, source.checkpoint)
    info = found.info
    return (info.kind, info.layer, info.checkpoint) == same and len(found.centroids) == clusters


def make_encoder(
    name: str,
    recipe: NanoRecipe,
    places: NanoFolders,
    settings: dict[str, Any],
    device: str,
    pace: Pace | None = None,
) -> list[str]:
    """Train one encoder and its twin, package them, and return a sentence on each.

    Args:
        name: a nano size.
        recipe: what fixes them.
        places: phase 1's labels are there.
        settings: keys of the presets in place of theirs.
        device: ``"cpu"`` or ``"cuda"``.
        pace: when it is saved, and when it stops.

    Raises:
        Stopped: it was asked to; the next call goes on.
    """
    pace = pace or Pace()

    def say(line: str) -> None:
        print(f"{name}: {line}", file=sys.stderr, flush=True)

    own, seed = places.work / name, recipe.seed_of(name)
    first, second = own / "phase1", own / "phase2"
    units, labels = own / "units.safetensors", own / "labels"
    if device == "cpu" and not multiplies_bfloat16():
        settings = {"precision": "fp32", **settings}
        say("in fp32: this processor has no instructions for bf16, which would be slower")
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
                pace=pace,
            )

        changes = {"phase": 1, "units": recipe.clusters, "label_rate": 100}
        pretrain({**changes, "updates": recipe.updates_1}, places.mfcc_labels, first, None)
        if pace.stop():
            raise Stopped
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
            pace=pace,
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
    recipe: NanoRecipe,
    *,
    settings: dict[str, Any],
    speech: Path,
    labels: Path,
    teacher: Path,
    out: Path,
    world: World,
    say: Callable[[str], None],
    pace: Pace,
) -> None:
    updates = recipe.updates_twin
    changes = {"updates": updates, "warm_up_updates": round(TWIN_WARM_UP * updates), **settings}
    outcomes = run_distillation(
        load_distillation_config("distil_nano", changes=changes),
        teacher=load_teacher(teacher / LAST),
        policies=[load_policy(POLICY)],
        manifests=speech,
        labels=labels,
        out=out,
        world=world,
        say=lambda line: say(f"twin: {line}"),
        pace=pace,
    )
    for _ in outcomes:  # each is trained when it is asked for
        pass


_stop_of_parent: list[Any] = []


def _begin_worker(stop: Any) -> None:
    end_with_parent()
    stopping.ignore()
    torch.set_num_threads(1)
    _stop_of_parent[:] = [stop]


def _make_in_worker(
    save_seconds: float,
    name: str,
    recipe: NanoRecipe,
    places: NanoFolders,
    settings: dict[str, Any],
    device: str,
) -> list[str]:
    pace = Pace(stop=_stop_of_parent[0].is_set, save_seconds=save_seconds)
    return make_encoder(name, recipe, places, settings, device, pace)


def make_all(
    names: Sequence[str],
    recipe: NanoRecipe,
    places: NanoFolders,
    *,
    jobs: int,
    settings: dict[str, Any] | None = None,
    device: str = "cpu",
    pace: Pace | None = None,
) -> int:
    """Make the checkpoints of some encoders, and return how many encoders failed.

    Raises:
        InputError: the speech is not there or is wrong.
        Stopped: it was asked to; the next call goes on.
    """
    pace = pace or Pace()
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
    if pace.stop():
        raise Stopped
    failed, spawn = 0, get_context("spawn")
    with stopping.blocked():  # signals are for this process, which tells the others
        stop = spawn.Event()
    with ProcessPoolExecutor(
        jobs, mp_context=spawn, initializer=_begin_worker, initargs=(stop,)
    ) as pool:
        with stopping.blocked():
            pending = {
                pool.submit(
                    _make_in_worker, pace.save_seconds, name, recipe, places, settings or {}, device
                ): name
                for name in longest_first(names, recipe)
            }
        for future in _as_they_end(pending, pace, stop):
            error = future.exception()
            if error is None:
                print("\n".join(future.result()), flush=True)
            elif not isinstance(error, Stopped):
                failed += 1
                print(f"{pending[future]} failed: {error}", file=sys.stderr, flush=True)
    if stop.is_set():
        raise Stopped
    minutes = (time.monotonic() - began) / 60
    print(f"{len(names) - failed} of {len(names)} encoders and their twins: {minutes:.1f} minutes")
    return failed


def _as_they_end(futures: Iterable[Future[Any]], pace: Pace, stop: Any) -> Iterator[Future[Any]]:
    """Yield each when it is done; ``stop`` is set as soon as the pace says so."""
    running = set(futures)
    while running:
        done, running = wait(running, timeout=_SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
        if pace.stop() and not stop.is_set():
            stop.set()
            for future in running:
                future.cancel()
        yield from (future for future in done if not future.cancelled())


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
