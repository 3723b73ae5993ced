"""Audio files as pre-training reads them: 16 kHz, mono, wav or flac, whole or a part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from superbit.upstreams import files, sound
from superbit.upstreams.counting import Counting, unseen
from superbit.upstreams.errors import InputError
from superbit.upstreams.sound import SAMPLE_RATE
from superbit.upstreams.visible import visible

EXTENSIONS = ("flac", "wav")


class CorruptAudio(Exception):
    """One file of many cannot be used; whoever reads many skips and counts it."""


def audio_samples(path: Path) -> int:
    """Return how many samples a file holds; its header tells, where the writer knew.

    Raises `CorruptAudio` where it is no audio of 16 kHz and one channel, or cut short.
    """
    try:
        return _checked(sound.describe(path), path).samples
    except (OSError, sound.UnreadableAudio) as error:
        raise CorruptAudio(_because(path, error)) from None


def read_samples(
    path: Path, *, start: int = 0, count: int | None = None, total: int | None = None
) -> np.ndarray:
    """Return ``count`` samples from ``start``: float32, full scale 1.0, shape (count,).

    Args:
        path: a wav or flac file.
        start: the first sample.
        count: how many; None: to the end.
        total: samples that the file should hold; None: whatever it holds.

    Raises:
        CorruptAudio: the file is missing, not audio of 16 kHz and one channel, of another length,
            truncated, or has samples that are not finite.
    """
    try:
        held = _checked(sound.describe(path), path).samples
        if total is not None and held != total:
            raise CorruptAudio(f"{path} has {held} samples, its manifest says {total}")
        wanted = held - start if count is None else count
        samples = sound.decode(path, start=start, stop=start + wanted)[0][:, 0]
    except (OSError, sound.UnreadableAudio) as error:
        raise CorruptAudio(_because(path, error)) from None
    if len(samples) != wanted:
        raise CorruptAudio(f"{path} is truncated: {len(samples)} of {wanted} samples decode")
    if not np.isfinite(samples).all():
        raise CorruptAudio(f"{path} has samples that are not finite")
    return samples


def _checked(held: sound.Sound, path: Path) -> sound.Sound:
    if held.rate != SAMPLE_RATE:
        raise CorruptAudio(f"{path} is sampled at {held.rate} Hz, not at {SAMPLE_RATE}")
    if held.channels != 1:
        raise CorruptAudio(f"{path} has {held.channels} channels, not one")
    return held


def _because(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{path} cannot be read: {error.strerror or error}"
    return f"{path} {error}"


_WHAT = "a manifest: the root folder, then lines of path<TAB>samples"


@dataclass(frozen=True, kw_only=True)
class AudioManifest:
    """The utterances of one ``.tsv`` file.

    Attributes:
        file: where it was read from or is written to.
        root: folder that the paths start from.
        paths: one a line, relative to ``root``.
        samples: (utterances,) int64, the length of each.
    """

    file: Path
    root: Path
    paths: tuple[str, ...]
    samples: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def hours(self) -> float:
        """Hours of audio."""
        return float(self.samples.sum()) / SAMPLE_RATE / 3600

    def path(self, index: int) -> Path:
        """Return the audio file of one utterance."""
        return self.root / self.paths[index]

    def to_text(self) -> str:
        """Return the file's contents."""
        lines = [f"{path}\t{count}" for path, count in zip(self.paths, self.samples, strict=True)]
        return "\n".join([str(self.root), *lines]) + "\n"


def read_manifest(file: str | Path) -> AudioManifest:
    """Read a manifest.

    Raises:
        InputError: it is missing, empty, lists no file, or a line is not ``path<TAB>samples``.
    """
    file = Path(file)
    lines = files.read_text(file, _WHAT).splitlines()
    if not lines:
        raise InputError(f"{file} is empty: it should be {_WHAT}.")
    paths, samples = [], []
    for number, line in enumerate(lines[1:], start=2):
        path, tab, count = line.rpartition("\t")
        if not tab or not path or not count.strip().isdigit() or int(count) == 0:
            raise InputError(f"{file}, line {number}: {line!r} is not path<TAB>samples.")
        paths.append(path)
        samples.append(int(count))
    if not paths:
        raise InputError(f"{file} lists no audio file: at least one line after the root is needed.")
    return AudioManifest(
        file=file,
        root=Path(lines[0]),
        paths=tuple(paths),
        samples=np.asarray(samples, dtype=np.int64),
    )


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a folder of audio gave: the manifests, and the files that were left out."""

    train: AudioManifest
    valid: AudioManifest | None
    corrupt: tuple[str, ...]
    short: tuple[str, ...]


def list_audio(
    root: str | Path,
    *,
    out: str | Path,
    held_out: float = 0.01,
    held_out_by: str = "file",
    must_contain: str = "",
    min_samples: int = 400,
    seed: int = 0,
    counting: Counting = unseen,
) -> Listing:
    """Write ``train.tsv`` and ``valid.tsv`` of the flac and wav files under ``root``.

    Args:
        root: a folder.
        out: the folder of the manifests.
        held_out: share of the files that go to ``valid.tsv``; 0 writes none.
        held_out_by: ``"file"``, as fairseq does, or ``"folder"``: files of one folder (in
            LibriSpeech a chapter, so one speaker) stay together.
        must_contain: only paths that contain this text.
        min_samples: shorter files are left out.
        seed: decides what is held out.
        counting: shows how many files are read.

    Raises:
        InputError: no such folder, a share outside 0 … 1, or nothing to list.
    """
    root, out = Path(root).absolute(), Path(out)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; one with flac or wav files is needed.")
    if not 0 <= held_out < 1:
        raise InputError(f"the share to hold out is {held_out}; at least 0 and below 1 is needed.")
    kept: dict[str, int] = {}
    corrupt, short = [], []
    found = sorted(path for ext in EXTENSIONS for path in visible(root, f"**/*.{ext}"))
    with counting(f"reading {root}") as on_progress:
        for done, path in enumerate(found):
            on_progress(done, len(found))
            name = path.relative_to(root).as_posix()
            if must_contain not in name:
                continue
            try:
                samples = audio_samples(path)
            except CorruptAudio:
                corrupt.append(name)
                continue
            if samples < min_samples:
                short.append(name)
            else:
                kept[name] = samples
    apart = _held_out(list(kept), share=held_out, by=held_out_by, seed=seed)
    train = {name: samples for name, samples in kept.items() if name not in apart}
    valid = {name: samples for name, samples in kept.items() if name in apart}
    if not train:
        raise InputError(
            f"{root} has no usable flac or wav file for train.tsv: {len(found)} found, "
            f"{len(corrupt)} corrupt, {len(short)} under {min_samples} samples, "
            f"{len(valid)} held out."
        )
    written = {
        name: _write(out / f"{name}.tsv", root, kept)
        for name, kept in (("train", train), ("valid", valid))
        if kept
    }
    return Listing(
        train=written["train"],
        valid=written.get("valid"),
        corrupt=tuple(corrupt),
        short=tuple(short),
    )


def _held_out(names: list[str], *, share: float, by: str, seed: int) -> set[str]:
    """Return the files to hold out: some if ``share`` is above 0, whatever else is there."""
    if share == 0 or not names:
        return set()
    unit = {name: name if by == "file" else str(Path(name).parent) for name in names}
    rank = {each: _share(each, seed) for each in set(unit.values())}
    if len(rank) == 1:
        return set()
    limit = max(share, min(rank.values()))
    return {name for name in names if rank[unit[name]] <= limit}


def _share(unit: str, seed: int) -> float:
    """Return a number in 0 … 1 that follows from a name and the seed, whatever else is there."""
    digest = hashlib.sha256(f"{seed} {unit}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _write(file: Path, root: Path, kept: dict[str, int]) -> AudioManifest:
    manifest = AudioManifest(
        file=file,
        root=root,
        paths=tuple(kept),
        samples=np.asarray(list(kept.values()), dtype=np.int64),
    )
    with files.said_of(file):
        files.write_text(file, manifest.to_text())
    return manifest
