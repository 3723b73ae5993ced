"""The figures of a report, each as charts with their numbers, made from a `Study`.

Every figure has the same keys: a colour an encoder, filled in full precision, hollow its twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from superbit.benchmark.paper import printed_rows
from superbit.benchmark.report.charts import (
    Arrow,
    Axis,
    Bar,
    Cell,
    Chart,
    Dot,
    Key,
    Line,
    Mark,
    Panel,
    Rule,
    Shape,
    Text,
    around,
    around_log,
)
from superbit.benchmark.report.study import (
    Study,
    deviation_of,
    family,
    is_twin,
    records_of,
    value_of,
)
from superbit.benchmark.tables.table2_rendering import Row
from superbit.benchmark.tasks.task import Task

UNITS = {"%": "%", "fraction": "", "x100": "× 100"}
METRICS = {"acc": "accuracy", "slot_type_f1": "slot-type F1"}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What may stand on the horizontal axis.

    Attributes:
        name: on the command line.
        key: of `superbit profile`'s rows.
        label: with the unit.
        meaning: in a sentence.
        paper: columns of the paper's Table 1 whose sum is the same in its accounting.
    """

    name: str
    key: str
    label: str
    meaning: str
    paper: tuple[str, ...] = ()


COSTS = (
    Cost(
        name="bytes",
        key="honest_storage_mb",
        label="storage, MB",
        meaning="the whole model on disk, 10⁶ bytes, signs packed to bits",
        paper=("storage_mb",),
    ),
    Cost(
        name="macs",
        key="honest_macs_g",
        label="multiply-accumulates, 10⁹",
        meaning="of 10 s of audio, whatever the bits",
        paper=("flop_g",),
    ),
    Cost(
        name="bop",
        key="honest_bop_g",
        label="bit operations, 10⁹",
        meaning="of 10 s of audio: each multiply-accumulate times the bits of both operands",
        paper=("bop_nonq_g", "bop_bq_g"),
    ),
    Cost(
        name="ms",
        key="ms_bits",
        label="measured time, ms",
        meaning="of a forward pass, on the machine of the file of costs",
    ),
    Cost(
        name="memory",
        key="peak_mb",
        label="peak memory, MB",
        meaning="of a forward pass, on the machine of the file of costs",
    ),
)


def costs_known(study: Study) -> list[Cost]:
    """Return those costs that two or more of the encoders have."""
    return [
        c for c in COSTS if sum(study.cost(row, c.key) is not None for row in study.measured) > 1
    ]


def keys(study: Study, rows: Sequence[Row] | None = None) -> tuple[Key, ...]:
    """Return the legend of encoders, and of what filled and hollow mean."""
    rows = study.measured if rows is None else rows
    there = dict.fromkeys(family(row) for row in rows)
    found = [
        Key(text=study.names.of(name), colour=place)
        for place, name in enumerate(study.families)
        if name in there
    ]
    if any(map(is_twin, rows)):
        found.append(Key(text="its twin", colour="muted", shape="hollow"))
    if any(row.untrained for row in rows):
        found.append(Key(text="random weights", colour="muted", shape="square"))
    return tuple(found)


def metric(task: Task) -> str:
    """Return ``"accuracy, %"``, ``"WER, %"``."""
    words = METRICS.get(task.metric, task.metric.upper())
    return ", ".join(filter(None, [words, UNITS[task.unit]]))


def _shape(row: Row) -> Shape:
    return "hollow" if is_twin(row) else "square" if row.untrained else "filled"


def _said(row: Row, task: Task) -> str:
    """A cell in words, for those who point at it or have it read out."""
    cell = row.cells[task.column]
    spread = deviation_of(cell)
    text = f"{row.model}, {task.name}: {value_of(cell):.{task.decimals}f}"
    return f"{text} ±{spread:.{task.decimals}f}" if spread is not None else text


# --- quality against cost ------------------------------------------------------------------------


def pareto(study: Study, task: Task, cost: Cost) -> Chart:
    """Return quality against cost: FP32 to twin by an arrow, the front, chance."""
    rows = [r for r in study.measured if task.column in r.cells]
    placed = [
        (r, c, value_of(r.cells[task.column])) for r in rows if (c := study.cost(r, cost.key))
    ]
    without = [r for r in rows if study.cost(r, cost.key) is None]
    marks: list[Mark] = []
    values = [value for _, _, value in placed]
    chance = study.chance.cells.get(task.column) if study.chance else None
    level = float(chance.text) if chance else None
    if level is not None and _near(level, values):
        marks.append(Rule(at=level, across=True, text="chance"))
        values.append(level)
    for row in without:
        at = value_of(row.cells[task.column])
        if _near(at, values):
            marks.append(Rule(at=at, across=True, text=f"{row.model}, no model", dashed=False))
            values.append(at)
    front = _front([(c, v) for r, c, v in placed if not r.untrained], up=task.higher_is_better)
    if len(front) > 1:
        marks.append(Line(points=tuple(front), colour="muted", dashed=True, title="Pareto front"))
    at = {row.upstream: (c, value) for row, c, value in placed}
    for row, c, value in placed:
        spread = deviation_of(row.cells[task.column])
        if spread:
            marks.append(Bar(low=value - spread, high=value + spread, at=c,
                             colour=study.colour(row), across=False))  # fmt: skip
            values += [value - spread, value + spread]
        if is_twin(row) and family(row) in at:
            marks.append(Arrow(start=at[family(row)], end=(c, value), colour=study.colour(row)))
    marks += [
        Dot(x=c, y=v, colour=study.colour(row), shape=_shape(row),
            title=f"{_said(row, task)}; {c:,.4g} {cost.label}")
        for row, c, v in placed
    ]  # fmt: skip
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
        header=("upstream", "task", "value", "sd", cost.key),
        rows=tuple(
            (r.model, task.name, value_of(r.cells[task.column]),
             deviation_of(r.cells[task.column]), study.cost(r, cost.key))
            for r in rows
        ),
    )  # fmt: skip


def paper_pareto(study: Study, task: Task, cost: Cost) -> Chart | None:
    """Return the same of the paper's own tables, in its accounting; None where it has no cost."""
    costs = {
        line["model"]: sum(float(line[column] or 0) for column in cost.paper)
        for line in printed_rows(1)
    }
    rows = [r for r in study.paper if r.source.endswith("own setup") and task.column in r.cells]
    placed = [(r.model, costs[r.model], float(r.cells[task.column].text))
              for r in rows if costs.get(r.model)]  # fmt: skip
    if len(placed) < 2:
        return None
    order = list(dict.fromkeys(name.removeprefix("BQ-") for name, _, _ in placed))
    at = {name: (c, v) for name, c, v in placed}
    front = _front([(c, v) for _, c, v in placed], up=task.higher_is_better)
    marks: list[Mark] = [Line(points=tuple(front), colour="muted", dashed=True)]
    for name, c, v in placed:
        base = name.removeprefix("BQ-")
        if base != name and base in at:
            marks.append(Arrow(start=at[base], end=(c, v), colour=order.index(base)))
    for name, c, v in placed:
        twin = name.startswith("BQ-")
        marks.append(Dot(x=c, y=v, colour=order.index(name.removeprefix("BQ-")),
                         shape="hollow" if twin else "filled",
                         title=f"{name}: {v:g}; {c:,.4g}"))  # fmt: skip
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
    return Axis(low=low, high=high, flipped=not task.higher_is_better,
                label=f"{metric(task)} ({better})")  # fmt: skip


def _labelled(panel: Panel, names: Sequence[tuple[str, float, float, int]]) -> Panel:
    """With a name beside each point, where there is room for it."""
    left, top, right, bottom = panel.box
    dots = [panel.place(m.x, m.y) for m in panel.marks if isinstance(m, Dot)]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in dots]
    texts: list[Mark] = []
    for name, x, y, colour in names:
        at_x, at_y = panel.place(x, y)
        width = 6.2 * len(name)
        for moved_x, moved_y, anchor, begins in (
            (9, 4, "start", 0.0), (-9, 4, "end", width), (0, -10, "middle", width / 2),
            (0, 18, "middle", width / 2), (9, -8, "start", 0.0), (9, 16, "start", 0.0),
            (-9, -8, "end", width), (-9, 16, "end", width),
        ):  # fmt: skip
            start, base = at_x + moved_x - begins, at_y + moved_y
            box = (start, base - 10, start + width, base + 3)
            inside = left <= box[0] and box[2] <= right and top <= box[1] and box[3] <= bottom
            if inside and not any(_touch(box, other) for other in taken):
                taken.append(box)
                texts.append(Text(x=x, y=y, text=name, colour=colour,
                                  moved=(moved_x, moved_y), anchor=anchor))  # fmt: skip
                break
    return Panel(**{**vars(panel), "marks": (*panel.marks, *texts)})


def _touch(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


# --- what binarization takes away ----------------------------------------------------------------


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
        marks: list[Mark] = [Rule(at=0.0, across=False, dashed=False)]
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
            marks.append(Dot(x=found.value, y=place, colour=colour, title=said,
                             shape="filled" if sure else "hollow"))  # fmt: skip
            bounds += [found.low, found.high]
            rows.append((row.model, study.names.of(family(row)), task.name, found.value, found.low,
                         found.high, found.p, paired.adjusted, paired.verdict, paired.sample))  # fmt: skip
        low, high = around(bounds)
        names = [study.names.of(family(row)) for row, _ in reversed(told)]
        panels.append(
            Panel(
                title=f"{task.name}, {metric(task)}",
                x=Axis(low=low, high=high, flipped=not task.higher_is_better),
                y=Axis(low=-0.6, high=len(told) - 0.4, ticks=tuple(enumerate(names))),
                marks=tuple(marks),
                left=8 + round(6.0 * max(map(len, names))),
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


# --- training ------------------------------------------------------------------------------------


def curves(study: Study) -> Chart:
    """Return the metric on dev while training, the mean over seeds, a panel a task."""
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
        if lines:
            panels.append(_lines_panel(study, task, lines, Axis))
    return Chart(
        name="curves",
        title="The metric on dev while training, mean over seeds",
        panels=tuple(panels),
        keys=_line_keys(study),
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
        keys=_line_keys(study),
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
        colour = "muted" if row.untrained else study.colour(row)
        marks.append(
            Line(points=tuple(points), colour=colour, dashed=is_twin(row), title=row.model)
        )
        shown = [p for p in points if dots is None and len(points) == 1]
        shown += [p for p in points if dots is not None and p[0] in dots[row.upstream]]
        marks += [
            Dot(x=x, y=y, colour=colour, shape=_shape(row), title=f"{row.model}: {y:.4g} at {x:g}")
            for x, y in shown
        ]
    low, high = around(scores)
    ends = {"low": min(steps), "high": max(steps)}
    if axis is Axis:
        ends = {"low": 0.0, "high": max(steps) * 1.06}
    score = "frame accuracy" if task.name == "SD" else metric(task)
    return Panel(
        title=f"{task.name}, {score} {'↑' if task.higher_is_better or task.name == 'SD' else '↓'}",
        x=axis(**ends),
        y=Axis(low=low, high=high),
        marks=tuple(marks),
    )


def _line_keys(study: Study) -> tuple[Key, ...]:
    there = [Key(text=study.names.of(f), colour=i, shape="line")
             for i, f in enumerate(study.families)]  # fmt: skip
    if any(map(is_twin, study.measured)):
        there.append(Key(text="its twin", colour="muted", shape="dashed"))
    if any(row.untrained for row in study.measured):
        there.append(Key(text="random weights", colour="muted", shape="line"))
    return tuple(there)


def with_folds(study: Study, records: Iterable) -> list:
    """Return the runs, each mean of folds as the runs it is the mean of."""
    by_key = {record.key: record for record in study.runs.records}
    found = []
    for record in records:
        if record.key in by_key:
            found.append(record)
            continue
        identities = [record.identity.model_copy(update={"fold": f}) for f in range(1, 6)]
        found += [by_key[each.key] for each in identities if each.key in by_key]
    return found


# --- layers --------------------------------------------------------------------------------------


def layers(study: Study) -> Chart:
    """Return what single layers are good for: QbE's score of each, and the weights heads give."""
    panels, rows = [], []
    lines: _Lines = []
    qbe = next((task for task in study.tasks if task.name == "QbE"), None)
    for row in study.measured if qbe else ():
        for record in records_of(row, qbe)[:1]:
            prefix = "dev-mtwv-layer-"
            points = sorted(
                (float(name.removeprefix(prefix)), value)
                for name, value in record.metrics.items()
                if name.startswith(prefix)
            )
            if len(points) > 1:
                lines.append((row, points))
                rows += [(row.model, "QbE dev MTWV", layer, value) for layer, value in points]
    if lines:
        scores = [y for _, points in lines for _, y in points]
        last = max(x for _, points in lines for x, _ in points)
        low, high = around(scores)
        panels.append(
            Panel(
                title="QbE on dev, MTWV × 100 ↑, layer by layer",
                x=Axis(
                    low=-0.2,
                    high=last + 0.2,
                    label="hidden state",
                    ticks=tuple((float(n), str(n)) for n in range(int(last) + 1)),
                ),
                y=Axis(low=low, high=high),
                marks=tuple(
                    Line(
                        points=tuple(points),
                        dashed=is_twin(row),
                        title=row.model,
                        colour="muted" if row.untrained else study.colour(row),
                    )
                    for row, points in lines
                ),
                width=420,
                height=250,
            )  # fmt: skip
        )
    for row in study.measured:
        found = _weights(study, row)
        if found:
            panels.append(_heat(row.model, found))
            rows += [(row.model, f"{name} weight", layer, weight)
                     for name, weights in found.items() for layer, weight in enumerate(weights)]  # fmt: skip
    return Chart(
        name="layers",
        title="Layers: what they are good for, and what heads take of them",
        panels=tuple(panels),
        columns=2,
        keys=_line_keys(study),
        header=("upstream", "what", "layer", "value"),
        rows=tuple(rows),
    )


def _weights(study: Study, row: Row) -> dict[str, list[float]]:
    """The mean over seeds of a head's weights, by task; none where the records do not say."""
    found = {}
    for task in study.tasks:
        records = with_folds(study, records_of(row, task))
        each = [w for record in records if (w := getattr(record, "layer_weights", None))]
        if each:
            found[task.name] = [fmean(weights) for weights in zip(*each, strict=True)]
    return found


def _heat(name: str, found: dict[str, list[float]]) -> Panel:
    count = max(map(len, found.values()))
    marks: list[Mark] = [
        Cell(x=float(layer), y=float(place), share=weight, text=f"{100 * weight:.0f}",
             title=f"{name}, {task}: {100 * weight:.1f} % of layer {layer}")
        for place, (task, weights) in enumerate(reversed(found.items()))
        for layer, weight in enumerate(weights)
    ]  # fmt: skip
    return Panel(
        title=f"{name}: % of each hidden state",
        x=Axis(low=-0.5, high=count - 0.5, ticks=tuple((float(n), str(n)) for n in range(count))),
        y=Axis(low=-0.5, high=len(found) - 0.5, ticks=tuple(enumerate(reversed(list(found))))),
        marks=tuple(marks),
        width=420,
        height=50 + 22 * len(found),
        grid="none",
    )


# --- where twins depart --------------------------------------------------------------------------


def flow(study: Study) -> Chart | None:
    """Return how far each twin's output is from its FP32 encoder's, block by block."""
    found = study.error_flow()
    if not found:
        return None
    kinds = {"attention": 0, "feed-forward": 1, "convolution": 2, "other": 5}
    panels, rows, seen = [], [], set()
    highest = max(float(r["up_to_encoder_relative_error"]) for each in found.values() for r in each)
    for name, blocks in found.items():
        ends = [(float(n), float(r["up_to_encoder_relative_error"])) for n, r in enumerate(blocks)]
        marks: list[Mark] = [Line(points=tuple(ends), colour="muted", thick=True)]
        for (x, y), block in zip(ends, blocks, strict=True):
            alone = float(block["alone_encoder_relative_error"])
            colour = kinds.get(block["kind"], 5)
            seen.add(block["kind"])
            marks.append(Bar(low=0.0, high=alone, at=x, colour=colour, across=False,
                             title=f"{name}, {block['module']}: alone {alone:.3f}"))  # fmt: skip
            marks.append(Dot(x=x, y=y, colour=colour,
                             title=f"{name}, up to {block['module']}: {y:.3f}"))  # fmt: skip
            rows.append((name, block["module"], block["kind"], alone, y))
        panels.append(
            Panel(
                title=name,
                x=Axis(
                    low=-0.7,
                    high=len(blocks) - 0.3,
                    ticks=((0.0, "first"), (len(blocks) - 1.0, "last block")),
                ),
                y=Axis(low=0.0, high=highest * 1.08),
                marks=tuple(marks),
            )
        )
    return Chart(
        name="error-flow",
        title="Relative error at the encoder's output: up to a block (dots), of that block alone (bars)",
        panels=tuple(panels),
        keys=tuple(Key(text=kind, colour=c) for kind, c in kinds.items() if kind in seen),
        header=("twin", "module", "kind", "alone", "up_to"),
        rows=tuple(rows),
    )
