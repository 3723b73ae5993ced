"""What the bench of a sweep prints: hours by the formula, what was missed, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from superbit.benchmark.bench.formula import (
    FIVE,
    LIVE,
    S3PRL,
    STORED,
    Line,
    Measured,
    Protocol,
    Setting,
    cost_parts,
    reason,
    seconds,
)

# Ratios of hours that the project set itself: two CPU cores, vanilla, one rate.
GOALS = {
    "IC": 40, "ER": 40, "KS": 10, "PR": 25, "SD": 8,
    "QbE": 5, "ASR": 2, "SF": 2, "SID": 3, "ASV": 1,
}  # fmt: skip
FIVE_RATES_GOAL = 4
SMALL_HEADS = ("PR", "KS", "SID", "IC", "ER")
SMALL_HEADS_GOAL = 1.5

_HEADER = (
    "task", "s3prl s/step", "live s/step", "ours s/step", "× a step", "extraction s/h",
    "s3prl h", "ours h", "×", "goal", "data loading",
)  # fmt: skip


def render(
    merged: dict[Setting, dict[str, Measured]], protocol_of: Callable[[str, Measured], Protocol]
) -> str:
    """Return a table a setting, with the formula's numbers and what was missed and why."""
    found = []
    for setting, tasks in merged.items():
        protocols = {task: protocol_of(task, measured) for task, measured in tasks.items()}
        found.append(
            f"## {setting.upstream}, threads: {setting.threads}, {setting.machine}, "
            f"torch {setting.torch}"
        )
        found.append(_table([_HEADER, *(_row(t, tasks[t], protocols[t]) for t in tasks)]))
        found += [line for t in tasks for line in _notes(t, tasks[t], protocols[t])]
        found += _five_rates(tasks, protocols)
        found += [_validation(task, line) for task in tasks for line in tasks[task].validations]
    return "\n\n".join(found)


def _row(task: str, measured: Measured, protocol: Protocol) -> tuple[str, ...]:
    theirs, ours = (seconds(measured, protocol, variant) for variant in (S3PRL, STORED))
    step = measured.steps
    faster = step[S3PRL] / step[STORED] if {S3PRL, STORED} <= set(step) else None
    loading = measured.parts.get(STORED, {}).get("loading")
    return (
        task,
        *(_number(step.get(variant)) for variant in (S3PRL, LIVE, STORED)),
        _times(faster),
        _number(measured.extraction),
        *(_number(None if each is None else each / 3600) for each in (theirs, ours)),
        _times(theirs / ours if theirs and ours else None),
        f"≥ {GOALS[task]}×",
        "" if loading is None else f"{100 * loading / step[STORED]:.0f} % of a step",
    )


def _notes(task: str, measured: Measured, protocol: Protocol) -> Iterable[str]:
    theirs, ours = (cost_parts(measured, protocol, variant) for variant in (S3PRL, STORED))
    if theirs is None or ours is None:
        yield f"{task}: a figure is missing: measure the rest of it with --tasks {task}."
        return
    yield (
        f"{task}: s3prl {_formula(measured, protocol, S3PRL)} = "
        f"{sum(theirs.values()) / 3600:,.4g} h; ours {_formula(measured, protocol, STORED)} = "
        f"{sum(ours.values()) / 3600:,.4g} h, of which "
        + ", ".join(f"{part} {100 * value / sum(ours.values()):.0f} %" for part, value in
                    sorted(ours.items(), key=lambda item: -item[1]) if value)
        + "."
    )  # fmt: skip
    ratio = sum(theirs.values()) / sum(ours.values())
    if ratio < GOALS[task]:
        hottest = f" Hottest functions of our step: {'; '.join(measured.profile)}." * bool(
            measured.profile
        )
        yield (
            f"{task} misses its goal, {ratio:.3g}× instead of {GOALS[task]}×: "
            f"{reason(ours)}.{hottest}"
        )


def _formula(measured: Measured, protocol: Protocol, variant: str) -> str:
    """The formula with its numbers."""
    extraction = ""
    if variant != S3PRL:
        extraction = f"{protocol.stored_hours:.4g} h × {_number(measured.extraction)} s/h + "
    if protocol.queries:
        passes, count = protocol.layers + 1, protocol.queries + protocol.documents
        where = variant, "dev"
        return (
            f"{extraction}{passes if variant == S3PRL else 2} × "
            f"({_number(measured.starts[where])} + {count:,} × "
            f"{_number(measured.utterances[where])} s) + {passes} × {protocol.queries:,} × "
            f"{protocol.documents:,} × {_number(measured.pairs[variant])} s"
        )
    evaluations = "".join(
        f" + {times:,} × ({_number(measured.starts[variant, split])} + {count:,} × "
        f"{_number(measured.utterances[variant, split])} s, {split})"
        for split, (times, count) in protocol.evaluations.items()
        if times
    )
    one = (
        f"{protocol.epochs:,.4g} × {_number(measured.epochs[variant])} s + "
        f"{protocol.steps:,} × {_number(measured.steps[variant])} s{evaluations}"
    )
    return extraction + (one if protocol.runs == 1 else f"{protocol.runs} × ({one})")


def _five_rates(tasks: dict[str, Measured], protocols: dict[str, Protocol]) -> list[str]:
    """One line a task with five rates measured, and the sum."""
    found, theirs_in_all, ours_in_all = [], 0.0, 0.0
    for task, measured in tasks.items():
        theirs, one, five = (
            seconds(measured, protocols[task], variant) for variant in (S3PRL, STORED, FIVE)
        )
        if theirs is None or one is None or five is None:
            continue
        theirs_in_all, ours_in_all = theirs_in_all + 5 * theirs, ours_in_all + five
        line = (
            f"{task}, five rates: {5 * theirs / 3600:,.4g} h with s3prl, "
            f"{five / 3600:,.4g} h ours, {_times(5 * theirs / five)}; "
            f"{five / one:.3g} times the cost of one rate"
        )
        if task in SMALL_HEADS:
            held = "held" if five / one <= SMALL_HEADS_GOAL else "missed"
            line += f" (goal: at most {SMALL_HEADS_GOAL:g}, {held})"
            parts = cost_parts(measured, protocols[task], FIVE)
            if held == "missed" and parts is not None:
                line += f": {reason(parts)}"
        found.append(line + ".")
    if not found:
        return ["Five rates: not measured; training side by side is not there."]
    found.append(
        f"Five rates in all, {len(found)} tasks: {_times(theirs_in_all / ours_in_all)} "
        f"(goal: ≥ {FIVE_RATES_GOAL}×)."
    )
    return found


def _validation(task: str, line: Line) -> str:
    error = 100 * (line["predicted"] / line["measured"] - 1)
    of = "SUPERB's number of steps and corpus size, " if line.get("whole") else ""
    return (
        f"One real run of {task}, {line['variant']}, {of}{line['steps']:,} steps from beginning to "
        f"end: {_number(line['measured'])} s; the formula says {_number(line['predicted'])} s "
        f"({error:+.0f} %)."
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}×" if value < 1000 else f"{value:,.0f}×"
