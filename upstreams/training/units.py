"""Units: the clusters of k-means, fitted on a part of the manifest, saved without pickle.

Reference: HuBERT's published recipe (fairseq, learn_kmeans): scikit-learn's MiniBatchKMeans with
the settings below, on the features of a tenth of the utterances.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from superbit.upstreams import files
from superbit.upstreams.counting import Counting, unseen
from superbit.upstreams.errors import InputError
from superbit.upstreams.training.features import MIN_SAMPLES, FeatureSource
from superbit.upstreams.training.labels import LEAST_UNITS, Variety
from superbit.upstreams.training.manifest import SAMPLE_RATE, CorruptAudio, Manifest, read_samples

KMEANS = {
    "init": "k-means++",
    "batch_size": 10_000,
    "n_init": 20,
    "max_iter": 100,
    "tol": 0.0,
    "max_no_improvement": 100,
    "reassignment_ratio": 0.0,
    "compute_labels": False,
}
_METADATA = "superbit_units"
_ASSIGNED_AT_ONCE = 10_000  # frames


@dataclass(frozen=True, kw_only=True)
class UnitsInfo:
    """What a file of units says of itself: the features that it clusters, and how it was fitted."""

    kind: str
    rate: int
    layer: int | None
    checkpoint: str
    seed: int
    frames: int
    mean_squared_distance: float


@dataclass(frozen=True, kw_only=True)
class Units:
    """Centroids (K, dim), float32, and what they are of."""

    centroids: np.ndarray
    info: UnitsInfo

    def assign(self, features: np.ndarray) -> np.ndarray:
        """Return the nearest centroid of each frame: (T, dim) to (T,) int64."""
        # |x|² is the same for every centroid of a frame
        distance = (self.centroids**2).sum(axis=1) - 2 * features @ self.centroids.T
        return distance.argmin(axis=1)

    def check_source(self, source: FeatureSource, file: Path) -> None:
        """Raise `InputError` unless features of ``source`` are those that were clustered."""
        info = self.info
        if info.kind != source.kind or info.layer != source.layer:
            raise InputError(
                f"{file} has units of {_of(info.kind, info.layer)}, not of "
                f"{_of(source.kind, source.layer)}."
            )
        if info.checkpoint != source.checkpoint:
            raise InputError(
                f"{file} was fitted on another checkpoint's hidden states; label with that one, or "
                "fit units on this one."
            )


def fit_units(
    manifest: Manifest,
    source: FeatureSource,
    *,
    clusters: int,
    fraction: float = 1.0,
    seed: int = 0,
    counting: Counting = unseen,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Units, tuple[str, ...]]:
    """Cluster the features of a random part of a manifest.

    Args:
        manifest: the utterances.
        source: the features.
        clusters: K.
        fraction: share of the utterances, at least one of them.
        seed: decides the part and the start of k-means.
        counting: shows how many utterances are read, and that k-means goes on.
        say: called with what is odd about the units.

    Returns:
        The units, and why files were skipped.

    Raises:
        InputError: a share outside 0 … 1, fewer frames than clusters, no file to be read, or
            features that all fall into one cluster.
    """
    from sklearn.cluster import MiniBatchKMeans

    if not 0 < fraction <= 1:
        raise InputError(f"fraction is {fraction}; a share above 0 and at most 1 is needed.")
    if clusters < LEAST_UNITS:
        raise InputError(
            f"{clusters} clusters: at least {LEAST_UNITS} are needed, or there is nothing to "
            "predict."
        )
    count = max(1, round(fraction * len(manifest)))
    chosen = np.random.default_rng(seed).permutation(len(manifest))[:count]
    read, skipped = [], []
    with counting(f"features of {manifest.file}") as on_progress:
        for done, index in enumerate(np.sort(chosen)):
            try:
                samples = read_samples(manifest.path(index), total=int(manifest.samples[index]))
            except CorruptAudio as error:
                skipped.append(str(error))
            else:
                if len(samples) >= MIN_SAMPLES:
                    read.append(source.extract(samples))
                else:
                    skipped.append(_too_short(manifest.path(index), len(samples)))
            on_progress(done + 1, count)
    if not read:
        raise InputError(f"{manifest.file}: no audio file could be read; {skipped[0]}.")
    features = np.concatenate(read)
    if len(features) < clusters:
        raise InputError(
            f"{manifest.file} gives {len(features)} frames and {clusters} clusters were asked for; "
            "give fewer clusters, or more audio (--fraction)."
        )
    with counting(f"k-means of {len(features):,} frames"):
        kmeans = MiniBatchKMeans(n_clusters=clusters, random_state=seed, **KMEANS).fit(features)
    centroids = kmeans.cluster_centers_.astype(np.float32)
    info = UnitsInfo(
        kind=source.kind,
        rate=source.rate,
        layer=source.layer,
        checkpoint=source.checkpoint,
        seed=seed,
        frames=len(features),
        mean_squared_distance=round(float(-kmeans.score(features)) / len(features), 6),
    )
    units = Units(centroids=centroids, info=info)
    variety = Variety(clusters)
    for start in range(0, len(features), _ASSIGNED_AT_ONCE):
        variety.add(units.assign(features[start : start + _ASSIGNED_AT_ONCE]).tolist())
    if (few := variety.check(f"units of {manifest.file}")) is not None:
        say(few)
    return units, tuple(skipped)


def save_units(file: str | Path, units: Units) -> None:
    """Write units as one safetensors file, in one step.

    Raises `InputError` where the folder cannot be written to.
    """
    with files.said_of(file), files.replaced(file) as temporary:
        save_file(
            {"centroids": np.ascontiguousarray(units.centroids)},
            temporary,
            metadata={_METADATA: json.dumps(asdict(units.info))},
        )


def load_units(file: str | Path) -> Units:
    """Read what `save_units` wrote.

    Raises `InputError` where it is missing or something else.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"there is no {file}; make it with: superbit units fit.")
    try:
        with safe_open(file, framework="numpy") as content:
            centroids = content.get_tensor("centroids")
            info = UnitsInfo(**json.loads((content.metadata() or {})[_METADATA]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} is no file of units ({type(error).__name__}); make it with: superbit units "
            "fit."
        ) from None
    return Units(centroids=centroids, info=info)


def label_utterance(
    manifest: Manifest, index: int, *, units: Units, source: FeatureSource
) -> tuple[np.ndarray, str | None]:
    """Return the units (T,) of one utterance, and why its file could not be read, if so.

    A label file has a line for every utterance, so a file that cannot be read gets one of its
    length, all 0; training skips the file for the same reason.

    Raises:
        InputError: the audio is too short to have a frame.
    """
    path, total = manifest.path(index), int(manifest.samples[index])
    if total < MIN_SAMPLES:
        raise InputError(
            f"{_too_short(path, total)}; leave it out of {manifest.file}, as superbit manifest "
            "does."
        )
    try:
        samples = read_samples(path, total=total)
    except CorruptAudio as error:
        return np.zeros(total * source.rate // SAMPLE_RATE, dtype=np.int64), str(error)
    return units.assign(source.extract(samples)), None


def _too_short(path: Path, samples: int) -> str:
    return f"{path} has {samples} samples; at least {MIN_SAMPLES} are needed for one frame"


def _of(kind: str, layer: int | None) -> str:
    return "MFCC" if kind == "mfcc" else f"layer {layer}"
