"""Where a twin's error comes from: the two models that are compared, and what they are given.

`superbit.upstreams.quantization.error_flow` measures; `error_flow_rendering` prints.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from superbit.upstreams import registry
from superbit.upstreams.errors import InputError
from superbit.upstreams.spec import TWIN_POLICY, UpstreamSpec
from superbit.upstreams.visible import visible

if TYPE_CHECKING:
    from torch import Tensor

    from superbit.upstreams.hubert import Hubert
    from superbit.upstreams.quantization.error_flow import BlockFlow

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


@dataclass(frozen=True, kw_only=True)
class ModelPair:
    """The two models that are compared, of one size.

    Attributes:
        model: in full precision.
        twin: its twin, calibrated if it is trained.
        trained: the twin's weights are its own; else they are the model's.
        origin: where the weights are from, for the first line.
        weights: the same as a sentence, for the caption.
    """

    model: Hubert
    twin: Hubert
    trained: bool
    origin: str
    weights: str


def pair_of(spec: UpstreamSpec, *, teacher: Path | None = None) -> ModelPair:
    """Return the FP32 model and the twin that a spec names.

    A twin that superbit brings, or that is in a checkpoint, is the one that is looked at. Where
    there is none, one is made from the FP32 weights: of the checkpoint, those that superbit brings,
    or random ones.

    Args:
        spec: of the twin, or of the FP32 model for its w1a1 twin that is made.
        teacher: checkpoint of the FP32 model that a twin is held against.

    Raises:
        InputError: somebody else's upstream, an unknown policy, a checkpoint that holds another
            precision than was asked for, or a twin's checkpoint without its teacher.
    """
    from superbit.upstreams import checkpoint
    from superbit.upstreams.expert import packaged_checkpoint, require_policy
    from superbit.upstreams.hubert import untrained_model
    from superbit.upstreams.quantization.convert import binarize_
    from superbit.upstreams.quantization.policy import load_policy
    from superbit.upstreams.variant import size_of

    entry = registry.find(spec.name, twin=spec.policy == TWIN_POLICY)
    if not entry.ours:
        raise InputError(
            f"error-flow binarizes superbit's own encoders, and {spec.name!r} comes from "
            f"{entry.origin}; 'superbit list upstreams' shows them."
        )
    name, policy = spec.name, load_policy(spec.policy or TWIN_POLICY)
    shipped = None if spec.untrained else packaged_checkpoint(name)
    twins: str | Path | None = spec.checkpoint
    if twins is None and spec.policy and not spec.untrained:
        twins = packaged_checkpoint(name, policy=spec.policy)
    twin = None if twins is None else checkpoint.load(twins, name=name).model
    if twin is not None and twin.policy is not None:
        require_policy(
            twin, policy if spec.policy else None, asked=str(spec), name=name, ckpt=str(twins)
        )
        against = teacher or (None if spec.checkpoint else shipped)
        if against is None:
            raise InputError(
                f"{twins} holds a twin, and a checkpoint does not hold its teacher: give that FP32 "
                "model with --teacher DIR."
            )
        model = _full_precision(against, name)
        if model.config != twin.config:
            raise InputError(f"{against} and {twins} are of different sizes; no module compares.")
        if teacher is None:
            origin = "the trained ones that superbit brings"
            weights = f"Weights of both: {origin}; the twin is as it was trained."
        else:
            origin = f"the trained one of {twins if spec.checkpoint else 'superbit'}"
            weights = f"FP32 weights: {against}. Twin: {origin}, as it was trained."
        return ModelPair(model=model, twin=twin, trained=True, origin=origin, weights=weights)
    if teacher is not None:
        raise InputError(f"--teacher {teacher} is for a trained twin, and {spec} names none.")
    if twin is not None:  # what the spec's checkpoint holds is in full precision
        model, origin = twin, f"the weights of {spec.checkpoint}"
    elif shipped is not None:
        model, origin = _full_precision(shipped, name), "the weights that superbit brings"
    else:
        model, origin = untrained_model(size_of(name)), "random weights"
    none_shipped = spec.policy is not None and spec.checkpoint is None and not spec.untrained
    why = "; superbit brings no trained twin of this policy" if none_shipped else ""
    return ModelPair(
        model=model,
        twin=binarize_(copy.deepcopy(model), policy),
        trained=False,
        origin=f"made from {origin}{why}",
        weights=f"The FP32 model has {origin}; the twin has these too, and scales calibrated on "
        f"the input: it is not trained{why}.",
    )


def _full_precision(directory: str | Path, name: str) -> Hubert:
    from superbit.upstreams import checkpoint

    model = checkpoint.load(directory, name=name).model
    if model.policy is not None:
        raise InputError(
            f"{directory} holds a twin of policy {model.policy.name!r}; the FP32 model is needed "
            "that it is held against."
        )
    return model


def flow_of_pair(
    pair: ModelPair, audio: Audio, *, each: Callable[[Sequence[str]], Iterable[str]] = iter
) -> list[BlockFlow]:
    """Return the flow of error over the audio; a twin that was made is calibrated on it first."""
    from superbit.upstreams.quantization.convert import calibrate
    from superbit.upstreams.quantization.error_flow import error_flow

    if not pair.trained:
        calibrate(pair.twin, audio.waveforms)
    return error_flow(pair.model, pair.twin, audio.waveforms, each=each)


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


def audio_of_folder(folder: Path) -> Audio:
    """Return the first minute of a folder's audio, whole files in order of their names.

    Raises:
        InputError: no folder, no audio in it, or a file that is damaged, not 16 kHz or not mono.
    """
    import torch

    from superbit.benchmark.corpora.audio import SAMPLE_RATE, read_audio

    if not folder.is_dir():
        raise InputError(f"--audio {folder} is no folder; give one that holds wav or flac files.")
    files = [path for path in visible(folder, "**/*") if path.suffix.lower() in EXTENSIONS]
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
