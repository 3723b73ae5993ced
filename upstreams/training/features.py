"""What units are clusters of: MFCC in the first phase, a layer's hidden states in the second.

Reference: HuBERT's published recipe (fairseq, examples/hubert/simple_kmeans): Kaldi's MFCC with 13
coefficients, no energy, and their first and second differences; or the output of layer L without
masking, in float32, in pieces of at most 100 s.

Notation: N samples, T frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from superbit.upstreams import checkpoint, files
from superbit.upstreams.errors import InputError
from superbit.upstreams.s3prl import compat
from superbit.upstreams.training.manifest import SAMPLE_RATE

# torchaudio's compiled extension may not load under today's torch; MFCC do without it.
compat.apply()
import torchaudio.compliance.kaldi as kaldi  # noqa: E402
from torchaudio.functional import compute_deltas  # noqa: E402

MFCC_DIM = 39
MIN_SAMPLES = 400  # the window of a first frame, of MFCC as of the front end
_PIECE_SAMPLES = 1_600_000


@dataclass(frozen=True, kw_only=True)
class UnitFeatures:
    """Where features come from, and what identifies them.

    Attributes:
        kind: ``"mfcc"`` or ``"hidden"``.
        rate: frames a second.
        layer: of hidden states, 1 for the first layer's output; None for MFCC.
        checkpoint: hash of the weights behind hidden states; empty for MFCC.
        extract: maps samples (N,) to features (T, dim), float32.
    """

    kind: Literal["mfcc", "hidden"]
    rate: int
    layer: int | None
    checkpoint: str
    extract: Callable[[np.ndarray], np.ndarray]


def mfcc_source() -> UnitFeatures:
    """Return 39-dimensional MFCC every 10 ms."""
    return UnitFeatures(kind="mfcc", rate=100, layer=None, checkpoint="", extract=_mfcc_array)


def hidden_source(path: str | Path, *, layer: int, device: str | None = None) -> UnitFeatures:
    """Return the hidden states of one layer of a checkpoint, every 20 ms.

    Args:
        path: a checkpoint directory.
        layer: 0 for the encoder's input, 1 … L for a layer's output.
        device: ``"cpu"`` or ``"cuda"``; None: a GPU where there is one.

    Raises:
        InputError: the checkpoint does not load, or has no such layer.
    """
    loaded = checkpoint.load(path)
    model = loaded.model.eval()
    if not 0 <= layer <= model.config.layers:
        raise InputError(
            f"layer {layer}: {path} has {model.config.layers} layers; give 0 for their input, or "
            f"1 to {model.config.layers}."
        )
    model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def extract(samples: np.ndarray) -> np.ndarray:
        pieces = [
            piece
            for piece in torch.from_numpy(samples).split(_PIECE_SAMPLES)
            if len(piece) >= model.config.receptive_field
        ]
        with torch.inference_mode():
            like = model.mask_emb
            states = [
                model.encode(model.project(model.front_end(piece[None].to(like))), None)[layer][0]
                for piece in pieces
            ]
        return torch.cat(states).float().cpu().numpy()

    return UnitFeatures(
        kind="hidden",
        rate=SAMPLE_RATE // model.config.hop,
        layer=layer,
        checkpoint=files.sha256(Path(path) / checkpoint.WEIGHTS_FILE),
        extract=extract,
    )


def mfcc(samples: Tensor) -> Tensor:
    """Map samples (N,) to MFCC with first and second differences, (T, 39), T = (N − 400) / 160 + 1.

    Windows of 25 ms every 10 ms, Kaldi's defaults; differences over windows of 5 frames.
    """
    coefficients = kaldi.mfcc(samples[None], sample_frequency=SAMPLE_RATE, use_energy=False).T
    first = compute_deltas(coefficients)
    return torch.cat([coefficients, first, compute_deltas(first)]).T


def _mfcc_array(samples: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return mfcc(torch.from_numpy(samples)).numpy()
