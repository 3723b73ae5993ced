"""SD's number: the lowest diarization error rate over thresholds and median filters.

SUPERB turns each recording's speaker activity probabilities into turns ten times, five thresholds
by two median filters, scores each setting on the test set and reports the lowest (s3prl
``downstream/diarization/score.sh``, ``make_rttm.py``). The rule of scoring is NIST's as dscore
applies it: overlapped speech counts, no collar, and a recording is scored from the first to the
last time that either side names. pyannote.metrics does the counting.

Error times are seconds of one speaker: a second in which two speakers are missed is two.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from superbit.benchmark.corpora.rttm import Turn
from superbit.benchmark.records.measured import Chance
from superbit.upstreams.errors import InputError

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
MEDIAN_WINDOWS = (1, 11)


@dataclass(frozen=True, kw_only=True)
class DiarizationErrors:
    """What went wrong in one recording, in seconds of a speaker.

    Attributes:
        missed: a reference speaker talks, and too few are found.
        false_alarm: more speakers are found than talk.
        confusion: found, and taken for somebody else.
        reference: seconds that the reference's speakers talk, the denominator.
    """

    missed: float
    false_alarm: float
    confusion: float
    reference: float

    @property
    def errors(self) -> float:
        """Missed + false alarm + confusion, seconds."""
        return self.missed + self.false_alarm + self.confusion


@dataclass(frozen=True, kw_only=True)
class SettingScore:
    """All recordings, scored under one threshold and one median filter."""

    threshold: float
    median_window: int
    recordings: Mapping[str, DiarizationErrors]

    @property
    def der(self) -> float:
        """Diarization error rate, percent: all error time over all reference time."""
        errors = math.fsum(recording.errors for recording in self.recordings.values())
        return 100.0 * errors / math.fsum(r.reference for r in self.recordings.values())


def turns_of_probabilities(
    probabilities: np.ndarray,
    *,
    threshold: float,
    median_window: int,
    frame_shift: float,
) -> list[Turn]:
    """Turn frame-wise activity probabilities into turns, as s3prl's ``make_rttm.py`` does.

    A frame is active where its probability is above the threshold (not at it, compared in the
    probabilities' own precision); then a median over time, silence beyond both ends; then runs of
    active frames. Start and duration are each rounded to 0.01 s, which is what RTTM lines hold; a
    turn that is rounded to nothing is left out.

    Args:
        probabilities: (frames, speakers), each in [0, 1].
        threshold: activity starts above it.
        median_window: frames of the median filter, odd; 1 is no filter.
        frame_shift: seconds from one frame to the next (s3prl: samples a frame / sample rate).

    Returns:
        Turns by speaker, then time; speakers are "0", "1", … by column.

    Raises:
        ValueError: probabilities of another shape, an even window, a frame shift not above 0.
    """
    active = np.asarray(probabilities)
    if active.ndim != 2:
        raise ValueError(f"probabilities need the shape (frames, speakers), not {active.shape}")
    if median_window < 1 or median_window % 2 == 0:
        raise ValueError(f"the median window is an odd number of frames, not {median_window}")
    if not 0 < frame_shift < math.inf:
        raise ValueError(f"the frame shift is in seconds and above 0, not {frame_shift}")
    active = (active > threshold).astype(np.int64)
    if median_window > 1 and active.size:
        from scipy.signal import medfilt

        active = medfilt(active, (median_window, 1))
    turns = []
    for speaker, frames in enumerate(active.T):
        changes = np.flatnonzero(np.diff(frames, prepend=0, append=0)).tolist()
        for first, past in zip(changes[::2], changes[1::2], strict=True):
            start = round(first * frame_shift, 2)
            duration = round((past - first) * frame_shift, 2)
            if duration > 0:
                turns.append(Turn(start=start, end=start + duration, speaker=str(speaker)))
    return turns


def diarization_errors(reference: Iterable[Turn], hypothesis: Iterable[Turn]) -> DiarizationErrors:
    """Count one recording's error times under the best one-to-one mapping of speakers.

    Turns of one speaker that overlap are one turn. All of both sides is scored, which is dscore's
    rule: from the first to the last time of the reference or the hypothesis.
    """
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    sides = []
    for turns in (reference, hypothesis):
        side = Annotation()
        for track, turn in enumerate(_merge(turns)):
            side[Segment(turn.start, turn.end), track] = turn.speaker
        sides.append(side)
    extent = sides[0].get_timeline().extent() | sides[1].get_timeline().extent()
    if not extent:
        return DiarizationErrors(missed=0.0, false_alarm=0.0, confusion=0.0, reference=0.0)
    metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    counted = metric.compute_components(sides[0], sides[1], uem=Timeline([extent]))
    return DiarizationErrors(
        missed=float(counted["missed detection"]),
        false_alarm=float(counted["false alarm"]),
        confusion=float(counted["confusion"]),
        reference=float(counted["total"]),
    )


def _merge(turns: Iterable[Turn]) -> list[Turn]:
    """Join the overlapping turns of each speaker, so that nobody counts twice at one time."""
    merged: dict[str, list[Turn]] = defaultdict(list)
    for turn in sorted(turns):
        own = merged[turn.speaker]
        if own and turn.start <= own[-1].end:
            own[-1] = Turn(own[-1].start, max(own[-1].end, turn.end), turn.speaker)
        else:
            own.append(turn)
    return [turn for own in merged.values() for turn in own]


def score_settings(
    probabilities: Mapping[str, np.ndarray],
    reference: Mapping[str, Sequence[Turn]],
    *,
    frame_shift: float,
    thresholds: Sequence[float] = THRESHOLDS,
    median_windows: Sequence[int] = MEDIAN_WINDOWS,
) -> list[SettingScore]:
    """Score every pair of threshold and median filter over all recordings.

    Args:
        probabilities: recording → (frames, speakers), each in [0, 1].
        reference: recording → its turns; the same recordings.
        frame_shift: seconds from one frame to the next.

    Raises:
        InputError: one side lacks a recording of the other, or the reference is silent.
    """
    for ours, theirs, lack in (
        (probabilities, reference, "reference turns"),
        (reference, probabilities, "predictions"),
    ):
        missing = sorted(set(ours) - set(theirs))
        if missing:
            raise InputError(
                f"{len(missing)} of {len(ours)} recordings have no {lack}, the first is "
                f"{missing[0]!r}: the reference and what is scored need the same recordings."
            )
    if not any(reference.values()):
        raise InputError("nobody speaks in the reference, so there is no error rate.")
    return [
        SettingScore(
            threshold=threshold,
            median_window=median_window,
            recordings={
                name: diarization_errors(
                    reference[name],
                    turns_of_probabilities(
                        probabilities[name],
                        threshold=threshold,
                        median_window=median_window,
                        frame_shift=frame_shift,
                    ),
                )
                for name in sorted(probabilities)
            },
        )
        for median_window in median_windows
        for threshold in thresholds
    ]


def lowest(scores: Sequence[SettingScore]) -> SettingScore:
    """Return the setting with the lowest error rate, the first of equals: SUPERB's number.

    The choice is made on the scored split itself, and an interval over its recordings speaks for
    this setting only.
    """
    return min(scores, key=lambda score: score.der)


def chance(
    probabilities: Mapping[str, np.ndarray],
    reference: Mapping[str, Sequence[Turn]],
    *,
    frame_shift: float,
) -> Chance:
    """Return the lowest error rate of an answer that is the same at all times, percent.

    Nobody talks (100 %), or one, two, … of the head's speakers talk from the first frame to the
    last of every recording. With much overlap and little silence that is far below 100 %.

    Args:
        probabilities: recording → (frames, speakers); only the shape counts.
        reference: recording → its turns; the same recordings.
        frame_shift: seconds from one frame to the next.
    """
    best = Chance(value=100.0, method="nobody talks at any time")
    for count in range(1, max(found.shape[1] for found in probabilities.values()) + 1):
        always = [
            diarization_errors(
                reference[name],
                [Turn(0.0, len(found) * frame_shift, str(n)) for n in range(count)],
            )
            for name, found in probabilities.items()
        ]
        errors = math.fsum(each.errors for each in always)
        value = 100.0 * errors / math.fsum(each.reference for each in always)
        if value < best.value:
            talk = "1 speaker talks" if count == 1 else f"{count} speakers talk"
            best = Chance(value=value, method=f"{talk} all the time")
    return best


def recording_items(score: SettingScore) -> list[dict[str, Any]]:
    """Return one sidecar item a recording; `ratio_interval(errors, reference)` is its interval."""
    return [
        {
            "id": name,
            "missed_seconds": found.missed,
            "false_alarm_seconds": found.false_alarm,
            "confusion_seconds": found.confusion,
            "reference_seconds": found.reference,
        }
        for name, found in score.recordings.items()
    ]
