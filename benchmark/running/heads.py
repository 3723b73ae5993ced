"""An s3prl head, and its optimizer's schedule, SpecAug, copies, fresh weights, cut splits."""

from __future__ import annotations

import copy
import importlib
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from superbit.upstreams.rng import seed_everything, undrawn
from superbit.upstreams.s3prl.lean_heads import make_lean
from superbit.upstreams.s3prl.padded_lstm import without_packing

# Of torch's optimizers those that update in one pass, on CPUs as well.
_FUSED = ("Adam", "AdamW", "SGD")


def build(
    downstream: str,
    config: dict[str, Any],
    *,
    upstream_dim: int,
    upstream_rate: float,
    expdir: Path,
    seed: int,
    device: str,
) -> Any:
    """Build the expert of ``s3prl.downstream.<downstream>``: datasets, head, loss and metric."""
    # What is imported the first time may draw (rich does, for ASV): a run's batches would depend on
    # what its process ran before.
    with undrawn():
        expert = importlib.import_module(f"s3prl.downstream.{downstream}.expert")
    head = expert.DownstreamExpert(
        upstream_dim=upstream_dim,
        upstream_rate=upstream_rate,
        **config,
        expdir=str(expdir),
        seed=seed,
        device=device,
    )
    make_lean(head)
    if device == "cpu":  # elsewhere packed sequences have kernels of their own
        without_packing(head)
    return head.to(device)


def optimizer(modules: list[nn.Module], config: dict[str, Any]) -> Any:
    """Return s3prl's optimizer of a resolved config, or ``None`` where nothing is trained (QbE)."""
    if "optimizer" not in config:
        return None
    from s3prl.optimizers import get_optimizer

    options = dict(config["optimizer"])
    if options["torch_optim_name"] in _FUSED:
        # A small head's Adam in a dozen passes over each weight costs as much as all else of it.
        options["fused"] = True
    return get_optimizer(modules, config["runner"]["total_steps"], options)


def scheduler(optimizer: Any, config: dict[str, Any]) -> Any:
    """Return s3prl's learning-rate schedule of a resolved config, or ``None``."""
    if not config.get("scheduler"):
        return None
    from s3prl.schedulers import get_scheduler

    return get_scheduler(optimizer, config["runner"]["total_steps"], config["scheduler"])


def specaug(config: dict[str, Any]) -> Any:
    """Return s3prl's SpecAug on features of a resolved config, or ``None``."""
    if not config.get("specaug"):
        return None
    from s3prl.downstream.specaug import SpecAug

    return SpecAug(**config["specaug"])


def copy_of(module: nn.Module, *, folder: Path | None = None, to: Path | None = None) -> Any:
    """Return a module with its own weights that shares all else: datasets, tokenizers, configs.

    Args:
        folder: where an expert writes; the copy writes in the same way into ``to``.
    """
    shared = [value for name, value in vars(module).items() if not name.startswith("_")]
    # An entry in deepcopy's memo stands for the copy: these objects are taken as they are.
    copied = copy.deepcopy(module, {id(value): value for value in shared})
    if folder is not None and to is not None:
        shutil.copytree(folder, to, dirs_exist_ok=True)
        for name, value in vars(copied).items():
            if isinstance(value, str) and value.startswith(str(folder)):
                setattr(copied, name, str(to) + value.removeprefix(str(folder)))
    return copied


def reinitialize(head: nn.Module, *, seed: int) -> None:
    """Draw a head's weights anew from ``seed``."""
    seed_everything(seed)
    for module in head.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()


def limit_trials(dataset: Any, limit: int) -> None:
    """Keep the first ``limit`` trials of each kind (ASV), and the utterances that they name."""
    table = dataset.pair_table
    kept = [t for kind in ("1", "0") for t in [t for t in table if t[0] == kind][:limit]]
    dataset.pair_table = kept
    dataset.dataset = sorted({path for _, *paths in kept for path in paths})
    dataset.necessary_dict = {"spk_paths": dataset.dataset, "pair_table": kept}


def limit_queries(dataset: Any, limit: int) -> None:
    """Keep the first ``limit`` queries (QbE) and ten times as many documents."""
    queries, documents = dataset.data[: dataset.n_queries], dataset.data[dataset.n_queries :]
    dataset.data = [*queries[:limit], *documents[: 10 * limit]]
    dataset.n_queries, dataset.n_docs = len(queries[:limit]), len(documents[: 10 * limit])
