"""How SUPERB arrives at one number: selection rules, each a pure function of scores.

The fifth rule, ER's mean of five folds, works on records: see ``folds.py``.

Sources: SUPERB (Yang et al., Interspeech 2021) and s3prl's downstream scripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from superbit.benchmark.records.schema import Selection
from superbit.benchmark.scoring.diarization import SettingScore, lowest


def best_on_dev(*, best_step: int | None, score: float | None, last_step: int) -> Selection:
    """PR ASR KS IC SID SF ER, and SD's head: the checkpoint that was best on dev.

    An expert asks for a best checkpoint only above a score of 0 (below a WER of 100 in ASR);
    where it never asked, the last one is tested.

    Args:
        best_step: step of the last checkpoint that the expert called best, if any.
        score: the dev score there, in the table's unit.
        last_step: the step at which training ended.
    """
    if best_step is None:
        return Selection(
            rule="last step, as none was best on dev",
            selected_on=None,
            step=last_step,
            score=None,
            checkpoint="last",
        )
    return Selection(
        rule="best on dev", selected_on="dev", step=best_step, score=score, checkpoint="best"
    )


def lowest_test_eer(eers: Mapping[int, float]) -> Selection:
    """ASV: the lowest test EER (percent) over checkpoints, by step; the earlier one of equals."""
    step = min(eers, key=lambda key: (eers[key], key))
    return Selection(
        rule=f"lowest test EER of {len(eers)} checkpoints",
        selected_on="test",
        step=step,
        score=eers[step],
        checkpoint="best",
    )


def lowest_test_der(
    settings: Sequence[SettingScore], *, head: Selection
) -> tuple[SettingScore, Selection]:
    """SD: the lowest test DER (percent) over thresholds and median filters, for dev's best head."""
    best = lowest(list(settings))
    return best, Selection(
        rule=f"{head.rule} by frame accuracy, then lowest test DER: threshold {best.threshold:g}, "
        f"median filter {best.median_window}",
        selected_on="test",
        step=head.step,
        score=best.der,
        checkpoint=head.checkpoint,
    )


def best_dev_layer(mtwvs: Sequence[float]) -> tuple[int, Selection]:
    """QbE: the layer with the highest MTWV (times 100) on the dev queries, the lower of equals."""
    layer = max(range(len(mtwvs)), key=lambda index: (mtwvs[index], -index))
    return layer, Selection(
        rule=f"best of {len(mtwvs)} layers on dev: layer {layer}",
        selected_on="dev",
        step=None,
        score=mtwvs[layer],
        checkpoint=None,
    )
