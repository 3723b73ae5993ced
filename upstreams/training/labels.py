"""Label files (``.km``): one line an utterance, one unit a frame, in the order of the manifest.

A label file may have a sidecar ``<file>.json`` that says of which units it is; ours have one,
fairseq's do not, and what it says is checked where it is there.

Reference for the alignment of a crop: HuBERT's published data set code (fairseq); a crop that
starts at sample s takes its labels from round(s · rate / 16,000).
"""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from superbit.upstreams import files
from superbit.upstreams.errors import InputError
from superbit.upstreams.training.manifest import SAMPLE_RATE, AudioManifest

FRAME_RATE = 50  # Hz: a frame of the front end every 320 samples
# Windows end before the audio does; fairseq tolerates this much too.
_TOLERANCE_SECONDS = 0.1
# Of one unit every guess is right and nothing is learned; of a tenth of them, little.
LEAST_UNITS = 2
FEW_UNITS = 0.1


class Variety:
    """Counts how many units occur among labels, until it is clear that they are enough.

    Args:
        units: K.
    """

    def __init__(self, units: int) -> None:
        self._units, self._enough = units, max(LEAST_UNITS, math.ceil(FEW_UNITS * units))
        self._seen: set[Hashable] = set()
        self._labels = 0

    def add(self, labels: Sequence[Hashable]) -> None:
        """Take labels into account."""
        self._labels += len(labels)
        if len(self._seen) < self._enough:
            self._seen.update(labels)

    def check(self, where: str) -> str | None:
        """Return a sentence where less than a tenth of the units occur, None where enough do.

        Args:
            where: the labels, as messages call them.

        Raises:
            InputError: only one unit occurs.
        """
        seen, labels = len(self._seen), self._labels
        if labels > 1 and seen < LEAST_UNITS:
            raise InputError(
                f"{where}: all of the {labels:,} labels are one unit, which every guess predicts; "
                f"at least {LEAST_UNITS} of the {self._units} units should occur: fit units on "
                "other audio, and label again."
            )
        if seen < self._enough and labels >= self._units:
            return (
                f"{where}: only {seen} of {self._units} units occur in {labels:,} labels, fewer "
                "than a tenth; a constant guess is often right, so look at the chance accuracy"
            )
        return None


class Labels:
    """The labels of a manifest, read from disk one utterance at a time.

    Args:
        file: a ``.km`` file.
        manifest: the utterances, in the same order.
        rate: labels a second, a multiple of 50.
        units: K; labels are 0 … K − 1.

    Raises:
        InputError: the file is missing, its count of lines, the length of a line or what its
            sidecar says does not fit.
    """

    def __init__(self, file: str | Path, manifest: AudioManifest, *, rate: int, units: int) -> None:
        self.file = Path(file)
        self.rate, self.units = rate, units
        self._check_sidecar()
        self._variety = Variety(units)
        self._offsets = self._check_lines(manifest)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the labels of one utterance, (labels,) int64.

        Raises `InputError` for a label that is not an integer in 0 … K − 1.
        """
        with open(self.file, "rb") as lines:
            lines.seek(self._offsets[index])
            line = lines.readline()
        try:
            labels = np.array(line.split(), dtype=np.int64)
        except (ValueError, OverflowError):
            raise InputError(
                f"{self.file}, line {index + 1}: labels are integers separated by spaces."
            ) from None
        if labels.min() < 0 or labels.max() >= self.units:
            wrong = int(labels.max() if labels.max() >= self.units else labels.min())
            raise InputError(
                f"{self.file}, line {index + 1} has the label {wrong}; with {self.units} units "
                f"labels are 0 to {self.units - 1}."
            )
        return labels

    def crop(self, index: int, *, start: int, frames: int) -> np.ndarray:
        """Return the label of each of ``frames`` frames of a crop from sample ``start``."""
        return crop_labels(self[index], start=start, frames=frames, rate=self.rate)

    def check_variety(self) -> str | None:
        """Return a sentence where few of the units occur, None where enough do.

        Raises `InputError` where all labels are one.
        """
        return self._variety.check(str(self.file))

    def _check_sidecar(self) -> None:
        sidecar = sidecar_of(self.file)
        if not sidecar.is_file():
            return
        try:
            said = files.read_json(sidecar, "a sidecar of labels")
            found = {"units": said["units"], "rate": said["rate"]}
        except (InputError, KeyError, TypeError):
            raise InputError(f"{sidecar} cannot be read: label the manifest again.") from None
        for key, wanted in (("units", self.units), ("rate", self.rate)):
            if found[key] != wanted:
                raise InputError(
                    f"{self.file} was made with {found['units']} units at {found['rate']} Hz; "
                    f"{self.units} units at {self.rate} Hz are needed (is it of another phase?)."
                )

    def _check_lines(self, manifest: AudioManifest) -> np.ndarray:
        offsets, position = [], 0
        try:
            with open(self.file, "rb") as lines:
                for number, line in enumerate(lines):
                    marked = len(BOM_UTF8) if number == 0 and line.startswith(BOM_UTF8) else 0
                    offsets.append(position + marked)
                    position += len(line)
                    if number < len(manifest):
                        words = line[marked:].split()
                        self._check_length(number, len(words), manifest)
                        self._variety.add(words)
        except OSError as error:
            raise InputError(
                f"{self.file} cannot be read: {error.strerror}; it should hold a line of labels "
                "for each audio file."
            ) from None
        if len(offsets) != len(manifest):
            raise InputError(
                f"{self.file} has {len(offsets)} lines and {manifest.file} {len(manifest)} audio "
                "files; one line a file is needed, in the same order."
            )
        return np.asarray(offsets, dtype=np.int64)

    def _check_length(self, number: int, found: int, manifest: AudioManifest) -> None:
        seconds = float(manifest.samples[number]) / SAMPLE_RATE
        if abs(found / self.rate - seconds) <= _TOLERANCE_SECONDS:
            return
        fits = [
            rate
            for rate in (50, 100)
            if rate != self.rate and abs(found / rate - seconds) <= _TOLERANCE_SECONDS
        ]
        hint = f"; at {fits[0]} Hz it would fit" if fits else ""
        raise InputError(
            f"{self.file}, line {number + 1} has {found} labels, {found / self.rate:.2f} s at "
            f"{self.rate} Hz, and {manifest.paths[number]} lasts {seconds:.2f} s{hint}."
        )


def sidecar_of(file: Path) -> Path:
    """Return the file beside a label file that says of which units it is."""
    return file.with_name(file.name + ".json")


def crop_labels(labels: np.ndarray, *, start: int, frames: int, rate: int) -> np.ndarray:
    """Return the labels (frames,) of a crop that starts at sample ``start``.

    Every ``rate / 50``-th label belongs to a frame. Where rounding would go past the utterance's
    last label, that one is repeated.
    """
    first = round(start * rate / SAMPLE_RATE)
    index = first + np.arange(frames) * (rate // FRAME_RATE)
    return labels[np.minimum(index, len(labels) - 1)]


def labels_text(rows: list[np.ndarray]) -> str:
    """Return the contents of a label file."""
    return "".join(" ".join(map(str, row.tolist())) + "\n" for row in rows)
