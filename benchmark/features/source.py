"""What feeds an experiment: stored features where there are some, the upstream for the rest.

Notation: L layers, D width.
"""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from superbit.benchmark.features.mixing import Batch, Room
from superbit.benchmark.features.store import CacheError, Features, FeatureStore
from superbit.benchmark.features.waves import (
    SAMPLE_RATE,
    KnownFiles,
    Transform,
    Wave,
    passes,
    wave_key,
)
from superbit.upstreams.contract.blame import not_finite, require_frames
from superbit.upstreams.s3prl import patches

# Recordings that a task reads whole for every crop: KS's six background noises of about a minute.
_RECORDINGS_KEPT = 8


@dataclass(frozen=True, kw_only=True)
class Computed:
    """In a waveform's place, its hidden states of an earlier pass, (L, frames, D)."""

    states: Tensor
    samples: int


class UpstreamFeatures:
    """Hidden states of single utterances, cut to frames as s3prl's Featurizer cuts them.

    Args:
        upstream: s3prl-style expert, in eval mode.
        rate: samples a frame.
        pooled: the mean over an utterance's frames, as its one frame.
    """

    def __init__(self, upstream: nn.Module, *, rate: float, pooled: bool, device: str) -> None:
        self.upstream, self.rate, self.pooled, self.device = upstream, rate, pooled, device

    @torch.no_grad()
    def compute(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Return (L, frames, D) of each waveform from one forward pass.

        Raises:
            BrokenContract: NaN or infinity, or another number of frames than s3prl accepts.
        """
        batch = [wave.to(self.device, torch.float32) for wave in waves]
        output = self.upstream(batch)["hidden_states"]
        layers = list(output.values()) if isinstance(output, dict) else output
        layers = layers if isinstance(layers, list | tuple) else [layers]
        require_frames(layers[0].shape[1], samples=max(map(len, batch)), rate=self.rate)
        found = []
        for index, wave in enumerate(batch):
            end = round(len(wave) / self.rate)
            states = torch.stack([layer[index, :end] for layer in layers])
            # a sum takes one pass over what may be a hundred megabytes
            if not (bool(states.sum().isfinite()) or bool(states.isfinite().all())):
                raise not_finite()
            found.append(states.mean(dim=1, keepdim=True) if self.pooled else states)
        return found


class FeatureReader:
    """Reads a batch's features from a store and computes what the store lacks.

    Args:
        zeros_follow: the upstream fills utterances with zeros up to the batch's longest; the store
            has their own frames, and a batch gets its zeros here.
        alone: what the store lacks passes by itself: an utterance's features would depend on the
            others of its batch, or on how long these are.

    Attributes:
        stored: utterances that came from the store so far.
        live: utterances that were computed.
    """

    def __init__(
        self,
        store: FeatureStore,
        *,
        files: KnownFiles,
        upstream: UpstreamFeatures,
        zeros_follow: bool = False,
        alone: bool = False,
    ) -> None:
        self._zeros_follow, self._alone = zeros_follow, alone or zeros_follow
        self._recordings: OrderedDict[str, Any] = OrderedDict()
        self._store, self._files, self._upstream = store, files, upstream
        self.stored = self.live = 0
        self._room = Room(upstream.device)

    @property
    def damaged(self) -> int:
        """Stored features whose checksum was wrong, and which were computed anew."""
        return self._store.damaged

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Within the block the task's datasets get names for waveforms that are stored."""
        with patches.audio_read_by(self._answer):
            yield

    def gather(self, wavs: Sequence[Any]) -> Batch:
        """Return the hidden states of a batch: stored waveforms by name, others as samples.

        Its memory is used again by the next: be done with a batch before that.
        """
        found: list[Tensor | None] = [self._read(wav) for wav in wavs]
        missing = [index for index, states in enumerate(found) if states is None]
        if missing:
            computed = self._compute([_samples(wavs[index]) for index in missing])
            for index, states in zip(missing, computed, strict=True):
                found[index] = states
            self._heal([(wavs[i], s) for i, s in zip(missing, computed, strict=True)])
        live = len(missing) + sum(isinstance(wav, Computed) for wav in wavs)
        self.live += live
        self.stored += len(wavs) - live
        batch = [states for states in found if states is not None]
        if self._zeros_follow:
            batch = self._with_zeros(wavs, batch)
        return Batch(batch, room=self._room)

    @property
    def looks_ahead(self) -> bool:
        """Whether waveforms of later batches may pass through the upstream with this one's.

        Frames would take the memory of several batches.
        """
        return self._upstream.pooled and not self._alone

    def live_seconds(self, wavs: Sequence[Any]) -> float:
        """Seconds of audio in a batch that no store has."""
        return sum(len(wav) for wav in wavs if not isinstance(wav, Wave)) / SAMPLE_RATE

    def compute_ahead(self, batches: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Return the batches' waveforms with :class:`Computed` in place of what no store has."""
        found = [list(wavs) for wavs in batches]
        live = [
            (wavs, index)
            for wavs in found
            for index, wav in enumerate(wavs)
            if not isinstance(wav, Wave)
        ]
        if live:
            computed = self._compute([_samples(wavs[index]) for wavs, index in live])
            for (wavs, index), states in zip(live, computed, strict=True):
                wavs[index] = Computed(states=states, samples=len(wavs[index]))
        return found

    def _compute(self, waves: list[Tensor]) -> list[Tensor]:
        if not self._alone and self._upstream.device != "cpu":
            return self._upstream.compute(waves)
        computed: dict[int, Tensor] = {}
        for indices in passes([len(wave) for wave in waves], together=not self._alone):
            states = self._upstream.compute([waves[index] for index in indices])
            computed |= zip(indices, states, strict=True)
        return [computed[index] for index in range(len(waves))]

    def _with_zeros(self, wavs: Sequence[Any], states: list[Tensor]) -> list[Tensor]:
        """Lengthen (L, frames, D) of each utterance as the upstream does in this batch."""
        longest = max(each.shape[1] for each in states)
        rate = self._upstream.rate
        ends = [min(longest, round(_length(wav) / rate)) for wav in wavs]
        return [
            torch.nn.functional.pad(each, (0, 0, 0, end - each.shape[1]))
            for each, end in zip(states, ends, strict=True)
        ]

    def _answer(self, path: str, transform: Transform, read: Callable[[], Any]) -> Any:
        file = self._files.find(path)
        entry = self._store.find(wave_key(file, transform)) if file else None
        if file is None:
            return read()
        if entry is None:
            return self._decoded(wave_key(file, transform), read)
        wave = Wave(
            file=file,
            transform=transform,
            samples=entry.samples,
            rate=entry.rate,
            flat=transform[0] == "cut",
        )
        return wave, entry.rate

    def _decoded(self, key: str, read: Callable[[], Any]) -> Any:
        """What ``read`` gives, from memory where it was read a few files ago."""
        if key not in self._recordings:
            self._recordings[key] = read()
            if len(self._recordings) > _RECORDINGS_KEPT:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(key)
        return copy.deepcopy(self._recordings[key])  # it is the caller's to change

    def _read(self, wav: Any) -> Tensor | None:
        if isinstance(wav, Computed):
            return wav.states
        if not isinstance(wav, Wave) or wav.key not in self._store:
            return None
        states = self._store.read(wav.key)
        return None if states is None else torch.from_numpy(states)

    def _heal(self, computed: list[tuple[Any, Tensor]]) -> None:
        """Write anew what was found damaged."""
        damaged = [
            Features(
                key=wav.key,
                states=states.cpu().numpy().astype(self._store.dtype),
                samples=wav.samples,
                rate=wav.rate,
            )
            for wav, states in computed
            if isinstance(wav, Wave)
        ]
        if damaged:
            # A full disk must not end a run that needs no more than what it just computed.
            with contextlib.suppress(CacheError):
                self._store.put(damaged)


def _samples(wav: Any) -> Tensor:
    return wav.decode() if isinstance(wav, Wave) else torch.as_tensor(wav, dtype=torch.float32)


def _length(wav: Any) -> int:
    return wav.samples if isinstance(wav, Wave | Computed) else len(wav)


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

    def __init__(self, batches: Iterator[Any], source: FeatureReader) -> None:
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
