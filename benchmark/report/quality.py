"""Quality against cost: FP32 to twin by an arrow, the Pareto front, chance; the paper's apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from superbit.benchmark.paper import printed_rows
from superbit.benchmark.report.charts import (
    Anchor,
    Arrow,
    Axis,
    Bar,
    Chart,
    Dot,
    Key,
    LineMark,
    Mark,
    Panel,
    RuleMark,
    Text,
    around,
    around_log,
)
from superbit.benchmark.report.keys import keys, metric, said, shape
from superbit.benchmark.report.study import (
    Study,
    deviation_of,
    family,
    is_twin,
    value_of,
)
from superbit.benchmark.tables.table2_rendering import Row
from superbit.benchmark.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class CostAxis:
    """What may stand on the horizontal axis.

    Attributes:
        name: on the command line.
        columns: of `superbit profile`'s rows; the first that an encoder has counts.
        label: with the unit.
        meaning: in a sentence.
        paper: columns of the paper's Table 1 whose sum is the same in its accounting.
    """

    name: str
    columns: tuple[str, ...]
    label: str
    meaning: str
    paper: tuple[str, ...] = ()

    def of(self, study: Study, row: Row) -> float | None:
        """Return what a row's encoder costs; None where that is not known."""
        found = (study.cost(row, column) for column in self.columns)
        return next((each for each in found if each is not None), None)


COSTS = (
    CostAxis(
        name="bytes",
        columns=("honest_storage_mb",),
        label="storage, MB",
        meaning="the whole model on disk, 10⁶ bytes, signs packed to bits",
        paper=("storage_mb",),
    ),
    CostAxis(
        name="macs",
        columns=("honest_macs_g",),
        label="multiply-accumulates, 10⁹",
        meaning="of 10 s of audio, whatever the bits",
        paper=("flop_g",),
    ),
    CostAxis(
        name="bop",
        columns=("honest_bop_g",),
        label="bit operations, 10⁹",
        meaning="of 10 s of audio: each multiply-accumulate times the bits of both operands",
        paper=("bop_nonq_g", "bop_bq_g"),
    ),
    CostAxis(
        name="challenge",
        columns=("challenge_macs_g",),
        label="MACs of the SUPERB challenge, 10⁹",
        meaning="of its 32 utterances of true lengths, one at a time",
    ),
    CostAxis(
        name="ms",
        # a twin by bits, an FP32 encoder prepacked: the fastest that is the same model
        columns=("latency_ms_bits", "latency_ms_onednn", "latency_ms_fp32"),
        label="measured time, ms",
        meaning="of a forward pass: a twin by bits, FP32 prepacked by oneDNN",
    ),
    CostAxis(
        name="memory",
        columns=("peak_memory_mb_bits", "peak_memory_mb_fp32"),
        label="peak memory, MB",
        meaning="of a process with the model alone: a twin by bits, FP32 as torch has it",
    ),
)


def costs_known(study: Study) -> list[CostAxis]:
    """Return those costs that two or more of the encoders have."""
    return [c for c in COSTS if sum(c.of(study, row) is not None for row in study.measured) > 1]


def pareto(study: Study, task: Task, cost: CostAxis) -> Chart:
    """Return quality against cost: FP32 to twin by an arrow, the front, chance."""
    rows = [r for r in study.measured if task.column in r.cells]
    placed = [(r, c, value_of(r.cells[task.column])) for r in rows if (c := cost.of(study, r))]
    without = [r for r in rows if cost.of(study, r) is None]
    marks: list[Mark] = []
    values = [value for _, _, value in placed]
    chance = study.chance.cells.get(task.column) if study.chance else None
    level = float(chance.text) if chance else None
    if level is not None and _near(level, values):
        marks.append(RuleMark(at=level, across=True, text="chance", left=True))
        values.append(level)
    for row in without:
        at = value_of(row.cells[task.column])
        if _near(at, values):
            marks.append(RuleMark(at=at, across=True, text=f"{row.model}, no model", dashed=False))
            values.append(at)
    front = _front([(c, v) for r, c, v in placed if not r.untrained], up=task.higher_is_better)
    if len(front) > 1:
        marks.append(
            LineMark(points=tuple(front), colour="muted", dashed=True, title="Pareto front")
        )
    places = {row.upstream: (c, value) for row, c, value in placed}
    for row, c, value in placed:
        spread = deviation_of(row.cells[task.column])
        if spread:
            marks.append(
                Bar(
                    low=value - spread,
                    high=value + spread,
                    at=c,
                    colour=study.colour(row),
                    across=False,
                )
            )
            values += [value - spread, value + spread]
        if is_twin(row) and family(row) in places:
            marks.append(Arrow(start=places[family(row)], end=(c, value), colour=study.colour(row)))
    marks += [
        Dot(
            x=c,
            y=v,
            colour=study.colour(row),
            shape=shape(row),
            title=f"{said(row, task)}; {c:,.4g} {cost.label}",
        )
        for row, c, v in placed
    ]
    panel = Panel(
        title="",
        x=_cost_axis([c for _, c, _ in placed], cost.label),
        y=_quality_axis(task, values),
        marks=tuple(marks),
        width=600,
        height=400,
        grid="both",
    )
    panel = _labelled(
        panel, [(r.model, c, v, study.colour(r)) for r, c, v in placed if not is_twin(r)]
    )
    return Chart(
        name=f"pareto-{task.name}-{cost.name}",
        title=f"{task.name}: {metric(task)}, against {cost.label}",
        panels=(panel,),
        keys=keys(study, [row for row, _, _ in placed]),
        header=("upstream", "task", "value", "sd", cost.name),
        rows=tuple(
            (
                r.model,
                task.name,
                value_of(r.cells[task.column]),
                deviation_of(r.cells[task.column]),
                cost.of(study, r),
            )
            for r in rows
        ),
    )


def paper_pareto(study: Study, task: Task, cost: CostAxis) -> Chart | None:
    """Return the same of the paper's own tables, in its accounting; None where it has no cost."""
    costs = {
        line["model"]: sum(float(line[column] or 0) for column in cost.paper)
        for line in printed_rows(1)
    }
    rows = [r for r in study.paper if r.source.endswith("own setup") and task.column in r.cells]
    placed = [
        (r.model, costs[r.model], float(r.cells[task.column].text))
        for r in rows
        if costs.get(r.model)
    ]
    if len(placed) < 2:
        return None
    order = list(dict.fromkeys(name.removeprefix("BQ-") for name, _, _ in placed))
    at = {name: (c, v) for name, c, v in placed}
    front = _front([(c, v) for _, c, v in placed], up=task.higher_is_better)
    marks: list[Mark] = [LineMark(points=tuple(front), colour="muted", dashed=True)]
    for name, c, v in placed:
        base = name.removeprefix("BQ-")
        if base != name and base in at:
            marks.append(Arrow(start=at[base], end=(c, v), colour=order.index(base)))
    for name, c, v in placed:
        twin = name.startswith("BQ-")
        marks.append(
            Dot(
                x=c,
                y=v,
                colour=order.index(name.removeprefix("BQ-")),
                shape="hollow" if twin else "filled",
                title=f"{name}: {v:g}; {c:,.4g}",
            )
        )
    label = {"bytes": "storage, MB", "macs": "GFLOP", "bop": "bit operations, 2³⁰"}[cost.name]
    panel = Panel(
        title="",
        x=_cost_axis([c for _, c, _ in placed], f"{label}, the paper's accounting"),
        y=_quality_axis(task, [v for _, _, v in placed]),
        marks=tuple(marks),
        width=600,
        height=400,
        grid="both",
    )
    names = [(n, c, v, order.index(n)) for n, c, v in placed if not n.startswith("BQ-")]
    return Chart(
        name=f"paper-pareto-{task.name}-{cost.name}",
        title=f"The paper's {task.name}: {metric(task)}, against {label}",
        panels=(_labelled(panel, names),),
        keys=(
            *(Key(text=name, colour=place) for place, name in enumerate(order)),
            Key(text="its twin", colour="muted", shape="hollow"),
        ),
        header=("model", "task", "value", *cost.paper),
        rows=tuple((n, task.name, v, c) for n, c, v in placed),
    )


def _front(points: Iterable[tuple[float, float]], *, up: bool) -> list[tuple[float, float]]:
    """Points that none beats in both, by rising cost."""
    best: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda p: (p[0], -p[1] if up else p[1])):
        if not best or (value > best[-1][1] if up else value < best[-1][1]):
            best.append((cost, value))
    return best


def _near(level: float, values: Sequence[float]) -> bool:
    """Whether a line may be shown without pressing all points together."""
    low, high = min(values), max(values)
    width = max(high - low, abs(high) * 0.02)
    return low - 1.5 * width <= level <= high + 1.5 * width


def _cost_axis(values: Sequence[float], label: str) -> Axis:
    low, high = around_log(values)
    return Axis(low=low, high=high, label=label, log=True)


def _quality_axis(task: Task, values: Sequence[float]) -> Axis:
    low, high = around(values)
    better = "higher is better" if task.higher_is_better else "lower is better, upwards"
    return Axis(
        low=low, high=high, flipped=not task.higher_is_better, label=f"{metric(task)} ({better})"
    )


def _labelled(panel: Panel, names: Sequence[tuple[str, float, float, int]]) -> Panel:
    """With a name beside each point, where there is room for it."""
    left, top, right, bottom = panel.box
    dots = [panel.place(m.x, m.y) for m in panel.marks if isinstance(m, Dot)]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in dots]
    texts: list[Mark] = []
    for name, x, y, colour in names:
        at_x, at_y = panel.place(x, y)
        width = 6.2 * len(name)
        spots: tuple[tuple[float, float, Anchor, float], ...] = (
            (9, 4, "start", 0.0),
            (-9, 4, "end", width),
            (0, -10, "middle", width / 2),
            (0, 18, "middle", width / 2),
            (9, -8, "start", 0.0),
            (9, 16, "start", 0.0),
            (-9, -8, "end", width),
            (-9, 16, "end", width),
        )
        for moved_x, moved_y, anchor, begins in spots:
            start, base = at_x + moved_x - begins, at_y + moved_y
            box = (start, base - 10, start + width, base + 3)
            inside = left <= box[0] and box[2] <= right and top <= box[1] and box[3] <= bottom
            if inside and not any(_touch(box, other) for other in taken):
                taken.append(box)
                texts.append(
                    Text(
                        x=x, y=y, text=name, colour=colour, moved=(moved_x, moved_y), anchor=anchor
                    )
                )
                break
    return Panel(**{**vars(panel), "marks": (*panel.marks, *texts)})


def _touch(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
