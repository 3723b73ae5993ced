"""From measured seconds to hours at SUPERB's scale: merging of lines, the formula, the table.

The formula, for one task and upstream, R runs (ER: five folds), E epochs, S steps, splits i
evaluated n_i times over N_i utterances:

    s3prl = R (E start + S step + Σ n_i (start_i + N_i utterance_i))
    ours  = hours of audio × extraction + the same with our seconds

QbE has no steps; there, for L layers, Q queries and D documents,

    s3prl = (L + 1) (start + (Q + D) utterance + Q D pair)
    ours  = hours of audio × extraction + 2 (start + (Q + D) utterance) + (L + 1) Q D pair

Our step has the upstream on random crops in it, as often as they are drawn. Building datasets and
heads, and SD's scoring over thresholds (which s3prl leaves to a script), are on neither side.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Line = dict[str, Any]

# Ratios of hours that the project set itself: two CPU cores, vanilla, one rate.
GOALS = {
    "IC": 40, "ER": 40, "KS": 10, "PR": 25, "SD": 8,
    "QbE": 5, "ASR": 2, "SF": 2, "SID": 3, "ASV": 1,
}  # fmt: skip
FIVE_RATES_GOAL = 4
SMALL_HEADS = ("PR", "KS", "SID", "IC", "ER")
SMALL_HEADS_GOAL = 1.5
S3PRL, LIVE, STORED, FIVE = "s3prl", "live", "stored", "stored, five rates"
# Parts of our step; what is left of it is the head, with backward pass and optimizer.
PARTS = ("loading", "store", "upstream")
_PART_WORDS = {
    "extraction": "computing the features once",
    "loading": "loading data",
    "store": "reading the store",
    "upstream": "the upstream on random crops, drawn anew each time",
    "start": "the start of loaders, once an epoch",
    "head": "the head, its loss and its optimizer, which s3prl has to compute as well",
    "evaluation": "evaluations on stored features",
    "search": "the search by dynamic time warping",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How much of everything a task's number takes.

    Attributes:
        steps: optimizer steps of a run; ``epochs``: how often its loader starts.
        runs: that make one number.
        evaluations: split → (how often, utterances).
        stored_hours: of audio that is extracted.
        layers: of the upstream; QbE searches in each.
        queries: QbE: queries of a split; ``documents`` likewise.
    """

    steps: int
    epochs: float = 0.0
    runs: int = 1
    evaluations: dict[str, tuple[int, int]] = field(default_factory=dict)
    stored_hours: float
    layers: int = 0
    queries: int = 0
    documents: int = 0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Lines of one setting may be merged."""

    upstream: str
    machine: str
    threads: int
    torch: str

    @classmethod
    def of(cls, line: Line) -> Setting:
        """The setting of a line."""
        return cls(**{name: line[name] for name in ("upstream", "machine", "threads", "torch")})


@dataclass(kw_only=True)
class Measured:
    """One task on one upstream, all blocks merged: seconds.

    Attributes:
        steps: variant → an optimizer step; the median over blocks.
        epochs: variant → what the start of an epoch takes.
        spread: variant → (least, most) over blocks.
        blocks: variant → how many blocks of how many steps in all.
        parts: variant → part → its seconds in a step.
        starts: (variant, split) → what an evaluation takes besides its utterances.
        utterances: (variant, split) → an utterance of an evaluation.
        pairs: variant → one query in one document (QbE).
        extraction: for an hour of audio, with all threads at work; with the checksums that a run
            verifies once.
        layers: of the upstream.
        profile: hottest functions of our step.
        validations: (variant, predicted, measured).
    """

    steps: dict[str, float] = field(default_factory=dict)
    epochs: dict[str, float] = field(default_factory=dict)
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    blocks: dict[str, tuple[int, int]] = field(default_factory=dict)
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    starts: dict[tuple[str, str], float] = field(default_factory=dict)
    utterances: dict[tuple[str, str], float] = field(default_factory=dict)
    pairs: dict[str, float] = field(default_factory=dict)
    extraction: float | None = None
    layers: int = 0
    profile: list[str] = field(default_factory=list)
    validations: list[Line] = field(default_factory=list)


def merge(lines: Iterable[Line]) -> dict[Setting, dict[str, Measured]]:
    """Bring the lines of each setting and task together: medians over blocks."""
    groups: dict[tuple[Setting, str], list[Line]] = defaultdict(list)
    for line in lines:
        groups[Setting.of(line), line["task"]].append(line)
    merged: dict[Setting, dict[str, Measured]] = {}
    for (setting, task), of_task in groups.items():
        merged.setdefault(setting, {})[task] = _merged(of_task)
    return merged


def _merged(lines: Sequence[Line]) -> Measured:
    found = Measured()
    kinds: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        kinds[line["kind"]].append(line)
    for variant, blocks in _grouped(kinds["steps"], lambda line: line["variant"]):
        seconds = [block["seconds_a_step"] for block in blocks]
        found.steps[variant] = statistics.median(seconds)
        # The least: what a process does once, imports among them, is in the first block.
        found.epochs[variant] = min(block["start"] for block in blocks)
        found.spread[variant] = min(seconds), max(seconds)
        found.blocks[variant] = len(blocks), sum(block["steps"] for block in blocks)
        if all("parts" in block for block in blocks):
            found.parts[variant] = {
                part: statistics.median(block["parts"][part] for block in blocks) for part in PARTS
            }
    for where, each in _grouped(kinds["evaluation"], lambda line: (line["variant"], line["split"])):
        found.starts[where] = statistics.median(line["start"] for line in each)
        found.utterances[where] = statistics.median(line["seconds_an_utterance"] for line in each)
    for variant, each in _grouped(kinds["search"], lambda line: line["variant"]):
        found.pairs[variant] = statistics.median(line["seconds_a_pair"] for line in each)
    # Earlier lines verified checksums within their steps.
    rates = [
        line["seconds_an_hour"] + line.get("checking_an_hour", 0.0) for line in kinds["extraction"]
    ]
    if rates:
        found.extraction = statistics.median(rates)
        found.layers = kinds["extraction"][-1]["layers"]
    if kinds["profile"]:
        found.profile = kinds["profile"][-1]["hottest"]
    found.validations = kinds["validation"]
    return found


def _grouped(lines: Sequence[Line], key: Callable[[Line], Any]) -> Iterable[tuple[Any, list[Line]]]:
    groups: dict[Any, list[Line]] = defaultdict(list)
    for line in lines:
        groups[key(line)].append(line)
    return groups.items()


# --- the formula ----------------------------------------------------------------------------------


def cost_parts(measured: Measured, protocol: Protocol, variant: str) -> dict[str, float] | None:
    """Return the seconds of each part of a task's number; ``None`` where a figure is missing.

    Their sum is what the formula of this module gives.
    """
    try:
        parts = {"extraction": 0.0}
        if variant in (STORED, FIVE):
            if measured.extraction is None:
                return None
            parts["extraction"] = protocol.stored_hours * measured.extraction
        if protocol.queries:
            return parts | _search_parts(measured, protocol, variant)
        step, within = measured.steps[variant], measured.parts.get(variant, {})
        steps = protocol.runs * protocol.steps
        parts |= {part: steps * seconds for part, seconds in within.items()}
        parts["head"] = steps * (step - sum(within.values()))
        parts["start"] = protocol.runs * protocol.epochs * measured.epochs[variant]
        parts["evaluation"] = protocol.runs * sum(
            times * _evaluation(measured, variant, split, count)
            for split, (times, count) in protocol.evaluations.items()
        )
        return parts
    except KeyError:
        return None


def _evaluation(measured: Measured, variant: str, split: str, utterances: int) -> float:
    where = variant, split
    return measured.starts[where] + utterances * measured.utterances[where]


def _search_parts(measured: Measured, protocol: Protocol, variant: str) -> dict[str, float]:
    audio = _evaluation(measured, variant, "dev", protocol.queries + protocol.documents)
    passes = protocol.layers + 1
    pairs = passes * protocol.queries * protocol.documents
    return {
        # s3prl passes all audio through the upstream for each layer, and once more for the test.
        "evaluation": (passes if variant == S3PRL else 2) * audio,
        "search": pairs * measured.pairs[variant],
    }


def seconds(measured: Measured, protocol: Protocol, variant: str) -> float | None:
    """Return the seconds of a task's number by the formula; ``None`` where a figure is missing."""
    parts = cost_parts(measured, protocol, variant)
    return None if parts is None else sum(parts.values())


def reason(parts: dict[str, float]) -> str:
    """Name what most of the time goes into."""
    largest = max(parts, key=lambda part: parts[part])
    share = 100 * parts[largest] / sum(parts.values())
    return f"{share:.0f} % of our time is {_PART_WORDS[largest]}"


# --- what is printed ------------------------------------------------------------------------------

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
