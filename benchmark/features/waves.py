"""Waveforms that have a name and a length before they are decoded.

s3prl's datasets only measure, cut and hand on the audio they read. A :class:`Wave` lets them do
that without decoding: a cut is what makes it decode, because only random crops are cut from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superbit.benchmark.corpora import manifest
from superbit.upstreams.s3prl import compat
from superbit.upstreams.sound import SAMPLE_RATE

# Raised whenever the samples that a transform gives change (sox effects are superbit's own).
TRANSFORM_REVISION = 1
# Stored recordings of which a task wants cuts, one after the other.
_RECORDINGS_KEPT = 8

Transform = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioFile:
    """An audio file: where it is, the hash of its bytes, its length in samples at ``rate`` Hz."""

    path: str
    sha256: str
    samples: int
    rate: int


def wave_key(file: AudioFile, transform: Transform) -> str:
    """Name a waveform: the hash of its file's bytes and what is done to its samples."""
    words = " ".join("/".join(map(str, p)) if isinstance(p, tuple) else str(p) for p in transform)
    return f"{file.sha256} {words} v{TRANSFORM_REVISION}"


@dataclass(frozen=True, kw_only=True)
class Wave:
    """A waveform that is read when somebody needs its samples.

    It has what s3prl's datasets use of a tensor or array, ``(1, samples)`` as read and
    ``(samples,)`` once squeezed.

    Attributes:
        samples: its length at 16 kHz, after the transform.
        rate: in Hz, as the task was told.
        cuts: told of each cut, for whoever wants to know which waveforms are cropped at random;
            without it a cut gives real samples.
    """

    file: AudioFile
    transform: Transform
    samples: int
    rate: int = SAMPLE_RATE
    cuts: Any = None
    flat: bool = False
    as_array: bool = field(default=False, compare=False)

    @property
    def key(self) -> str:
        """Its name, see :func:`wave_key`."""
        return wave_key(self.file, self.transform)

    @property
    def seconds(self) -> float:
        """Its length in seconds."""
        return self.samples / SAMPLE_RATE

    def decode(self) -> Tensor:
        """Return its samples, float32 ``(samples,)``."""
        return torch.from_numpy(np.ascontiguousarray(read_samples(self.file.path, self.transform)))

    # --- what s3prl's datasets ask of audio -------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """``(samples,)``, or ``(1, samples)`` before it is squeezed."""
        return (self.samples,) if self.flat else (1, self.samples)

    def __len__(self) -> int:
        return self.shape[0]

    def size(self, axis: int) -> int:
        """Length along ``axis``."""
        return self.shape[axis]

    def squeeze(self, _axis: int) -> Wave:
        """The same waveform without its channel."""
        return replace(self, flat=True)

    reshape = view = squeeze

    def numpy(self) -> Wave:
        """The same waveform; a cut of it will be an array."""
        return replace(self, as_array=True)

    def astype(self, _dtype: object) -> Wave:
        """The same waveform: samples are float32 whenever they are read."""
        return self

    def __getitem__(self, index: Any) -> Any:
        if self.cuts is not None:
            self.cuts(self)
            return self
        samples = _recording(self.file.path, self.file.sha256, self.transform)[index].copy()
        return samples if self.as_array else torch.from_numpy(samples)


@lru_cache(maxsize=_RECORDINGS_KEPT)
def _recording(path: str, _sha256: str, transform: Transform) -> NDArray[np.float32]:
    return read_samples(path, transform)


def read_samples(path: str, transform: Transform) -> NDArray[np.float32]:
    """Decode a file and apply the transform, exactly as the task's dataset does; ``(samples,)``."""
    kind, *arguments = transform
    if kind == "cut":
        from superbit.upstreams.s3prl.sox_effects import read_soundfile

        return read_soundfile(path, start=arguments[0], stop=arguments[1])[0].reshape(-1).numpy()
    compat.apply()  # a process that extracts a foreign upstream may not have met s3prl
    import torchaudio

    if kind == "load":
        return torchaudio.load(path)[0].reshape(-1).numpy()
    return torchaudio.sox_effects.apply_effects_file(path, [list(e) for e in arguments])[0][
        0
    ].numpy()


class KnownFiles:
    """The audio files whose bytes the corpora's manifests have hashed.

    Args:
        work_dir: where :func:`superbit.benchmark.corpora.manifest.build_manifest` remembers them.
    """

    def __init__(self, work_dir: Path) -> None:
        self._known = manifest.remembered(work_dir)
        self._rates: dict[str, int] = {}

    def find(self, path: str) -> AudioFile | None:
        """Return the file at ``path`` if its hash is known and it has not changed since."""
        name = os.path.abspath(path)
        known = self._known.get(name)
        if known is None or known.samples == 0 or manifest.file_state(Path(name)) != known.state:
            return None
        rate = self._rates.get(known.memory) or self._rate(known.memory, name)
        return AudioFile(path=name, sha256=known.sha256, samples=known.samples, rate=rate)

    def _rate(self, memory: str, path: str) -> int:
        # A manifest is built only of files that all have one rate.
        import soundfile

        self._rates[memory] = soundfile.info(path).samplerate
        return self._rates[memory]


def length_without_decoding(file: AudioFile, transform: Transform) -> int | None:
    """Samples of a waveform at 16 kHz where the file's own length tells, else ``None``."""
    kind, *arguments = transform
    if file.rate != SAMPLE_RATE:
        return None
    if kind == "cut":
        start, stop = arguments
        return max(0, (file.samples if stop is None else min(stop, file.samples)) - start)
    if kind == "effects" and any(
        name not in ("channels", "rate", "gain") for name, *_ in arguments
    ):
        return None
    return file.samples


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
