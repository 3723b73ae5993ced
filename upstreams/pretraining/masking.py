"""Which frames are hidden from the encoder: spans that may overlap.

Reference: wav2vec 2.0, Baevski et al., 2020, https://arxiv.org/abs/2006.11477, section 3.1, and
HuBERT's published code (fairseq): int(p · T / span + u) spans with u uniform in 0 … 1, their starts
drawn without replacement.

The random stream of an utterance is its own: it follows from seed, epoch and index, and so does
not depend on the batch, the rank or the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Streams of one utterance in one epoch; a new one gets a new number.
CROP, MASK, EQUALIZE = 0, 1, 2


def item_stream(*, seed: int, epoch: int, item: int, purpose: int) -> np.random.Generator:
    """Return the random stream of one utterance in one epoch for one purpose."""
    return np.random.default_rng([seed, epoch, item, purpose])


def span_mask(
    frames: int,
    *,
    probability: float,
    span: int,
    at_least: int,
    random: np.random.Generator,
) -> np.ndarray:
    """Return which frames are masked, (frames,) bool: some are, and never all of them.

    Args:
        frames: T, at least 2.
        probability: expected share of masked frames if spans did not overlap.
        span: frames masked together; shortened where the utterance is too short for it.
        at_least: spans, whatever T is.
        random: the utterance's own stream.
    """
    spans = max(int(probability * frames / span + random.random()), at_least)
    # fairseq's rule for short utterances: shorter spans, so that every start has room
    if frames - span <= spans:
        spans = min(spans, max(1, frames // 2))
        span = max(1, min(span, frames - spans - 1))
    starts = random.choice(frames - span, spans, replace=False)
    mask = np.zeros(frames, dtype=bool)
    mask[(starts[:, None] + np.arange(span)).ravel()] = True
    return mask


def equalize(masks: Sequence[np.ndarray], streams: Sequence[np.random.Generator]) -> np.ndarray:
    """Unmask random frames until every mask of a batch has as many as the smallest, (B, T) bool.

    fairseq does so. It makes the masks depend on the batch, hence on the number of ranks.
    """
    fewest = min(int(mask.sum()) for mask in masks)
    rows = []
    for mask, random in zip(masks, streams, strict=True):
        kept = random.choice(np.flatnonzero(mask), fewest, replace=False)
        row = np.zeros_like(mask)
        row[kept] = True
        rows.append(row)
    return np.stack(rows)
