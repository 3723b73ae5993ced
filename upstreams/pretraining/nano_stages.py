"""The stages of one nano encoder: units, HuBERT's two phases, the twin, what is shipped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from superbit.upstreams.pretraining.command import run_pretraining
from superbit.upstreams.pretraining.configuration import (
    load_config,
    load_distillation_config,
    model_config,
)
from superbit.upstreams.pretraining.distil_command import (
    load_teacher,
    parse_policies,
    run_distillation,
)
from superbit.upstreams.pretraining.distributed import World, joined
from superbit.upstreams.pretraining.features import FeatureSource, hidden_source
from superbit.upstreams.pretraining.labelling import LabelJob, label_manifest
from superbit.upstreams.pretraining.manifest import read_manifest
from superbit.upstreams.pretraining.nano_package import package
from superbit.upstreams.pretraining.nano_recipe import Recipe
from superbit.upstreams.pretraining.state import LAST
from superbit.upstreams.pretraining.units import fit_units, load_units, save_units

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
