"""What a task will ask an upstream for: found by walking through the task's own datasets."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from superbit.benchmark.tasks.bindings import BINDINGS, Places
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


def kind_of(task: str, config: dict[str, Any]) -> Kind:
    """Whether a task's head needs frames or only their mean.

    Weighted sum and projector are linear, so they commute with a mean over time that nothing
    non-linear comes before.
    """
    head = config["downstream_expert"].get("modelrc", {})
    if TASKS[task].name in ("KS", "SID", "IC", "ER") and head.get("select") == "UtteranceLevel":
        level = head.get("UtteranceLevel") or {}
        if level.get("pooling", "MeanPooling") == "MeanPooling" and not level.get("pre_net"):
            return "pooled"
    return "frames"


def find_demand(
    task: str,
    config: dict[str, Any],
    *,
    places: Places,
    files: KnownFiles,
    rate: float,
    lengths: Lengths,
    on_item: Callable[[], None] = lambda: None,
) -> Demand:
    """Walk through every split of a task that a run reads; the global generators stay as they are.

    Args:
        rate: samples a frame; SD cuts its chunks by it.
        lengths: remembers what had to be decoded to be measured.
        on_item: called after each item.
    """
    before = rng_state()
    config = copy.deepcopy(config)
    binding = BINDINGS[task]
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


class Lengths:
    """Lengths that only decoding tells (silence trimmed, audio resampled), kept in a file."""

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

    def __init__(self, files: KnownFiles, lengths: Lengths) -> None:
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
    """How much of all draws each item that is cut has: KS draws by weight, others evenly."""
    weights = getattr(loader.dataset, "sample_weights", None) or [1.0] * len(cut)
    return [w / sum(weights) for w, is_cut in zip(weights, cut, strict=True) if is_cut]


def splits_read(task: str, config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Every split that a run reads, with how often it is evaluated."""
    if "runner" not in config:
        yield from (("dev", 1), ("test", 1))
        return
    runner, test = config["runner"], BINDINGS[task].test
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
    size: Any = config["downstream_expert"]
    for key in BINDINGS[task].batch:
        size = size[key]
    # ASR halves its batches.
    size = size // 2 if task == "ASR" and size > 1 else size
    return total_steps(config) * int(config["runner"]["gradient_accumulate_steps"]) * int(size)
