"""A process of its own that builds one model, encodes once and prints how its memory grew.

``python -m superbit.benchmark.profiling.peak_memory SPEC VARIANT SAMPLES THREADS`` prints bytes:
from before the model is built to the highest while it encodes. A model like it was built, run and
dropped before: what kernels take once is not counted. Neither is what building takes on top, where
the system lets the mark be reset.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

_WARM_UP_SAMPLES = 4_000


def resident_bytes(key: str) -> float:
    """Return ``VmRSS`` (now) or ``VmHWM`` (at its highest) of this process; NaN where unknown."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        name, _, value = line.partition(":")
        if name == key:
            return 1024.0 * int(value.split()[0])
    return float("nan")


def forget_the_highest() -> None:
    """Give back what is free, and let ``VmHWM`` begin anew."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):  # another C library or system: building is counted too
        return


def main(spec: str, variant: str, samples: int, threads: int) -> None:
    """Print the growth in bytes."""
    import torch

    # imported before the memory is looked at: what s3prl brings along is no part of a model
    from superbit.benchmark.profiling.measuring import VARIANTS, Simulated
    from superbit.upstreams import registry
    from superbit.upstreams.expert import UpstreamExpert  # noqa: F401

    chosen = VARIANTS[variant]
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(samples, generator=generator)

    def built() -> torch.nn.Module:
        model = chosen.make(registry.load(spec).eval())
        return model if chosen.by_bits else Simulated(model)

    def encode(model: torch.nn.Module, waveform: torch.Tensor) -> None:
        with torch.inference_mode():
            model([waveform])

    encode(built(), waveform[:_WARM_UP_SAMPLES])  # kernels that are compiled or read, once
    forget_the_highest()
    before = resident_bytes("VmRSS")
    model = built()
    forget_the_highest()
    encode(model, waveform)
    print(resident_bytes("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
