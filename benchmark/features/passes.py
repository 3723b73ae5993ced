"""Which waveforms pass through a frozen upstream together.

On a CPU, what a layer makes of half a minute of audio stays near the cores; what it makes of two
minutes goes through memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from superbit.benchmark.features.waves import SAMPLE_RATE

# Samples of one pass, padding included.
MOST_SAMPLES = 30 * SAMPLE_RATE


def passes(samples: Sequence[int], *, together: bool = True) -> Iterator[list[int]]:
    """Yield the indices of the waveforms of each pass, longest first.

    Args:
        samples: of each waveform; one that is longer than a pass has a pass of its own.
        together: false gives each waveform a pass of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(samples)), key=lambda index: -samples[index]):
        if batch and (not together or (len(batch) + 1) * samples[batch[0]] > MOST_SAMPLES):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
