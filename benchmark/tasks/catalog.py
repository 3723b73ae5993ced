"""The ten SUPERB tasks as data: what each one measures, on which corpus, in which column.

Source of corpora, metrics and selection rules: SUPERB (Yang et al., Interspeech 2021) and
s3prl's downstream experts. This module imports neither torch nor s3prl, so that tables can be
printed without either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from superbit.upstreams.errors import InputError, did_you_mean

# What chance is: the best value of an answer that is the same whatever is heard.
# - label: the most frequent label of the test items (KS, SID, IC, ER).
# - transcript: the better of no token and the token that most test items have (PR, ASR). A longer
#   fixed transcript may do a little better, and the best one cannot be found in reasonable time.
# - slots: the set of slot names with the highest mean F1, found exactly (SF).
# - score: every trial has the same score, so that the curve is a line and the EER is 50 % (ASV).
# - nothing: nothing is detected, MTWV 0; detecting everything is worse (QbE).
# - activity: nobody, or a fixed number of speakers, talks all the time (SD). It needs the reference
#   and the length of each recording, which only the run itself has.
ChanceRule = Literal["label", "transcript", "slots", "score", "nothing", "activity"]


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task of the benchmark.

    Attributes:
        name: SUPERB's short name, e.g. ``"PR"``.
        title: the task in words.
        corpus: key of the corpus in a paths file.
        metric: short name of the reported metric, e.g. ``"per"``.
        column: key of the task's column in ``results/paper/table2.csv``.
        higher_is_better: direction of the metric.
        unit: ``"%"``, or ``"fraction"`` (SF's F1), or ``"x100"`` (QbE's MTWV).
        decimals: digits after the point, as the paper prints them.
        downstream: package under ``s3prl.downstream`` whose expert runs the task.
        protocol: how SUPERB arrives at the number: a key of ``procedures.PROCEDURES``.
        folds: runs that make one number: 5 for ER, else 0.
        cuts_by_frames: the audio that it reads depends on the upstream's downsample rate: SD's
            chunks are of a number of frames.
        chance: what an answer without listening gives, see ``ChanceRule`` and ``chance.py``.
        revision: raised whenever the way superbit arrives at this task's number changes.
    """

    name: str
    title: str
    corpus: str
    metric: str
    column: str
    higher_is_better: bool
    unit: str = "%"
    decimals: int = 2
    downstream: str
    protocol: str = "best on dev"
    folds: int = 0
    cuts_by_frames: bool = False
    chance: ChanceRule = "label"
    revision: int = 1

    @property
    def arrow(self) -> str:
        """``"↑"`` where higher is better, else ``"↓"``."""
        return "↑" if self.higher_is_better else "↓"


def _tasks(*specs: TaskSpec) -> dict[str, TaskSpec]:
    return {spec.name: spec for spec in specs}


# In the order of the paper's Table 2.
TASKS: dict[str, TaskSpec] = _tasks(
    TaskSpec(
        name="ASR",
        title="automatic speech recognition",
        corpus="librispeech",
        metric="wer",
        column="asr_wer",
        higher_is_better=False,
        downstream="asr",
        chance="transcript",
    ),
    TaskSpec(
        name="KS",
        title="keyword spotting",
        corpus="speech_commands",
        metric="acc",
        column="ks_acc",
        higher_is_better=True,
        downstream="speech_commands",
    ),
    TaskSpec(
        name="SF",
        title="slot filling",
        corpus="audio_snips",
        metric="slot_type_f1",
        column="sf_f1",
        higher_is_better=True,
        unit="fraction",
        downstream="ctc",
        chance="slots",
    ),
    TaskSpec(
        name="SID",
        title="speaker identification",
        corpus="voxceleb1",
        metric="acc",
        column="sid_acc",
        higher_is_better=True,
        downstream="voxceleb1",
    ),
    TaskSpec(
        name="PR",
        title="phoneme recognition",
        corpus="librispeech",
        metric="per",
        column="pr_per",
        higher_is_better=False,
        downstream="ctc",
        chance="transcript",
    ),
    TaskSpec(
        name="QbE",
        title="query by example",
        corpus="quesst14",
        metric="mtwv",
        column="qbe_mtwv",
        higher_is_better=True,
        unit="x100",
        downstream="quesst14_dtw",
        protocol="best layer on dev",
        chance="nothing",
    ),
    TaskSpec(
        name="IC",
        title="intent classification",
        corpus="fluent_speech_commands",
        metric="acc",
        column="ic_acc",
        higher_is_better=True,
        downstream="fluent_commands",
    ),
    TaskSpec(
        name="ASV",
        title="speaker verification",
        corpus="voxceleb1",
        metric="eer",
        column="asv_eer",
        higher_is_better=False,
        downstream="sv_voxceleb1",
        protocol="lowest test EER",
        chance="score",
    ),
    TaskSpec(
        name="SD",
        title="speaker diarization",
        corpus="libri2mix",
        metric="der",
        column="sd_der",
        higher_is_better=False,
        downstream="diarization",
        protocol="lowest test DER",
        cuts_by_frames=True,
        chance="activity",
    ),
    TaskSpec(
        name="ER",
        title="emotion recognition",
        corpus="iemocap",
        metric="acc",
        column="er_acc",
        higher_is_better=True,
        downstream="emotion",
        protocol="mean of 5 folds",
        folds=5,
    ),
)


def find_task(name: str) -> TaskSpec:
    """Return the task called ``name``, in any case.

    Raises:
        InputError: no such task.
    """
    by_lower = {known.lower(): spec for known, spec in TASKS.items()}
    spec = by_lower.get(name.lower())
    if spec is None:
        hint = did_you_mean(name.upper(), list(TASKS))
        raise InputError(f"unknown task {name!r}: the tasks are {', '.join(TASKS)}.{hint}")
    return spec
