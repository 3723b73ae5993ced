"""One task on one upstream as the bench of a sweep needs it: corpus, protocol, runs to be timed."""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from superbit.benchmark.bench.clocks import Clock
from superbit.benchmark.bench.corpora import make_corpus
from superbit.benchmark.bench.formula import FIVE, LIVE
from superbit.benchmark.bench.noise import LENGTHS
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.corpora.paths import load_paths
from superbit.benchmark.features.costs import cost_of
from superbit.benchmark.features.demand import kind_of, training_draws
from superbit.benchmark.features.source import BATCHES, FeatureReader
from superbit.benchmark.features.store import CacheSettings
from superbit.benchmark.features.supply import FeatureUse
from superbit.benchmark.features.waves import KnownFiles
from superbit.benchmark.progress import Reporter
from superbit.benchmark.running.experiment import Experiment
from superbit.benchmark.tasks.binding import RunPlaces
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import resolve
from superbit.upstreams.registry import LoadedUpstream
from superbit.upstreams.rng import seed_everything
from superbit.upstreams.s3prl import denormals

RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
# Little or nothing of these is computed live, so that a step is short: more are measured.
FAST_TASKS = ("KS", "IC", "ER")
# Of dev and test each, 24 of other tasks: three batches where a batch is large, and of KS three
# times the batches whose silence passes through the upstream together.
EVALUATED = {"KS": 768, "IC": 96, "ER": 64, "SF": 96, "PR": 64, "QbE": 16}
DOCUMENTS = 60
_NEVER = 10**9


class Setup:
    """What blocks of one task on one upstream run on.

    Args:
        folder: for corpus, store and what runs write.
        steps: of a block.
        minutes: of distinct audio to train on, at most.
        threads: of torch, and processes of the extraction.
        whole: about as many utterances as SUPERB's corpus, each of its own audio; dev and test
            alike have those of the larger.
    """

    def __init__(
        self,
        task: str,
        upstream: LoadedUpstream,
        *,
        folder: Path,
        steps: int,
        minutes: float,
        threads: int,
        whole: bool = False,
    ) -> None:
        self.task, self.upstream, self.folder, self.steps = task, upstream, folder, steps
        self.threads = threads
        self.protocol = resolve(task, scale="superb")
        self.evaluated = EVALUATED.get(task, 24)
        splits = TASKS[task].audio.splits
        if whole:
            minutes = math.inf
            self.evaluated = max(size for split, (size, _) in splits.items() if split != "train")
        self.work_dir = folder / "work"
        with Reporter().quiet():
            self.cost = cost_of(upstream, CacheSettings(folder=folder / "cache"))
        self.kind = self.cost.kind(kind_of(task, self.protocol))
        pooled = self.kind == "pooled"
        self.train_files = (
            splits["train"][0] if whole else self._files_needed(minutes, links=pooled)
        )
        paths = load_paths(
            make_corpus(
                task,
                folder / "corpus",
                train=self.train_files,
                evaluated=self.evaluated,
                distinct_seconds=60 * minutes if pooled else math.inf,
            )
        )
        build_manifest(TASKS[task].corpus, paths, work_dir=self.work_dir)
        fold = 1 if TASKS[task].folds else None
        self.places = RunPlaces(paths=paths, work_dir=self.work_dir, fold=fold)
        self.files = KnownFiles(self.work_dir)
        self._runs = itertools.count()
        self.clock: Clock | None = None  # of the newest experiment on stored features
        self.config(steps=1)  # writes what a task derives from its corpus

    @property
    def stored_steps(self) -> int:
        """Measured steps of a block on stored features.

        Of tasks whose batches pass through the upstream together, a multiple of so many.
        """
        if self.task not in FAST_TASKS:
            return self.steps
        return math.ceil(3 * self.steps / BATCHES) * BATCHES

    @property
    def stored_warm_up(self) -> int:
        """Steps after which batches that the loader's workers drew at its start are used up."""
        if self.task not in FAST_TASKS:
            return 1
        ahead = 2 * int(self.protocol["downstream_expert"]["datarc"]["num_workers"])
        return 1 + math.ceil(ahead / self.protocol["runner"]["gradient_accumulate_steps"])

    def _files_needed(self, minutes: float, *, links: bool) -> int:
        if self.task == "QbE":
            return DOCUMENTS
        steps = self.stored_steps + self.stored_warm_up
        config = copy.deepcopy(self.protocol)
        config["runner"]["total_steps"] = steps
        draws = training_draws(self.task, config)
        batches = 3 * draws // (steps * config["runner"]["gradient_accumulate_steps"])
        if links:
            return max(draws, batches)
        mean = LENGTHS[TASKS[self.task].corpus]["train"].mean
        return max(min(draws, int(60 * minutes / mean)), batches)

    def config(self, *, steps: int) -> dict[str, Any]:
        """SUPERB's protocol for a few steps without evaluation, with this corpus's paths."""
        config = copy.deepcopy(self.protocol)
        if "runner" in config:
            config["runner"] |= {
                "total_steps": steps, "eval_step": _NEVER, "save_step": _NEVER, "max_keep": 1,
            }  # fmt: skip
            config["runner"].pop("test_step", None)
        TASKS[self.task].binding.bind(config["downstream_expert"], self.places)
        return config

    def runner(self, config: dict[str, Any], *, seed: int, layer: int | None = None) -> Any:
        from s3prl.downstream.runner import Runner

        denormals.flush(False)  # s3prl leaves it at that
        config.setdefault("runner", {})
        args = argparse.Namespace(
            upstream=self.upstream.spec.name, upstream_ckpt=None, upstream_model_config=None,
            upstream_refresh=False, upstream_trainable=False,
            upstream_feature_selection="hidden_states", upstream_layer_selection=layer,
            upstream_feature_normalize=False, device="cpu", seed=seed,
            downstream=TASKS[self.task].downstream, downstream_variant=None, init_ckpt=None,
            expdir=str(self._expdir()), push_to_hf_hub=False,
            evaluate_split=TASKS[self.task].binding.test,
        )  # fmt: skip
        seed_everything(seed)
        with Reporter().quiet():
            return Runner(args, config)

    def experiment(
        self, config: dict[str, Any], variant: str, *, seed: int, cache: str = "cache"
    ) -> Experiment:
        denormals.flush(True)  # as each of our runs does
        if "runner" in config:
            config["runner"].pop("max_keep")
        extra: dict[str, Any] = {"learning_rates": RATES} if variant == FIVE else {}
        if variant != LIVE:
            extra["feature_source"] = self._source(CacheSettings(folder=self.folder / cache))
        self.drop_page_cache()
        seed_everything(seed)
        with Reporter().quiet():
            return Experiment(
                upstream=self.upstream.expert,
                downstream=str(TASKS[self.task].downstream),
                config=config,
                seed=seed,
                expdir=self._expdir(),
                reinitialize_head=TASKS[self.task].binding.reinitialize_head,
                **extra,
            )

    def _source(self, settings: CacheSettings) -> Callable[[Any, float], FeatureReader]:
        use = FeatureUse(settings=settings, kind=self.kind, cost=self.cost)
        opened = use.open(self.upstream, work_dir=self.work_dir, device="cpu")

        def source(expert: Any, rate: float) -> FeatureReader:
            source = opened(expert, rate)
            self.clock = Clock(source, source._upstream)
            return source

        return source

    def _expdir(self) -> Path:
        folder = self.folder / "runs" / str(next(self._runs))
        folder.mkdir(parents=True)
        return folder

    def drop_page_cache(self) -> None:
        """Let frames come from disk: a real store of frames is larger than memory."""
        if self.kind == "pooled":
            return
        gc.collect()  # what an earlier run still maps stays in memory
        for shard in self.folder.glob("*/*/*/*.bin"):
            with shard.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
