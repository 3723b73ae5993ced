"""What a task will ask an upstream for: found by walking through the task's own datasets.

Where SUPERB's corpora are not at hand, their sizes say it (``assumed_need``).
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from superbit.benchmark.features.waves import (
    SAMPLE_RATE,
    KnownFiles,
    Transform,
    Wave,
    length_without_decoding,
    wave_key,
)
from superbit.benchmark.running import heads
from superbit.benchmark.tasks.binding import RunPlaces
from superbit.benchmark.tasks.catalog import TASKS
from superbit.benchmark.tasks.configs import total_steps
from superbit.upstreams.errors import InputError
from superbit.upstreams.files import read_json, write_text
from superbit.upstreams.rng import rng_state, set_rng_state
from superbit.upstreams.s3prl import patches

Kind = Literal["pooled", "frames"]


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What runs of one task ask for.

    Attributes:
        task: SUPERB's short name.
        kind: the mean over time, or all frames.
        waves: every waveform that can be stored, by key.
        drawn: files of which a random crop is taken at each draw: always live.
        drawn_share: share of training draws that are such crops.
        training_draws: utterances that training asks for.
        evaluation_draws: utterances that all evaluations ask for.
    """

    task: str
    kind: Kind
    waves: dict[str, Wave]
    drawn: int
    drawn_share: float
    training_draws: int
    evaluation_draws: int

    @property
    def hours(self) -> float:
        """Length of the waveforms that can be stored."""
        return sum(wave.seconds for wave in self.waves.values()) / 3600

    @property
    def draws(self) -> float:
        """How often, in all, a waveform that can be stored is asked for."""
        return self.training_draws * (1 - self.drawn_share) + self.evaluation_draws


@dataclass(frozen=True, kw_only=True)
class Need:
    """What all waiting runs of one task ask one upstream for, in numbers.

    Attributes:
        audio: names the audio; two needs of one name and kind share every waveform.
        waveforms: that can be stored, ``seconds`` of audio together.
        present: of those, already stored.
        missing: (waveforms, seconds) to compute, besides what an earlier need computes.
        drawn: files that are cropped at random; ``drawn_share`` of training draws.
        training_draws: of all runs; ``evaluation_draws`` likewise.
        draw_seconds: mean length of a training draw.
    """

    upstream: str
    task: str
    kind: Kind
    audio: str
    waveforms: int
    seconds: float
    present: int = 0
    missing: tuple[int, float] = (0, 0.0)
    drawn: int = 0
    drawn_share: float = 0.0
    training_draws: int = 0
    evaluation_draws: int = 0
    draw_seconds: float


def kind_of(task: str, config: dict[str, Any]) -> Kind:
    """Whether a task's head needs frames or only their mean.

    Weighted sum and projector are linear, so they commute with a mean over time that nothing
    non-linear comes before.
    """
    head = config["downstream_expert"].get("modelrc", {})
    if TASKS[task].audio.head_may_average and head.get("select") == "UtteranceLevel":
        level = head.get("UtteranceLevel") or {}
        if level.get("pooling", "MeanPooling") == "MeanPooling" and not level.get("pre_net"):
            return "pooled"
    return "frames"


def find_demand(
    task: str,
    config: dict[str, Any],
    *,
    places: RunPlaces,
    files: KnownFiles,
    rate: float,
    lengths: KnownLengths,
    on_item: Callable[[], None] = lambda: None,
) -> Demand:
    """Walk through every split of a task that a run reads; the global generators stay as they are.

    Args:
        rate: samples a frame; some tasks cut their chunks by it.
        lengths: remembers what had to be decoded to be measured.
        on_item: called after each item.
    """
    before = rng_state()
    config = copy.deepcopy(config)
    binding = TASKS[task].binding
    binding.bind(config["downstream_expert"], places)
    collector = _Collector(files, lengths)
    shares: list[float] = []
    evaluated = 0
    try:
        with (
            tempfile.TemporaryDirectory(prefix="superbit-") as folder,
            patches.audio_read_by(collector.answer),
        ):
            head = heads.build(
                str(TASKS[task].downstream), config, upstream_dim=8, upstream_rate=rate,
                expdir=Path(folder), seed=0, device="cpu",
            )  # fmt: skip
            for split, evaluations in splits_read(task, config):
                loader = head.get_dataloader(split)
                cut = [
                    bool(collector.collect(wavs))
                    for wavs in _items(loader.dataset, loader, on_item)
                ]
                if split == "train":
                    shares = _weights(loader, cut)
                else:
                    evaluated += evaluations * len(cut)
    finally:
        set_rng_state(before)
    return Demand(
        task=task,
        kind=kind_of(task, config),
        waves=collector.waves,
        drawn=len(collector.cut),
        drawn_share=sum(shares),
        training_draws=training_draws(task, config),
        evaluation_draws=evaluated,
    )


class KnownLengths:
    """KnownLengths that only decoding tells (silence trimmed, audio resampled), kept in a file."""

    def __init__(self, file: Path) -> None:
        self._file, self._changed = file, False
        try:
            self._known: dict[str, int] = dict(read_json(file, "lengths of audio"))
        except (InputError, ValueError, TypeError):
            self._known = {}

    def of(self, key: str, measure: Callable[[], int]) -> int:
        """Return what is known of a waveform, or measure it."""
        if key not in self._known:
            self._known[key], self._changed = measure(), True
        return self._known[key]

    def save(self) -> None:
        """Write what was measured; of two processes that write at once, one wins."""
        if self._changed:
            write_text(self._file, json.dumps(self._known))


class _Collector:
    """Answers a task's datasets with names and writes down which were cut."""

    def __init__(self, files: KnownFiles, lengths: KnownLengths) -> None:
        self._files, self._lengths = files, lengths
        self.waves: dict[str, Wave] = {}
        self.cut: set[str] = set()
        self._cut_now: set[str] = set()

    def answer(self, path: str, transform: Transform, read: Callable[[], Any]) -> Any:
        file = self._files.find(path)
        if file is None or (transform[0] != "effects" and file.rate != SAMPLE_RATE):
            return read()
        samples = length_without_decoding(file, transform)
        if samples is None:
            key = wave_key(file, transform)
            samples = self._lengths.of(key, lambda: int(read()[0].shape[-1]))
        wave = Wave(
            file=file,
            transform=transform,
            samples=samples,
            flat=transform[0] == "cut",
            cuts=lambda cut: self._cut_now.add(cut.key),
        )
        return wave, wave.rate

    def collect(self, wavs: Any) -> set[str]:
        """Take an item's waveforms; return the keys of those that were cut."""
        cut, self._cut_now = self._cut_now, set()
        self.cut |= cut
        for wav in wavs:
            if isinstance(wav, Wave) and wav.key not in cut:
                self.waves.setdefault(
                    wav.key,
                    Wave(
                        file=wav.file,
                        transform=wav.transform,
                        samples=wav.samples,
                        rate=wav.rate,
                        flat=True,
                    ),
                )
        return cut


def _items(dataset: Any, loader: Any, on_item: Callable[[], None]) -> Iterator[Any]:
    for index in range(len(dataset)):
        wavs, *_ = loader.collate_fn([dataset[index]])
        yield wavs
        on_item()


def _weights(loader: Any, cut: list[bool]) -> list[float]:
    """How much of all draws each item that is cut has, where the sampler weighs them or not."""
    weights = getattr(loader.dataset, "sample_weights", None) or [1.0] * len(cut)
    return [w / sum(weights) for w, is_cut in zip(weights, cut, strict=True) if is_cut]


def splits_read(task: str, config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Every split that a run reads, with how often it is evaluated."""
    if "runner" not in config:
        yield from (("dev", 1), ("test", 1))
        return
    runner, test = config["runner"], TASKS[task].binding.test
    yield "train", 0
    in_training = runner["total_steps"] // runner["eval_step"]
    tests = runner["total_steps"] // runner["test_step"] if runner.get("test_step") else 1
    for split in dict.fromkeys([*runner["eval_dataloaders"], test]):
        yield (
            split,
            in_training * (split in runner["eval_dataloaders"]) + tests * (split == test),
        )


def training_draws(task: str, config: dict[str, Any]) -> int:
    """Utterances that the training of one run asks for."""
    if "runner" not in config:
        return 0
    binding = TASKS[task].binding
    size = max(1, binding.batch_size(config["downstream_expert"]) // binding.batch_divisor)
    return total_steps(config) * int(config["runner"]["gradient_accumulate_steps"]) * size


def need_of(
    demand: Demand,
    *,
    upstream: str,
    audio: str,
    runs: int,
    present: int,
    missing: tuple[int, float],
) -> Need:
    """Put a walked-through demand into numbers, for ``runs`` runs of it, folds included."""
    waveforms = len(demand.waves)
    seconds = sum(wave.seconds for wave in demand.waves.values())
    return Need(
        upstream=upstream,
        task=demand.task,
        kind=demand.kind,
        audio=audio,
        waveforms=waveforms,
        seconds=seconds,
        present=present,
        missing=missing,
        drawn=demand.drawn,
        drawn_share=demand.drawn_share,
        training_draws=demand.training_draws * runs,
        evaluation_draws=demand.evaluation_draws * runs,
        draw_seconds=seconds / waveforms if waveforms else 0.0,
    )


def assumed_need(task: str, config: dict[str, Any], *, upstream: str, runs: int) -> Need:
    """What runs of a task on SUPERB's corpora ask for, with nothing stored yet."""
    audio = TASKS[task].audio
    train, train_hours = audio.splits.get("train", (0, 0.0))
    crops = audio.crops
    share = crops.share if crops else 0.0
    # Short utterances are stored whole; the long ones only as crops, which are live.
    cropped = share if crops and crops.files is None else 0.0
    long_hours = cropped * train * crops.seconds / 3600 if crops else 0.0
    evaluations = {
        split: (count, *audio.splits[split])
        for split, count in splits_read(task, config)
        if split != "train" and split in audio.splits
    }
    if audio.evaluated_once is not None:
        evaluated = [audio.evaluated_once]
    else:
        evaluated = [(size, hours) for _, size, hours in evaluations.values()]
    whole = round(train * (1 - cropped))
    waveforms = whole + sum(count for count, _ in evaluated)
    seconds = 3600 * (train_hours - long_hours + sum(hours for _, hours in evaluated))
    short = (train_hours - long_hours) * 3600 / max(1, whole)
    crop_seconds = cropped * crops.crop_seconds if crops else 0.0
    return Need(
        upstream=upstream,
        task=task,
        kind=kind_of(task, config),
        audio=audio.shared or task,
        waveforms=waveforms,
        seconds=seconds,
        missing=(waveforms, seconds),
        drawn=round(cropped * train) if crops is None or crops.files is None else crops.files,
        drawn_share=share,
        training_draws=training_draws(task, config) * runs,
        evaluation_draws=runs * sum(count * size for count, size, _ in evaluations.values()),
        draw_seconds=(1 - cropped) * short + crop_seconds if train else 0.0,
    )


def shared_once(needs: list[Need]) -> list[Need]:
    """Let the first need of some audio compute it, and the others find it stored."""
    seen: set[tuple[str, str, str]] = set()
    found = []
    for need in needs:
        name = need.upstream, need.audio, need.kind
        shared = replace(need, present=need.waveforms, missing=(0, 0.0))
        found.append(shared if name in seen else need)
        seen.add(name)
    return found
