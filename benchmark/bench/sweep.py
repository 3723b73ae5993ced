"""Hours of SUPERB's tasks with s3prl's own Runner and with stored features, from timed steps.

    python -m superbit.benchmark.bench.sweep [--tasks KS,…] [--upstreams vanilla,vanilla_nano]
        [--steps N] [--blocks N] [--threads N] [--validate | --whole] [--replace] [--out FILE]
        | --report

Each task gets noise of the real corpora's lengths in their layouts, at the full protocol's batch
sizes. A block is N steps of s3prl's Runner, of our loop live, of our loop on stored features, and
of five learning rates side by side; blocks follow each other, so that all variants see the same
neighbours. Appends a JSON line a block, evaluation and extraction to the file, then prints the
table of everything in it: measure one task at a time if you like. Pooled features are read from
memory, as they fit; frames from disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from superbit.benchmark.bench.formula import (
    FIVE,
    LIVE,
    S3PRL,
    STORED,
    Line,
    Measured,
    Protocol,
    Setting,
    merge,
    seconds,
)
from superbit.benchmark.bench.measuring import Bench, EvaluationTime, five_rates_exist
from superbit.benchmark.bench.report import GOALS, render
from superbit.benchmark.bench.setup import Setup
from superbit.benchmark.corpora import quesst14
from superbit.benchmark.features.demand import assumed_need, splits_read, training_draws
from superbit.benchmark.records.provenance import collect
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import resolve, total_steps
from superbit.upstreams.registry import load_upstream

OUT = Path("results/bench/sweep.jsonl")
UPSTREAMS = "vanilla,vanilla_nano"
VARIANTS = (S3PRL, LIVE, STORED, FIVE)
# Of distinct audio to train on: what extraction is timed on.
MINUTES = 40.0


def superb_protocol(task: str, measured: Measured) -> Protocol:
    """How much a task takes at SUPERB's number of steps and corpus sizes."""
    config = resolve(task, scale="superb")
    stored_hours = assumed_need(task, config, upstream="", runs=1).seconds / 3600
    if task == "QbE":
        return Protocol(
            steps=0,
            stored_hours=stored_hours,
            layers=measured.layers,
            queries=quesst14.EXPECTED["dev"],
            documents=quesst14.EXPECTED[quesst14.DOCUMENTS],
        )
    return Protocol(
        steps=total_steps(config),
        epochs=training_draws(task, config) / TASKS[task].audio.splits["train"][0],
        runs=TASKS[task].folds or 1,
        evaluations={
            split: (times, TASKS[task].audio.splits[split][0])
            for split, times in splits_read(task, config)
            if times
        },
        stored_hours=stored_hours,
    )


def measure(
    bench: Bench, *, blocks: int, variants: Sequence[str], validate: bool
) -> Iterator[Line]:
    """Yield what is measured of one task, as it is measured."""
    stored = {STORED, FIVE} & set(variants)
    if stored:
        yield {"kind": "extraction", **bench.extract()}
    if bench.task == "QbE":
        for variant, evaluation, pair in bench.search():
            yield _evaluation_line(variant, evaluation)
            yield {"kind": "search", "variant": variant, "seconds_a_pair": pair}
        return
    for block in range(blocks):
        for variant in variants:
            evaluate = block == 0 and variant != LIVE
            if variant == S3PRL:
                steps, evaluations = bench.s3prl_block(block, evaluate=evaluate)
            else:
                steps, evaluations = bench.our_block(block, variant, evaluate=evaluate)
            line = {
                "kind": "steps",
                "variant": variant,
                "block": block,
                "steps": steps.steps,
                "seconds_a_step": steps.seconds_a_step,
                "single": steps.single,
                "start": steps.start,
                "files": bench.setup.train_files,
            }
            yield line | ({"parts": steps.parts} if steps.parts is not None else {})
            for evaluation in evaluations:
                yield _evaluation_line(variant, evaluation)
    if STORED in variants:
        yield {"kind": "profile", "hottest": bench.hottest_functions()}
    if validate:
        for variant in (S3PRL, STORED):
            run = bench.run_through(variant, steps=2 * bench.setup.steps)
            yield {"kind": "validation", "variant": variant, **run}


def measure_whole(bench: Bench) -> Iterator[Line]:
    """Yield one run of SUPERB's number of steps on a corpus of SUPERB's size, stored features."""
    run = bench.run_through(STORED, steps=None)
    yield {"kind": "validation", "variant": STORED, "whole": True, **run}


def _evaluation_line(variant: str, evaluation: EvaluationTime) -> Line:
    return {"kind": "evaluation", "variant": variant, **dataclasses.asdict(evaluation)}


def with_prediction(line: Line, before: Sequence[Line]) -> Line:
    """Add to a validation what the formula says, from the lines measured before it."""
    task = line["task"]
    measured = merge(before)[Setting.of(line)][task]
    config = resolve(task, scale="superb")
    config["runner"]["total_steps"] = line["steps"]
    protocol = Protocol(
        steps=line["steps"],
        epochs=max(1.0, training_draws(task, config) / line["files"]),
        evaluations={split: tuple(each) for split, each in line["evaluations"].items()},
        stored_hours=line["hours"],
    )
    return line | {"predicted": seconds(measured, protocol, line["variant"])}


def _about(task: str, upstream: str) -> dict[str, Any]:
    about = collect()
    return {
        "bench": "sweep",
        "task": task,
        "upstream": upstream,
        "machine": f"{about.cpu}, {about.cpu_count} processors",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "s3prl": about.versions["s3prl"],
        "commit": about.commit,
        "dirty": about.dirty,
        "date": datetime.date.today().isoformat(),
        "command": _command(sys.argv),
    }


def _command(words: Sequence[str]) -> str:
    """The command line without the places that are this machine's alone."""
    kept = list(words)
    for option in ("--folder", "--out"):
        if option in kept:
            index = kept.index(option)
            del kept[index : index + 2]
    return f"python {shlex.join(kept)}"


def read_lines(file: Path) -> list[Line]:
    """What was measured so far."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def without(lines: Sequence[Line], about: dict[str, Any]) -> list[Line]:
    """Lines of another task or setting than ``about`` says."""
    return [
        line
        for line in lines
        if line["task"] != about["task"] or Setting.of(line) != Setting.of(about)
    ]


def _require_formula(arguments: argparse.Namespace) -> None:
    """End the program where the formula lacks a figure of what is to be run as a whole."""
    merged = merge(read_lines(arguments.out))
    for upstream in arguments.upstreams.split(","):
        for task in arguments.tasks.split(","):
            if task == "QbE":
                sys.exit("--whole: QbE trains nothing; leave it out of --tasks.")
            measured = merged.get(Setting.of(_about(task, upstream)), {}).get(task) or Measured()
            if seconds(measured, superb_protocol(task, measured), STORED) is None:
                sys.exit(
                    f"--whole compares with the formula, and {arguments.out} lacks {upstream}'s "
                    f"{task}: measure it first, without --whole."
                )


def _write(file: Path, lines: Sequence[Line]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    file.write_text(text, encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", default=",".join(GOALS), metavar="NAME,…")
    parser.add_argument("--upstreams", default=UPSTREAMS, metavar="NAME,…")
    parser.add_argument(
        "--variants",
        default=",".join(VARIANTS[:3]),
        metavar="NAME,…",
        help="s3prl, live, stored; five rates follow stored where they exist",
    )
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="of a block")
    parser.add_argument("--blocks", type=int, default=2, metavar="N")
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        metavar="N",
        help="of distinct audio to train on, at most",
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--validate",
        action="store_true",
        help="also run the tasks from beginning to end, and compare the formula",
    )
    either.add_argument(
        "--whole",
        action="store_true",
        help="instead run the tasks once on stored features at SUPERB's number of steps and "
        "corpus sizes, and compare the formula from what was measured before",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="forget what was measured of these tasks in this setting",
    )
    parser.add_argument("--report", action="store_true", help="measure nothing, print the table")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for temporary corpora")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    return parser.parse_args()  # fmt: skip


def main() -> None:
    """Measure what was asked for, and print the table of all that is known."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    variants = arguments.variants.split(",")
    if STORED in variants and five_rates_exist():
        variants.append(FIVE)
    if arguments.whole:
        if arguments.replace:
            sys.exit("--replace would forget what --whole compares with: leave one of them out.")
        _require_formula(arguments)
    for upstream in [] if arguments.report else arguments.upstreams.split(","):
        for task in arguments.tasks.split(","):
            about = _about(task, upstream)
            known = read_lines(arguments.out)
            if arguments.replace:
                known = without(known, about)
                _write(arguments.out, known)
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                setup = Setup(
                    task,
                    load_upstream(upstream),
                    folder=Path(folder),
                    steps=arguments.steps,
                    minutes=arguments.minutes,
                    threads=arguments.threads,
                    whole=arguments.whole,
                )
                bench = Bench(setup)
                lines = measure(
                    bench,
                    blocks=arguments.blocks,
                    variants=variants,
                    validate=arguments.validate and task != "QbE",
                )
                for line in measure_whole(bench) if arguments.whole else lines:
                    line = _rounded(about | line)
                    if line["kind"] == "validation":
                        line = _rounded(with_prediction(line, known))
                    known.append(line)
                    _write(arguments.out, known)
                    print(_said(line), file=sys.stderr, flush=True)
    print(render(merge(read_lines(arguments.out)), superb_protocol))


def _said(line: Line) -> str:
    figures = {
        key: line[key]
        for key in ("variant", "split", "seconds_a_step", "seconds_an_utterance", "measured",
                    "seconds_a_pair", "seconds_an_hour", "predicted")
        if key in line
    }  # fmt: skip
    return f"{line['task']} {line['upstream']} {line['kind']}: {figures}"


if __name__ == "__main__":
    main()
