"""What binarization takes away: each twin beside its FP32 parent, task by task."""

from __future__ import annotations

from superbit.benchmark.report.charts import (
    Axis,
    Bar,
    Chart,
    Dot,
    Key,
    Mark,
    Panel,
    RuleMark,
    around,
)
from superbit.benchmark.report.keys import metric
from superbit.benchmark.report.study import (
    Study,
    family,
    is_twin,
)


def delta(study: Study) -> Chart:
    """Return each twin beside its FP32 parent, a panel a task, better to the right."""
    twins = [row for row in study.measured if is_twin(row)]
    panels, rows = [], []
    for task in study.tasks:
        told = [
            (r, p) for r in twins if (c := r.cells.get(task.column)) and (p := c.paired) and p.found
        ]
        if not told:
            continue
        marks: list[Mark] = [RuleMark(at=0.0, across=False, dashed=False)]
        bounds = [0.0]
        for place, (row, paired) in enumerate(reversed(told)):
            found = paired.found
            assert found is not None
            sure = paired.verdict != "not told apart"
            said = (
                f"{row.model}, {task.name}: {found.value:+.{task.decimals}f} "
                f"[{found.low:+.{task.decimals}f}, {found.high:+.{task.decimals}f}], "
                f"{paired.verdict}; {paired.sample}"
            )
            colour = study.colour(row)
            marks.append(Bar(low=found.low, high=found.high, at=place, colour=colour, title=said))
            marks.append(
                Dot(
                    x=found.value,
                    y=place,
                    colour=colour,
                    title=said,
                    shape="filled" if sure else "hollow",
                )
            )
            bounds += [found.low, found.high]
            rows.append(
                (
                    row.model,
                    study.names.of(family(row)),
                    task.name,
                    found.value,
                    found.low,
                    found.high,
                    found.p,
                    paired.adjusted,
                    paired.verdict,
                    paired.sample,
                )
            )
        low, high = around(bounds, room=0.12)
        names = [study.names.of(family(row)) for row, _ in reversed(told)]
        panels.append(
            Panel(
                title=f"{task.name}, {metric(task)}",
                x=Axis(low=low, high=high, flipped=not task.higher_is_better),
                y=Axis(low=-0.6, high=len(told) - 0.4, ticks=tuple(enumerate(names))),
                marks=tuple(marks),
                left=14 + round(6.5 * max(map(len, names))),
                width=300,
                height=52 + 20 * len(told),
                grid="x",
            )
        )
    return Chart(
        name="delta",
        title="Twin minus FP32, 95 % interval; better to the right",
        panels=tuple(panels),
        columns=3,
        keys=(
            Key(text="told apart (Holm)", colour="muted"),
            Key(text="not told apart", colour="muted", shape="hollow"),
        ),
        header=(
            "twin",
            "parent",
            "task",
            "difference",
            "low",
            "high",
            "p",
            "p_holm",
            "verdict",
            "on",
        ),
        rows=tuple(rows),
    )
