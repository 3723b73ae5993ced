"""One task of the benchmark as data: what each file of this folder says of its own.

Source of corpora, metrics and selection rules: SUPERB (Yang et al., Interspeech 2021) and
s3prl's downstream experts. Nothing here imports torch, s3prl or numpy, so that tables can be
printed without them; what needs them stands inside functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from superbit.benchmark.records.measured import Chance, Interval, Point, Selection
from superbit.benchmark.tasks.audio_use import AudioUse
from superbit.benchmark.tasks.binding import Binding, Items

if TYPE_CHECKING:
    from superbit.benchmark.running.session import Session

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


@dataclass(frozen=True, kw_only=True)
class RateRule:
    """What learning rates of one search are compared by.

    Attributes:
        words: the same for people to read.
        split: that decides.
        higher_is_better: of the score; ``None`` where it is the task's own metric.
    """

    words: str
    split: Literal["dev", "test"] = "dev"
    higher_is_better: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A candidate's number and where it comes from; ``value`` is in the table's unit.

    ``curve`` is the metric that selects, by step on dev; ``chance`` the level that cannot be told
    from the items.
    """

    value: float
    items: Items
    metrics: dict[str, float]
    interval: Interval | None
    selection: Selection
    curve: tuple[Point, ...] = ()
    chance: Chance | None = None


# By the candidates' names; one that was given up is absent.
TestedByName = dict[str, Tested]


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
    rates: RateRule | None = RateRule(words="best on dev")
    chance: ChanceRule = "label"
    audio: AudioUse
    revision: int = 1

    @property
    def arrow(self) -> str:
        """``"↑"`` where higher is better, else ``"↓"``."""
        return "↑" if self.higher_is_better else "↓"
