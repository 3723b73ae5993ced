"""Units: the clusters of k-means, fitted on a part of a manifest, and given to the whole of one.

Reference: HuBERT's published recipe (fairseq, learn_kmeans): scikit-learn's MiniBatchKMeans with
the settings below, on the features of a tenth of the utterances. They are saved without pickle.

Labels are made in parts of 500 utterances, which any number of processes share and a kill cannot
undo. A finished part is a file of its own, in a folder whose name says of which manifest and units;
whoever finishes the last part puts them together. So the same command resumes, and shards on
several machines need nothing but a shared folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from superbit.upstreams import files
from superbit.upstreams.counting import Counting, unseen
from superbit.upstreams.errors import InputError
from superbit.upstreams.machine import end_with_parent
from superbit.upstreams.training.features import (
    MIN_SAMPLES,
    UnitFeatures,
    hidden_source,
    mfcc_source,
)
from superbit.upstreams.training.labels import LEAST_UNITS, Variety, labels_text, sidecar_of
from superbit.upstreams.training.manifest import (
    SAMPLE_RATE,
    AudioManifest,
    CorruptAudio,
    read_manifest,
    read_samples,
)

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
PART_UTTERANCES = 500


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

    def check_source(self, source: UnitFeatures, file: Path) -> None:
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
    manifest: AudioManifest,
    source: UnitFeatures,
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
    manifest: AudioManifest, index: int, *, units: Units, source: UnitFeatures
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


@dataclass(frozen=True, kw_only=True)
class LabelJob:
    """What is labelled with what.

    Attributes:
        manifest: a ``.tsv`` file.
        units: a file of units.
        checkpoint: the model of hidden units; None for MFCC.
        out: the ``.km`` file.
        device: for a checkpoint's model; None: a GPU where there is one.
    """

    manifest: Path
    units: Path
    checkpoint: Path | None
    out: Path
    device: str | None = None


def label_manifest(
    job: LabelJob,
    *,
    shard: int = 0,
    shards: int = 1,
    jobs: int = 1,
    counting: Counting = unseen,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[bool, tuple[str, ...]]:
    """Label the parts of one shard that are not done yet.

    Args:
        job: what is labelled with what.
        shard: this one, from 0.
        shards: how many there are, on this machine or others.
        jobs: processes of this shard.
        counting: shows how many utterances of this shard are labelled; with several processes
            they are counted part by part.
        say: called with what is odd about the labels once they are complete.

    Returns:
        Whether the label file is complete, and the files that could not be read.

    Raises:
        InputError: units that are not of these features, a shard that is not there, an utterance
            without a frame, labels that are all one, or a file that cannot be read or written.
    """
    if not 0 <= shard < shards:
        raise InputError(f"shard {shard} of {shards}: shards are 0 to {shards - 1}.")
    manifest, units = read_manifest(job.manifest), load_units(job.units)
    source = _source(job, units)
    units.check_source(source, job.units)
    digest = _digest(job, manifest)
    if _is_complete(job.out, digest):
        return True, ()
    parts = job.out.with_name(f"{job.out.name}.parts-{digest}")
    count = -(-len(manifest) // PART_UTTERANCES)
    own = range(shard, count, shards)
    missing = [part for part in own if not _part(parts, part).is_file()]
    total = sum(len(_utterances(part, manifest)) for part in own)
    done = total - sum(len(_utterances(part, manifest)) for part in missing)
    skipped: list[str] = []
    with counting(f"labels of {job.manifest}") as on_progress:

        def labelled(count: int) -> None:
            nonlocal done
            done += count
            on_progress(done, total)

        loaded = manifest, units, source
        for reasons in _label_parts(job, parts, missing, jobs, loaded, labelled):
            skipped += reasons
    return _put_together(job, parts, count, units, digest, say), tuple(skipped)


def _source(job: LabelJob, units: Units) -> UnitFeatures:
    if units.info.kind == "mfcc" and job.checkpoint is None:
        return mfcc_source()
    if job.checkpoint is None:
        raise InputError(
            f"{job.units} has units of layer {units.info.layer}; --checkpoint must name the model."
        )
    if units.info.layer is None:
        raise InputError(f"{job.units} has units of MFCC, for which --checkpoint has no use.")
    return hidden_source(job.checkpoint, layer=units.info.layer, device=job.device)


def _digest(job: LabelJob, manifest: AudioManifest) -> str:
    """Return what tells these labels from those of another manifest or other units."""
    content = f"{manifest.to_text()}\n{files.sha256(job.units)}"
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _is_complete(out: Path, digest: str) -> bool:
    sidecar = sidecar_of(out)
    if not (out.is_file() and sidecar.is_file()):
        return False
    try:
        return files.read_json(sidecar, "a sidecar of labels")["made_from"] == digest
    except (InputError, KeyError, TypeError):
        return False


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.km"


def _label_parts(
    job: LabelJob,
    parts: Path,
    missing: Sequence[int],
    jobs: int,
    loaded: tuple[AudioManifest, Units, UnitFeatures],
    labelled: Callable[[int], None],
) -> Iterator[list[str]]:
    """Yield, for each part as it is finished, the files that could not be read."""
    if jobs == 1 or len(missing) < 2:
        for part in missing:
            yield _label_part(part, parts, *loaded, labelled)
        return
    # spawned: a forked copy of torch's threads may hang
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=end_with_parent
    ) as pool:
        pending = {pool.submit(_label_part_anew, job, part, parts): part for part in missing}
        try:
            for future in as_completed(pending):
                labelled(len(_utterances(pending[future], loaded[0])))
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


_loaded: dict[LabelJob, tuple[AudioManifest, Units, UnitFeatures]] = {}


def _label_part_anew(job: LabelJob, part: int, parts: Path) -> list[str]:
    """Label one part in a process of the pool, which loads what it needs once."""
    import torch

    if job not in _loaded:
        torch.set_num_threads(1)
        units = load_units(job.units)
        _loaded[job] = (read_manifest(job.manifest), units, _source(job, units))
    return _label_part(part, parts, *_loaded[job])


def _utterances(part: int, manifest: AudioManifest) -> range:
    first = part * PART_UTTERANCES
    return range(first, min(first + PART_UTTERANCES, len(manifest)))


def _label_part(
    part: int,
    parts: Path,
    manifest: AudioManifest,
    units: Units,
    source: UnitFeatures,
    labelled: Callable[[int], None] = lambda count: None,
) -> list[str]:
    rows, skipped = [], []
    for index in _utterances(part, manifest):
        row, reason = label_utterance(manifest, index, units=units, source=source)
        rows.append(row)
        if reason is not None:
            skipped.append(reason)
        labelled(1)
    with files.said_of(parts):
        files.write_text(_part(parts, part), labels_text(rows))
    return skipped


def _put_together(
    job: LabelJob,
    parts: Path,
    count: int,
    units: Units,
    digest: str,
    say: Callable[[str], None],
) -> bool:
    """Write the label file and its sidecar once every part is there, and say whether it is."""
    if any(not _part(parts, part).is_file() for part in range(count)):
        # unless another shard, finished at the same time, put them together and removed them
        return _is_complete(job.out, digest)
    info = units.info
    sidecar = {
        "units": len(units.centroids),
        "rate": info.rate,
        "kind": info.kind,
        "layer": info.layer,
        "made_from": digest,
    }
    try:
        text = b"".join(_part(parts, part).read_bytes() for part in range(count))
    except FileNotFoundError:
        return _is_complete(job.out, digest)
    variety = Variety(len(units.centroids))
    for line in text.splitlines():
        variety.add(line.split())
    if (few := variety.check(f"labels of {job.manifest} with {job.units}")) is not None:
        say(few)
    with files.said_of(job.out):
        files.write_bytes(job.out, text)
        files.write_text(sidecar_of(job.out), json.dumps(sidecar, indent=1) + "\n")
    shutil.rmtree(parts, ignore_errors=True)
    return True


def _too_short(path: Path, samples: int) -> str:
    return f"{path} has {samples} samples; at least {MIN_SAMPLES} are needed for one frame"


def _of(kind: str, layer: int | None) -> str:
    return "MFCC" if kind == "mfcc" else f"layer {layer}"
