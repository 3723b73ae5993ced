"""Time and memory of a model on this machine, beside baselines that are not weak.

torch's default FP32 linear layer can be far from what a processor gives (on AMD processors MKL runs
narrow vector code), so a speed-up is told against oneDNN's prepacked FP32 too. The columns take
turns within each round: what else the machine does hits all of them alike.
"""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from superbit.benchmark.profiling.footprint import file_bytes, packed, peak_memory_mb
from superbit.benchmark.records.provenance import collect
from superbit.upstreams import registry
from superbit.upstreams.errors import InputError
from superbit.upstreams.machine import cores
from superbit.upstreams.quantization.kernels import choose
from superbit.upstreams.quantization.layers import BinarizedLinear
from superbit.upstreams.spec import UpstreamSpec

_ROUNDS = (3, 25)  # at least, at most
_BUDGET = 6.0  # seconds of rounds for one model
# Largest distance from the FP32 output, ‖y - y32‖ / ‖y32‖, at which a column counts as the same
# model. bfloat16 is loose: random weights on noise amplify its rounding in the front end.
_TOLERANCE = {"onednn": 1e-3, "bf16": 0.5, "int8": 0.5, "bits": 0.0}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One column of timings.

    Attributes:
        label: as printed.
        meaning: what it is, for the legend.
        make: from an expert to the variant; may fail, which makes the column unknown.
        applies: whether it changes anything of an expert; if not, the column is unknown.
        by_bits: a twin is not simulated.
    """

    label: str
    meaning: str
    make: Callable[[nn.Module], nn.Module]
    applies: Callable[[nn.Module], bool] = lambda expert: True
    by_bits: bool = False


class Simulated(nn.Module):
    """An expert whose twin, if it is one, is simulated in floats."""

    def __init__(self, expert: nn.Module) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, waveforms: list[Tensor]) -> dict[str, Any]:
        """Map waveforms to what the expert gives."""
        with choose.using(choose.OFF):
            return self.expert(waveforms)


class PrepackedLinear(nn.Module):
    """A linear layer whose weight lies in oneDNN's own layout, for inference."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, features in) to (…, features out)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def prepacked(expert: nn.Module) -> nn.Module:
    """Return a copy whose linear layers are prepacked; any subclass of `nn.Linear` is left."""
    twin = copy.deepcopy(expert)
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, PrepackedLinear(child))
    return twin


def bfloat16(expert: nn.Module) -> nn.Module:
    """Return a copy with weights and activations in bfloat16."""
    return copy.deepcopy(expert).to(torch.bfloat16)


def dynamic_int8(expert: nn.Module) -> nn.Module:
    """Return a copy whose linear layers have int8 weights, and inputs quantized at each call."""
    from torch.ao.quantization import quantize_dynamic

    return quantize_dynamic(copy.deepcopy(expert), {nn.Linear}, dtype=torch.qint8)


def _computes_by_bits(expert: nn.Module) -> bool:
    twin = any(isinstance(module, BinarizedLinear) for module in expert.modules())
    return twin and choose.chosen() is not None


def _has_linear(expert: nn.Module) -> bool:
    return any(type(module) is nn.Linear for module in expert.modules())


def _has_parameters(expert: nn.Module) -> bool:
    return any(True for _ in expert.parameters())


VARIANTS = {
    "fp32": Variant(
        label="FP32", meaning="torch's default; a twin is simulated", make=lambda expert: expert
    ),
    "onednn": Variant(
        label="FP32 oneDNN",
        meaning="linear layers prepacked by oneDNN",
        make=prepacked,
        applies=_has_linear,
    ),
    "bf16": Variant(
        label="bf16",
        meaning="weights and activations in bfloat16",
        make=bfloat16,
        applies=_has_parameters,
    ),
    "int8": Variant(
        label="int8",
        meaning="linear layers with int8 weights, inputs quantized at each call",
        make=dynamic_int8,
        applies=_has_linear,
    ),
    "bits": Variant(
        label="bits",
        meaning="a twin's blocks by bits, as in sweeps",
        make=lambda expert: expert,
        applies=_computes_by_bits,
        by_bits=True,
    ),
}

# Variants whose weights are other bytes; a prepacked layout exists in memory only.
FOOTPRINTS = ("fp32", "bf16", "int8", "bits")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One variant on this machine.

    Attributes:
        seconds: of each round.
        difference: distance of its output from FP32's, over the length of that.
    """

    seconds: list[float]
    difference: float


def measure(spec: str, *, seconds: float, samples: int, threads: int | None) -> dict[str, object]:
    """Return what was measured of one upstream; None for what does not run.

    Keys: ``threads``, ``machine``, ``torch``; ``untrained``, whether the weights are random; for
    each of `VARIANTS` ``latency_ms_<variant>`` with
    ``_q1`` and ``_q3``, and ``real_time_factor_<variant>``; for each but FP32 also
    ``speed_up_<variant>`` and ``difference_<variant>`` against FP32, of a twin its simulation;
    for each of `FOOTPRINTS` ``file_mb_<variant>`` and ``peak_memory_mb_<variant>``.

    Args:
        spec: the upstream; a twin that cannot run yet is unknown in every column.
        seconds: length of the audio, for the real-time factor.
        samples: that length in samples.
        threads: that torch computes with; None for the cores of this process.
    """
    threads = threads or cores()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        expert = _runnable(spec)
        timings = _timed(expert, samples)
    finally:
        torch.set_num_threads(before)
    footprints = {
        key: _footprint(spec, expert, key, samples=samples, threads=threads)
        if expert is not None and key in timings
        else (None, None)
        for key in FOOTPRINTS
    }
    machine = collect([])
    row: dict[str, object] = {
        "threads": threads,
        "machine": machine.cpu or machine.platform,
        "torch": torch.__version__,
        "untrained": None if expert is None else bool(getattr(expert, "untrained", False)),
    }
    for key in VARIANTS:
        row |= _figures(key, timings, seconds)
    for key, (size, peak) in footprints.items():
        row |= {f"file_mb_{key}": size, f"peak_memory_mb_{key}": peak}
    return row


def _footprint(
    spec: str, expert: nn.Module, key: str, *, samples: int, threads: int
) -> tuple[float | None, float | None]:
    """Return a variant's bytes on disk and its memory at its highest, each in 10^6 bytes."""
    if not VARIANTS[key].by_bits:
        size = file_bytes(VARIANTS[key].make(expert)) / 1e6
        return size, peak_memory_mb(spec, variant=key, samples=samples, threads=threads)
    with packed(spec, expert) as twin:
        if twin is None:
            return None, None
        small, of_file = twin
        return of_file / 1e6, peak_memory_mb(small, variant=key, samples=samples, threads=threads)


def _runnable(spec: str) -> nn.Module | None:
    """Return the expert, None for a twin that no code can run yet.

    Raises:
        InputError: a full-precision upstream that cannot be built.
    """
    try:
        return registry.load_upstream(spec).expert.eval()
    except InputError:
        if UpstreamSpec.parse(spec).policy is None:
            raise
        return None


def _timed(expert: nn.Module | None, samples: int) -> dict[str, Timing]:
    """Time the variants that run, each in its turn; none of a missing expert."""
    if expert is None:
        return {}
    generator = torch.Generator().manual_seed(0)
    waveforms = [0.1 * torch.randn(samples, generator=generator)]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about what it will drop one day
        found = _variants_that_run(expert, waveforms)
        began = time.perf_counter()
        times = {key: [_time(model, waveforms)] for key, (model, _) in found.items()}
        one_round = time.perf_counter() - began
        rounds = min(max(int(_BUDGET / one_round), _ROUNDS[0]), _ROUNDS[1])
        for _ in range(rounds - 1):
            for key, (model, _) in found.items():
                times[key].append(_time(model, waveforms))
    return {key: Timing(seconds=times[key], difference=found[key][1]) for key in found}


def _variants_that_run(
    expert: nn.Module, waveforms: list[Tensor]
) -> dict[str, tuple[nn.Module, float]]:
    """Return the variants within `_TOLERANCE` of FP32, warmed up, with their differences."""
    simulated = Simulated(expert)
    reference = _last_state(simulated, waveforms)
    found: dict[str, tuple[nn.Module, float]] = {"fp32": (simulated, 0.0)}
    for key, variant in VARIANTS.items():
        if key == "fp32" or not variant.applies(expert):
            continue
        try:
            model = variant.make(expert)
            model = model if variant.by_bits else Simulated(model)
            output = _last_state(model, waveforms).to(reference.dtype)
        except Exception:  # this torch, processor or model has no such variant
            continue
        difference = float((output - reference).norm() / reference.norm())
        if difference <= _TOLERANCE[key]:  # not so for NaN
            found[key] = (model, difference)
    return found


def _last_state(model: nn.Module, waveforms: list[Tensor]) -> Tensor:
    return model(waveforms)["hidden_states"][-1]


def _time(model: nn.Module, waveforms: list[Tensor]) -> float:
    began = time.perf_counter()
    model(waveforms)
    return time.perf_counter() - began


def _figures(key: str, timings: dict[str, Timing], seconds: float) -> dict[str, object]:
    names = [f"latency_ms_{key}{end}" for end in ("", "_q1", "_q3")]
    names.append(f"real_time_factor_{key}")
    names += [f"speed_up_{key}", f"difference_{key}"] if key != "fp32" else []
    timing = timings.get(key)
    if timing is None:
        return dict.fromkeys(names)
    low, median, high = statistics.quantiles(timing.seconds, n=4, method="inclusive")
    default = statistics.median(timings["fp32"].seconds)
    figures = (1e3 * median, 1e3 * low, 1e3 * high, median / seconds)
    return dict(zip(names, (*figures, default / median, timing.difference), strict=False))
