"""An s3prl head, and its optimizer's schedule, SpecAug, fresh weights, cut splits."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from torch import nn

from superbit.benchmark.recurrence import without_packing
from superbit.benchmark.rng import seed_everything


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
    expert = importlib.import_module(f"s3prl.downstream.{downstream}.expert")
    head = expert.DownstreamExpert(
        upstream_dim=upstream_dim,
        upstream_rate=upstream_rate,
        **config,
        expdir=str(expdir),
        seed=seed,
        device=device,
    )
    if device == "cpu":  # elsewhere packed sequences have kernels of their own
        without_packing(head)
    return head.to(device)


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
