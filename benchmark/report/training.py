"""How heads were trained: the metric on dev step by step, and what each learning rate scored."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from superbit.benchmark.report.charts import (
    Axis,
    Chart,
    Colour,
    Dot,
    LineMark,
    Mark,
    Panel,
    around,
)
from superbit.benchmark.report.keys import line_keys, metric, shape, with_folds
from superbit.benchmark.report.study import (
    Study,
    is_twin,
    records_of,
)
from superbit.benchmark.tables.table2_rendering import Row
from superbit.benchmark.tasks.task import Task


def curves(study: Study) -> Chart:
    """Return the metric on dev while training, the mean over seeds, a panel a task.

    Tasks that are evaluated once have no panel, but are among the numbers.
    """
    panels, rows = [], []
    for task in study.tasks:
        lines = []
        for row in study.measured:
            by_step: dict[int, list[float]] = {}
            for record in with_folds(study, records_of(row, task)):
                for point in record.curve:
                    by_step.setdefault(point.step, []).append(point.score)
            points = [(float(step), fmean(scores)) for step, scores in sorted(by_step.items())]
            if points:
                lines.append((row, points))
                rows += [(row.model, task.name, step, score) for step, score in points]
        if max((len(points) for _, points in lines), default=0) > 1:
            panels.append(_lines_panel(study, task, lines, Axis))
    return Chart(
        name="curves",
        title="The metric on dev while training, mean over seeds",
        panels=tuple(panels),
        keys=line_keys(study),
        header=("upstream", "task", "step", "score"),
        rows=tuple(rows),
    )


def rates(study: Study) -> Chart:
    """Return what each learning rate scored, the mean over seeds, and which were chosen."""
    panels, rows = [], []
    for task in study.tasks:
        lines, chosen = [], {}
        for row in study.measured:
            by_rate: dict[float, list[float]] = {}
            records = records_of(row, task)
            for record in with_folds(study, records):
                for tried in record.search.tried if record.search else ():
                    if tried.score is not None and tried.diverged is None:
                        by_rate.setdefault(tried.learning_rate, []).append(tried.score)
            points = [(rate, fmean(scores)) for rate, scores in sorted(by_rate.items())]
            if points:
                lines.append((row, points))
                chosen[row.upstream] = {r.identity.learning_rate for r in records}
                rows += [
                    (row.model, task.name, rate, score, rate in chosen[row.upstream])
                    for rate, score in points
                ]
        if lines:
            panels.append(_lines_panel(study, task, lines, _rate_axis, dots=chosen))
    return Chart(
        name="rates",
        title="What each learning rate scored where rates are compared; dots: chosen by a seed",
        panels=tuple(panels),
        keys=line_keys(study),
        header=("upstream", "task", "learning_rate", "score", "chosen"),
        rows=tuple(rows),
    )


_Lines = list[tuple[Row, list[tuple[float, float]]]]


def _rate_axis(*, low: float, high: float) -> Axis:
    return Axis(low=low * 0.7, high=high * 1.4, log=True)


def _lines_panel(
    study: Study,
    task: Task,
    lines: _Lines,
    axis: Callable[..., Axis],
    *,
    dots: dict[str, set[float | None]] | None = None,
) -> Panel:
    steps = [x for _, points in lines for x, _ in points]
    scores = [y for _, points in lines for _, y in points]
    marks: list[Mark] = []
    for row, points in lines:
        colour: Colour = "muted" if row.untrained else study.colour(row)
        marks.append(
            LineMark(points=tuple(points), colour=colour, dashed=is_twin(row), title=row.model)
        )
        shown = [p for p in points if dots is None and len(points) == 1]
        shown += [p for p in points if dots is not None and p[0] in dots[row.upstream]]
        marks += [
            Dot(x=x, y=y, colour=colour, shape=shape(row), title=f"{row.model}: {y:.4g} at {x:g}")
            for x, y in shown
        ]
    low, high = around(scores)
    ends = {"low": min(steps), "high": max(steps)}
    if axis is Axis:
        ends = {"low": 0.0, "high": max(steps) * 1.06}
    score = task.dev_score or metric(task)
    return Panel(
        title=f"{task.name}, {score} {'↑' if task.higher_is_better or task.dev_score else '↓'}",
        x=axis(**ends),
        y=Axis(low=low, high=high),
        marks=tuple(marks),
    )
