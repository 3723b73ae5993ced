"""``superbit error-flow SPEC``: where a twin's error comes from, as a table or a figure."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.benchmark.error_flow_rendering import as_csv, as_markdown, caption, figure
from superbit.benchmark.progress import Reporter
from superbit.benchmark.table_formats import require_one_of
from superbit.upstreams import registry
from superbit.upstreams.errors import InputError
from superbit.upstreams.figures import require_matplotlib
from superbit.upstreams.spec import TWIN_POLICY, UpstreamSpec

if TYPE_CHECKING:
    from torch import Tensor

    from superbit.upstreams.hubert import Hubert
    from superbit.upstreams.quantization.error_flow import BlockFlow

FORMATS = ("csv", "md", "png")
SIGNAL_SECONDS = 4
AUDIO_SECONDS = 60  # of a folder, at most: the first files in order of their names
EXTENSIONS = (".flac", ".wav")


@dataclass(frozen=True, kw_only=True)
class Audio:
    """What the models are given.

    Attributes:
        waveforms: utterances at 16 kHz.
        meaning: where they come from, for the caption.
    """

    waveforms: list[Tensor]
    meaning: str


def error_flow_command(arguments: argparse.Namespace) -> int:
    """Print the flow of error, or write a figure and print where it lies; return 0.

    Reads of ``arguments``: ``spec``, ``audio`` (a folder, None for a fixed signal), ``format``
    (one of `FORMATS`), ``out`` (a file; None for standard output, and for a figure
    ``error-flow-<spec>.png``).

    Raises:
        InputError: no encoder of superbit's in full precision, an unknown policy or format, audio
            that cannot be used, matplotlib that is not installed, or a file that cannot be written.
    """
    require_one_of("format", arguments.format, FORMATS)
    if arguments.format == "png":
        require_matplotlib("--format png", instead="choose csv or md")
    reporter = Reporter()
    with reporter.quiet() as out:
        spec = UpstreamSpec.parse(arguments.spec).normalized()
        policy = spec.policy or TWIN_POLICY
        model, twin, weights = model_and_twin(spec, policy)
        audio = read_folder(arguments.audio) if arguments.audio else fixed_signal()
        rows = measure(model, twin, audio, each=partial(reporter.each, "blocks of the encoder"))
    title, notes = (
        f"{_plain(spec)} and its {policy} twin",
        caption(rows, model=weights, audio=audio.meaning),
    )
    file: Path | None = arguments.out
    if arguments.format == "png":
        file = file or Path(f"error-flow-{_file_name(spec, policy)}.png")
        content = figure(rows, title=title, notes=notes)
    else:
        text = as_csv(rows) if arguments.format == "csv" else as_markdown(rows, title, notes)
        content = text.encode()
        if file is None:
            print(text, end="", file=out)
            return 0
    try:
        file.write_bytes(content)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror or error}.") from None
    print(file)
    return 0


def model_and_twin(spec: UpstreamSpec, policy: str) -> tuple[Hubert, Hubert, str]:
    """Return the FP32 model of a spec, its twin, not calibrated yet, and what the weights are.

    Raises:
        InputError: somebody else's upstream, an unknown policy, or a twin's checkpoint.
    """
    import copy

    from superbit.upstreams import checkpoint
    from superbit.upstreams.expert import packaged_checkpoint
    from superbit.upstreams.hubert import untrained_model
    from superbit.upstreams.hubert_config import NAMED_SIZES
    from superbit.upstreams.quantization.convert import binarize_

    entry = registry.find(spec.name, twin=spec.policy == TWIN_POLICY)
    if not entry.ours:
        raise InputError(
            f"error-flow binarizes superbit's own encoders, and {spec.name!r} comes from "
            f"{entry.origin}; 'superbit list upstreams' shows them."
        )
    directory: str | Path | None = spec.checkpoint
    if directory is None and not spec.untrained:
        directory = packaged_checkpoint(spec.name)
    if directory is None:
        model = untrained_model(NAMED_SIZES[spec.name])
    else:
        model = checkpoint.load(directory, name=spec.name).model
    if model.policy is not None:
        raise InputError(
            f"{directory} holds a twin; error-flow makes the twin itself: give the checkpoint of "
            "the FP32 model."
        )
    weights = "random" if directory is None else f"those of {directory}"
    return model, binarize_(copy.deepcopy(model), policy), weights


def measure(
    model: Hubert,
    twin: Hubert,
    audio: Audio,
    *,
    each: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> list[BlockFlow]:
    """Calibrate the twin on the audio, and return the flow of error over it."""
    from superbit.upstreams.quantization.convert import calibrate
    from superbit.upstreams.quantization.error_flow import error_flow

    calibrate(twin, audio.waveforms)
    return error_flow(model, twin, audio.waveforms, each=each)


def fixed_signal(seconds: int = SIGNAL_SECONDS, *, seed: int = 0) -> Audio:
    """Return a signal with the gross features of speech, always the same for a seed.

    Syllables of 200 ms: harmonics of a gliding fundamental, three resonances that change with each
    syllable, every sixth syllable a fricative's noise, pauses, and noise 40 dB below full scale.
    """
    import numpy as np
    import torch

    random, rate = np.random.default_rng(seed), 16_000
    length = rate // 5
    time = np.arange(length) / rate
    envelope = np.sin(np.pi * np.arange(length) / length)
    pieces = []
    for index in range(seconds * rate // length):
        if index % 6 == 5:
            piece = np.diff(random.standard_normal(length + 1))
        elif index % 9 == 8:
            piece = np.zeros(length)
        else:
            pitch = random.uniform(90, 220) * (1 + random.uniform(-0.5, 0.5) * time)  # Hz
            phase = 2 * np.pi * np.cumsum(pitch) / rate
            resonances = random.uniform((250, 800, 2000), (800, 2300, 3200))  # Hz
            harmonics = np.arange(1, 26)
            distance = (harmonics[:, None] * pitch.mean() - resonances) / 120  # in half bandwidths
            gains = (1 / (1 + distance**2)).sum(axis=1) / harmonics**0.5
            piece = (gains[:, None] * np.sin(harmonics[:, None] * phase)).sum(axis=0)
        peak = np.abs(piece).max()
        pieces.append(0.3 * envelope * piece / peak if peak else piece)
    samples = np.concatenate(pieces)
    samples += 0.01 * random.standard_normal(len(samples))
    return Audio(
        waveforms=[torch.from_numpy(samples.astype(np.float32))],
        meaning=f"a fixed synthetic signal of {seconds} s",
    )


def read_folder(folder: Path) -> Audio:
    """Return the first minute of a folder's audio, whole files in order of their names.

    Raises:
        InputError: no folder, no audio in it, or a file that is damaged, not 16 kHz or not mono.
    """
    import torch

    from superbit.benchmark.corpora.audio import SAMPLE_RATE, read_audio

    if not folder.is_dir():
        raise InputError(f"--audio {folder} is no folder; give one that holds wav or flac files.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    if not files:
        raise InputError(f"--audio {folder} holds no wav or flac file.")
    waveforms: list[Tensor] = []
    samples, limit = 0, AUDIO_SECONDS * SAMPLE_RATE
    for file in files:
        read = torch.from_numpy(read_audio(file)[0][:limit])
        if waveforms and samples + len(read) > limit:
            break
        waveforms.append(read)
        samples += len(read)
    seconds = samples / SAMPLE_RATE
    return Audio(
        waveforms=waveforms,
        meaning=f"{len(waveforms)} of {len(files)} files of {folder}, {seconds:.1f} s",
    )


def _plain(spec: UpstreamSpec) -> str:
    """Return the spec of the FP32 model."""
    return str(spec).partition("+policy=")[0]


def _file_name(spec: UpstreamSpec, policy: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{_plain(spec)}-{policy}")
