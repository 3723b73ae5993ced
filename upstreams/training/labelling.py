"""Labels of a whole manifest, in parts that any number of processes share and a kill cannot undo.

The manifest is cut into parts of 500 utterances. A finished part is a file of its own, in a folder
whose name says of which manifest and units; whoever finishes the last part puts them together. So
the same command resumes, and shards on several machines need nothing but a shared folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from superbit.upstreams import files
from superbit.upstreams.counting import Counting, unseen
from superbit.upstreams.errors import InputError
from superbit.upstreams.machine import end_with_parent
from superbit.upstreams.training.features import FeatureSource, hidden_source, mfcc_source
from superbit.upstreams.training.labels import Variety, labels_text, sidecar_of
from superbit.upstreams.training.manifest import Manifest, read_manifest
from superbit.upstreams.training.units import Units, label_utterance, load_units

PART_UTTERANCES = 500


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


def _source(job: LabelJob, units: Units) -> FeatureSource:
    if units.info.kind == "mfcc" and job.checkpoint is None:
        return mfcc_source()
    if job.checkpoint is None:
        raise InputError(
            f"{job.units} has units of layer {units.info.layer}; --checkpoint must name the model."
        )
    if units.info.layer is None:
        raise InputError(f"{job.units} has units of MFCC, for which --checkpoint has no use.")
    return hidden_source(job.checkpoint, layer=units.info.layer, device=job.device)


def _digest(job: LabelJob, manifest: Manifest) -> str:
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
    loaded: tuple[Manifest, Units, FeatureSource],
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


_loaded: dict[LabelJob, tuple[Manifest, Units, FeatureSource]] = {}


def _label_part_anew(job: LabelJob, part: int, parts: Path) -> list[str]:
    """Label one part in a process of the pool, which loads what it needs once."""
    import torch

    if job not in _loaded:
        torch.set_num_threads(1)
        units = load_units(job.units)
        _loaded[job] = (read_manifest(job.manifest), units, _source(job, units))
    return _label_part(part, parts, *_loaded[job])


def _utterances(part: int, manifest: Manifest) -> range:
    first = part * PART_UTTERANCES
    return range(first, min(first + PART_UTTERANCES, len(manifest)))


def _label_part(
    part: int,
    parts: Path,
    manifest: Manifest,
    units: Units,
    source: FeatureSource,
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
