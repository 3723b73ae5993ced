"""How fast twins compute by bits, beside their FP32 models and what else this machine offers.

    python -m superbit.benchmark.bench.kernels [--seconds 10] [--only linear,encoder,waveform,…]

One thread. All of one line's variants take turns in one process, round by round, and medians are
compared: ratios, not times, carry over to another day. Variants: torch's FP32, FP32 with weights
prepacked by oneDNN, bfloat16, int8 (of the FP32 model); the twin in simulation and by bits. Appends
a JSON line each to the file, and prints a table.

- ``linear``: 500 frames through one layer, floats in, bits out for the twin.
- ``encoder``: what comes behind the front end, for so many seconds of audio.
- ``waveform``: from samples to all hidden states, with the front end of inference on both sides.
- ``front end``: of FP32 models and twins alike, by torch's convolutions as in training and by the
  ways of inference: FastConv, the positional convolution, and both over `LENGTHS` utterances of one
  length and of as many lengths.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from superbit.benchmark.profiling.measuring import (
    PrepackedLinear,
    bfloat16,
    dynamic_int8,
    prepacked,
)
from superbit.benchmark.records.provenance import collect
from superbit.upstreams import registry
from superbit.upstreams.encoders.frozen import as_trained
from superbit.upstreams.hubert import Hubert
from superbit.upstreams.quantization.bits import linear as bit_linear
from superbit.upstreams.quantization.elastic import ElasticQuantizer
from superbit.upstreams.quantization.kernels import choose
from superbit.upstreams.quantization.layers import BinarizedLinear, weights_held
from superbit.upstreams.quantization.policy import Binarization
from superbit.upstreams.quantization.thresholds import float_thresholds
from superbit.upstreams.sound import SAMPLE_RATE

OUT = Path("results/bench/kernels.jsonl")
SHAPES = ((768, 768), (768, 3072), (3072, 768), (256, 256), (256, 1024), (512, 512), (512, 2048))
FRAMES = 500
UPSTREAMS = (
    "vanilla",
    "conformer_s",
    "squeeze_xs",
    "sparseformer_dn_s",
    "sparseformer_sw_s",
    "vanilla_nano",
)
WHAT = ("linear", "encoder", "waveform", "front end")
LENGTHS = 50
Variants = Mapping[str, Callable[[], object]]


def medians(variants: Variants, *, rounds: int) -> dict[str, float]:
    """Return milliseconds of each variant, taken in turns, after one call of each that is not."""
    for call in variants.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            began = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: round(statistics.median(found), 4) for name, found in times.items()}


def linear_variants(inputs: int, outputs: int) -> Variants:
    """One layer on `FRAMES` frames; the twin's output is read as bits by a quantizer of ±1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, FRAMES, inputs, generator=generator)
    layer = nn.Linear(inputs, outputs)
    signed = Binarization(bits=1, set="signed", shift=True)
    twin = BinarizedLinear(
        layer, weight=Binarization(bits=1, set="signed"), input=signed, frames=None
    )
    reader = ElasticQuantizer(bits=1, signed=True, shift_shape=(outputs,))
    assert twin.input_quantizer is not None
    twin.input_quantizer.calibrate(x)
    reader.calibrate(layer(x))
    variants: dict[str, Callable[[], object]] = {
        "fp32": lambda: layer(x),
        "onednn": lambda: ready(x),
        "bf16": lambda: half(halved),
        "int8": lambda: eight(x),
    }
    ready = PrepackedLinear(layer)
    half, halved = bfloat16(layer), x.bfloat16()
    eight = dynamic_int8(nn.Sequential(layer))
    algorithm = choose.algorithm()
    if algorithm is not None:
        packed = bit_linear.integers_of(twin, algorithm, after=float_thresholds(reader, outputs))
        variants["bits"] = lambda: bit_linear.bits(packed, bit_linear.binarized(packed, x[0]))
    return variants


def model_variants(name: str, *, seconds: float, whole: bool) -> Variants:
    """A model and its twin, from waveforms (``whole``) or from the encoder's input on."""
    expert, twin = (registry.load_upstream(spec).expert.eval() for spec in (name, f"bq_{name}"))
    waveform = noise(round(seconds * SAMPLE_RATE))

    def call(expert: Any) -> Callable[[], object]:
        if whole:
            return lambda: expert.model([waveform])
        model = expert.model
        kind = model.mask_emb.dtype
        features, _ = model.features([waveform])
        x = model.project(features)
        x = model.encoder_norm(x + model.position(x)).to(kind)
        return lambda: model.encoder(x, None)

    def simulated() -> object:
        with choose.using(choose.OFF), weights_held(twin):
            return of_twin()

    variants = {
        "fp32": call(expert),
        "onednn": call(prepacked(expert)),
        "bf16": call(bfloat16(expert)),
        "int8": call(dynamic_int8(expert)),
        "simulated": simulated,
    }
    of_twin = call(twin)
    if choose.algorithm() is not None:
        variants["bits"] = of_twin
    return variants


def front_end_variants(model: Hubert, *, seconds: float, part: str) -> Variants:
    """FastConv or the positional convolution of a model, of one utterance."""
    waveform = noise(round(seconds * SAMPLE_RATE))
    x = model.project(model.features([waveform])[0])

    def inference() -> object:
        return model.features([waveform]) if part == "FastConv" else model.position(x)

    def convolutions() -> object:
        with as_trained():
            return inference()

    return {"convolutions": convolutions, "inference": inference}


def length_variants(model: Hubert) -> Variants:
    """The whole front end over utterances of 2 to 4 s, and over as many of 3 s."""
    samples = [2 * SAMPLE_RATE + 2 * SAMPLE_RATE * index // LENGTHS for index in range(LENGTHS)]
    equal = [sum(samples) // LENGTHS] * LENGTHS
    longest = noise(max(samples))

    def inference(lengths: list[int]) -> None:
        for length in lengths:
            model.position(model.project(model.features([longest[:length]])[0]))

    def convolutions(lengths: list[int]) -> None:
        with as_trained():
            inference(lengths)

    return {
        f"{way.__name__}, {which}": partial(way, lengths)
        for way in (convolutions, inference)
        for which, lengths in (("one length", equal), ("many lengths", samples))
    }


def noise(samples: int) -> Tensor:
    """Return a waveform of so many samples, the same at every call."""
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


def line_of(
    what: str, about: Mapping[str, object], found: Mapping[str, float], *, bench: str = "kernels"
) -> dict[str, Any]:
    """Return what is recorded of one comparison by a module of this package."""
    kernel, machine = choose.chosen(), collect([])
    return {
        "bench": bench,
        "what": what,
        **about,
        "milliseconds": dict(found),
        "kernel": None if kernel is None else f"{kernel.name}, {8 * (kernel.width() or 0)} bits",
        "threads": torch.get_num_threads(),
        "machine": machine.cpu or machine.platform,
        "features": sorted(
            feature
            for feature in choose.features()
            if feature.startswith(("avx", "amx")) or feature in ("popcnt", "fma", "neon")
        ),
        "torch": torch.__version__,
        "commit": machine.commit,
        "dirty": machine.dirty,
        "date": datetime.date.today().isoformat(),
        "command": f"python -m superbit.benchmark.bench.{bench} {shlex.join(sys.argv[1:])}".strip(),
    }


def table_row(label: str, found: Mapping[str, float]) -> str:
    """Return one row: milliseconds by bits, and how many times as long the others take."""
    bits = found.get("bits")
    ratios = [
        f"{found[name] / bits:.2f} ×" if bits and name in found else "—"
        for name in ("fp32", "onednn", "bf16", "int8", "simulated")
    ]
    first = "—" if bits is None else f"{bits:.2f}"
    return f"| {label} | {first} | {' | '.join(ratios)} |"


def front_end_row(label: str, found: Mapping[str, float], *, seconds: float) -> str:
    """Return one row of the front end: milliseconds a second of audio, and the ratio."""
    old, new = (
        statistics.fmean(ms for name, ms in found.items() if name.startswith(way)) / seconds
        for way in ("convolutions", "inference")
    )
    return f"| {label} | {old:.2f} | {new:.2f} | {old / new:.2f} × |"


def _lengths_row(label: str, found: Mapping[str, float], *, seconds: float) -> str:
    rows = []
    for which in ("one length", "many lengths"):
        picked = {name: ms for name, ms in found.items() if name.endswith(which)}
        rows.append(front_end_row(f"{label}, {which}", picked, seconds=seconds))
    return "\n".join(rows)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of audio")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--only", default=",".join(WHAT), metavar="WHAT,…")
    parser.add_argument("--upstreams", default=",".join(UPSTREAMS), metavar="NAME,…")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torch's own, about what it will drop one day
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), arguments.out.open("a") as file:

        def measure(
            what: str, variants: Variants, rounds: int, row: Callable[..., str], **about: Any
        ) -> None:
            found = medians(variants, rounds=rounds)
            print(row(found), flush=True)
            file.write(json.dumps(line_of(what, about, found)) + "\n")
            file.flush()

        asked = [each.strip() for each in arguments.only.split(",")]
        names, seconds = arguments.upstreams.split(","), arguments.seconds
        if set(asked) - {"front end"}:
            print("| | by bits, ms | FP32 | FP32 oneDNN | bf16 | int8 | simulated |")
            print("|---|---|---|---|---|---|---|")
        for inputs, outputs in SHAPES if "linear" in asked else ():
            about = {"inputs": inputs, "outputs": outputs, "frames": FRAMES}
            row = partial(table_row, f"linear {inputs} → {outputs}")
            rounds = 5 * arguments.rounds
            measure("linear", linear_variants(inputs, outputs), rounds, row, **about)
        for what in ("encoder", "waveform"):
            for name in names if what in asked else ():
                variants = model_variants(name, seconds=seconds, whole=what == "waveform")
                row = partial(table_row, f"{what} {name}")
                measure(what, variants, arguments.rounds, row, upstream=name, seconds=seconds)
        if "front end" in asked:
            print("| front end | convolutions, ms a second | inference | times as fast |")
            print("|---|---|---|---|")
        for name in names if "front end" in asked else ():
            expert: Any = registry.load_upstream(name).expert.eval()
            for part in ("FastConv", "positional convolution"):
                variants = front_end_variants(expert.model, seconds=seconds, part=part)
                row = partial(front_end_row, f"{name}, {part}", seconds=seconds)
                rounds = 3 * arguments.rounds
                measure(
                    "front end", variants, rounds, row, part=part, upstream=name, seconds=seconds
                )
            whole = 3.0 * LENGTHS
            row = partial(_lengths_row, name, seconds=whole)
            variants = length_variants(expert.model)
            measure("front end", variants, 2, row, part="lengths", upstream=name, seconds=whole)


if __name__ == "__main__":
    main()
