"""How each task's s3prl expert is fed and read: one :class:`Binding` a task."""

from superbit.benchmark.tasks.binding import Binding, Items, Places
from superbit.benchmark.tasks.classification import ER, IC, KS, SID
from superbit.benchmark.tasks.scored_by_procedure import ASV, SD, QbE
from superbit.benchmark.tasks.transcription import ASR, PR, SF

__all__ = ["BINDINGS", "Binding", "Items", "Places"]

BINDINGS: dict[str, Binding] = {
    "ASR": ASR,
    "KS": KS,
    "SF": SF,
    "SID": SID,
    "PR": PR,
    "QbE": QbE,
    "IC": IC,
    "ASV": ASV,
    "SD": SD,
    "ER": ER,
}
