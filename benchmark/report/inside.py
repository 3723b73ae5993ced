"""Inside encoders: what single layers are good for, and where twins depart."""

from __future__ import annotations

from statistics import fmean

from superbit.benchmark.report.charts import (
    Axis,
    Bar,
    CellMark,
    Chart,
    Dot,
    Key,
    LineMark,
    Mark,
    Panel,
    around,
)
from superbit.benchmark.report.keys import line_keys, metric, with_folds
from superbit.benchmark.report.study import (
    Study,
    is_twin,
    records_of,
)
from superbit.benchmark.tables.table2_rendering import Row


def layers(study: Study) -> Chart:
    """Return what single layers are good for: a task's score of each, the weights heads give."""
    panels, rows = [], []
    lines: list[tuple[Row, list[tuple[float, float]]]] = []
    scored = next((task for task in study.tasks if task.layer_scores), None)
    for row in study.measured:
        if scored is None:
            break
        for record in records_of(row, scored)[:1]:
            prefix = scored.layer_scores
            points = sorted(
                (float(name.removeprefix(prefix)), value)
                for name, value in record.metrics.items()
                if name.startswith(prefix)
            )
            if len(points) > 1:
                lines.append((row, points))
                what = f"{scored.name} dev {scored.metric.upper()}"
                rows += [(row.model, what, layer, value) for layer, value in points]
    if scored and lines:
        scores = [y for _, points in lines for _, y in points]
        last = max(x for _, points in lines for x, _ in points)
        low, high = around(scores)
        panels.append(
            Panel(
                title=(
                    f"{scored.name} on dev, {metric(scored).replace(', ', ' ')} {scored.arrow}, "
                    "layer by layer"
                ),
                x=Axis(
                    low=-0.2,
                    high=last + 0.2,
                    label="hidden state",
                    ticks=tuple((float(n), str(n)) for n in range(int(last) + 1)),
                ),
                y=Axis(low=low, high=high),
                marks=tuple(
                    LineMark(
                        points=tuple(points),
                        dashed=is_twin(row),
                        title=row.model,
                        colour="muted" if row.untrained else study.colour(row),
                    )
                    for row, points in lines
                ),
                width=420,
                height=250,
            )
        )
    for row in study.measured:
        found = _weights(study, row)
        if found:
            panels.append(_heat(row.model, found))
            rows += [
                (row.model, f"{name} weight", layer, weight)
                for name, weights in found.items()
                for layer, weight in enumerate(weights)
            ]
    return Chart(
        name="layers",
        title="Layers: what they are good for, and what heads take of them",
        panels=tuple(panels),
        columns=2,
        keys=line_keys(study),
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
        CellMark(
            x=float(layer),
            y=float(place),
            share=weight,
            text=f"{100 * weight:.0f}",
            title=f"{name}, {task}: {100 * weight:.1f} % of layer {layer}",
        )
        for place, (task, weights) in enumerate(reversed(found.items()))
        for layer, weight in enumerate(weights)
    ]
    return Panel(
        title=f"{name}: % of each hidden state",
        x=Axis(low=-0.5, high=count - 0.5, ticks=tuple((float(n), str(n)) for n in range(count))),
        y=Axis(low=-0.5, high=len(found) - 0.5, ticks=tuple(enumerate(reversed(list(found))))),
        marks=tuple(marks),
        width=420,
        height=50 + 22 * len(found),
        grid="none",
    )


def flow(study: Study) -> Chart | None:
    """Return how far each twin's output is from its FP32 encoder's, block by block."""
    found = study.error_flow()
    if not found:
        return None
    kinds = {"attention": 0, "feed-forward": 1, "convolution": 2, "other": 5}
    panels, rows, seen = [], [], set()
    highest = max(float(r["up_to_encoder_relative_error"]) for each in found.values() for r in each)
    order = [row.model for row in study.measured]
    for name in sorted(found, key=lambda n: (order.index(n) if n in order else len(order), n)):
        blocks = found[name]
        ends = [(float(n), float(r["up_to_encoder_relative_error"])) for n, r in enumerate(blocks)]
        marks: list[Mark] = [LineMark(points=tuple(ends), colour="muted", thick=True)]
        for (x, y), block in zip(ends, blocks, strict=True):
            alone = float(block["alone_encoder_relative_error"])
            colour = kinds.get(block["kind"], 5)
            seen.add(block["kind"])
            marks.append(
                Bar(
                    low=0.0,
                    high=alone,
                    at=x,
                    colour=colour,
                    across=False,
                    title=f"{name}, {block['module']}: alone {alone:.3f}",
                )
            )
            marks.append(
                Dot(x=x, y=y, colour=colour, title=f"{name}, up to {block['module']}: {y:.3f}")
            )
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
        title="Relative error at the encoder's output: up to a block (dots), of it alone (bars)",
        panels=tuple(panels),
        keys=tuple(Key(text=kind, colour=c) for kind, c in kinds.items() if kind in seen),
        header=("twin", "module", "kind", "alone", "up_to"),
        rows=tuple(rows),
    )
