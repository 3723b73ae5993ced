"""What no store has, computed for several batches at a time.

A batch of KS holds two or three crops of silence. The weights of a large encoder take longer to
read than so little audio takes to pass: one pass over the crops of eight batches saves half.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from superbit.benchmark.features.source import FeatureSource

BATCHES = 8
# From here on a batch fills a forward pass on its own (SID: a hundred seconds of crops).
SECONDS = 32.0


class Ahead:
    """Batches in groups, whose live waveforms are computed together.

    A group is full with :data:`BATCHES` batches or :data:`SECONDS` of live audio, counted from the
    epoch's start, so that a resumed run computes in the groups of one that was never stopped.
    Only for loaders with worker processes: in this process, a dataset's draws for later batches
    would come before those of the heads for this one.

    Args:
        batches: of an epoch, waveforms first.
        source: computes them.
    """

    def __init__(self, batches: Iterator[Any], source: FeatureSource) -> None:
        self._batches, self._source = batches, source
        self._group: list[Any] = []
        self._passed = 0
        self._live = 0.0

    def skip(self, count: int) -> None:
        """Pass over the next ``count`` batches."""
        for _ in range(count):
            self._read()
            if self._is_full():
                self._clear()
        self._passed = len(self._group)

    def __iter__(self) -> Iterator[Any]:
        """Yield batches whose live waveforms are replaced by what was computed of them.

        Raises:
            InputError: the upstream gave NaN or infinity.
        """
        while True:
            ended = False
            while not self._is_full() and not ended:
                with self._source.reading():
                    ended = not self._read_another()
            if self._passed == len(self._group):  # the epoch's end
                return
            computed = self._source.compute_ahead([wavs for wavs, *_ in self._group])
            group, passed = self._group, self._passed
            self._clear()
            for (_, *others), wavs in list(zip(group, computed, strict=True))[passed:]:
                yield wavs, *others
            if ended:
                return

    def _read_another(self) -> bool:
        try:
            self._read()
        except StopIteration:
            return False
        return True

    def _read(self) -> None:
        batch = tuple(next(self._batches))
        self._group.append(batch)
        self._live += self._source.live_seconds(batch[0])

    def _is_full(self) -> bool:
        return len(self._group) >= BATCHES or self._live >= SECONDS

    def _clear(self) -> None:
        self._group, self._passed, self._live = [], 0, 0.0
