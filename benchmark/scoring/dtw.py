"""QbE's scores: how well a query matches some stretch of a document.

s3prl's recipe (``quesst14_dtw``): features standardized over all frames, frame distances
exp(cosine distance) − 1, each query frame's distances scaled to [0, 1] over the document, then
subsequence dynamic time warping with the asymmetric step pattern: every query frame is used once,
and the document moves on by 0, 1 or 2 frames from one to the next (Sakoe and Chiba 1978; open
begin and end as in Tormene et al. 2009). The score is minus the mean distance of the best path.

numba compiles the warping where it is installed; numpy gives the same numbers without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

# s3prl does not match queries below this many frames: their scores are all 0
SHORTEST_QUERY = 5
_SMALLEST_RANGE = 1e-9


def _warp_rows(distances: np.ndarray) -> float:
    """Return the best path's summed distance, row by row in numpy; (query, document) frames."""
    best = distances[0].copy()
    for row in distances[1:]:
        reached = best.copy()
        np.minimum(reached[1:], best[:-1], out=reached[1:])
        np.minimum(reached[2:], best[:-2], out=reached[2:])
        best = row + reached
    return float(best.min())


def _warp_cells(distances: np.ndarray) -> float:
    """Return the same as `_warp_rows`, cell by cell, for numba to compile."""
    frames = distances.shape[1]
    best = distances[0].copy()
    for i in range(1, distances.shape[0]):
        # from the right, so that the cells to the left are still those of the row before
        for j in range(frames - 1, -1, -1):
            reached = best[j]
            if j >= 1 and best[j - 1] < reached:
                reached = best[j - 1]
            if j >= 2 and best[j - 2] < reached:
                reached = best[j - 2]
            best[j] = distances[i, j] + reached
    return best.min()


_warp: Callable[[np.ndarray], float]
try:
    from numba import njit
except ImportError:
    _warp = _warp_rows
else:
    _warp = njit(nogil=True)(_warp_cells)


def subsequence_distance(distances: np.ndarray) -> float:
    """Return the mean distance of the best match of all of a query inside a document.

    It is what dtw-python calls ``normalizedDistance`` with the step pattern ``asymmetric``,
    ``open_begin`` and ``open_end``.

    Args:
        distances: (query frames, document frames), finite.

    Raises:
        ValueError: another shape, no frames, or a distance that is not finite.
    """
    distances = np.ascontiguousarray(distances, dtype=np.float64)
    if distances.ndim != 2 or 0 in distances.shape:
        raise ValueError(
            f"distances need the shape (query frames, document frames), not {distances.shape}"
        )
    if not np.isfinite(distances).all():
        raise ValueError("every distance needs to be finite")
    return float(_warp(distances)) / distances.shape[0]


def frame_distances(query: np.ndarray, document: np.ndarray) -> np.ndarray:
    """Return the distances between frames, each query frame's scaled to [0, 1].

    Args:
        query: (query frames, dimensions).
        document: (document frames, dimensions).

    Returns:
        (query frames, document frames), float64.

    Raises:
        ValueError: a frame of zeros, which has no direction, or one that is not finite.
    """
    return _scaled_distances(_unit(query), _unit(document))


def score_queries(
    queries: Mapping[str, np.ndarray], documents: Mapping[str, np.ndarray], *, threads: int = 1
) -> dict[str, dict[str, float]]:
    """Return every query's score for every document, higher for a better match.

    Not yet normalized by query: see `term_detection.normalize_scores`.

    Args:
        queries: name → (frames, dimensions); those under five frames score 0 everywhere.
        documents: name → (frames, dimensions).
        threads: documents in work at once.

    Raises:
        ValueError: a frame of zeros, or one that is not finite.
    """
    scores: dict[str, dict[str, float]] = {name: dict.fromkeys(documents, 0.0) for name in queries}
    matched = [name for name, frames in queries.items() if len(frames) >= SHORTEST_QUERY]
    if not matched:
        return scores
    # one matrix product a document for all queries together
    stacked = np.concatenate([_unit(queries[name]) for name in matched])
    ends = np.cumsum([len(queries[name]) for name in matched])

    def score(document: np.ndarray) -> list[float]:
        distances = _scaled_distances(stacked, _unit(document))
        return [-subsequence_distance(rows) for rows in np.split(distances, ends[:-1])]

    with ThreadPoolExecutor(threads) as pool:
        columns = pool.map(score, documents.values())
        for document, column in zip(documents, columns, strict=True):
            for query, value in zip(matched, column, strict=True):
                scores[query][document] = value
    return scores


def standardize(
    queries: Mapping[str, np.ndarray], documents: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Give every dimension mean 0 and standard deviation 1 over all frames of both.

    Sums are kept in float64, file by file; the standard deviation is the unbiased one, at least
    1e-9. The arrays keep their type.
    """
    files = [*queries.values(), *documents.values()]
    frames = sum(len(file) for file in files)
    mean = sum(file.sum(axis=0, dtype=np.float64) for file in files) / frames
    squares = sum(((file - mean) ** 2).sum(axis=0) for file in files)
    spread = np.maximum(np.sqrt(squares / max(frames - 1, 1)), 1e-9)

    def apply(named: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: ((file - mean) / spread).astype(file.dtype) for name, file in named.items()}

    return apply(queries), apply(documents)


def _unit(frames: np.ndarray) -> np.ndarray:
    """Return the frames at length 1, float64."""
    frames = np.asarray(frames, dtype=np.float64)
    lengths = np.linalg.norm(frames, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError("every frame needs to be finite and not all zero, to have a direction")
    return frames / lengths


def _scaled_distances(query: np.ndarray, document: np.ndarray) -> np.ndarray:
    distances = np.exp(1.0 - query @ document.T) - 1.0
    smallest = distances.min(axis=1, keepdims=True)
    spread = distances.max(axis=1, keepdims=True) - smallest
    return (distances - smallest) / np.maximum(spread, _SMALLEST_RANGE)
