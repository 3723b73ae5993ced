"""Seconds of s3prl's unmodified Runner and of our loop, on one task and one upstream.

Step times are differences between the ends of optimizer steps, the same way on both sides; nothing
in s3prl is replaced. Every block is built anew from its own seed, the same for all variants.
"""

from __future__ import annotations

import argparse
import copy
import cProfile
import inspect
import itertools
import math
import os
import pstats
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from sweep_clocks import (
    Clock,
    EvaluationTime,
    Steps,
    now,
    optimizer_steps,
    time_evaluation,
    timed_steps,
)
from sweep_corpora import LENGTHS, make_corpus
from sweep_report import FIVE, LIVE, PARTS, S3PRL, STORED

from superbit.benchmark.bindings import BINDINGS, Places
from superbit.benchmark.configs import resolve, total_steps
from superbit.benchmark.corpora.manifest import build_manifest
from superbit.benchmark.corpora.paths import load_paths
from superbit.benchmark.experiment import Experiment
from superbit.benchmark.features.ahead import BATCHES
from superbit.benchmark.features.cache import CacheSettings
from superbit.benchmark.features.demand import (
    Lengths,
    find_demand,
    kind_of,
    splits_read,
    training_draws,
)
from superbit.benchmark.features.extraction import Shape, extract, measured_rate
from superbit.benchmark.features.preparing import cost_of
from superbit.benchmark.features.sizes import SIZES
from superbit.benchmark.features.source import FeatureSource
from superbit.benchmark.features.store import FeatureStore
from superbit.benchmark.features.storing import FeatureUse
from superbit.benchmark.features.waves import KnownFiles
from superbit.benchmark.features.workers import Workers
from superbit.benchmark.progress import Reporter
from superbit.benchmark.rng import seed_everything
from superbit.benchmark.scoring import dtw
from superbit.benchmark.tasks import TASKS
from superbit.upstreams.registry import LoadedUpstream

SEED = 1337
RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
# Nothing of these is computed live, so that a step is short: more of them are measured.
FAST_TASKS = ("KS", "IC", "ER")
# Of dev and test each, 24 of other tasks: three batches where a batch is large, and of KS three
# times the batches whose silence passes through the upstream together.
EVALUATED = {"KS": 768, "IC": 96, "ER": 64, "SF": 96, "PR": 64, "QbE": 16}
DOCUMENTS = 60
_PROFILED_STEPS, _HOTTEST = 3, 8
_NEVER = 10**9


def five_rates_exist() -> bool:
    """Whether an experiment trains several learning rates side by side."""
    return "learning_rates" in inspect.signature(Experiment).parameters


class Bench:
    """One task on one upstream: the corpus, the store, and blocks of steps.

    Args:
        folder: for corpus, store and what runs write.
        steps: of a block.
        minutes: of distinct audio to train on, at most.
        threads: of torch, and processes of the extraction.
        whole: as many utterances as SUPERB's corpus, each of its own audio.
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
        self._stored: list[str] = []
        self.protocol = resolve(task, scale="superb")
        self.evaluated = EVALUATED.get(task, 24)
        if whole:
            minutes = math.inf
            self.evaluated = max(SIZES[task][split][0] for split in SIZES[task] if split != "train")
        self.work_dir = folder / "work"
        with Reporter().quiet():
            self.cost = cost_of(upstream, CacheSettings(folder=folder / "cache"))
        self.kind = self.cost.kind(kind_of(task, self.protocol))
        pooled = self.kind == "pooled"
        self.train_files = (
            SIZES[task]["train"][0] if whole else self._files_needed(minutes, links=pooled)
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
        self.places = Places(paths=paths, work_dir=self.work_dir, fold=1 if task == "ER" else None)
        self.files = KnownFiles(self.work_dir)
        self._runs = itertools.count()
        self._clock: Clock | None = None  # of the newest experiment on stored features
        self._config(steps=1)  # writes what a task derives from its corpus

    @property
    def stored_steps(self) -> int:
        """Measured steps of a block on stored features."""
        return 3 * self.steps if self.task in FAST_TASKS else self.steps

    @property
    def stored_warm_up(self) -> int:
        """Steps after which batches that the loader's workers drew at its start are used up."""
        if self.task not in FAST_TASKS:
            return 1
        ahead = 2 * int(self.protocol["downstream_expert"]["datarc"]["num_workers"])
        return 1 + math.ceil(ahead / self.protocol["runner"]["gradient_accumulate_steps"])

    # --- blocks -----------------------------------------------------------------------------------

    def s3prl_block(self, block: int, *, evaluate: bool) -> tuple[Steps, list[EvaluationTime]]:
        """Time steps of s3prl's own Runner, and its evaluations."""
        runner = self._runner(self._config(steps=self.steps + 1), seed=SEED + block)
        with optimizer_steps() as ends, Reporter().quiet():
            began = now()
            runner.train()
            ended = now()
        steps = timed_steps(began, ends, ended, warm_up=1, steps=self.steps)
        return steps, self._evaluations(runner, evaluate)

    def our_block(
        self, block: int, variant: str, *, evaluate: bool
    ) -> tuple[Steps, list[EvaluationTime]]:
        """Time steps of our loop, live or on stored features, and its evaluations."""
        stored = variant != LIVE
        warm_up = self.stored_warm_up if stored else 1
        steps = self.stored_steps if stored else self.steps
        experiment = self._experiment(
            self._config(steps=warm_up + steps), variant, seed=SEED + block
        )
        if stored:
            # A run verifies a checksum once and reads it a hundred times: see `extract`.
            self._verify(experiment.source._store)
        clock = self._clock if stored else None
        ends: list[float] = []
        laps: list[dict[str, float]] = []

        def on_step(_step: int, _loss: object) -> None:
            ends.append(now())
            if clock is not None and len(ends) in (warm_up, warm_up + steps):
                laps.append(clock.spent())

        with Reporter().quiet():
            began = now()
            experiment.train(on_step=on_step)
            ended = now()
        parts = None
        if laps:
            first, last = laps
            parts = {part: (last[part] - first[part]) / steps for part in PARTS}
        timed = timed_steps(began, ends, ended, warm_up=warm_up, steps=steps, parts=parts)
        return timed, self._evaluations(experiment, evaluate)

    def hottest_functions(self) -> list[str]:
        """Profile a few steps on stored features: functions by their own share of the time."""
        warm_up = self.stored_warm_up
        config = self._config(steps=warm_up + _PROFILED_STEPS)
        experiment = self._experiment(config, STORED, seed=SEED)
        profile = cProfile.Profile()

        def on_step(step: int, _loss: object) -> None:
            if step == warm_up:
                profile.enable()
            elif step > warm_up + _PROFILED_STEPS - 1:
                profile.disable()

        with Reporter().quiet():
            experiment.train(on_step=on_step)
        entries = pstats.Stats(profile).stats  # type: ignore[attr-defined]
        own = {where: entry[2] for where, entry in entries.items()}
        total = sum(own.values())
        return [
            f"{name} ({Path(file).name}) {100 * own[file, line, name] / total:.0f} %"
            for file, line, name in sorted(own, key=lambda where: -own[where])[:_HOTTEST]
        ]

    def extract(self, cache: str = "cache") -> dict[str, Any]:
        """Compute the task's features anew; return seconds for an hour of audio, and what it was.

        One process a thread, as a sweep does it: the rate of one core counts for each of them.
        """
        settings, cost = CacheSettings(folder=self.folder / cache), self.cost
        shutil.rmtree(settings.folder, ignore_errors=True)
        settings.folder.mkdir()
        with Reporter().quiet():
            demand = find_demand(
                self.task,
                self.protocol,
                places=self.places,
                files=self.files,
                rate=self.cost.rate,
                lengths=Lengths(settings.folder / "lengths.json"),
            )
        began = now()
        torch.set_num_threads(1)
        workers = Workers(self.threads)
        try:
            computed = extract(
                list(demand.waves.values()),
                upstream=self.upstream,
                kind=self.kind,
                shape=Shape(layers=cost.layers, dim=cost.dim, rate=cost.rate),
                settings=settings,
                invariant=cost.invariant,
                workers=workers,
            )
        finally:
            workers.close()
            torch.set_num_threads(self.threads)
        rate = measured_rate(settings.upstream_folder(self.upstream))
        assert rate is not None
        self._stored = list(demand.waves)
        spent = now() - began
        began = now()
        self._verify(settings.store(self.upstream, self.kind))
        return {
            "seconds_an_hour": rate * 3600 / self.threads,
            "checking_an_hour": (now() - began) / demand.hours,
            "seconds": spent,
            "hours": demand.hours,
            "waveforms": computed,
            "bytes": settings.store(self.upstream, self.kind).bytes,
            "layers": cost.layers,
            "features": self.kind,
            "drawn_share": demand.drawn_share,
        }

    def _verify(self, store: FeatureStore) -> None:
        for key in self._stored:
            store.read(key)

    def search(self) -> Iterator[tuple[str, EvaluationTime, float]]:
        """QbE: yield (variant, features, seconds a pair) of one layer."""
        pairs = DOCUMENTS * self.evaluated
        runner = self._runner(self._config(steps=0), seed=SEED, layer=1)
        theirs = self._evaluation("dev", [runner.downstream.model], lambda: _s3prls(runner, "dev"))
        yield S3PRL, theirs, theirs.scoring / pairs
        experiment = self._experiment(self._config(steps=0), STORED, seed=SEED)
        self._drop_page_cache()
        ours = self._evaluation(
            "dev", [experiment.head], lambda: experiment.collect_layers("dev"), layered=True
        )
        records = experiment.layer_records[1]
        named = dict(
            zip(records["audio_names"], (f.numpy() for f in records["features"]), strict=True)
        )
        names, queries = list(named), experiment.head.test_dataset.n_queries
        spent = math.inf
        for _ in range(2):  # the first time includes compilation
            began = now()
            found = dtw.standardize(
                {name: named[name] for name in names[:queries]},
                {name: named[name] for name in names[queries:]},
            )
            dtw.score_queries(*found)
            spent = now() - began
        yield STORED, ours, spent / pairs

    def run_through(self, variant: str, *, steps: int | None) -> dict[str, float]:
        """Train and test from beginning to end; return the seconds of each part.

        Building upstream, datasets and head is left out.

        Args:
            steps: with one evaluation in training; ``None``: SUPERB's, with its evaluations.
        """
        config = self._config(steps=steps or total_steps(self.protocol))
        ours = self.protocol["runner"]
        config["runner"]["eval_step"] = steps or ours["eval_step"]
        if steps is None and "test_step" in ours:
            config["runner"]["test_step"] = ours["test_step"]
        split = BINDINGS[self.task].test
        spent = {}
        train: Callable[[], object]
        test: Callable[[], object]
        if variant == S3PRL:
            runner = self._runner(config, seed=SEED)
            train, test = runner.train, lambda: _s3prls(runner, split)
        else:
            spent["extraction"] = self.extract("run_through")["seconds"]
            experiment = self._experiment(config, STORED, seed=SEED, cache="run_through")
            train, test = experiment.train, lambda: experiment.evaluate(split)
        with Reporter().quiet():
            for what, act in (("training", train), ("test", test)):
                began = now()
                act()
                spent[what] = now() - began
        return spent

    # --- parts ------------------------------------------------------------------------------------

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

    def _config(self, *, steps: int) -> dict[str, Any]:
        """SUPERB's protocol for a few steps without evaluation, with this corpus's paths."""
        config = copy.deepcopy(self.protocol)
        if "runner" in config:
            config["runner"] |= {
                "total_steps": steps, "eval_step": _NEVER, "save_step": _NEVER, "max_keep": 1,
            }  # fmt: skip
            config["runner"].pop("test_step", None)
        BINDINGS[self.task].bind(config["downstream_expert"], self.places)
        return config

    def _runner(self, config: dict[str, Any], *, seed: int, layer: int | None = None) -> Any:
        from s3prl.downstream.runner import Runner

        torch.set_flush_denormal(False)  # s3prl leaves it at that
        config.setdefault("runner", {})
        args = argparse.Namespace(
            upstream=self.upstream.spec.name, upstream_ckpt=None, upstream_model_config=None,
            upstream_refresh=False, upstream_trainable=False,
            upstream_feature_selection="hidden_states", upstream_layer_selection=layer,
            upstream_feature_normalize=False, device="cpu", seed=seed,
            downstream=TASKS[self.task].downstream, downstream_variant=None, init_ckpt=None,
            expdir=str(self._expdir()), push_to_hf_hub=False,
            evaluate_split=BINDINGS[self.task].test,
        )  # fmt: skip
        seed_everything(seed)
        with Reporter().quiet():
            return Runner(args, config)

    def _experiment(
        self, config: dict[str, Any], variant: str, *, seed: int, cache: str = "cache"
    ) -> Experiment:
        torch.set_flush_denormal(True)  # as each of our runs does
        if "runner" in config:
            config["runner"].pop("max_keep")
        extra: dict[str, Any] = {"learning_rates": RATES} if variant == FIVE else {}
        if variant != LIVE:
            extra["feature_source"] = self._source(CacheSettings(folder=self.folder / cache))
        self._drop_page_cache()
        seed_everything(seed)
        with Reporter().quiet():
            return Experiment(
                upstream=self.upstream.expert,
                downstream=str(TASKS[self.task].downstream),
                config=config,
                seed=seed,
                expdir=self._expdir(),
                reinitialize_head=BINDINGS[self.task].reinitialize_head,
                **extra,
            )

    def _source(self, settings: CacheSettings) -> Callable[[Any, float], FeatureSource]:
        use = FeatureUse(settings=settings, kind=self.kind, cost=self.cost)
        opened = use.open(self.upstream, work_dir=self.work_dir, device="cpu")

        def source(expert: Any, rate: float) -> FeatureSource:
            source = opened(expert, rate)
            self._clock = Clock(source, source._upstream)
            return source

        return source

    def _expdir(self) -> Path:
        folder = self.folder / "runs" / str(next(self._runs))
        folder.mkdir(parents=True)
        return folder

    def _drop_page_cache(self) -> None:
        """Let frames come from disk: a real store of frames is larger than memory."""
        if self.kind == "pooled":
            return
        for shard in self.folder.glob("cache/*/*/*.bin"):
            with shard.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _evaluations(self, trained: Any, wanted: bool) -> list[EvaluationTime]:
        """Time every split that the protocol evaluates."""
        found = []
        for split, times in splits_read(self.task, self.protocol) if wanted else ():
            if not times:
                continue
            ours = isinstance(trained, Experiment)
            if ours:
                heads = [each.head for each in getattr(trained, "candidates", ())]
                heads, evaluate = heads or [trained.head], trained.evaluate
            else:
                heads = [trained.downstream.model]

                def evaluate(split: str) -> None:
                    _s3prls(trained, split)

            found.append(
                self._evaluation(split, heads, lambda e=evaluate, s=split: e(s), ours=ours)
            )
        return found

    def _evaluation(
        self,
        split: str,
        heads: list[Any],
        evaluate: Callable[[], object],
        *,
        ours: bool = False,
        layered: bool = False,
    ) -> EvaluationTime:
        return time_evaluation(
            split,
            heads,
            evaluate,
            utterances=DOCUMENTS + self.evaluated if layered else None,
            together=BATCHES if self.task == "KS" and ours else 1,
            search_follows=self.task == "QbE",
        )


def _s3prls(runner: Any, split: str) -> None:
    """Evaluate as s3prl's command line does."""
    runner.args.evaluate_split = split
    with Reporter().quiet():
        runner.evaluate()
