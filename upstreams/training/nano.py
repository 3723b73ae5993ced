"""The nano encoders: from speech to what is shipped, units, HuBERT's two phases, twin, package.

A shipped checkpoint is in half precision and says how it came about. Every stage goes on where it
was stopped, and what is done is not done again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from superbit.upstreams import checkpoint, stopping
from superbit.upstreams.errors import InputError, did_you_mean
from superbit.upstreams.files import read_json
from superbit.upstreams.machine import (
    cores,
    cpu_model,
    end_with_parent,
    git_state,
    multiplies_bfloat16,
)
from superbit.upstreams.quantization.policy import load_policy
from superbit.upstreams.spec import TWIN_PREFIX
from superbit.upstreams.stopping import Pace, Stopped
from superbit.upstreams.training.configuration import (
    load_config,
    load_distillation_config,
    model_config,
)
from superbit.upstreams.training.distributed import World, joined
from superbit.upstreams.training.features import UnitFeatures, hidden_source, mfcc_source
from superbit.upstreams.training.manifest import read_manifest
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
LARGEST_BYTES = 3_000_000  # of a shipped file
_OF_A_RUN = ("update", "audio_hours", "seconds", "held_out", "skipped_files", "nan_updates")
# Updates a second of one thread on a server's core with bfloat16 instructions: (pre-training,
# distillation). Without them it is about half.
PACE = {
    "vanilla_nano": (1.8, 1.1),
    "conformer_nano": (1.7, 1.0),
    "squeeze_nano": (1.8, 1.1),
    "sparseformer_dn_nano": (1.8, 1.1),
    "sparseformer_sw_nano": (1.8, 1.1),
}
_SECONDS_BETWEEN_LOOKS = 0.5  # at whether to stop
UNITS_SECONDS = 40.0  # of fitting units of an hour of speech, and labelling it


@dataclass(frozen=True, kw_only=True)
class NanoRecipe:
    """What fixes the checkpoints, given the speech.

    Attributes:
        seed: the first encoder's; the others' follow. The two sparse ones are of one size, so that
            only their seeds tell them apart.
        clusters: k of the MFCC units of phase 1.
        layer: whose units phase 2 predicts, the middle one as HuBERT's; 0 is the encoder's input.
        layer_clusters: k of those.
        start: of phase 2, ``fresh`` weights as HuBERT's, or those of ``phase1``, which at so few
            updates is far ahead (after 500: masked accuracy 16.6 % against 10.7 %).
        updates_1: of phase 1.
        updates_2: of phase 2.
        updates_twin: of the twin's distillation.
    """

    seed: int = 0
    clusters: int = 100
    layer: int = 2
    layer_clusters: int = 100
    start: str = "phase1"
    updates_1: int = 1000
    updates_2: int = 700
    updates_twin: int = 400

    def seed_of(self, name: str) -> int:
        """Return the seed of one encoder."""
        return self.seed + list(nanos()).index(name)

    def command(self) -> str:
        """Return the command line that says so, without folders."""
        options = [
            f"--{field.name.replace('_', '-')} {getattr(self, field.name)}"
            for field in fields(self)
        ]
        return f"superbit nano {' '.join(options)}"


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


def package(
    name: str,
    *,
    runs: Mapping[str, Path],
    out: Path,
    speech: Path,
    units: Sequence[Path],
    seed: int,
    command: str,
    device: str,
) -> list[str]:
    """Write ``OUT/VARIANT/NAME`` and its twin beside it, and return a sentence on each.

    Args:
        name: of the encoder.
        runs: ``phase1``, ``phase2`` and ``twin``, whose last checkpoints are taken.
        out: the package's folder of upstreams, or another.
        speech: what it was trained on.
        units: of phase 1 and of phase 2.
        seed: of the encoder.
        command: what made it.
        device: ``"cpu"`` or ``"cuda"``.
    """
    commit, dirty = git_state(Path(__file__).resolve())
    loaded = {stage: checkpoint.load(run / LAST) for stage, run in runs.items()}
    record = {
        "command": command,
        "commit": commit,
        "dirty": dirty,
        "seed": seed,
        "speech": _speech(speech),
        "units": [_units(file) for file in units],
        "host": _host(device),
        "date": datetime.now(UTC).date().isoformat(),
    }
    said = []
    for shipped, last, stages in (
        (name, "phase2", ("phase1", "phase2")),
        (f"{TWIN_PREFIX}{name}", "twin", ("phase1", "phase2", "twin")),
    ):
        own = loaded[last].training
        training = {
            **{key: value for key, value in own.items() if key not in (*_OF_A_RUN, "units")},
            "units": own.get("units"),
            "made_by": record,
            "stages": {stage: _stage(loaded[stage].training) for stage in stages},
        }
        folder = out / nanos()[name] / shipped
        checkpoint.save(folder, loaded[last].model, dtype=torch.float16, training=training)
        size = (folder / checkpoint.WEIGHTS_FILE).stat().st_size
        if size > LARGEST_BYTES:
            raise RuntimeError(f"{folder} takes {size:,} bytes, more than {LARGEST_BYTES:,}")
        said.append(f"{folder}: {size / 1e6:.2f} MB; {_accuracy(own['held_out'])}")
    return said


def _stage(training: Mapping[str, Any]) -> dict[str, Any]:
    return {key: training[key] for key in ("phase", *_OF_A_RUN) if key in training}


def _speech(folder: Path) -> dict[str, Any]:
    """Return the hours of each manifest, and the recipe of `superbit corpus speech`."""
    found: dict[str, Any] = {
        f"{split}_hours": round(read_manifest(folder / f"{split}.tsv").hours, 4)
        for split in ("train", "valid")
    }
    recipe = folder / "pretraining.json"
    if recipe.is_file():
        found["recipe"] = read_json(recipe, "what superbit corpus speech made")
    return found


def _units(file: Path) -> dict[str, Any]:
    units = load_units(file)
    return {"clusters": len(units.centroids), "of": units.info.kind, "layer": units.info.layer}


def _host(device: str) -> dict[str, Any]:
    return {
        "processor": cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def _accuracy(held_out: Mapping[str, float]) -> str:
    return (
        f"masked accuracy {held_out['masked_accuracy']:.1%} (chance "
        f"{held_out['chance_accuracy']:.1%})"
    )


def estimated_seconds(name: str, recipe: NanoRecipe) -> float:
    """Return how long one encoder takes on one thread, by `PACE`."""
    pretraining, distillation = PACE[name]
    pretrained = (recipe.updates_1 + recipe.updates_2) / pretraining
    return pretrained + recipe.updates_twin / distillation + UNITS_SECONDS


def estimated_total(names: Sequence[str], recipe: NanoRecipe, *, jobs: int) -> float:
    """Return how many seconds some encoders take, ``jobs`` at a time, the longest first."""
    busy = [0.0] * max(1, jobs)
    for name in longest_first(names, recipe):
        busy[busy.index(min(busy))] += estimated_seconds(name, recipe)
    return UNITS_SECONDS + max(busy)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def plan(names: Sequence[str], recipe: NanoRecipe, jobs: int) -> str:
    """Return what will be done and about how long it takes, ``jobs`` encoders at a time."""
    lines = [
        f"  {name}: {recipe.updates_1} + {recipe.updates_2} updates and {recipe.updates_twin} of "
        f"its twin, about {estimated_seconds(name, recipe) / 60:.0f} minutes"
        for name in longest_first(names, recipe)
    ]
    minutes = estimated_total(names, recipe, jobs=jobs) / 60
    lines.append(
        f"{jobs} at a time, one thread each: about {minutes:.0f} minutes (an estimate, of a "
        "server's cores and an hour of speech, with nothing left from earlier)"
    )
    return "\n".join(lines)


def longest_first(names: Sequence[str], recipe: NanoRecipe) -> list[str]:
    """Return the encoders in the order in which they are begun."""
    return sorted(names, key=lambda name: -estimated_seconds(name, recipe))
