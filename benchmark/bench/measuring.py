"""Seconds of s3prl's unmodified Runner and of our loop, on one task and one upstream.

Step times are differences between the ends of optimizer steps, the same way on both sides; nothing
in s3prl is replaced. Every block is built anew from its own seed, the same for all variants.
"""

from __future__ import annotations

import cProfile
import inspect
import math
import pstats
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from superbit.benchmark.bench.clocks import (
    EvaluationTime,
    Steps,
    now,
    optimizer_steps,
    time_evaluation,
    timed_steps,
)
from superbit.benchmark.bench.formula import LIVE, PARTS, S3PRL, STORED
from superbit.benchmark.bench.setup import DOCUMENTS, FAST_TASKS, Setup
from superbit.benchmark.features.demand import KnownLengths, find_demand, splits_read
from superbit.benchmark.features.extraction import Shape, Workers, extract, measured_rate
from superbit.benchmark.features.source import BATCHES
from superbit.benchmark.features.store import CacheSettings, FeatureStore
from superbit.benchmark.progress import Reporter
from superbit.benchmark.running.experiment import Experiment
from superbit.benchmark.scoring import dtw
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import total_steps

SEED = 1337
_PROFILED_STEPS, _HOTTEST = 3, 8


def five_rates_exist() -> bool:
    """Whether an experiment trains several learning rates side by side."""
    return "learning_rates" in inspect.signature(Experiment).parameters


class Bench:
    """Blocks of steps, evaluations and extraction of one task on one upstream."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.task = setup, setup.task
        self._stored: list[str] = []

    # --- blocks -----------------------------------------------------------------------------------

    def s3prl_block(self, block: int, *, evaluate: bool) -> tuple[Steps, list[EvaluationTime]]:
        """Time steps of s3prl's own Runner, and its evaluations."""
        runner = self.setup.runner(self.setup.config(steps=self.setup.steps + 1), seed=SEED + block)
        with optimizer_steps() as ends, Reporter().quiet():
            began = now()
            runner.train()
            ended = now()
        steps = timed_steps(began, ends, ended, warm_up=1, steps=self.setup.steps)
        return steps, self._evaluations(runner, evaluate)

    def our_block(
        self, block: int, variant: str, *, evaluate: bool
    ) -> tuple[Steps, list[EvaluationTime]]:
        """Time steps of our loop, live or on stored features, and its evaluations."""
        stored = variant != LIVE
        warm_up = self.setup.stored_warm_up if stored else 1
        steps = self.setup.stored_steps if stored else self.setup.steps
        experiment = self.setup.experiment(
            self.setup.config(steps=warm_up + steps), variant, seed=SEED + block
        )
        if experiment.source is not None:
            # A run verifies a checksum once and reads it a hundred times: see `extract`.
            experiment.source._store._checked |= set(self._stored)
        clock = self.setup.clock if stored else None
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
        warm_up = self.setup.stored_warm_up
        # In so many steps waveforms pass through the upstream together once.
        steps = BATCHES if self.task in FAST_TASKS else _PROFILED_STEPS
        config = self.setup.config(steps=warm_up + steps)
        experiment = self.setup.experiment(config, STORED, seed=SEED)
        profile = cProfile.Profile()

        def on_step(step: int, _loss: object) -> None:
            if step == warm_up:
                profile.enable()
            elif step > warm_up + steps - 1:
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
        settings, cost = CacheSettings(folder=self.setup.folder / cache), self.setup.cost
        shutil.rmtree(settings.folder, ignore_errors=True)
        settings.folder.mkdir()
        with Reporter().quiet():
            demand = find_demand(
                self.task,
                self.setup.protocol,
                places=self.setup.places,
                files=self.setup.files,
                rate=self.setup.cost.rate,
                lengths=KnownLengths(settings.folder / "lengths.json"),
            )
        began = now()
        torch.set_num_threads(1)
        workers = Workers(self.setup.threads)
        try:
            computed = extract(
                list(demand.waves.values()),
                upstream=self.setup.upstream,
                kind=self.setup.kind,
                shape=Shape(layers=cost.layers, dim=cost.dim, rate=cost.rate),
                settings=settings,
                invariant=cost.invariant,
                workers=workers,
            )
        finally:
            workers.close()
            torch.set_num_threads(self.setup.threads)
        rate = measured_rate(settings.upstream_folder(self.setup.upstream))
        assert rate is not None
        self._stored = list(demand.waves)
        spent = now() - began
        began = now()
        self._verify(settings.store(self.setup.upstream, self.setup.kind))
        return {
            "seconds_an_hour": rate * 3600 / self.setup.threads,
            "checking_an_hour": (now() - began) / demand.hours,
            "seconds": spent,
            "hours": demand.hours,
            "waveforms": computed,
            "bytes": settings.store(self.setup.upstream, self.setup.kind).bytes,
            "layers": cost.layers,
            "features": self.setup.kind,
            "drawn_share": demand.drawn_share,
        }

    def _verify(self, store: FeatureStore) -> None:
        for key in self._stored:
            store.read(key)

    def search(self) -> Iterator[tuple[str, EvaluationTime, float]]:
        """QbE: yield (variant, features, seconds a pair) of one layer."""
        pairs = DOCUMENTS * self.setup.evaluated
        runner = self.setup.runner(self.setup.config(steps=0), seed=SEED, layer=1)
        theirs = self._evaluation("dev", [runner.downstream.model], lambda: _s3prls(runner, "dev"))
        yield S3PRL, theirs, theirs.scoring / pairs
        experiment = self.setup.experiment(self.setup.config(steps=0), STORED, seed=SEED)
        self.setup.drop_page_cache()
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

    def run_through(self, variant: str, *, steps: int | None) -> dict[str, Any]:
        """Train and test from beginning to end; return the seconds of each part, and what it was.

        Building upstream, datasets and head is left out.

        Args:
            steps: with one evaluation in training; ``None``: SUPERB's, with its evaluations.
        """
        config = self.setup.config(steps=steps or total_steps(self.setup.protocol))
        ours = self.setup.protocol["runner"]
        config["runner"]["eval_step"] = steps or ours["eval_step"]
        if steps is None and "test_step" in ours:
            config["runner"]["test_step"] = ours["test_step"]
        split = TASKS[self.task].binding.test
        spent: dict[str, float] = {}
        hours = 0.0
        train: Callable[[], object]
        test: Callable[[], object]
        if variant == S3PRL:
            runner = self.setup.runner(config, seed=SEED)
            head = runner.downstream.model
            train, test = runner.train, lambda: _s3prls(runner, split)
        else:
            extraction = self.extract("run_through")
            spent["extraction"], hours = extraction["seconds"], extraction["hours"]
            experiment = self.setup.experiment(config, STORED, seed=SEED, cache="run_through")
            head = experiment.head
            train, test = experiment.train, lambda: experiment.evaluate(split)
        with Reporter().quiet():
            for what, act in (("training", train), ("test", test)):
                began = now()
                act()
                spent[what] = now() - began
        return {
            "steps": config["runner"]["total_steps"],
            "measured": sum(spent.values()),
            "measured_parts": spent,
            "hours": hours,
            "files": self.setup.train_files,
            "evaluations": {
                each: [times, len(head.get_dataloader(each).dataset)]
                for each, times in splits_read(self.task, config)
                if times
            },
        }

    def _evaluations(self, trained: Any, wanted: bool) -> list[EvaluationTime]:
        """Time every split that the protocol evaluates."""
        found = []
        for split, times in splits_read(self.task, self.setup.protocol) if wanted else ():
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

            found.append(self._evaluation(split, heads, partial(evaluate, split), ours=ours))
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
            utterances=DOCUMENTS + self.setup.evaluated if layered else None,
            together=BATCHES if self.task == "KS" and ours else 1,
            search_follows=self.task == "QbE",
        )


def _s3prls(runner: Any, split: str) -> None:
    """Evaluate as s3prl's command line does."""
    runner.args.evaluate_split = split
    with Reporter().quiet():
        runner.evaluate()
