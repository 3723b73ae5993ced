"""A process of its own that builds one upstream, encodes once and prints how its memory grew.

``python -m superbit.benchmark.profiling.peak_memory SPEC SAMPLES THREADS`` prints bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path


def resident_bytes(key: str) -> float:
    """Return ``VmRSS`` (now) or ``VmHWM`` (at its highest) of this process; NaN where unknown."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        name, _, value = line.partition(":")
        if name == key:
            return 1024.0 * int(value.split()[0])
    return float("nan")


def main(spec: str, samples: int, threads: int) -> None:
    """Print the growth in bytes."""
    import torch

    # imported before the memory is looked at: what s3prl brings along is no part of a model
    from superbit.upstreams import registry
    from superbit.upstreams.expert import UpstreamExpert  # noqa: F401

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(samples, generator=generator)
    before = resident_bytes("VmRSS")
    expert = registry.load(spec).eval()
    with torch.inference_mode():
        expert([waveform])
    print(resident_bytes("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
