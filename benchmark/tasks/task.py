"""One task of the benchmark as data: what each file of this folder says of its own.

How its s3prl expert is fed and read (``Binding``), what audio it asks for (``AudioUse``), what its
learning rates are compared by (``RateRule``), and the rest (``Task``).

Source of corpora, metrics and selection rules: SUPERB (Yang et al., Interspeech 2021) and
s3prl's downstream experts. Nothing here imports torch, s3prl or numpy, so that tables can be
printed without them; what needs them stands inside functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from superbit.benchmark.records.measured import Chance, Interval, Point, Selection
from superbit.benchmark.tasks.binding import Binding
from superbit.benchmark.tasks.resampling import Resampling

if TYPE_CHECKING:
    from superbit.benchmark.running.session import Session

Items = list[dict[str, Any]]
Records = Mapping[str, Any]

# What chance is: the best value of an answer that is the same whatever is heard.
# - label: the most frequent label of the test items.
# - transcript: the better of no token and the token that most test items have. A longer fixed
#   transcript may do a little better, and the best one cannot be found in reasonable time.
# - slots: the set of slot names with the highest mean F1, found exactly.
# - score: every trial has the same score, so that the curve is a line and the EER is 50 %.
# - nothing: nothing is detected, MTWV 0; detecting everything is worse.
# - activity: nobody, or a fixed number of speakers, talks all the time. It needs the reference
#   and the length of each recording, which only the run itself has.
ChanceRule = Literal["label", "transcript", "slots", "score", "nothing", "activity"]


# --- what audio is asked for ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RandomCrops:
    """Training draws whose audio is a random crop: never stored, always computed live.

    Attributes:
        share: of training draws.
        files: that are cropped and are no utterances of the training split; ``None`` where long
            utterances of the split itself are cropped.
        seconds: mean length of the files that are cropped; 0 where they are none of the split's.
        crop_seconds: length of a crop, likewise.
    """

    share: float
    files: int | None = None
    seconds: float = 0.0
    crop_seconds: float = 0.0


# VoxCeleb1's utterances above 8 s: lengths from 4 s on fall off exponentially to a mean of 8.2 s,
# so that the long ones are 4.2 s above 8 s each.
ABOVE_EIGHT_SECONDS = RandomCrops(
    share=math.exp(-(8.0 - 4.0) / (8.2 - 4.0)), seconds=8.0 + 4.2, crop_seconds=8.0
)


@dataclass(frozen=True, kw_only=True)
class AudioUse:
    """What a task asks an upstream for, and what of that may be stored.

    Attributes:
        splits: (utterances, hours) of SUPERB's own corpus by the expert's name of a split, which a
            plan counts with where that corpus is not at hand.
        evaluated_once: (utterances, hours) that all evaluations read, where splits share files.
        shared: names the waveforms where another task reads the very same; ``None`` if none does.
        crops: what is cropped at random in training, if anything is.
        head_may_average: the head is linear up to a mean over time where the config says so: then
            that mean is all that has to be stored.
        cuts_by_frames: the audio that it reads depends on the upstream's downsample rate.
    """

    splits: Mapping[str, tuple[int, float]]
    evaluated_once: tuple[int, float] | None = None
    shared: str | None = None
    crops: RandomCrops | None = None
    head_may_average: bool = False
    cuts_by_frames: bool = False


# --- how the number comes about -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RateRule:
    """What learning rates of one search are compared by.

    Attributes:
        description: the same for people to read.
        split: that decides.
        higher_is_better: of the score; ``None`` where it is the task's own metric.
    """

    description: str
    split: Literal["dev", "test"] = "dev"
    higher_is_better: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A candidate's number and where it comes from; ``value`` is in the table's unit.

    ``curve`` is the metric that selects, by step on dev; ``chance`` the level that cannot be told
    from the items; ``layer_weights`` what the tested head takes of each hidden state.
    """

    value: float
    items: Items
    metrics: dict[str, float]
    interval: Interval | None
    selection: Selection
    curve: tuple[Point, ...] = ()
    chance: Chance | None = None
    layer_weights: tuple[float, ...] | None = None


# By the candidates' names; one that was given up is absent.
TestedByName = dict[str, Tested]


_METRIC_WORDS = {"acc": "accuracy", "slot_type_f1": "slot-type F1"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of the benchmark.

    Attributes:
        name: SUPERB's short name, e.g. ``"PR"``.
        title: the task in words.
        corpus: key of the corpus in a paths file.
        metric: short name of the reported metric, e.g. ``"per"``.
        column: key of the task's column in ``results/paper/table2.csv``.
        higher_is_better: direction of the metric.
        unit: ``"%"``, or ``"fraction"``, or ``"x100"``.
        decimals: digits after the point, as the paper prints them.
        downstream: package under ``s3prl.downstream`` whose expert runs the task.
        binding: how that expert is fed and read.
        protocol: how SUPERB arrives at the number, in words.
        procedure: does it: trains and tests an experiment, and gives each candidate's number.
        folds: runs that make one number; 0 where one run does.
        rates: what learning rates are compared by; ``None`` for a task that trains nothing, so that
            no checkpoint is selected either.
        chance: what an answer without listening gives, see ``ChanceRule`` and ``chance.py``.
        resampling: how two models are compared on its items; ``None``: they are not.
        recurrent: its head is a recurrent network.
        dev_score: what its curves on dev show, higher being better, where that is not the metric.
        layer_scores: how metrics of single hidden states begin, where a run has them.
        tells_nothing_apart: why its small scale does not tell a trained encoder from an untrained
            one, and how that is known: from corpora of another seed.
        audio: what it asks an upstream for, and what of that may be stored.
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
    binding: Binding
    protocol: str = "best on dev"
    procedure: Callable[[Session], TestedByName]
    folds: int = 0
    rates: RateRule | None = RateRule(description="best on dev")
    chance: ChanceRule = "label"
    resampling: Resampling | None = None
    recurrent: bool = False
    dev_score: str = ""
    layer_scores: str = ""
    tells_nothing_apart: str = ""
    audio: AudioUse
    revision: int = 1

    @property
    def metric_words(self) -> str:
        """The metric as people write it, e.g. ``"accuracy"`` or ``"WER"``."""
        return _METRIC_WORDS.get(self.metric, self.metric.upper())

    @property
    def arrow(self) -> str:
        """``"↑"`` where higher is better, else ``"↓"``."""
        return "↑" if self.higher_is_better else "↓"
