"""Hours of audio that feature extraction encodes in an hour, with each way of the front end.

    python -m superbit.benchmark.bench.extraction [--upstreams vanilla_nano,…] [--rounds 3]

One thread. Waveforms of noise of 2 to 10 s pass as they do in a sweep, in batches or alone, without
reading and storing. The variants of an upstream take turns in one process, and medians of their
times are compared. Appends a JSON line an upstream to the file, and prints a table.

``convolutions`` is the front end by torch's convolutions, as in training; ``inference`` its own
ways. A twin is simulated in floats or computes by bits.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from superbit.benchmark.bench.kernels import line_of, medians, noise
from superbit.benchmark.features.source import UpstreamFeatures
from superbit.benchmark.features.waves import passes
from superbit.upstreams import registry
from superbit.upstreams.encoders.frozen import as_trained
from superbit.upstreams.quantization.kernels import choose
from superbit.upstreams.sound import SAMPLE_RATE

OUT = Path("results/bench/extraction.jsonl")
UPSTREAMS = ("vanilla_nano", "bq_vanilla_nano", "vanilla", "bq_vanilla")
UTTERANCES = 10
_SHORTEST, _LONGEST = 2.0, 10.0  # seconds


def lengths() -> list[int]:
    """Return the samples of each utterance, no two alike."""
    step = (_LONGEST - _SHORTEST) / (UTTERANCES - 1)
    return [round((_SHORTEST + step * index) * SAMPLE_RATE) for index in range(UTTERANCES)]


def variants(name: str) -> dict[str, Callable[[], object]]:
    """Return ways to extract all utterances once, by name."""
    expert: Any = registry.load_upstream(name).expert.eval()
    rate = float(expert.get_downsample_rates("hidden_states"))
    features = UpstreamFeatures(expert, rate=rate, pooled=False, device="cpu")
    samples = lengths()
    longest = noise(max(samples))
    batches = [
        [longest[: samples[index]] for index in indices]
        for indices in passes(samples, together=expert.batch_invariant)
    ]

    def extract(*, simulated: bool, trained: bool) -> None:
        with ExitStack() as stack:
            if simulated:
                stack.enter_context(choose.using(choose.OFF))
            if trained:
                stack.enter_context(as_trained())
            for batch in batches:
                features.compute(batch)

    twin = expert.model.policy is not None
    kinds = {"simulated, ": True, "bits, ": False} if twin else {"": False}
    return {
        f"{kind}{way}": partial(extract, simulated=simulated, trained=way == "convolutions")
        for kind, simulated in kinds.items()
        for way in ("convolutions", "inference")
        if simulated or not twin or choose.chosen() is not None
    }


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--upstreams", default=",".join(UPSTREAMS), metavar="NAME,…")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torch's own, about what it will drop one day
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    seconds = sum(lengths()) / SAMPLE_RATE
    print("| hours of audio an hour | convolutions | inference | times as fast |")
    print("|---|---|---|---|")
    with arguments.out.open("a") as file:
        for name in arguments.upstreams.split(","):
            found = medians(variants(name), rounds=arguments.rounds)
            hours = {way: 1e3 * seconds / ms for way, ms in found.items()}
            for way in hours:
                kind, split, _ = way.rpartition("inference")
                if split:
                    old, new = hours[f"{kind}convolutions"], hours[way]
                    label = ", ".join(filter(None, (name, kind.removesuffix(", "))))
                    print(f"| {label} | {old:.1f} | {new:.1f} | {new / old:.2f} × |", flush=True)
            about = {"upstream": name, "seconds": seconds}
            line = line_of("extraction", about, found, bench="extraction")
            file.write(json.dumps(line) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
